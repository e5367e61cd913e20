"""What changed between two versions, row by row and with the reason why; and what would change under other limits.

Both compare two decided ledgers, so both read numbers and reasons only, never text. The four changes: a comparison
entered the kept rows, left them, was flipped (the other response is preferred now) or re-split. The surprise: one
comparison can change twice (flipped and re-split), and then has two rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from dpo_data.shards import KEPT

KINDS = ("entered", "left", "flipped", "re_split")


@dataclass(frozen=True)
class Changes:
    """`rows`: comparison_id, change, why, source, reasons_before, reasons_after, preferred_before, preferred_after,
    split_before, split_after; sorted by change and id. `summary`: the counts, as in changes.json."""

    rows: pl.DataFrame
    summary: dict[str, Any]


def compare(before: pl.DataFrame, after: pl.DataFrame, by: Sequence[str] = ("source",)) -> Changes:
    """Compare two decided ledgers (schema.LEDGER); `by` names the columns of `after` to count the changes by."""
    both = _side_by_side(before, after)
    kept_before, kept_after = pl.col("kept_before"), pl.col("kept_after")
    stayed = kept_before & kept_after
    kinds = {
        "entered": kept_after & ~kept_before,
        "left": kept_before & ~kept_after,
        "flipped": stayed & (pl.col("preferred_before") != pl.col("preferred_after")),
        "re_split": stayed & (pl.col("split_before") != pl.col("split_after")),
    }
    rows = pl.concat([both.filter(rule).with_columns(change=pl.lit(kind)) for kind, rule in kinds.items()])
    rows = rows.with_columns(why=_why()).sort("change", "comparison_id")
    summary = {
        "kept_before": int(both["kept_before"].sum()),
        "kept_after": int(both["kept_after"].sum()),
        "comparisons_before": before.height,
        "comparisons_after": after.height,
        **{kind: rows.filter(pl.col("change") == kind).height for kind in KINDS},
        "why": _counted(rows, ["change", "why"]),
        "reasons": _reason_changes(both),
        "by": [entry for name in by for entry in _by(rows, before, after, name)],
    }
    columns = ["comparison_id", "change", "why", "source", "reasons_before", "reasons_after"]
    columns += ["preferred_before", "preferred_after", "split_before", "split_after"]
    return Changes(rows.select(columns), summary)


def _side_by_side(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """All comparisons of either ledger, with what each said; `known_*` tells which ledger has it."""
    columns = ["comparison_id", "source", "reasons", "preferred", "split", "votes_a", "votes_b", "prompt_group"]

    def named(frame: pl.DataFrame, side: str) -> pl.DataFrame:
        chosen = frame.select(*columns, kept=KEPT, known=pl.lit(True))
        return chosen.rename({name: f"{name}_{side}" for name in chosen.columns if name != "comparison_id"})

    joined = named(before, "before").join(named(after, "after"), on="comparison_id", how="full", coalesce=True)
    flags = [f"{name}_{side}" for name in ("kept", "known") for side in ("before", "after")]
    nothing = pl.lit([], dtype=pl.List(pl.String))
    return joined.with_columns(
        pl.col(flags).fill_null(False),
        pl.col("reasons_before", "reasons_after").fill_null(nothing),
        source=pl.coalesce("source_after", "source_before"),
    )


def _why() -> pl.Expr:
    """One plain phrase a change: what appeared, what vanished, or which fact moved."""
    appeared = pl.col("reasons_after").list.set_difference("reasons_before").list.sort().list.join(", ")
    vanished = pl.col("reasons_before").list.set_difference("reasons_after").list.sort().list.join(", ")
    entered = (
        pl.when(~pl.col("known_before"))
        .then(pl.lit("new comparison"))
        .when(vanished != "")
        .then(pl.concat_str(pl.lit("no longer "), vanished))
        .otherwise(pl.lit("a side is preferred now"))
    )
    left = (
        pl.when(~pl.col("known_after"))
        .then(pl.lit("comparison gone"))
        .when(appeared != "")
        .then(pl.concat_str(pl.lit("now "), appeared))
        .otherwise(pl.lit("no side is preferred now"))
    )
    same_votes = (pl.col("votes_a_before") == pl.col("votes_a_after")) & (
        pl.col("votes_b_before") == pl.col("votes_b_after")
    )
    flipped = pl.when(same_votes).then(pl.lit("reliability of the annotators")).otherwise(pl.lit("new votes"))
    same_group = pl.col("prompt_group_before").eq_missing("prompt_group_after")
    re_split = pl.when(same_group).then(pl.lit("other shares")).otherwise(pl.lit("prompt groups joined or parted"))
    change = pl.col("change")
    return (
        pl.when(change == "entered")
        .then(entered)
        .when(change == "left")
        .then(left)
        .when(change == "flipped")
        .then(flipped)
        .otherwise(re_split)
    )


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


def _by(rows: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """Changes and kept rows per value of a column."""
    known = [frame.select("comparison_id", pl.col(name).cast(pl.String)) for frame in (after, before) if name in frame]
    values = pl.concat(known).unique("comparison_id", keep="first", maintain_order=True)
    value = pl.col(name).fill_null("not measured").alias("value")
    changed = rows.select("comparison_id", "change").join(values, on="comparison_id", how="left")
    table = changed.group_by(value).agg((pl.col("change") == kind).sum().alias(kind) for kind in KINDS)
    for side, frame in (("kept_before", before), ("kept_after", after)):
        kept = frame.filter(KEPT).select("comparison_id").join(values, on="comparison_id", how="left")
        table = table.join(kept.group_by(value).agg(pl.len().alias(side)), on="value", how="full", coalesce=True)
    filled = table.with_columns(pl.col(*KINDS, "kept_before", "kept_after").fill_null(0)).sort("value")
    return [{"slice": name, **row} for row in filled.to_dicts()]


def merged(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with overrides, whose names are dotted (`agreement.min_agreement`)."""
    result = {key: merged(value, {}) if isinstance(value, Mapping) else value for key, value in settings.items()}
    for name, value in overrides.items():
        *parents, last = name.split(".")
        target = result
        for parent in parents:
            inner = target.get(parent)
            target[parent] = inner if isinstance(inner, dict) else {}
            target = target[parent]
        target[last] = value
    return result
