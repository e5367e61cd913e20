"""Slices nobody declared: conjunctions of two or three levels that move otherwise, found on half the prompts.

A beam search over axis levels on half A; a conjunction counts only as far as every one of its levels matters, that is
by its weakest contrast against the pairs that differ in that level alone. What half A proposes is tested on half B
with its own Benjamini-Hochberg family, and only what stands there is told, with both values side by side: the one from
half A is too large by the winner's curse.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dpo_train.data.axes import UNKNOWN, Axis
from dpo_train.slices.margin_change import Movement, subset
from dpo_train.statistics import Bools, Estimate, benjamini_hochberg, contrast, p_value

SMALLEST = 20  # prompts of a conjunction in each half
BEAM, DEPTH, PROPOSED = 12, 3, 8
Q = 0.10

Condition = tuple[tuple[str, int], ...]  # (axis, level code), sorted by axis


class Discovered(NamedTuple):
    """A confirmed conjunction: its movement against the pairs outside it, in both halves."""

    words: str
    pairs: int
    prompts: int
    found: Estimate  # half A
    confirmed: Estimate  # half B
    p_adjusted: float


def halves(moved: Movement, seed: int = 0) -> tuple[Bools, Bools]:
    """Prompts split in two at random, for good: the same prompts give the same halves."""
    prompts = int(moved.groups.max()) + 1 if len(moved.groups) else 0
    first = np.random.default_rng(seed).permutation(prompts) < prompts // 2
    return first[moved.groups], ~first[moved.groups]


def _members(axes: dict[str, Axis], condition: Condition) -> Bools:
    inside = np.ones(len(next(iter(axes.values())).codes), dtype=bool)
    for name, code in condition:
        inside &= axes[name].codes == code
    return inside


def _weakest(moved: Movement, axes: dict[str, Axis], condition: Condition) -> Estimate | None:
    """The contrast of a conjunction inside each of its parents, the least certain of them; None where it is small."""
    inside = _members(axes, condition)
    if len(np.unique(moved.groups[inside])) < SMALLEST:
        return None
    weakest: Estimate | None = None
    for left_out in range(len(condition)):
        parent = _members(axes, condition[:left_out] + condition[left_out + 1 :])
        if len(np.unique(moved.groups[parent & ~inside])) < SMALLEST:
            return None
        found = contrast(moved.margin[parent], inside[parent], moved.groups[parent])
        if not found.error > 0:
            return None
        if weakest is None or abs(found.value) / found.error < abs(weakest.value) / weakest.error:
            weakest = found
    return weakest


def propose(moved: Movement, axes: dict[str, Axis]) -> list[Condition]:
    """The best conjunctions of two and three levels by their weakest contrast, best first."""
    levels = [(name, code) for name, axis in axes.items() for code, level in enumerate(axis.levels) if level != UNKNOWN]
    beam: list[Condition] = [(level,) for level in levels]
    scored: dict[Condition, float] = {}
    for _ in range(DEPTH - 1):
        grown = {
            tuple(sorted((*condition, level)))
            for condition in beam
            for level in levels
            if level[0] not in {name for name, _ in condition}
        }
        here = {}
        for condition in sorted(grown):
            found = _weakest(moved, axes, condition)
            if found is not None:
                here[condition] = abs(found.value) / found.error
        scored |= here
        beam = sorted(here, key=lambda condition: (-here[condition], condition))[:BEAM]
    return sorted(scored, key=lambda condition: (-scored[condition], condition))[:PROPOSED]


def discover(moved: Movement, axes: dict[str, Axis], seed: int = 0) -> list[Discovered]:
    """Conjunctions proposed on half A that stand on half B; an empty list is the usual and honest answer."""
    first, second = halves(moved, seed)
    if not axes or not len(moved.margin):
        return []

    def part(keep: Bools) -> tuple[Movement, dict[str, Axis]]:
        return subset(moved, keep), {name: axis._replace(codes=axis.codes[keep]) for name, axis in axes.items()}

    (half_a, axes_a), (half_b, axes_b) = part(first), part(second)
    proposed = propose(half_a, axes_a)
    tested = [_weakest(half_b, axes_b, condition) for condition in proposed]
    adjusted = benjamini_hochberg(np.array([np.nan if found is None else p_value(found) for found in tested]))
    confirmed: list[Discovered] = []
    for condition, found, p in zip(proposed, tested, adjusted, strict=True):
        seen = _weakest(half_a, axes_a, condition)
        if found is None or seen is None or not p <= Q or found.value * seen.value < 0:
            continue
        inside = _members(axes, condition)
        words = " and ".join(f"{name} = {axes[name].levels[code]}" for name, code in condition)
        sides = [
            contrast(half.margin, _members(cut, condition), half.groups)
            for half, cut in ((half_a, axes_a), (half_b, axes_b))
        ]
        prompts = len(np.unique(moved.groups[inside]))
        confirmed.append(Discovered(words, int(inside.sum()), prompts, sides[0], sides[1], float(p)))
    return confirmed


def rows(found: list[Discovered]) -> list[dict[str, Any]]:
    """Plain JSON types for the report."""
    return [
        {
            "slice": one.words,
            "pairs": one.pairs,
            "prompts": one.prompts,
            "found": one.found.value,
            "confirmed": one.confirmed.value,
            "confirmed_low": one.confirmed.low,
            "confirmed_high": one.confirmed.high,
            "p_adjusted": one.p_adjusted,
        }
        for one in found
    ]
