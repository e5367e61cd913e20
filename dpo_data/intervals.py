"""Intervals for shares: Wilson's, and Wilson's on the size that clustered rows are really worth.

Rows of one prompt resemble one another, so a share over rows is less certain than its n says. The clustered
interval measures how much (the design effect) and shrinks n accordingly; it never pretends to more than n rows.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z95 = 1.959963984540054  # two-sided 95 %


def wilson(share: Floats, n: Floats, z: float = Z95) -> tuple[Floats, Floats]:
    """Wilson's score interval of shares over `n` trials (n may be fractional); NaN where n is 0.

    Wilson, JASA 22 (1927) 209-212. Arrays of one shape in, (low, high) out.
    """
    share, n = np.asarray(share, np.float64), np.asarray(n, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        centre, scale = share + z**2 / (2 * n), 1 + z**2 / n
        low, high = (centre - spread) / scale, (centre + spread) / scale
    empty = n <= 0
    return np.where(empty, np.nan, np.clip(low, 0, 1)), np.where(empty, np.nan, np.clip(high, 0, 1))


def effective_rows(hit: NDArray[np.bool_], cluster: NDArray[np.integer], weight: Floats | None = None) -> float:
    """How many independent rows the share of `hit` is worth when rows of one cluster move together.

    n_eff = p(1-p) / var(p), var(p) the linearised ratio estimator over clusters with the G/(G-1) correction
    (Kish, Survey Sampling, 1965). At most n, or (sum w)^2 / sum w^2 of the weights; at most the number of clusters
    where the share is 0 or 1.
    """
    weight = np.ones(len(hit)) if weight is None else weight
    mass = float(weight.sum())
    if mass == 0:
        return 0.0
    share = float(weight @ hit) / mass
    most = mass**2 / float(weight @ weight)
    codes = np.unique(cluster, return_inverse=True)[1]
    clusters = int(codes.max()) + 1
    if clusters < 2 or share in (0.0, 1.0):
        return min(most, float(clusters))
    residual = np.bincount(codes, weight * (hit - share))
    variance = clusters / (clusters - 1) * float(residual @ residual) / mass**2
    return min(most, share * (1 - share) / variance) if variance > 0 else most


def clustered(
    hit: NDArray[np.bool_], cluster: NDArray[np.integer], weight: Floats | None = None, z: float = Z95
) -> tuple[float, float]:
    """Interval of the (weighted) share of `hit` when rows of one `cluster` move together; NaN if empty."""
    n = effective_rows(hit, cluster, weight)
    share = np.average(hit, weights=weight) if n else np.nan
    low, high = wilson(np.array([share]), np.array([n]), z)
    return float(low[0]), float(high[0])
