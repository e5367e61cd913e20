"""When an interval of the account ends: at fixed parts of the run at least, sooner where margins move much.

The updates of an interval are attributed along the straight chord between its ends, so an interval must be short
where the way is bent. Fixed edges alone cannot know that. The pace learns it as solvers of differential equations do:
the gap of an interval grows with the square of its movement, so the gap that the last one left says how far the next
may go. Movement is counted in nats of the account's own held-out pairs, not in steps.
"""

from __future__ import annotations

import math

import numpy as np

from dpo_train.statistics import Floats

SAFETY = 0.9  # of the movement that would just do, as step-size control has it (Hairer, Nørsett, Wanner 1993, II.4)


class IntervalScheduler:
    """How far the log-probabilities of the account's pairs may move before an interval ends."""

    def __init__(self, total: int, chords: int, target: float) -> None:
        """`chords` intervals of the `total` steps at least; `target` is the gap that an interval may leave."""
        # Denser at the start, where weights move most.
        self.edges = [round(total * (j / chords) ** 1.5) for j in range(1, chords + 1)]
        self.target = target
        self.reach = math.inf  # nats; nothing is known before the first interval ends
        self.moved = 0.0  # nats since the last edge, at the last evaluation

    def due(self, first_step: int, step: int, change: Floats) -> bool:
        """Whether the interval that began at `first_step` ends at this evaluation.

        `change` (2, pairs) is what both log-probabilities of every pair changed by since then. It ends where another
        evaluation as far as this one would pass the reach.
        """
        moved = float(np.abs(change).sum(axis=0).mean())
        grown, self.moved = moved - self.moved, moved
        return any(first_step < edge <= step for edge in self.edges) or moved + max(grown, 0.0) > self.reach

    def learn(self, gap: float) -> None:
        """The interval has just ended and left this gap."""
        if self.moved > 0:
            self.reach = SAFETY * self.moved * math.sqrt(self.target / max(gap, 1e-12))
        self.moved = 0.0
