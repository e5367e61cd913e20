"""Compute stats.json: every number of the audit, once, from the decided ledger and the votes.

The audit, the dataset card and the command line read these numbers and compute nothing. A share is always shown with
its n; a sampled share has a 95% interval. Lists of `examples` are comparison ids; their text is in `examples.parquet`
of the version. Reasons overlap, so their rows sum to more than the dropped rows; `sole_rows` (no other reason) and
`kept_without` give the effect of one rule alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from dpo_data.analysis import targets as slice_targets
from dpo_data.analysis import yield_curves
from dpo_data.analysis.leaks import leaks
from dpo_data.analysis.reasons import EXAMPLES, funnel, reason_pairs, reason_sets, reasons, sample
from dpo_data.analysis.trust import trust
from dpo_data.measures import cycles, length_bias, style_bias
from dpo_data.release.shards import KEPT
from dpo_data.schema import SPLITS
from dpo_data.votes import agreement_coefficients
from dpo_data.votes.agreement import collapse

Table = list[dict[str, Any]]
_MOST_VALUES = 50
"""Values listed per slice; the rest is summed as `other`, so that a column of ids cannot fill the page."""


def stats(
    ledger: pl.DataFrame,
    votes: pl.DataFrame,
    *,
    annotators: pl.DataFrame | None = None,
    rejects: pl.DataFrame | None = None,
    thumbs: dict[str, int] | None = None,
    slices: Sequence[str] = (),
    limits: Table | None = None,
    targets: Mapping[str, Mapping[str, int]] | None = None,
    collapsed: pl.DataFrame | None = None,
    benchmark_items: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Every number of the audit as plain JSON values.

    `ledger` is decided (schema.LEDGER and the slice columns), `votes` have the columns of schema.VOTES, `annotators`
    is `annotators.annotators(votes)`, `thumbs` what became of unpaired ratings (`unpaired.lone`), `limits` is
    `thresholds.of`, `targets` are the configuration's, `collapsed` is `agreement.collapse(votes)` where the caller has
    it already, `benchmark_items` the texts of the items found (`contamination.found_items`).
    """
    ledger = ledger.sort("comparison_id").with_columns(kept=KEPT)
    by = [name for name in ("source", "language", *slices) if name in ledger.columns]
    after = length_bias.bias(ledger.filter("kept"), by, weight="weight")
    sources = by_source(ledger, collapse(votes) if collapsed is None else collapsed)
    numbers = {
        "counts": _counts(ledger, votes, rejects),
        "reasons": reasons(ledger),
        "reason_pairs": reason_pairs(ledger),
        "reason_funnel": funnel(ledger),
        "reason_sets": reason_sets(ledger),
        "trust": trust(ledger, sources),
        "sources": sources,
        "annotators": _annotators(annotators),
        "length_bias": {
            "before": length_bias.bias(ledger, by).to_dicts(),
            "after": after.to_dicts(),
        },
        "rebalance": _rebalance(ledger, by, after),
        "style_bias": {
            "before": style_bias.regression(ledger).to_dicts(),
            "after": style_bias.regression(ledger.filter("kept"), weight="weight").to_dicts(),
        },
        "splits": _splits(ledger),
        "prompts": _prompts(ledger),
        "duplicates": _duplicates(ledger),
        "contradictions": _contradictions(ledger),
        "yield": yield_curves.curves(ledger, by),
        "contamination": leaks(ledger, benchmark_items or {}),
        "cycles": _cycles(ledger),
        "slices": [row for name in by for row in _slice(ledger, name)],
        "targets": slice_targets.against(ledger, targets or {}),
        "borderline": yield_curves.borderline(ledger, limits or []),
        "limits": limits or [],
        "rejects": reject_counts(rejects),
        "lone_thumbs": thumbs or {"thumbs": 0},
    }
    plain: dict[str, Any] = _plain(numbers)
    return plain


def _counts(ledger: pl.DataFrame, votes: pl.DataFrame, rejects: pl.DataFrame | None) -> dict[str, int]:
    kept = int(ledger["kept"].sum())
    return {
        "comparisons": ledger.height,
        "kept": kept,
        "dropped": ledger.height - kept,
        "decided": int(ledger["preferred"].is_not_null().sum()),
        "votes": int(ledger["votes"].sum()),
        "vote_records": votes.height,
        "annotators": votes["annotator"].n_unique() - int(votes["annotator"].has_nulls()) if votes.height else 0,
        "prompts": ledger["prompt_hash"].n_unique(),
        "rejected_records": rejects.height if rejects is not None else 0,
    }


def by_source(ledger: pl.DataFrame, collapsed: pl.DataFrame) -> Table:
    """Per source: comparisons, kept, votes, ties, and how far votes on one comparison agree, each with its n.

    `agreement` is the share of agreeing pairs of votes among `vote_pairs`; `alpha` is Krippendorff's, nominal and
    side-symmetric, over `alpha_comparisons` (those with two votes or more). `collapsed` has one vote an annotator a
    comparison (`agreement.collapse`).
    """
    rows = ledger.group_by("source").agg(
        comparisons=pl.len(), kept=pl.col("kept").sum(), prompts=pl.col("prompt_hash").n_unique()
    )
    table = []
    for row in rows.sort("source", nulls_last=True).to_dicts():
        own = collapsed.filter(pl.col("source").eq_missing(pl.lit(row["source"], pl.String)))
        sums = [
            pl.col("copies").filter(pl.col("choice") == side).sum().alias(side)
            for side in agreement_coefficients.CHOICES
        ]
        counted = own.group_by("comparison_id").agg(sums).sort("comparison_id")
        counts = counted.select(agreement_coefficients.CHOICES).to_numpy().astype(np.int64)
        n = counts.sum(axis=1) if len(counts) else np.zeros(0, np.int64)
        table.append(
            {
                **row,
                "share_kept": row["kept"] / row["comparisons"],
                "votes": int(n.sum()),
                "ties": int(counts[:, agreement_coefficients.CHOICES.index("tie")].sum()) if len(counts) else 0,
                "agreement": agreement_coefficients.raw_agreement(counts),
                "agreement_decided": agreement_coefficients.decided_agreement(counts),
                "vote_pairs": int((n * (n - 1) // 2).sum()),
                "alpha": agreement_coefficients.alpha(counts),
                "alpha_comparisons": int((n >= 2).sum()),
            }
        )
    return table


def _annotators(table: pl.DataFrame | None) -> dict[str, Any]:
    """The flagged annotators and those with most votes; the whole table is annotators.parquet.

    `annotators` counts rows of that table: named annotators per source (`named`), and one for all anonymous votes of a
    source.
    """
    if table is None or not table.height:
        return {"annotators": 0, "named": 0, "flagged": 0, "rows": []}
    flagged = table.filter(pl.col("flag").is_not_null())
    shown = pl.concat([flagged, table.filter(pl.col("flag").is_null())]).head(max(200, flagged.height))
    named = table["annotator"].is_not_null().sum()
    return {"annotators": table.height, "named": int(named), "flagged": flagged.height, "rows": shown.to_dicts()}


def _rebalance(ledger: pl.DataFrame, by: Sequence[str], after: pl.DataFrame) -> Table:
    """What balancing lengths did and cost, by slice; nothing where it left out no row and weighed none."""
    acted = pl.col("reasons").list.contains("length_rebalanced") | (pl.col("weight") != 1)
    return length_bias.effect(ledger, by, after).to_dicts() if ledger.select(acted.any()).item() else []


def _splits(ledger: pl.DataFrame) -> Table:
    kept = ledger.filter("kept")
    table = []
    for split in SPLITS:
        part = kept.filter(pl.col("split") == split)
        groups = part["prompt_group"].drop_nulls().n_unique()
        table.append(
            {
                "split": split,
                "kept": part.height,
                "share": _ratio(part.height, kept.height),
                "of": kept.height,
                "prompt_groups": groups,
            }
        )
    return table


def _prompts(ledger: pl.DataFrame) -> dict[str, Any]:
    known = ledger.filter(pl.col("prompt_group").is_not_null())
    groups = known.group_by("prompt_group").agg(
        comparisons=pl.len(),
        kept=pl.col("kept").sum(),
        prompts=pl.col("prompt_hash").n_unique(),
        example=pl.col("comparison_id").min(),
    )
    largest = groups.sort("comparisons", "prompt_group", descending=[True, False]).head(EXAMPLES)
    spread = known.filter("kept").group_by("prompt_group").agg(pl.col("split").n_unique())
    return {
        "prompts": ledger["prompt_hash"].n_unique(),
        "groups": groups.height,
        "groups_of_several_prompts": groups.filter(pl.col("prompts") > 1).height,
        "groups_in_two_splits": spread.filter(pl.col("split") > 1).height,
        "largest": [{**row, "examples": [row.pop("example")]} for row in largest.to_dicts()],
    }


def _duplicates(ledger: pl.DataFrame) -> dict[str, Any]:
    inside = ledger.filter(pl.col("duplicate_cluster").is_not_null())
    clusters = inside.group_by("duplicate_cluster").agg(
        rows=pl.len(), kept=pl.col("kept").sum(), examples=pl.col("comparison_id").sort().head(EXAMPLES)
    )
    largest = clusters.sort("rows", "duplicate_cluster", descending=[True, False]).head(EXAMPLES)
    return {
        "clusters": clusters.height,
        "rows": inside.height,
        "dropped_as_near_duplicates": int(inside["reasons"].list.contains("near_duplicate").sum()),
        "largest": largest.to_dicts(),
    }


def _contradictions(ledger: pl.DataFrame) -> dict[str, Any]:
    """Comparisons with votes for both sides; `of` counts those with two votes or more."""
    several = ledger.filter(pl.col("votes") >= 2)
    torn = several.filter((pl.col("votes_a") > 0) & (pl.col("votes_b") > 0))
    quarantined = torn.filter(pl.col("reasons").list.contains("contradictory_votes"))
    return {
        "rows": torn.height,
        "of": several.height,
        "share": _ratio(torn.height, several.height),
        "quarantined": quarantined.height,
        "examples": sample(torn["comparison_id"].to_list()),
    }


def _cycles(ledger: pl.DataFrame) -> dict[str, Any]:
    measured = ledger.filter(pl.col("in_cycle").is_not_null())
    inside = measured.filter("in_cycle")
    triads = cycles.summary(ledger)
    return {
        "rows": inside.height,
        "of": measured.height,
        "prompts": inside["prompt_hash"].n_unique(),
        "of_prompts": measured["prompt_hash"].n_unique(),
        "dropped": int(inside["reasons"].list.contains("preference_cycle").sum()),
        "triads": triads["triads"],
        "cyclic_triads": triads["cyclic_triads"],
        "examples": sample(inside["comparison_id"].to_list()),
    }


def _slice(ledger: pl.DataFrame, name: str) -> Table:
    counted = (
        ledger.group_by(pl.col(name).cast(pl.String).fill_null("not measured").alias("value"))
        .agg(comparisons=pl.len(), kept=pl.col("kept").sum())
        .sort("comparisons", "value", descending=[True, False])
    )
    shown, rest = counted.head(_MOST_VALUES), counted.slice(_MOST_VALUES)
    if rest.height:
        other = rest.select(
            pl.lit(f"other ({rest.height} values)").alias("value"), pl.col("comparisons", "kept").sum()
        ).head(1)
        shown = pl.concat([shown, other])
    return [{"slice": name, **row, "share_kept": row["kept"] / row["comparisons"]} for row in shown.to_dicts()]


def reject_counts(rejects: pl.DataFrame | None, most: int | None = 200) -> Table:
    """Records that could not be read, by source and reason, most frequent first, at most `most` rows.

    `raw` are the first records, cut to 200 characters.
    """
    if rejects is None or not rejects.height:
        return []
    counted = (
        rejects.sort("origin")
        .group_by("source", "reason")
        .agg(records=pl.len(), origins=pl.col("origin").head(3), raw=pl.col("record").str.slice(0, 200).head(3))
    )
    ranked = counted.sort("records", "source", "reason", descending=[True, False, False])
    return ranked.head(most or ranked.height).to_dicts()


def example_ids(numbers: Any) -> set[str]:
    """Every comparison id that `stats` lists under `examples`, at any depth."""
    if isinstance(numbers, dict):
        own = numbers.get("examples")
        found = set(own) if isinstance(own, list) else set()
        return found.union(*(example_ids(value) for key, value in numbers.items() if key != "examples"))
    if isinstance(numbers, list):
        return set().union(*(example_ids(value) for value in numbers))
    return set()


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _plain(value: Any) -> Any:
    """JSON values: NaN is null, floats to nine places (threads add them up in any order)."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 9) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
