"""Two slices at once: where a crossing moved otherwise than its two slices add up to.

Looked for only under axes that explain more than chance does (their permutation test passed), since every crossing of
a slice that moves also moves; so each is compared with the sum of its two main effects, fitted on all pairs. Families:
the crossings under each such axis, at q times the share of axes that passed (Benjamini & Bogomolov 2014).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dpo_train.data.axes import FEWEST, Axis
from dpo_train.slices.adjusted import Explained
from dpo_train.slices.margin_change import Movement
from dpo_train.statistics import Bools, Estimate, Floats, benjamini_hochberg, clustered_mean, p_value

Q = 0.10
PASSED = 0.05  # p of the permutation test of an axis


def crossings(moved: Movement, axes: dict[str, Axis], ranked: Sequence[Explained]) -> dict[str, Any]:
    """`axes` that passed, how many crossings were `tested`, and the `rows` that stand, strongest first.

    A row: slice, pairs, prompts, movement, expected (sum of the main effects), beyond with interval, p_adjusted.
    """
    passed = [one.axis for one in ranked if one.p <= PASSED]
    level = Q * len(passed) / max(len(ranked), 1)
    rows: list[dict[str, Any]] = []
    tested = 0
    for axis in passed:
        family = [
            (names, members, expected, clustered_mean((moved.margin - expected)[members], moved.groups[members]))
            for other in axes
            if other != axis and not (other in passed and passed.index(other) < passed.index(axis))
            for names, members, expected in _crossed(moved, (axis, axes[axis]), (other, axes[other]))
        ]
        tested += len(family)
        adjusted = benjamini_hochberg(np.array([p_value(found) for *_, found in family]))
        rows += [
            _row(moved, names, members, expected, found, float(p))
            for (names, members, expected, found), p in zip(family, adjusted, strict=True)
            if p <= level
        ]
    return {"axes": passed, "tested": tested, "rows": sorted(rows, key=lambda row: (row["p_adjusted"], row["slice"]))}


def _crossed(moved: Movement, first: tuple[str, Axis], second: tuple[str, Axis]) -> Iterator[tuple[str, Bools, Floats]]:
    """Crossings of two axes with enough prompts, and what the main effects alone expect of every pair."""
    (one, rows), (two, columns) = first, second
    design = np.hstack([np.eye(len(rows.levels))[rows.codes], np.eye(len(columns.levels))[columns.codes]])
    expected = design @ np.linalg.lstsq(design, moved.margin, rcond=None)[0]
    for i, left in enumerate(rows.levels):
        for j, right in enumerate(columns.levels):
            members = (rows.codes == i) & (columns.codes == j)
            # a crossing that is the whole of one of its slices is no crossing
            alone = members.sum() in ((rows.codes == i).sum(), (columns.codes == j).sum())
            if not alone and len(np.unique(moved.groups[members])) >= FEWEST:
                yield f"{one} = {left} and {two} = {right}", members, expected


def _row(moved: Movement, names: str, members: Bools, expected: Floats, found: Estimate, p: float) -> dict[str, Any]:
    return {
        "slice": names,
        "pairs": int(members.sum()),
        "prompts": len(np.unique(moved.groups[members])),
        "movement": float(moved.margin[members].mean()),
        "expected": float(expected[members].mean()),
        "beyond": found.value,
        "beyond_low": None if math.isnan(found.low) else found.low,
        "beyond_high": None if math.isnan(found.high) else found.high,
        "p_adjusted": p,
    }
