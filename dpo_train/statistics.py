"""Means, contrasts, slopes and intervals for pairs that are grouped by prompt.

Pairs of one prompt are not independent, so every interval is clustered: residuals are summed per prompt before they are
squared (CR1, G/(G-1), Student's t with G-1 degrees of freedom; Miller, arXiv 2411.00640).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

LEVEL = 0.95
POWER = 0.80  # of the smallest effect that could have been seen


class Estimate(NamedTuple):
    """A number, its clustered standard error, its 95 % interval, and what it rests on. Unknown parts are NaN."""

    value: float
    error: float
    low: float
    high: float
    pairs: int
    prompts: int
    freedom: float


def t_tail(t: float, freedom: float) -> float:
    """P(|T| > |t|) for Student's T: the two-sided p-value; NaN in, NaN out."""
    if math.isnan(t) or math.isnan(freedom) or freedom <= 0:
        return math.nan
    return float(2 * stdtr(freedom, -abs(t)))


def t_quantile(probability: float, freedom: float) -> float:
    """The t with P(T <= t) = probability; NaN without degrees of freedom."""
    if math.isnan(freedom) or freedom <= 0:
        return math.nan
    return float(stdtrit(freedom, probability))


def estimate(value: float, variance: float, pairs: int, prompts: int, freedom: float) -> Estimate:
    """Put a value and its variance together with the t interval that they imply."""
    if not (variance >= 0 and freedom > 0):
        return Estimate(value, math.nan, math.nan, math.nan, pairs, prompts, freedom)
    error = math.sqrt(variance)
    reach = t_quantile(0.5 + LEVEL / 2, freedom) * error
    return Estimate(value, error, value - reach, value + reach, pairs, prompts, freedom)


def _squares_by_group(influence: Floats, groups: Ints) -> tuple[float, int]:
    """Sum over groups of (sum of influences)^2, and the number of groups met."""
    used, codes = np.unique(groups, return_inverse=True)
    sums = np.bincount(codes, weights=influence, minlength=len(used))
    return float(sums @ sums), len(used)


def clustered_mean(values: Floats, groups: Ints) -> Estimate:
    """Mean of `values` (pairs,) with its interval clustered by `groups` (pairs,).

    Var = G/(G-1) * sum_g (sum_{i in g} (x_i - mean))^2 / n^2. Fewer than two groups: no interval.
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, math.nan)
    mean = float(values.mean())
    squares, prompts = _squares_by_group((values - mean) / n, groups)
    variance = squares * prompts / (prompts - 1) if prompts > 1 else math.nan
    return estimate(mean, variance, n, prompts, prompts - 1)


def contrast(values: Floats, members: Bools, groups: Ints) -> Estimate:
    """Mean inside minus mean outside, clustered by groups that may lie on both sides.

    Each side has its own G/(G-1), groups on both sides bring their covariance, and the degrees of freedom
    are Welch and Satterthwaite's, so that ten prompts against a thousand are judged as ten.
    """
    inside, outside = values[members], values[~members]
    if not len(inside) or not len(outside):
        return Estimate(math.nan, math.nan, math.nan, math.nan, len(inside), 0, math.nan)
    first, second = clustered_mean(inside, groups[members]), clustered_mean(outside, groups[~members])
    value = first.value - second.value
    if not (first.prompts > 1 and second.prompts > 1):
        return estimate(value, math.nan, len(inside), first.prompts, math.nan)
    size = int(groups.max()) + 1
    inner = np.bincount(groups[members], weights=(inside - first.value) / len(inside), minlength=size)
    outer = np.bincount(groups[~members], weights=(outside - second.value) / len(outside), minlength=size)
    parts = (first.error**2, second.error**2)
    shared = math.sqrt(first.prompts / first.freedom * second.prompts / second.freedom) * float(inner @ outer)
    variance = max(sum(parts) - 2 * shared, 0.0)
    below = parts[0] ** 2 / first.freedom + parts[1] ** 2 / second.freedom
    freedom = sum(parts) ** 2 / below if below > 0 else min(first.freedom, second.freedom)
    return estimate(value, variance, len(inside), first.prompts, freedom)


def contrast_p(values: Floats, members: Bools, groups: Ints) -> float:
    """Two-sided p of "inside and outside have one mean", clustered; NaN where nothing varies.

    Residuals are taken from the common mean, as the hypothesis says (a score test), and not from each side's own: in a
    small slice of skewed values the own spread is small just where the mean strays, and p with it (bench_null.py). The
    price: no slice is further off than about the square root of its prompts, in standard errors.
    """
    inside, prompts = int(members.sum()), len(np.unique(groups))
    if not 0 < inside < len(values) or prompts < 2:
        return math.nan
    shares = np.where(members, 1 / inside, -1 / (len(values) - inside))
    squares, _ = _squares_by_group(shares * (values - values.mean()), groups)
    if squares <= 0:
        return math.nan
    return t_tail(float(shares @ values) / math.sqrt(squares * prompts / (prompts - 1)), prompts - 1)


def slope(values: Floats, covariate: Floats, groups: Ints) -> Estimate:
    """Least-squares slope of `values` on `covariate`, clustered; no value where the covariate does not vary."""
    n = len(values)
    centred = covariate - covariate.mean() if n else covariate
    spread = float(centred @ centred)
    if n < 3 or spread <= 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, n, len(np.unique(groups)), math.nan)
    beta = float(centred @ values) / spread
    residual = values - values.mean() - beta * centred
    squares, prompts = _squares_by_group(residual * centred / spread, groups)
    variance = squares * prompts / (prompts - 1) if prompts > 1 else math.nan
    return estimate(beta, variance, n, prompts, prompts - 1)


def p_value(found: Estimate) -> float:
    """Two-sided p of "the value is 0"; NaN where there is no standard error to judge by."""
    if not found.error > 0:
        return math.nan
    return t_tail(found.value / found.error, found.freedom)


def detectable(found: Estimate) -> float:
    """The smallest true effect that a test at 5 % finds four times in five at this standard error."""
    if not found.error > 0:
        return math.nan
    return (t_quantile(0.5 + LEVEL / 2, found.freedom) + t_quantile(POWER, found.freedom)) * found.error


def benjamini_hochberg(p: Floats) -> Floats:
    """Adjusted p-values of one family (Benjamini and Hochberg 1995); NaN stays NaN and is not counted."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    if not len(known):
        return adjusted
    order = known[np.argsort(p[known], kind="stable")]
    raised = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return adjusted


def familywise(draws: Floats, p: Floats) -> tuple[Floats, float]:
    """Max-t in one family: p (slices,) adjusted for all slices at once, and the p at which all intervals hold at once.

    `draws` (bootstrap draws, slices) are the statistics behind p. How far the largest of them strays from its mean, in
    its own standard deviations, says how many independent questions the family asks (single step, Westfall & Young
    1993); each slice keeps the tails of its own Student's t, since it enters by its p. NaN stays NaN.
    """
    adjusted = np.full(len(p), np.nan)
    draws = np.where(np.isfinite(draws), draws, np.nan)  # a draw may hold no prompt of a slice
    told = np.isnan(draws).mean(axis=0) < 0.1
    known = np.flatnonzero(~np.isnan(p) & told & (np.nan_to_num(draws).std(axis=0) > 0))
    if not len(known):
        return adjusted, 1 - LEVEL
    drawn = draws[:, known]
    drawn = drawn[~np.isnan(drawn).all(axis=1)]  # of few prompts, a draw may miss every slice
    centred = drawn - np.nanmean(drawn, axis=0)
    largest = np.nanmax(np.abs(centred / np.nanstd(centred, axis=0)), axis=1)
    normal = NormalDist()
    own = np.array([-normal.inv_cdf(max(value, 1e-300) / 2) for value in p[known]])
    adjusted[known] = (1 + (largest[:, None] >= own).sum(axis=0)) / (1 + len(largest))
    return np.maximum(adjusted, p), 2 * normal.cdf(-float(np.quantile(largest, LEVEL)))


def between_variance(values: Floats, errors: Floats) -> float:
    """Variance of the true values of slices behind noisy ones with known errors, by REML (fixed-point form)."""
    tau = max(float(np.var(values, ddof=1)) - float(np.mean(errors**2)), 0.0) if len(values) > 1 else 0.0
    for _ in range(200):
        weights = 1 / (errors**2 + tau)
        centre = float(weights @ values / weights.sum())
        gain = float((weights**2) @ ((values - centre) ** 2 - errors**2)) / float((weights**2).sum())
        following = max(gain + 1 / float(weights.sum()), 0.0)
        if abs(following - tau) < 1e-12 * (1 + tau):
            break
        tau = following
    return tau


def shrink(values: Floats, errors: Floats, centre: float | None = None) -> Floats:
    """Empirical-Bayes values: each is drawn to the centre by as much as its own error is large.

    The centre is the common mean, or the one given (0 for contrasts). NaN values or errors, and zero errors, are
    left as they are and do not inform the others; so is everything where fewer than three are known.
    """
    result = values.copy()
    known = ~np.isnan(values) & (errors > 0)
    if known.sum() < 3:
        return result
    tau = between_variance(values[known], errors[known])
    weights = 1 / (errors[known] ** 2 + tau)
    middle = float(weights @ values[known] / weights.sum()) if centre is None else centre
    result[known] = middle + tau * weights * (values[known] - middle)
    return result


def bootstrap_counts(groups: int, draws: int, seed: int = 0, block: int = 250) -> Iterator[npt.NDArray[np.float64]]:
    """How often each group is drawn, (block, groups) at a time: one joint draw serves every slice and statistic."""
    generator = np.random.default_rng(seed)
    chances = np.full(groups, 1 / groups)
    for start in range(0, draws, block):
        yield generator.multinomial(groups, chances, size=min(block, draws - start)).astype(np.float64)


def weighted_medians(values: Floats, counts: npt.NDArray[np.float64]) -> Floats:
    """The median of `values` (pairs,) under each row of `counts` (draws, pairs); NaN for a draw without pairs."""
    order = np.argsort(values, kind="stable")
    ordered, running = values[order], np.cumsum(counts[:, order], axis=1)
    total = running[:, -1]
    # The mean of the lower and the upper median, which is what numpy.median gives on whole counts.
    lower = ordered[np.argmax(running >= (total / 2)[:, None], axis=1)]
    upper = ordered[np.minimum(np.argmax(running > (total / 2)[:, None], axis=1), len(values) - 1)]
    return np.where(total > 0, (lower + upper) / 2, np.nan)


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws; NaN when fewer than nine in ten draws gave a number."""
    known = draws[~np.isnan(draws)]
    if len(known) < 0.9 * len(draws) or not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ranks(values: Floats) -> Floats:
    """Ranks from 1, ties sharing their mean rank."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[codes], dtype=np.float64)


def correlation(first: Floats, second: Floats) -> float:
    """Pearson's correlation; NaN where either side does not vary."""
    a, b = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan
