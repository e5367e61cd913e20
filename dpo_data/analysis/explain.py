"""The whole story of one comparison: its votes, its measures against their limits, every reason, its twins, its past.

`explain` gathers it as plain values, `render` prints it for a terminal. A comparison is found by id, by
the start of an id, or by any piece of its text; text is looked for in the batches, so that what was dropped, or came
after the version, is found too.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.analysis import explain_text, thresholds
from dpo_data.release.shards import KEPT
from dpo_data.schema import DataError
from dpo_data.store import atomic, versions
from dpo_data.store.batches import Batches, open_batches
from dpo_data.store.versions import Version
from dpo_data.text.escape import inert
from dpo_data.votes.agreement import collapse

Story = dict[str, Any]
_ID = re.compile(r"[0-9a-f]{4,32}")
_CANDIDATES = 10
_TWINS = 20
_NOT_MEASURES = {
    *("comparison_id", "source", "preferred", "reasons", "split", "weight", "votes", "votes_a", "votes_b", "votes_tie"),
    *("prompt_hash", "last_turn_hash", "hash_a", "hash_b", "duplicate_cluster", "duplicate_of", "prompt_group"),
    *("x", "y"),
}


def explain(store: Path, query: str, version: str = "current") -> Story:
    """Everything known about one comparison.

    `query` is an id, the start of one (4 characters or more), or a piece of the prompt or of a response. Raises
    `DataError` when nothing or more than one comparison matches, listing candidates. Keys: comparison_id, version,
    known (is it in that version's ledger?), kept, prompt, response_a, response_b, attributes, preferred, votes,
    measures, reasons, duplicate_of, twins, split, weight, history, margins.
    """
    opened = open_batches(store)
    published = versions.open_version(store, version)
    found = _find(opened, published, query)
    text = opened.comparisons().filter(pl.col("comparison_id") == found).collect()
    if text.is_empty():
        raise DataError(f"{found} stands in version {published.id}, but the store's batches no longer hold its text.")
    ledger = published.ledger().filter(pl.col("comparison_id") == found).collect()
    row = ledger.row(0, named=True) if ledger.height else {}
    return {
        **text.row(0, named=True),
        "version": published.id,
        "known": bool(row),
        "kept": bool(row) and ledger.select(KEPT).item(),
        **{name: row.get(name) for name in ("source", "preferred", "split", "weight", "prompt_group", "duplicate_of")},
        "reasons": row.get("reasons", []),
        "counted": {name: row.get(name) for name in ("votes", "votes_a", "votes_b", "votes_tie", "annotators")},
        "votes": _votes(opened, published, found),
        "measures": _measures(row, published),
        "twins": _twins(opened, published, text.row(0, named=True), row),
        "history": _history(store, found),
        "margins": _margins(store, found),
    }


def _find(opened: Batches, published: Version, query: str) -> str:
    wanted = query.strip()
    if not wanted:
        raise DataError("Nothing to look for: give an id, the start of one, or a piece of text.")
    if _ID.fullmatch(wanted.lower()):
        start = pl.col("comparison_id").str.starts_with(wanted.lower())
        ids = [table.filter(start).select("comparison_id").collect() for table in (published.ledger(), opened.votes())]
        matches = pl.concat(ids).unique().sort("comparison_id")["comparison_id"].to_list()
        if matches:
            return _only(matches, opened, wanted)
    pattern = f"(?i){pl.escape_regex(wanted)}"
    in_prompt = pl.col("prompt").list.eval(pl.element().struct.field("content").str.contains(pattern)).list.any()
    in_response = [pl.col(side).str.contains(pattern) for side in ("response_a", "response_b")]
    hits = opened.comparisons().filter(pl.any_horizontal(in_prompt, *in_response)).select("comparison_id").collect()
    if hits.is_empty():
        raise DataError(
            f"No comparison of {opened.store} has {query[:80]!r} as id, as start of an id, or in its text "
            "(white space counts, case does not)."
        )
    return _only(hits["comparison_id"].sort().to_list(), opened, wanted)


def _only(ids: list[str], opened: Batches, query: str) -> str:
    """The one id, or `DataError` with the candidates and how each prompt begins."""
    if len(ids) == 1:
        return ids[0]
    shown = ids[:_CANDIDATES]
    texts = opened.comparisons().filter(pl.col("comparison_id").is_in(shown)).sort("comparison_id").collect()
    lines = [f"  {row['comparison_id']}  {_start(row)}" for row in texts.to_dicts()]
    more = f"\n  and {len(ids) - len(shown)} more" if len(ids) > len(shown) else ""
    listed = "\n".join(lines)
    raise DataError(f"{query[:80]!r} matches {len(ids)} comparisons; name one of them:\n{listed}{more}")


def _start(row: dict[str, Any]) -> str:
    text = row["prompt"][-1]["content"] if row["prompt"] else ""
    return inert(" ".join(text.split())[:60])


def _votes(opened: Batches, published: Version, found: str) -> list[dict[str, Any]]:
    """Every vote as it was read, with what is known of its annotator; `counts` tells whether it entered the tally."""
    votes = opened.votes().filter(pl.col("comparison_id") == found).collect()
    known = ["source", "annotator", "skill", "accuracy", "accuracy_low", "accuracy_high", "judged", "flag"]
    people = pl.read_parquet(published.path / "annotators.parquet", glob=False).select(*known, cast="votes")
    counted = collapse(votes).select("source", "annotator", "choice").unique().with_columns(counts=pl.lit(True))
    joined = votes.join(people, on=["source", "annotator"], how="left", nulls_equal=True).join(
        counted, on=["source", "annotator", "choice"], how="left", nulls_equal=True
    )
    return joined.with_columns(pl.col("counts").fill_null(False)).sort("source", "annotator", "origin").to_dicts()


def _measures(row: dict[str, Any], published: Version) -> list[dict[str, Any]]:
    """Each measure with its value and the limits on it (none: nothing is decided by it)."""
    bounds = thresholds.of(published.manifest["config"])
    table = []
    for name, value in row.items():
        if name in _NOT_MEASURES:
            continue
        own = [bound for bound in bounds if bound["measure"] == name and _holds(bound, row)]
        table.append({"measure": name, "value": value, "limits": own})
    return table


def _holds(bound: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a limit is for this row: those of a slice are for its rows alone."""
    if bound["where"]:
        return all(row.get(column) == value for column, value in bound["where"].items())
    return not any(row.get(column) in values for column, values in bound["but"].items())


def _twins(opened: Batches, published: Version, text: dict[str, Any], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Members of the duplicate cluster and other comparisons of the same prompt, with what differs in their text."""
    if not row:
        return []
    cluster = pl.col("duplicate_cluster") == (row["duplicate_cluster"] or "")
    same_prompt = pl.col("prompt_hash") == (row["prompt_hash"] or "")
    others = pl.col("comparison_id") != row["comparison_id"]
    near = (
        published.ledger()
        .filter(others & (cluster | same_prompt).fill_null(False))
        .select("comparison_id", "preferred", "reasons", "votes_a", "votes_b", kept=KEPT, twin=cluster.fill_null(False))
        .sort(pl.col("twin").cast(pl.Int8), "comparison_id", descending=[True, False])
        .head(_TWINS)
        .collect()
    )
    texts = opened.comparisons().filter(pl.col("comparison_id").is_in(near["comparison_id"].to_list())).collect()
    by_id = {other["comparison_id"]: other for other in texts.to_dicts()}
    return [
        {
            **{key: value for key, value in other.items() if key != "twin"},
            "relation": "near duplicate" if other["twin"] else "same prompt",
            "differences": _differences(text, by_id[other["comparison_id"]]),
        }
        for other in near.to_dicts()
        if other["comparison_id"] in by_id
    ]


def _differences(mine: dict[str, Any], other: dict[str, Any]) -> list[dict[str, str]]:
    """Where the texts differ, word by word: part, what stands here, what stands there. Sides matched by likeness."""
    prompts = [" ".join(message["content"] for message in row["prompt"]) for row in (mine, other)]
    parts = [("prompt", prompts[0], prompts[1])]
    a, b = mine["response_a"], mine["response_b"]
    straight = _alike(a, other["response_a"]) + _alike(b, other["response_b"])
    crossed = _alike(a, other["response_b"]) + _alike(b, other["response_a"])
    to_a, to_b = ("response_b", "response_a") if crossed > straight else ("response_a", "response_b")
    parts += [("response_a", a, other[to_a]), ("response_b", b, other[to_b])]
    return [{"part": name, **change} for name, here, there in parts for change in word_changes(here, there)]


def _alike(here: str, there: str) -> float:
    return difflib.SequenceMatcher(None, here.split()[:300], there.split()[:300], autojunk=False).quick_ratio()


def word_changes(here: str, there: str, most: int = 20, words: int = 1500) -> list[dict[str, str]]:
    """The stretches of words that differ (`here`, `there`), of the first `words` words (difflib is quadratic)."""
    mine, other = here.split()[:words], there.split()[:words]
    blocks = difflib.SequenceMatcher(None, mine, other, autojunk=False).get_opcodes()
    found = [(" ".join(mine[i:j]), " ".join(other[k:m])) for tag, i, j, k, m in blocks if tag != "equal"]
    return [{"here": left, "there": right} for left, right in found[:most]]


def _history(store: Path, found: str) -> list[dict[str, Any]]:
    """What every published version decided about it, oldest first as far as versions name the one before them."""
    table = []
    for folder in _in_order(versions.list_versions(store)):
        own = pl.scan_parquet(folder / "ledger.parquet", glob=False).filter(pl.col("comparison_id") == found)
        facts = own.select("preferred", "split", "reasons", "votes", "confidence", kept=KEPT).collect()
        table.append({"version": folder.name, **(facts.row(0, named=True) if facts.height else {"kept": None})})
    return table


def _in_order(folders: list[Path]) -> list[Path]:
    """Versions after the one that was current before them; there is no clock in a version."""
    before = {}
    for folder in folders:
        history = folder / "changes.json"
        before[folder.name] = atomic.read_json(history)["old"] if history.exists() else None

    def depth(name: str) -> int:
        steps, seen = 0, {name}
        while (earlier := before.get(name)) is not None and earlier not in seen:
            steps, name = steps + 1, earlier
            seen.add(name)
        return steps

    return sorted(folders, key=lambda folder: (depth(folder.name), folder.name))


def _margins(store: Path, found: str) -> list[dict[str, Any]]:
    """The pair's margins in every run that logged it."""
    table: list[dict[str, Any]] = []
    for log in sorted(store.glob("runs/*/pair_log.parquet")):
        rows = pl.scan_parquet(log, glob=False).filter(pl.col("pair_id") == found)
        columns = [name for name in ("step", "split", "margin") if name in rows.collect_schema().names()]
        table += [{"run": log.parent.name, **row} for row in rows.select(columns).sort("step").collect().to_dicts()]
    return table


def render(story: Story) -> str:
    """The story as plain text for a terminal, control characters made visible."""
    return explain_text.render(story)
