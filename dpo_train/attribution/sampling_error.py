"""What the account cannot know since it looked at some held-out pairs only: how sure a mean is, and the slices' order.

Pairs are drawn slice by slice (drawing.py), so the variance of a mean adds up over slices, each with its own spread and
with the correction for a finite number of pairs: a slice looked at whole is known (Cochran 1977, Sampling Techniques,
section 5.4). A mean can be told well while the order of the slices cannot, which needs their differences.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dpo_train.statistics import Estimate, Floats, Ints, estimate

AGREED = 0.8  # correlation of one draw with another that is called good enough for an order (Nunnally's convention)


def with_sampling(known: Estimate, values: Floats, weights: Floats, strata: Ints) -> Estimate:
    """`known`, whose error is that of the training side, with the error of the draw added.

    `values` (pairs,) is what each held-out pair was pushed; `weights` (pairs,) the pairs it stands for, 0 outside the
    slice; `strata` (pairs,) where it was drawn. Degrees of freedom are Welch and Satterthwaite's.
    """
    parts = [(known.error**2, known.freedom)]
    for members in _members(weights, strata):
        count, whole = int(members.sum()), float(weights[members].sum())
        if whole - count < 1e-9:  # nothing of it was left out
            continue
        if count < 2:
            return estimate(known.value, math.nan, known.pairs, known.prompts, math.nan)
        share = whole / weights.sum()
        spread = share**2 * (1 - count / whole) * float(values[members].var(ddof=1)) / count
        parts.append((spread, count - 1.0))
    variance = float(sum(part for part, _ in parts))
    below = sum(part**2 / freedom for part, freedom in parts)
    freedom = float(variance**2 / below) if below > 0 else known.freedom
    return estimate(known.value, variance, known.pairs, known.prompts, freedom)


def order(values: Floats, weights: Floats, strata: Ints) -> dict[str, Any] | None:
    """How far another draw of as many pairs would agree on the order of the held-out slices, and how many would do.

    `values` (pairs, training slices). `agreement`: the correlation of two draws' slice means, from the spread between
    slices and within them, all training slices together; `needed`: pairs in all for an agreement of `AGREED`, None
    where the slices do not differ beyond chance. None with fewer than three slices of two pairs.
    """
    parts = [members for members in _members(weights, strata) if members.sum() >= 2]
    if len(parts) < 3:
        return None
    counts, sizes = (np.array([float(of[members].sum()) for members in parts]) for of in (weights > 0, weights))
    within = sum(values[members].var(axis=0, ddof=1) * (members.sum() - 1) for members in parts).sum()
    within = float(within / (counts - 1).sum())
    means = np.array([values[members].mean(axis=0) for members in parts])
    error = float((within * (1 / counts - 1 / sizes)).mean())
    between = max(float(means.var(axis=0, ddof=1).sum()) - error, 0.0)
    found: dict[str, Any] = {"slices": len(parts), "pairs": int(counts.sum()), "needed": None}
    if between <= 0:
        return {**found, "agreement": 0.0 if error > 0 else None}
    agreement = between / (between + error)
    if agreement >= AGREED:
        return {**found, "agreement": agreement, "needed": found["pairs"]}
    each = within / (between * (1 / AGREED - 1) + within * float((1 / sizes).mean()))
    return {**found, "agreement": agreement, "needed": int(np.minimum(sizes, math.ceil(each)).sum())}


def _members(weights: Floats, strata: Ints) -> list[np.ndarray]:
    return [(strata == code) & (weights > 0) for code in np.unique(strata[weights > 0])]
