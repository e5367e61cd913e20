"""When to stop: held-out margins have flattened, or held-out log-loss has turned.

Margins rise more slowly as the learning rate decays, so the rule looks at movement per unit of learning rate spent,
over windows of three evaluations, paired within each pair and clustered by prompt. It saves time; it does not judge
quality. Rising margins are no reason to go on, since log-loss can turn while they still grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpo_train.statistics import clustered_mean

Floats = npt.NDArray[np.float64]

WINDOW = 3  # evaluations a window spans
FLAT = 0.1  # of the fastest movement seen: below it the margins count as flat
WINDOWS = 2  # flat windows in a row before the run stops


class Evaluation(NamedTuple):
    """Held-out margins and log-losses (pairs,) at a step; `spent` is the sum of learning rates up to it."""

    step: int
    spent: float
    margin: Floats
    log_loss: Floats


def as_tensors(history: Sequence[Evaluation]) -> dict[str, Tensor]:
    """The evaluations for a checkpoint: step and spent (evaluations,), margin and log_loss (evaluations, pairs)."""
    columns = {name: [getattr(seen, name) for seen in history] for name in Evaluation._fields}
    return {name: torch.from_numpy(np.array(values)) for name, values in columns.items()} if history else {}


def from_tensors(saved: Mapping[str, Tensor]) -> list[Evaluation]:
    """The evaluations that `as_tensors` gave, in their order."""
    if not saved:
        return []
    columns = {name: saved[name].numpy() for name in Evaluation._fields}
    rows = zip(*(columns[name] for name in Evaluation._fields), strict=True)
    return [Evaluation(int(step), float(spent), margin, log_loss) for step, spent, margin, log_loss in rows]


def flattened(history: Sequence[Evaluation], prompts: Sequence[str]) -> str | None:
    """Why the run should stop now, in words, or None.

    `history` holds the same pairs in the same order at every evaluation, step 0 first; `prompts` (pairs,) clusters
    them. At evaluation t: d = margin(t) − margin(t−3), r = mean(d) / learning rate spent between. Stop when the upper
    95 % bound of r stays below a tenth of the largest r so far for two windows in a row, or when the log-loss grew
    over the window with a lower 95 % bound above 0.
    """
    if len(history) <= WINDOW:
        return None
    groups = np.unique(np.asarray(prompts), return_inverse=True)[1]
    now, before = history[-1], history[-1 - WINDOW]
    worse = clustered_mean(now.log_loss - before.log_loss, groups)
    if worse.low > 0:
        return (
            f"held-out log-loss has turned: between steps {before.step} and {now.step} it grew by {worse.value:.4f} "
            f"(95 % interval {worse.low:.4f} to {worse.high:.4f}, {worse.pairs} pairs of {worse.prompts} prompts)"
        )
    ends = range(WINDOW, len(history))
    speeds = [_speed(history[end - WINDOW], history[end], groups) for end in ends]
    fastest = max(speed for speed, _ in speeds)
    recent = speeds[-WINDOWS:]
    if len(recent) == WINDOWS and fastest > 0 and all(upper < FLAT * fastest for _, upper in recent):
        return (
            f"held-out margins are flat: per unit of learning rate they move at most {recent[-1][1] / fastest:.0%} as "
            f"fast as at their fastest, in {WINDOWS} windows of {WINDOW} evaluations in a row (upper 95 % bound, "
            f"clustered by prompt; the limit is {FLAT:.0%}), last at step {now.step}"
        )
    return None


def candidates(before: Sequence[Evaluation], now: Evaluation, prompts: Sequence[str]) -> list[Evaluation]:
    """The evaluations whose weights may yet be kept, earliest first: those within one standard error of the best.

    `before` are the candidates so far. The error is of the paired difference in log-loss from the best, clustered by
    prompt (one-standard-error rule, Breiman et al. 1984, section 3.4.3, there unpaired). An evaluation that fell behind
    is out for good, and untrained weights stay only while nothing is better.
    """
    groups = np.unique(np.asarray(prompts), return_inverse=True)[1]
    seen = [*before, now]
    best = min(seen, key=lambda one: float(one.log_loss.mean()))
    return [one for one in seen if one is best or (one.step > 0 and _as_good(one, best, groups))]


def _as_good(one: Evaluation, best: Evaluation, groups: npt.NDArray[np.intp]) -> bool:
    behind = clustered_mean(one.log_loss - best.log_loss, groups)
    return bool(behind.value <= behind.error)  # an unknown error (one prompt) excuses nothing


def _speed(before: Evaluation, now: Evaluation, groups: npt.NDArray[np.intp]) -> tuple[float, float]:
    """Mean movement per unit of learning rate, and its upper 95 % bound."""
    spent = now.spent - before.spent
    if spent <= 0:
        return 0.0, float("inf")
    moved = clustered_mean(now.margin - before.margin, groups)
    return moved.value / spent, moved.high / spent if not np.isnan(moved.high) else float("inf")
