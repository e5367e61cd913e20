"""The movement of a slice with every other axis held fixed, and how much of the movement each axis explains.

Crude contrasts mix axes: a source that writes long answers looks like an effect of length. The adjusted effect is
the slice's coefficient in a least-squares fit on the main effects of all axes, against the other slices of its own
axis. Where the data cannot tell two axes apart (they cut the pairs alike), there is no number rather than a guess.
"""

from typing import NamedTuple

import numpy as np

from dpo_train.data.axes import Axis
from dpo_train.slices.margin_change import Movement
from dpo_train.statistics import Estimate, Floats, Ints, estimate

SMALLEST = 10  # prompts of a level that gets a column of its own; smaller levels of an axis share one
PERMUTATIONS = 999


def _columns(axes: dict[str, Axis], groups: Ints) -> tuple[Floats, list[tuple[str, str | None]]]:
    """Indicator columns (pairs, columns) of every level, and whose they are; None names the pooled small levels."""
    columns: list[Floats] = [np.ones(len(groups))]
    owners: list[tuple[str, str | None]] = [("", None)]
    for name, axis in axes.items():
        pooled = np.zeros(len(groups))
        for code, level in enumerate(axis.levels):
            members = axis.codes == code
            if len(np.unique(groups[members])) < SMALLEST:
                pooled += members
            else:
                columns.append(members.astype(float))
                owners.append((name, level))
        if pooled.any():
            columns.append(pooled)
            owners.append((name, None))
    return np.column_stack(columns), owners


def adjusted_effects(moved: Movement, axes: dict[str, Axis]) -> dict[tuple[str, str], Estimate]:
    """Effect of each slice against the rest of its axis, other axes fixed, clustered by prompt (CR1).

    The fit is the minimum-norm one; a contrast that the design does not determine is left out.
    """
    if len(axes) < 2:
        return {}
    design, owners = _columns(axes, moved.groups)
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True)
    coefficients = inverse @ design.T @ moved.margin
    residual = moved.margin - design @ coefficients
    prompts = int(moved.groups.max()) + 1
    rank = round(float(np.trace(inverse @ design.T @ design)))
    if prompts <= rank:
        return {}
    scores = np.zeros((prompts, design.shape[1]))
    np.add.at(scores, moved.groups, design * residual[:, None])
    n = len(moved.margin)
    # The usual finite-sample factor of CR1 for a regression with `rank` free coefficients.
    factor = prompts / (prompts - 1) * (n - 1) / max(n - rank, 1)
    found: dict[tuple[str, str], Estimate] = {}
    for place, (axis, level) in enumerate(owners):
        if level is None:
            continue
        wanted = _against_rest(design, owners, place)
        if not np.allclose(wanted @ inverse @ design.T @ design, wanted, atol=1e-6):
            continue
        influence = scores @ (inverse @ wanted)
        members = design[:, place] > 0
        inside = len(np.unique(moved.groups[members]))
        # Judged by the prompts inside, or the free ones where those are fewer.
        freedom = min(inside, prompts - inside, prompts - rank) - 1 if inside < prompts else prompts - rank
        value = float(wanted @ coefficients)
        variance = factor * float(influence @ influence)
        found[axis, level] = estimate(value, variance, int(members.sum()), inside, max(freedom, 1))
    return found


def _against_rest(design: Floats, owners: list[tuple[str, str | None]], place: int) -> Floats:
    """The linear form "this level minus the pair-weighted mean of its axis' other levels"."""
    wanted = np.zeros(len(owners))
    others = [i for i, (axis, _) in enumerate(owners) if axis == owners[place][0] and i != place]
    sizes = design[:, others].sum(axis=0)
    wanted[place] = 1.0
    if others:
        wanted[others] = -sizes / sizes.sum()
    return wanted


class Explained(NamedTuple):
    """How much of the pairs' differences in movement an axis explains, and how often chance explains as much."""

    axis: str
    omega_squared: float  # bias-corrected share of variance; below 0 means nothing
    p: float
    levels: int


def _shuffled(groups: Ints, draws: int, seed: int) -> Ints:
    """Row orders (draws, pairs) that swap whole prompts of equal size, so that a prompt's pairs stay together."""
    generator = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows = np.tile(np.arange(len(groups)), (draws, 1))
    for size in np.unique(sizes[sizes > 0]):
        blocks = order[starts[sizes == size][:, None] + np.arange(size)]
        shuffles = generator.permuted(np.tile(np.arange(len(blocks)), (draws, 1)), axis=1)
        rows[:, blocks.ravel()] = blocks[shuffles].reshape(draws, -1)
    return rows


def rank_axes(moved: Movement, axes: dict[str, Axis], draws: int = PERMUTATIONS, seed: int = 0) -> list[Explained]:
    """Axes by the share of variance of movement between pairs that they explain, largest first.

    omega^2 = (SSB - (k-1) MSW) / (SST + MSW); p by permuting movements among prompts with equally many pairs.
    """
    n, values = len(moved.margin), moved.margin - moved.margin.mean()
    total = float(values @ values)
    if not axes or total <= 0 or n <= 2:
        return []
    block = max(1, min(draws, 2_000_000 // n))
    seeds = range(seed, seed + -(-draws // block))
    shuffled = [values[_shuffled(moved.groups, block, one)] for one in seeds]
    found = []
    for name, axis in axes.items():
        k = len(axis.levels)
        sizes = np.bincount(axis.codes, minlength=k)
        indicators = np.eye(k)[axis.codes]
        between = float(((values @ indicators) ** 2 / sizes).sum())
        chance = np.concatenate([((part @ indicators) ** 2 / sizes).sum(axis=1) for part in shuffled])
        within = (total - between) / max(n - k, 1)
        omega = (between - (k - 1) * within) / (total + within)
        p = (1 + int((chance >= between * (1 - 1e-12)).sum())) / (1 + len(chance))
        found.append(Explained(name, omega, p, k))
    return sorted(found, key=lambda one: (-one.omega_squared, one.axis))
