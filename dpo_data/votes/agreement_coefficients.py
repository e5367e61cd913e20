"""Coefficients of agreement from counts per item: Krippendorff's alpha, Gwet's AC1, raw and decided agreement, kappa.

Everything but Cohen's kappa needs only how many votes each item gave to each choice, so it streams: coincidences of
batches add up. Alpha over (a, tie, b) depends on which side a file happens to store first (where the
chosen answer is always `a`, chance agreement looks perfect); the side-symmetric form counts every item in both orders.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[Any]
Metric = Literal["nominal", "ordinal"]
CHOICES = ("a", "tie", "b")  # in this order ordinal distances make sense


def counts(votes: pl.DataFrame, item: str | Sequence[str] = "comparison_id") -> NDArray[np.int64]:
    """Votes per item and choice, shape (items, 3), columns a, tie, b.

    `item` names the column or columns that make an item: `comparison_id` (the same comparison in two records is one
    item), or for instance `origin` (the record) to reproduce figures that count records.
    """
    keys = [item] if isinstance(item, str) else list(item)
    sums = [(pl.col("choice") == choice).sum().alias(choice) for choice in CHOICES]
    return votes.group_by(keys, maintain_order=False).agg(sums).select(CHOICES).to_numpy().astype(np.int64)


def coincidences(counts: Counts) -> Floats:
    """Krippendorff's coincidence matrix, shape (K, K): o_ck = sum_i n_ic (n_ik - [c = k]) / (n_i - 1).

    Items with fewer than two votes bring nothing. Matrices of disjoint sets of items add up.
    """
    table = np.asarray(counts, np.float64)
    n = table.sum(axis=1)
    table, n = table[n >= 2], n[n >= 2]
    weighted = table / (n - 1)[:, None]
    matrix: Floats = weighted.T @ table - np.diag(weighted.sum(axis=0))
    return matrix


def alpha(counts: Counts, metric: Metric = "nominal", symmetric: bool = True) -> float:
    """Krippendorff's alpha of counts (items, K); NaN where there is nothing to disagree about.

    Content Analysis, 3rd ed., 2013, ch. 12. `symmetric` counts every item in both side orders (the choices reversed),
    so that no storage order changes it; False gives the coefficient of the table as stored.
    """
    return alpha_of(coincidences(counts), metric, symmetric)


def alpha_of(coincidence: Floats, metric: Metric = "nominal", symmetric: bool = True) -> float:
    """Krippendorff's alpha of a coincidence matrix (K, K): 1 - D_o / D_e."""
    observed = coincidence + coincidence[::-1, ::-1] if symmetric else coincidence
    margin = observed.sum(axis=1)
    n = margin.sum()
    if n < 2:
        return float("nan")
    distance = _distances(margin, metric)
    # Every item counted twice is still one item: chance must be drawn as if from the items, hence n - 1.
    expected = float((np.outer(margin, margin) * distance).sum()) / (float(n) - 1)
    return 1 - float((observed * distance).sum()) / float(expected) if expected > 0 else float("nan")


def _distances(margin: Floats, metric: Metric) -> Floats:
    """Squared distances between choices, shape (K, K); ordinal: (sum of the margins between, half at each end)^2."""
    size = len(margin)
    if metric == "nominal":
        return 1 - np.eye(size)
    middle = np.cumsum(margin) - margin / 2
    ordinal: Floats = (middle[:, None] - middle[None, :]) ** 2
    return ordinal


def raw_agreement(counts: Counts) -> float:
    """Agreeing pairs of votes / pairs of votes within an item."""
    table = np.asarray(counts, np.float64)
    pairs = (table.sum(axis=1) * (table.sum(axis=1) - 1)).sum()
    return float((table * (table - 1)).sum() / pairs) if pairs else float("nan")


def decided_agreement(counts: Counts) -> float:
    """The same over votes for a side only, ties left out; `counts` is (items, 3) as a, tie, b."""
    return raw_agreement(np.asarray(counts)[:, [0, -1]])


def gwet_ac1(counts: Counts, symmetric: bool = True) -> float:
    """Gwet's AC1 (BJMSP 61, 2008): stable where one choice dominates and alpha collapses.

    P_a over items with two votes or more; P_e = sum_k p_k (1 - p_k) / (K - 1), p_k the mean share over all items (in
    both side orders where `symmetric`).
    """
    table = np.asarray(counts, np.float64)
    n = table.sum(axis=1)
    table, n = table[n >= 1], n[n >= 1]
    rated = n >= 2
    if not rated.any():
        return float("nan")
    several, m = table[rated], n[rated]
    observed = ((several * (several - 1)).sum(axis=1) / (m * (m - 1))).mean()
    share = (table / n[:, None]).mean(axis=0)
    share = (share + share[::-1]) / 2 if symmetric else share
    chance = (share * (1 - share)).sum() / (table.shape[1] - 1)
    return float((observed - chance) / (1 - chance))


def cohen_kappa(
    first: NDArray[np.integer], second: NDArray[np.integer], symmetric: bool = True, choices: int = len(CHOICES)
) -> float:
    """Cohen's kappa (1960) of two annotators' codes over the same items; NaN where chance explains everything.

    `symmetric` counts every item in both side orders, as for alpha; False gives the figure of the table as stored.
    """
    joint = np.bincount(first * choices + second, minlength=choices**2).reshape(choices, choices)
    joint = joint + joint[::-1, ::-1] if symmetric else joint
    share = joint / max(joint.sum(), 1)
    chance = float(share.sum(axis=0) @ share.sum(axis=1))
    return (float(np.trace(share)) - chance) / (1 - chance) if chance < 1 else float("nan")


def pairwise_kappa(votes: pl.DataFrame, item: str = "comparison_id", least: int = 10) -> pl.DataFrame:
    """Cohen's kappa of every two named annotators with `least` or more common items.

    Columns annotator_1, annotator_2, n, agreement, kappa (side-symmetric), kappa_as_stored. A repeated vote of one
    annotator counts once (the first in the order of the choices, so row order is of no account).
    """
    code = pl.col("choice").replace_strict(list(CHOICES), range(len(CHOICES)), return_dtype=pl.Int64)
    named = votes.filter(pl.col("annotator").is_not_null()).select(item, "annotator", code.alias("code"))
    named = named.group_by(item, "annotator").agg(pl.col("code").min())
    both = named.join(named, on=item, suffix="_2").filter(pl.col("annotator") < pl.col("annotator_2"))
    both = both.filter(pl.len().over("annotator", "annotator_2") >= least).sort("annotator", "annotator_2", item)
    rows = []
    for (one, two), group in both.group_by("annotator", "annotator_2", maintain_order=True):
        x, y = group["code"].to_numpy(), group["code_2"].to_numpy()
        kappas = cohen_kappa(x, y), cohen_kappa(x, y, symmetric=False)
        rows.append((one, two, group.height, float((x == y).mean()), *kappas))
    figures = {"n": pl.UInt32, "agreement": pl.Float64, "kappa": pl.Float64, "kappa_as_stored": pl.Float64}
    return pl.DataFrame(rows, {"annotator_1": pl.String, "annotator_2": pl.String, **figures}, orient="row")
