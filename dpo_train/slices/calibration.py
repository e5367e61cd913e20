"""Does sigma(margin) say how often people would agree? Margins against vote shares, pairs turned by a hash first.

"Chosen" is the winner of the votes, so its share is at least a half by construction and any model looks calibrated on
it. Each pair is therefore turned round or not by a hash of its id, and P(vote for A) = sigma(a + b * margin of A) is
fitted to the vote counts. b < 1: margins promise more agreement than there is; expected where majority labels were
trained on.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Any

import numpy as np

from dpo_train.slices.margin_change import Movement
from dpo_train.statistics import Floats, clustered_mean, estimate

BINS = 8
FEWEST = 30  # pairs with votes, below which nothing is fitted


def turned(pair_ids: Any) -> Floats:
    """+1 or -1 for each pair, by hash: a coin that belongs to the pair for good."""
    return np.array([1.0 if blake2b(str(name).encode(), digest_size=1).digest()[0] & 1 else -1.0 for name in pair_ids])


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def fit(margins: Floats, votes_for: Floats, votes: Floats) -> tuple[Floats, Floats]:
    """(a, b) of a binomial logit by Newton's method, and the inverse of its information; NaN without a maximum."""
    design = np.column_stack([np.ones_like(margins), margins])
    found = np.zeros(2)
    for _ in range(50):
        rate = _sigmoid(design @ found)
        information = design.T @ (design * (votes * rate * (1 - rate))[:, None])
        if np.linalg.matrix_rank(information) < 2 or not np.isfinite(information).all():
            return np.full(2, math.nan), np.full((2, 2), math.nan)
        step = np.linalg.solve(information, design.T @ (votes_for - votes * rate))
        found = found + step
        if np.abs(step).max() < 1e-10:
            return found, np.asarray(np.linalg.inv(information), dtype=np.float64)
        if np.abs(found).max() > 1e4:  # the votes are separable: the slope has no finite maximum
            break
    return np.full(2, math.nan), np.full((2, 2), math.nan)


def calibrate(moved: Movement) -> dict[str, Any] | None:
    """Slope with its interval, log-loss beside its floor and the base rate, and bins; None without votes.

    Log-losses are nats a vote; the floor is the entropy of the votes themselves, which no model can undercut.
    """
    names = ("votes_chosen", "votes_rejected")
    if any(name not in moved.columns for name in names):
        return None
    chosen, rejected = (np.nan_to_num(np.asarray(moved.columns[name], dtype=float)) for name in names)
    known = chosen + rejected > 0
    if known.sum() < FEWEST:
        return None
    side, groups = turned(moved.pair_ids)[known], moved.groups[known]
    margins = side * moved.final[known]
    votes = (chosen + rejected)[known]
    votes_for = np.where(side > 0, chosen[known], rejected[known])
    (_, slope), inverse = fit(margins, votes_for, votes)
    described: dict[str, Any] = {"slope": None, "slope_low": None, "slope_high": None}
    if not math.isnan(slope):
        rate = _sigmoid(np.column_stack([np.ones_like(margins), margins]) @ fit(margins, votes_for, votes)[0])
        scores = np.column_stack([np.ones_like(margins), margins]) * (votes_for - votes * rate)[:, None]
        used, codes = np.unique(groups, return_inverse=True)
        sums = np.zeros((len(used), 2))
        np.add.at(sums, codes, scores)
        spread = inverse @ (sums.T @ sums) @ inverse * len(used) / max(len(used) - 1, 1)
        found = estimate(float(slope), float(spread[1, 1]), int(known.sum()), len(used), len(used) - 1)
        described = {"slope": found.value, "slope_low": _known(found.low), "slope_high": _known(found.high)}
    share = votes_for / votes
    return {
        **described,
        "pairs": int(known.sum()),
        "votes": int(votes.sum()),
        "log_loss": _log_loss(_sigmoid(margins), votes_for, votes),
        "floor": _log_loss(share, votes_for, votes),
        "base_rate": math.log(2),
        "bins": _bins(_sigmoid(margins), share, groups),
    }


def _log_loss(predicted: Floats, votes_for: Floats, votes: Floats) -> float:
    clipped = np.clip(predicted, 1e-12, 1 - 1e-12)
    return float(-(votes_for * np.log(clipped) + (votes - votes_for) * np.log1p(-clipped)).sum() / votes.sum())


def _bins(predicted: Floats, share: Floats, groups: Any) -> list[dict[str, Any]]:
    """Equally filled bins of sigma(margin): mean prediction, mean vote share with its clustered interval."""
    order = np.argsort(predicted, kind="stable")
    found = []
    for part in np.array_split(order, min(BINS, max(1, len(order) // 10))):
        seen = clustered_mean(share[part], groups[part])
        found.append(
            {
                "predicted": float(predicted[part].mean()),
                "share": seen.value,
                "low": _known(max(seen.low, 0.0)),
                "high": _known(min(seen.high, 1.0)),
                "pairs": len(part),
            }
        )
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
