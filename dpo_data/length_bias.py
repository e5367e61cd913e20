"""How often the longer response wins, by slice; the rebalance that takes the length signal out; and the same again.

A policy trained on pairs whose chosen side is mostly longer learns to be long (Singhal et al., arXiv 2310.03716).
Balancing the sign of the gap alone is not enough: within equal counts the size of the gap still tells the sides
apart, so cells are slice x quantile bin of the gap. Within a cell the least confident rows of the majority go first.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from dpo_data.intervals import clustered
from dpo_data.settings import Settings

Floats = NDArray[np.float64]


class LengthLimits(Settings):
    """How the rebalance works."""

    rebalance: Literal["off", "drop", "weight"] = "off"
    """`drop` keeps the largest balanced subset; `weight` keeps every row and prints the effective sample size."""
    bins: int = Field(8, ge=1)
    """Quantile bins of the absolute gap. On PandaLM 1 bin leaves an AUC of .537, 8 leave .499 with as many rows."""
    by: tuple[str, ...] = ("source",)
    tolerance: float = Field(0.0, ge=0, lt=1)
    """Keep the majority of a cell up to minority x (1 + tolerance) / (1 - tolerance)."""
    max_weight: float = Field(4.0, ge=1)
    """Weights are clipped to [1 / max_weight, max_weight]."""
    only_where_agreement_below: float | None = Field(None, ge=0, le=1)
    """Balance only rows with less agreement than this (or none measured): length can also be merit."""


def gaps(frame: pl.DataFrame) -> tuple[Floats, str]:
    """Length of the preferred minus length of the other response, and the unit: tokens where all rows have them.

    NaN where nothing is preferred or nothing was measured.
    """
    tokens = {"tokens_a", "tokens_b"} <= set(frame.columns) and frame.select(
        pl.all_horizontal(pl.col("tokens_a", "tokens_b").is_not_null().all())
    ).item()
    unit = "tokens" if tokens and frame.height else "characters"
    name = "tokens" if unit == "tokens" else "chars"
    a, b = pl.col(f"{name}_a").cast(pl.Float64), pl.col(f"{name}_b").cast(pl.Float64)
    gap = pl.when(pl.col("preferred") == "a").then(a - b).when(pl.col("preferred") == "b").then(b - a)
    return frame.select(gap.fill_null(float("nan"))).to_series().to_numpy(), unit


def length_auc(gap: Floats, weight: Floats | None = None) -> float:
    """How well the length gap alone tells chosen from rejected when each pair is shown in a random order.

    P(g_i > -g_j) + P(g_i = -g_j) / 2 over all i, j: 0.5 says length is no signal. NaN without rows.
    """
    if not len(gap):
        return float("nan")
    weight = np.ones(len(gap)) if weight is None else weight
    order = np.argsort(-gap, kind="stable")
    mirrored, mass = -gap[order], np.concatenate([[0.0], np.cumsum(weight[order])])
    below, upto = mass[np.searchsorted(mirrored, gap, "left")], mass[np.searchsorted(mirrored, gap, "right")]
    return float((weight * (below + upto) / 2).sum() / mass[-1] ** 2)


def prompt_codes(frame: pl.DataFrame) -> NDArray[np.int64]:
    """A number for each prompt, shape (rows,): the clusters of intervals. Without `prompt_hash` rows stand alone."""
    if "prompt_hash" not in frame.columns:
        return np.arange(frame.height)
    return frame["prompt_hash"].fill_null("").rank("dense").cast(pl.Int64).to_numpy()


def bias(frame: pl.DataFrame, by: Sequence[str] = (), weight: str | None = None) -> pl.DataFrame:
    """The length bias of decided rows: the whole set first, then every value of every column in `by`.

    Columns: slice, value, unit, n, unequal, longer (rows whose chosen side is longer), p_longer, p_low, p_high (95 %,
    clustered by prompt_hash where there is one), auc, mean_gap, median_gap, cohen_d (mean gap / its SD), ess. With
    `weight`, a column of weights, shares, AUC and mean are weighted.
    """
    gap, unit = gaps(frame)
    decided = ~np.isnan(gap)
    kept, gap = frame.filter(pl.Series(decided)), gap[decided]
    weights = kept[weight].cast(pl.Float64).to_numpy() if weight else np.ones(len(gap))
    cluster = prompt_codes(kept)
    rows = [{"slice": "all", "value": "all", **_bias(gap, weights, cluster)}]
    for name in by:
        values = kept[name].cast(pl.String).fill_null("not measured")
        for value in values.unique().sort():
            mask = (values == value).to_numpy()
            rows.append({"slice": name, "value": value, **_bias(gap[mask], weights[mask], cluster[mask])})
    return pl.DataFrame(rows).with_columns(pl.lit(unit).alias("unit"), pl.selectors.float().fill_nan(None))


def _bias(gap: Floats, weight: Floats, cluster: NDArray[np.int64]) -> dict[str, float | int | str | None]:
    unequal = gap != 0
    longer = gap[unequal] > 0
    low, high = clustered(longer, cluster[unequal])
    total = weight[unequal].sum()
    spread = float(gap.std(ddof=1)) if len(gap) > 1 else 0.0
    mean = float(np.average(gap, weights=weight)) if len(gap) else float("nan")
    return {
        "n": len(gap),
        "unequal": int(unequal.sum()),
        "longer": int(longer.sum()),
        "p_longer": float((weight[unequal] * longer).sum() / total) if total else float("nan"),
        "p_low": low,
        "p_high": high,
        "auc": length_auc(gap, weight),
        "mean_gap": mean,
        "median_gap": float(np.median(gap)) if len(gap) else float("nan"),
        "cohen_d": mean / spread if spread else float("nan"),
        "ess": float(weight.sum() ** 2 / (weight**2).sum()) if len(gap) else 0.0,
    }


def rebalance(ledger: pl.DataFrame, limits: LengthLimits | None = None) -> pl.DataFrame:
    """The ledger with `length_rebalanced` (true: the row must go) and `length_weight` (1 unless by weights).

    Only rows still standing are balanced: decided, with measured lengths, and with no entry in `reasons` where that
    column exists. Same rows, same order; the choice depends on confidence and id, never on the order.
    """
    limits = limits or LengthLimits()
    gap, _ = gaps(ledger)
    standing = ~np.isnan(gap) & (gap != 0)
    if "reasons" in ledger.columns:
        standing &= (ledger["reasons"].list.len().fill_null(0) == 0).to_numpy()
    if limits.only_where_agreement_below is not None and "agreement" in ledger.columns:
        standing &= (ledger["agreement"].fill_null(0.0) < limits.only_where_agreement_below).to_numpy()
    goes, weight = np.zeros(ledger.height, bool), np.ones(ledger.height)
    if limits.rebalance != "off" and standing.any():
        at = np.flatnonzero(standing)
        cells = _cells(ledger[at], gap[at], limits)
        if limits.rebalance == "drop":
            goes[at] = _surplus(ledger[at], gap[at] > 0, cells, limits.tolerance)
        else:
            weight[at] = _weights(gap[at] > 0, cells, limits.max_weight)
    return ledger.with_columns(pl.Series("length_rebalanced", goes), pl.Series("length_weight", weight))


def _cells(rows: pl.DataFrame, gap: Floats, limits: LengthLimits) -> NDArray[np.int64]:
    """The cell of each row: slice x quantile bin of the absolute gap within the slice."""
    present = [name for name in limits.by if name in rows.columns]
    group = rows.select(pl.struct(present).rank("dense")).to_series().to_numpy() if present else np.ones(rows.height)
    size = np.abs(gap)
    ranked = pl.DataFrame({"group": group, "size": size}).select(
        (pl.col("size").rank("average").over("group") - 0.5) / pl.len().over("group")
    )
    bins = np.minimum((ranked.to_series().to_numpy() * limits.bins).astype(np.int64), limits.bins - 1)
    cell: NDArray[np.int64] = np.asarray(group, np.int64) * limits.bins + bins
    return np.unique(cell, return_inverse=True)[1]


def _surplus(rows: pl.DataFrame, longer: NDArray[np.bool_], cell: NDArray[np.int64], slack: float) -> NDArray[np.bool_]:
    """True for the rows of each cell's majority beyond the minority: the least confident, then the last by id."""
    size = int(cell.max()) + 1
    plus, minus = np.bincount(cell, longer, minlength=size), np.bincount(cell, ~longer, minlength=size)
    room = np.floor(np.minimum(plus, minus) * (1 + slack) / (1 - slack) + 1e-9)
    confidence = rows["confidence"].fill_null(0.5) if "confidence" in rows.columns else pl.Series(np.zeros(rows.height))
    place = (
        pl.DataFrame({"cell": cell, "longer": longer, "confidence": confidence, "id": rows["comparison_id"]})
        .with_row_index("row")
        .sort("cell", "longer", "confidence", "id", descending=[False, False, True, False])
        .with_columns(pl.int_range(pl.len()).over("cell", "longer").alias("place"))
        .sort("row")["place"]
        .to_numpy()
    )
    return place >= room[cell]


def _weights(longer: NDArray[np.bool_], cell: NDArray[np.int64], most: float) -> Floats:
    """w = (n+ + n-) / (2 n of the row's own side), clipped."""
    size = int(cell.max()) + 1
    plus, minus = np.bincount(cell, longer, minlength=size), np.bincount(cell, ~longer, minlength=size)
    own = np.where(longer, plus[cell], minus[cell])
    weight: Floats = np.clip((plus + minus)[cell] / (2 * own), 1 / most, most)
    return weight
