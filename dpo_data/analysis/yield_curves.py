"""What each limit costs: the yield curve of a measure, and the rows on either side of its limit.

A limit is judged by what it alone drops, so both look only at rows that no other reason drops. A
row without a value always stays, hence curves that never reach zero.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from dpo_data.analysis.thresholds import applies

Table = list[dict[str, Any]]
NEAREST = 10
"""Borderline rows listed on each side of a limit."""
SMALLEST_SLICE = 20
"""A slice with fewer rows gets no curve of its own."""
MOST_SLICES = 50

# What a limit on each measure would keep: measure -> (its limits, whether a row at or above the limit stays).
_YIELD = {
    "similarity": (np.round(np.arange(0.5, 1.001, 0.02), 2), False),
    "edit_ratio": (np.round(np.arange(0.0, 0.51, 0.02), 2), True),
    "agreement": (np.round(np.arange(0.5, 1.001, 0.05), 2), True),
    "confidence": (np.round(np.arange(0.5, 1.001, 0.025), 3), True),
}
_YIELD_REASON = {
    "similarity": "responses_too_similar",
    "edit_ratio": "responses_too_similar",
    "agreement": "low_agreement",
    "confidence": "low_confidence",
}


def curves(ledger: pl.DataFrame, by: Sequence[str]) -> Table:
    """The yield curves of all measures; `ledger` is decided and has `kept`."""
    return [row for measure in _YIELD for row in yield_curve(ledger, measure, by)]


def yield_curve(ledger: pl.DataFrame, measure: str, by: Sequence[str]) -> Table:
    """Rows that a limit on `measure` alone would keep, among those that nothing else drops; all rows, then by slice.

    `of` counts the rows nothing else drops, `measured` those with a value. Not measured always stays.
    """
    grid, stays_above = _YIELD[measure]
    others = pl.col("reasons").list.set_difference(pl.lit([_YIELD_REASON[measure]])).list.len() == 0
    standing = ledger.filter(others & pl.col("preferred").is_not_null()).select(measure, *by)
    table: Table = []
    for name, value, values in _slices(standing, measure, by):
        known = np.sort(values.drop_nulls().to_numpy())
        missing = len(values) - len(known)
        if not len(known):
            continue
        below = np.searchsorted(known, grid - 1e-12, side="left")
        upto = np.searchsorted(known, grid + 1e-12, side="right")
        kept = (len(known) - below if stays_above else upto) + missing
        table.append(
            {
                "measure": measure,
                "slice": name,
                "value": value,
                "keep_if": ">=" if stays_above else "<=",
                "limits": grid.tolist(),
                "kept": kept.tolist(),
                "of": len(values),
                "measured": len(known),
            }
        )
    return table


def _slices(frame: pl.DataFrame, measure: str, by: Sequence[str]) -> list[tuple[str, str, pl.Series]]:
    found = [("all", "all", frame[measure])]
    for name in by:
        for (value,), part in frame.group_by(name, maintain_order=True):
            if part.height >= SMALLEST_SLICE:
                found.append((name, "not measured" if value is None else str(value), part[measure]))
    order = {name: place for place, name in enumerate(("all", *by))}
    return sorted(found, key=lambda entry: (order[entry[0]], -len(entry[2]), entry[1]))[: 1 + MOST_SLICES]


def borderline(ledger: pl.DataFrame, limits: Table) -> Table:
    """For each limit (rows of `thresholds.of`) the rows closest to it, on either side, that no other reason drops.

    Where a reason needs several limits to be broken, only rows that no other one saves are listed.
    """
    table: Table = []
    for limit in limits:
        measure, reason = limit["measure"], limit["reason"]
        if measure not in ledger.columns:
            continue
        others = pl.col("reasons").list.set_difference(pl.lit([reason])).list.len() == 0
        near = ledger.filter(others, pl.col(measure).is_not_null(), pl.col("preferred").is_not_null())
        near = near.filter(applies(limit), *(~_stays(other) for other in limit["unless"]))
        near = near.with_columns(distance=(pl.col(measure) - limit["limit"]).abs())
        for side, part in (("kept", near.filter("kept")), ("dropped", near.filter(~pl.col("kept")))):
            closest = part.sort("distance", "comparison_id").head(NEAREST)
            rows = closest.select("comparison_id", value=pl.col(measure).cast(pl.Float64)).to_dicts()
            ids = [row["comparison_id"] for row in rows]
            table.append({**limit, "side": side, "of": part.height, "rows": rows, "examples": ids})
    return table


def _stays(limit: dict[str, Any]) -> pl.Expr:
    """True where this limit alone lets the row stay; not measured stays."""
    value: pl.Expr = pl.col(limit["measure"])
    bound = float(limit["limit"])
    sides = {">=": value >= bound, "<=": value <= bound, "<": value < bound}
    kept: pl.Expr = sides[limit["keep_if"]].fill_null(True)
    return kept
