"""What to read next: queues of comparisons, each with what reading it can show.

Every reviewer gets the same order, so that they overlap and can be compared. Random samples are drawn afresh for each
version, by the coin of version and comparison; rows judged under an earlier version are not in them, since their votes
have entered the decision that the sample is to test.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dpo_data.ids import coin
from dpo_data.intervals import wilson
from dpo_data.release.shards import KEPT
from dpo_data.schema import DataError
from dpo_data.store.versions import Version

KEPT_SAMPLE = 50
"""Rows of the sample of kept pairs: 45 right of 50 is 79 % to 96 %, enough to tell a sound set from a poor one."""
DROPPED_SAMPLE = 30
"""Rows sampled of each reason: none wrong of 30 says that at most 11 % are."""
MOST = 500
"""Rows of any other queue: more than a person reads."""


@dataclass(frozen=True)
class Queue:
    """Comparison ids in the order in which they are shown; `of`: how many rows they stand for."""

    name: str
    title: str
    shows: str
    ids: tuple[str, ...]
    of: int


def standard_names(version: Version) -> list[str]:
    """The queues of the front page: what the audit flags first, then the random samples; some may hold no rows."""
    names = ["torn", "twins", "contradictions", "borderline", "kept"]
    return names + [f"reason:{row['reason']}" for row in version.stats["reasons"]]


def standard(version: Version, judged: Collection[str] = ()) -> list[Queue]:
    """Those of the front page that hold rows; `judged` are the comparisons with verdicts under other versions."""
    found = [queue(version, name, judged) for name in standard_names(version)]
    return [entry for entry in found if entry.ids]


def queue(version: Version, name: str, judged: Collection[str] = ()) -> Queue:
    """A queue by its name: torn, twins, contradictions, borderline, kept, reason:NAME, slice:COLUMN=VALUE, run:ID.

    Raises `DataError` for a name that there is not, or a slice or run that the version does not have.
    """
    kind, _, argument = name.partition(":")
    makers: dict[str, Callable[[Version, str, Collection[str]], Queue]] = {
        "torn": _torn,
        "twins": _twins,
        "contradictions": _contradictions,
        "borderline": _borderline,
        "kept": _kept,
        "reason": _reason,
        "slice": _slice,
        "run": _run,
    }
    if kind not in makers:
        raise DataError(f"No queue {name[:80]!r}. Known: {', '.join(makers)}.")
    return makers[kind](version, argument, judged)


def is_sample(name: str) -> bool:
    """Whether the queue is a random sample, from which shares may be estimated."""
    return name == "kept" or name.startswith("reason:")


def can_show(size: int, of: int) -> str:
    """What a random sample of so many rows can tell: the interval where nine in ten are as hoped."""
    if size == of:
        return f"These are all {size}: nothing is left to chance but who reads."
    low, high = (float(bound[0]) for bound in wilson(np.array([0.9]), np.array([float(size)])))
    return f"{size} rows: if 90 % turn out right, the share lies between {100 * low:.0f} % and {100 * high:.0f} %."


def _torn(version: Version, _: str, __: Collection[str]) -> Queue:
    ids = _by_coin(version, pl.col("reasons").list.contains("contradictory_votes"))
    shows = "As many votes for one side as for the other: a further vote settles each."
    return Queue("torn", "Torn: equal votes both ways", shows, ids[:MOST], len(ids))


def _twins(version: Version, _: str, __: Collection[str]) -> Queue:
    ids = _by_coin(version, pl.col("reasons").list.contains("contradicted_by_twin"))
    shows = "A near twin prefers the other side: one of the two is wrong."
    return Queue("twins", "Twins that contradict each other", shows, ids[:MOST], len(ids))


def _contradictions(version: Version, _: str, __: Collection[str]) -> Queue:
    """Most even first."""
    balance = (pl.col("votes_a").cast(pl.Int64) - pl.col("votes_b").cast(pl.Int64)).abs() / pl.col("votes")
    both = (pl.col("votes_a") > 0) & (pl.col("votes_b") > 0)
    rows = version.ledger().filter(both).select("comparison_id", balance=balance).sort("balance", "comparison_id")
    ids = rows.collect()["comparison_id"].to_list()
    return Queue(
        "contradictions",
        "Votes for both sides",
        "People disagree; the most even rows first.",
        tuple(ids[:MOST]),
        len(ids),
    )


def _borderline(version: Version, _: str, __: Collection[str]) -> Queue:
    """The rows on either side of every limit, as stats.json lists them, one limit after the other in turn."""
    lists = [[row["comparison_id"] for row in limit["rows"]] for limit in version.stats["borderline"]]
    longest = max(map(len, lists), default=0)
    ids = [rows[place] for place in range(longest) for rows in lists if place < len(rows)]
    unique = tuple(dict.fromkeys(ids))
    shows = "The rows closest to each limit, kept and dropped: is the limit in the right place?"
    return Queue("borderline", "Borderline rows", shows, unique, len(unique))


def _kept(version: Version, _: str, judged: Collection[str]) -> Queue:
    ids = _sample(version, KEPT, judged)
    size = min(KEPT_SAMPLE, len(ids))
    shows = f"How many of the kept pairs stand the right way round. {can_show(size, len(ids))}"
    return Queue("kept", "Kept, random sample", shows, ids[:size], len(ids))


def _reason(version: Version, reason: str, judged: Collection[str]) -> Queue:
    known = [row["reason"] for row in version.stats["reasons"]]
    if reason not in known:
        raise DataError(f"No comparison was dropped for {reason[:80]!r}. Reasons: {', '.join(known) or 'none'}.")
    ids = _sample(version, pl.col("reasons").list.contains(reason), judged)
    size = min(DROPPED_SAMPLE, len(ids))
    shows = f"Whether dropping for this reason was right. {can_show(size, len(ids))}"
    return Queue(f"reason:{reason}", f"Dropped, random sample: {reason}", shows, ids[:size], len(ids))


def _slice(version: Version, argument: str, _: Collection[str]) -> Queue:
    column, equals, value = argument.partition("=")
    columns = version.ledger().collect_schema()
    if not equals or columns.get(column) != pl.String:
        texts = ", ".join(name for name, kind in columns.items() if kind == pl.String and "hash" not in name)
        raise DataError(f"slice:{argument[:80]}: expected slice:COLUMN=VALUE with a column of text. Columns: {texts}.")
    ids = _by_coin(version, pl.col(column) == value)
    if not ids:
        raise DataError(f"No comparison has {column} = {value[:80]!r} in version {version.id}.")
    return Queue(f"slice:{argument}", f"{column} = {value}", "In random order.", ids[:MOST], len(ids))


def _run(version: Version, name: str, _: Collection[str]) -> Queue:
    """The pairs whose margin was lowest at the last step that the run logged."""
    store = version.path.parents[1]
    logs = {path.parent.name: path for path in sorted(store.glob("runs/*/pair_log.parquet"))}
    found = [run for run in logs if name and run.startswith(name)]
    if len(found) != 1:
        raise DataError(
            f"{name[:80]!r} names {len(found)} runs. Runs with a log of pairs: {', '.join(logs) or 'none'}."
        )
    rows = pl.scan_parquet(logs[found[0]], glob=False).select("pair_id", "step", "margin")
    last = (
        rows.filter(pl.col("step") == pl.col("step").max().over("pair_id"))
        .group_by("pair_id")
        .agg(pl.col("margin").min())
    )
    known = version.ledger().select("comparison_id")
    ranked = last.rename({"pair_id": "comparison_id"}).join(known, on="comparison_id", how="semi")
    ids = ranked.sort("margin", "comparison_id").collect()["comparison_id"].to_list()
    if not ids:
        raise DataError(f"Run {found[0]} logged no pair of version {version.id}. Name the version it trained on.")
    shows = "Lowest margin first: what the policy learnt least, or learnt against. Wrong labels gather here."
    return Queue(f"run:{found[0]}", f"Worst margins of run {found[0]}", shows, tuple(ids[:MOST]), len(ids))


def runs(store: Path) -> list[str]:
    """Runs that logged pairs, last name first."""
    return sorted((path.parent.name for path in store.glob("runs/*/pair_log.parquet")), reverse=True)


def _ids(version: Version, condition: pl.Expr) -> list[str]:
    found: list[str] = version.ledger().filter(condition).select("comparison_id").collect()["comparison_id"].to_list()
    return found


def _by_coin(version: Version, condition: pl.Expr) -> tuple[str, ...]:
    return tuple(sorted(_ids(version, condition), key=lambda name: coin(name, "review")))


def _sample(version: Version, condition: pl.Expr, judged: Collection[str]) -> tuple[str, ...]:
    left = set(judged)
    fresh = (name for name in _ids(version, condition) if name not in left)
    return tuple(sorted(fresh, key=lambda name: coin(name, f"review {version.id}")))
