"""What style alone predicts about the choice: a regression of the preferred side on length, headers, lists and bold.

The form is that of Chatbot Arena's style control (FastChat's rating_systems) and AlpacaEval's length control (Dubois
et al., arXiv 2404.04475) without the models: logit P(a preferred) = sum_k beta_k z_k. There is no
intercept and no centring, because the sides have no order; swapping a and b everywhere changes no coefficient.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dpo_data.intervals import Z95
from dpo_data.measures.length_bias import gaps, length_auc, prompt_codes, rows_by_value

Floats = NDArray[np.float64]
COVARIATES = ("length", "headers", "lists", "bold")
RIDGE = 0.5  # Arena's L2 penalty; keeps separated covariates finite and is nothing against a hundred rows


def regression(frame: pl.DataFrame, by: Sequence[str] = (), weight: str | None = None) -> pl.DataFrame:
    """Coefficients of the style regression over decided rows: the whole set, then every value of every slice in `by`.

    Columns: slice, value, n, prompts (clusters), unit of the length, covariate, coefficient (logit per standard
    deviation of the normalised difference), low, high (95 %, sandwich clustered by prompt_hash), mean_difference
    (chosen minus rejected, in counts), style_auc (all covariates together, in sample). A covariate that never differs
    or was not measured has a null coefficient. `weight` names a column of weights.
    """
    signed, unit = gaps(frame)
    decided = ~np.isnan(signed)
    kept = frame.filter(pl.Series(decided))
    differences, raw = _differences(kept, unit)
    sign = np.where((kept["preferred"] == "a").to_numpy(), 1.0, -1.0)
    weights = kept[weight].cast(pl.Float64).to_numpy() if weight else np.ones(kept.height)
    cluster = prompt_codes(kept)
    parts = [("all", "all", np.arange(kept.height))]
    for name in by:
        parts += [(name, value, at) for value, at in rows_by_value(kept[name])]
    rows: list[dict[str, object]] = []
    for name, value, at in parts:
        told = _told(differences[at], raw[at], sign[at], weights[at], cluster[at])
        rows += [{"slice": name, "value": value, "unit": unit, **row} for row in told]
    return pl.DataFrame(rows, schema_overrides={"coefficient": pl.Float64, "low": pl.Float64, "high": pl.Float64})


def _differences(frame: pl.DataFrame, unit: str) -> tuple[Floats, Floats]:
    """Normalised differences a against b and plain ones, each (rows, covariates); NaN column: not measured.

    Normalised is (a - b) / (a + b + 1): the difference between 1 and 3 headers says more than that of 101 and 103.
    """
    names = {"length": "tokens" if unit == "tokens" else "chars", **{name: name for name in COVARIATES[1:]}}
    normal, plain = np.full((frame.height, len(COVARIATES)), np.nan), np.full((frame.height, len(COVARIATES)), np.nan)
    for k, name in enumerate(names.values()):
        if not {f"{name}_a", f"{name}_b"} <= set(frame.columns):
            continue
        a, b = (frame[f"{name}_{side}"].cast(pl.Float64).to_numpy() for side in "ab")
        if not (np.isnan(a).any() or np.isnan(b).any()):
            normal[:, k], plain[:, k] = (a - b) / (a + b + 1), a - b
    return normal, plain


def _told(
    differences: Floats, raw: Floats, sign: Floats, weight: Floats, cluster: NDArray[np.int64]
) -> list[dict[str, object]]:
    scale = np.sqrt((differences**2).mean(axis=0)) if len(differences) else np.full(len(COVARIATES), np.nan)
    used = np.flatnonzero(scale > 0)
    design = differences[:, used] / scale[used]
    beta, error = logistic(design, sign > 0, weight, cluster)
    score = sign * (design @ beta)
    row = {
        "n": len(sign),
        "prompts": len(np.unique(cluster)),
        "style_auc": length_auc(score, weight) if len(used) else None,
    }
    rows: list[dict[str, object]] = []
    for k, name in enumerate(COVARIATES):
        at = np.flatnonzero(used == k)
        fit = (float(beta[at[0]]), float(error[at[0]])) if len(at) else None
        mean = float(np.average(sign * raw[:, k], weights=weight)) if len(sign) else float("nan")
        rows.append(
            {
                **row,
                "covariate": name,
                "coefficient": fit[0] if fit else None,
                "low": fit[0] - Z95 * fit[1] if fit else None,
                "high": fit[0] + Z95 * fit[1] if fit else None,
                "mean_difference": None if np.isnan(mean) else mean,
            }
        )
    return rows


def logistic(
    design: Floats, hit: NDArray[np.bool_], weight: Floats, cluster: NDArray[np.int64], ridge: float = RIDGE
) -> tuple[Floats, Floats]:
    """Coefficients and clustered standard errors of a logistic regression without intercept, both (covariates,).

    Iteratively reweighted least squares; the errors are the sandwich H^-1 (sum_g s_g s_g') H^-1 x G / (G - 1) with s_g
    the score of cluster g (Liang and Zeger, Biometrika 73, 1986). NaN errors where there are fewer than two clusters.
    Without a covariate (no difference varies, as where all responses are single letters) both are empty.
    """
    size = design.shape[1]
    if not size:
        return np.zeros(0), np.zeros(0)
    beta = np.zeros(size)
    bread: Floats = np.eye(size)
    for _ in range(50):
        fitted = 1 / (1 + np.exp(-design @ beta))
        curvature = weight * fitted * (1 - fitted)
        bread = np.asarray(np.linalg.inv(design.T @ (design * curvature[:, None]) + ridge * np.eye(size)), np.float64)
        step = bread @ (design.T @ (weight * (hit - fitted)) - ridge * beta)
        beta = beta + step
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    codes = np.unique(cluster, return_inverse=True)[1]
    clusters = int(codes.max(initial=-1)) + 1
    if clusters < 2:
        return beta, np.full(size, np.nan)
    residual = (weight * (hit - 1 / (1 + np.exp(-design @ beta))))[:, None] * design
    scores = np.stack([np.bincount(codes, residual[:, k], clusters) for k in range(size)], axis=1)
    meat = scores.T @ scores * clusters / (clusters - 1)
    return beta, np.sqrt(np.diag(bread @ meat @ bread))
