"""What changed between two versions, row by row and with the reason why; and what would change under other limits.

Both compare two decided ledgers, so both read numbers and reasons only, never text. The four changes: a comparison
entered the kept rows, left them, was flipped (the other response is preferred now) or re-split. One
comparison can change twice (flipped and re-split), and then has two rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.ids import coin
from dpo_data.release.shards import KEPT
from dpo_data.store.versions import open_version

COMPARED = ("comparison_id", "source", "reasons", "preferred", "split", "votes_a", "votes_b", "prompt_group")
"""The columns of a ledger that are compared; none of a text."""
SAMPLE = 20

KINDS = ("entered", "left", "flipped", "re_split")


@dataclass(frozen=True)
class Changes:
    """`rows`: comparison_id, change, why, source, reasons_before, reasons_after, preferred_before, preferred_after,
    split_before, split_after; sorted by change and id. `summary`: the counts, as in changes.json."""

    rows: pl.DataFrame
    summary: dict[str, Any]


def compare_versions(store: Path, old: str, new: str = "current") -> dict[str, Any]:
    """What changed from version `old` to version `new` (ids, prefixes or "current"), by source and slice.

    The summary of `compare` with `old` and `new`, the ids, and `sample`, at most 20 changed rows a kind.
    """
    first, second = open_version(store, old), open_version(store, new)
    tables = [version.ledger().collect_schema().names() for version in (first, second)]
    slices = [name for name in second.manifest["config"]["slices"] if all(name in names for names in tables)]
    before, after = (version.ledger().select(*COMPARED, *slices).collect() for version in (first, second))
    found = compare_ledgers(before, after, ("source", *slices))
    return {"old": first.id, "new": second.id, **found.summary, "sample": sample_changes(found.rows)}


def sample_changes(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """At most SAMPLE rows of each kind of change, chosen by the coin of their id."""
    chosen = []
    for kind in KINDS:
        part = rows.filter(pl.col("change") == kind)
        ids = sorted(part["comparison_id"], key=lambda name: coin(name, "example"))[:SAMPLE]
        chosen += part.filter(pl.col("comparison_id").is_in(ids)).to_dicts()
    return chosen


def compare_ledgers(before: pl.DataFrame, after: pl.DataFrame, by: Sequence[str] = ("source",)) -> Changes:
    """Compare two decided ledgers (schema.LEDGER); `by` names the columns of `after` to count the changes by."""
    both = _side_by_side(before, after, by)
    kept_before, kept_after = pl.col("kept_before"), pl.col("kept_after")
    stayed = kept_before & kept_after
    kinds = {
        "entered": kept_after & ~kept_before,
        "left": kept_before & ~kept_after,
        "flipped": stayed & (pl.col("preferred_before") != pl.col("preferred_after")),
        "re_split": stayed & (pl.col("split_before") != pl.col("split_after")),
    }
    rows = pl.concat([both.filter(rule).with_columns(change=pl.lit(kind)) for kind, rule in kinds.items()])
    rows = _with_why(rows).sort("change", "comparison_id")
    summary = {
        "comparisons_before": before.height,
        "comparisons": after.height,
        "new_comparisons": both.filter(~pl.col("known_before")).height,
        "gone_comparisons": both.filter(~pl.col("known_after")).height,
        "kept_before": int(both["kept_before"].sum()),
        "kept": int(both["kept_after"].sum()),
        **{kind: rows.filter(pl.col("change") == kind).height for kind in KINDS},
        "why": _counted(rows.explode("why"), ["change", "why"]),
        "entered_by_reason": _by_reason(rows, "entered", "reasons_before", "reasons_after"),
        "left_by_reason": _by_reason(rows, "left", "reasons_after", "reasons_before"),
        "reasons": _reason_changes(both),
        "by": [entry for name in by for entry in _by(rows, both, name)],
    }
    columns = ["comparison_id", "change", "why", "source", "reasons_before", "reasons_after"]
    columns += ["preferred_before", "preferred_after", "split_before", "split_after"]
    return Changes(rows.select(columns), summary)


def _side_by_side(before: pl.DataFrame, after: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """All comparisons of either ledger, with what each said; `known_*` tells which ledger has it.

    Of the columns in `by` the value that the later ledger has, as text.
    """
    names = [name for name in by if name not in COMPARED]

    def named(frame: pl.DataFrame, side: str) -> pl.DataFrame:
        values = [
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(pl.String).alias(name) for name in names
        ]
        chosen = frame.select(*COMPARED, *values, kept=KEPT, known=pl.lit(True))
        return chosen.rename({name: f"{name}_{side}" for name in chosen.columns if name != "comparison_id"})

    joined = named(before, "before").join(named(after, "after"), on="comparison_id", how="full", coalesce=True)
    flags = [f"{name}_{side}" for name in ("kept", "known") for side in ("before", "after")]
    nothing = pl.lit([], dtype=pl.List(pl.String))
    return joined.with_columns(
        pl.col(flags).fill_null(False),
        pl.col("reasons_before", "reasons_after").fill_null(nothing),
        *(pl.coalesce(f"{name}_after", f"{name}_before").alias(name) for name in ("source", *names)),
    )


def _with_why(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `why`, written once for rows that changed alike: of a million rows few kinds differ."""
    facts = ["change", "known_before", "known_after", "same_votes", "same_group"]
    told = rows.with_columns(
        same_votes=_same("votes_a", "votes_b"),
        same_group=_same("prompt_group"),
        said_before=pl.col("reasons_before").list.join(" "),
        said_after=pl.col("reasons_after").list.join(" "),
    )
    alike = [*facts, "said_before", "said_after"]
    kinds = told.unique(alike, keep="any").with_columns(why=_why()).select(*alike, "why")
    return told.join(kinds, on=alike, how="left", maintain_order="left").drop(*alike[3:])


def _same(*names: str) -> pl.Expr:
    return pl.all_horizontal(pl.col(f"{name}_before").eq_missing(pl.col(f"{name}_after")) for name in names)


def _why() -> pl.Expr:
    """Plain phrases: what appeared, what vanished, or which fact moved."""

    def phrases(verb: str, here: str, there: str) -> pl.Expr:
        named = pl.col(here).list.set_difference(there).list.sort()
        return named.list.eval(pl.concat_str(pl.lit(f"{verb} "), pl.element()))

    def one(phrase: str) -> pl.Expr:
        return pl.lit([phrase], dtype=pl.List(pl.String))

    appeared = phrases("now", "reasons_after", "reasons_before")
    vanished = phrases("no longer", "reasons_before", "reasons_after")
    change = pl.col("change")
    return (
        pl.when((change == "entered") & ~pl.col("known_before"))
        .then(one("new comparison"))
        .when((change == "entered") & (vanished.list.len() > 0))
        .then(vanished)
        .when(change == "entered")
        .then(one("a side is preferred now"))
        .when((change == "left") & ~pl.col("known_after"))
        .then(one("comparison gone"))
        .when((change == "left") & (appeared.list.len() > 0))
        .then(appeared)
        .when(change == "left")
        .then(one("no side is preferred now"))
        .when((change == "flipped") & pl.col("same_votes"))
        .then(one("reliability of the annotators"))
        .when(change == "flipped")
        .then(one("new votes"))
        .when(pl.col("same_group"))
        .then(one("other shares"))
        .otherwise(one("prompt groups joined or parted"))
    )


def _by_reason(rows: pl.DataFrame, change: str, having: str, lacking: str) -> list[dict[str, Any]]:
    """Rows of one change by the reasons that one side has and the other lacks; a row counts once for each."""
    part = rows.filter(pl.col("change") == change)
    named = part.select("comparison_id", reason=pl.col(having).list.set_difference(lacking)).explode("reason")
    return _counted(named.drop_nulls("reason"), ["reason"])


def _counted(rows: pl.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    """Rows per combination of keys, most first, at most 50."""
    counted = rows.group_by(keys).agg(rows=pl.len()).sort("rows", *keys, descending=[True, *(False for _ in keys)])
    return counted.head(50).to_dicts()


def _reason_changes(both: pl.DataFrame) -> list[dict[str, Any]]:
    """Per reason, on how many rows it appeared and vanished (rows of both ledgers, kept or not)."""
    shared = both.filter("known_before", "known_after")
    appeared = shared.select(reason=pl.col("reasons_after").list.set_difference("reasons_before"))
    vanished = shared.select(reason=pl.col("reasons_before").list.set_difference("reasons_after"))
    counts = [
        frame.explode("reason").drop_nulls().group_by("reason").agg(pl.len().alias(name))
        for name, frame in (("appeared", appeared), ("vanished", vanished))
    ]
    joined = counts[0].join(counts[1], on="reason", how="full", coalesce=True).fill_null(0)
    return joined.sort("reason").to_dicts()


def _by(rows: pl.DataFrame, both: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """Changes and kept rows per value of a column."""
    value = pl.col(name).fill_null("not measured").alias("value")
    changed = rows.group_by(value).agg((pl.col("change") == kind).sum().alias(kind) for kind in KINDS)
    kept = both.group_by(value).agg(kept_before=pl.col("kept_before").sum(), kept=pl.col("kept_after").sum())
    table = kept.join(changed, on="value", how="left").with_columns(pl.col(*KINDS).fill_null(0)).sort("value")
    shown = table.filter(pl.sum_horizontal("kept_before", "kept", *KINDS) > 0)
    return [{"slice": name, **row} for row in shown.select("value", *KINDS, "kept_before", "kept").to_dicts()]
