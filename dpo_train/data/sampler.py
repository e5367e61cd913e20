"""Sampler: which pairs each optimizer step takes, a function of the seed and the step alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dpo_train.statistics import Indices


class Schedule(NamedTuple):
    """Which pairs each optimiser step takes: every epoch a new permutation by seed, the last window may be short."""

    pairs: int
    per_step: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the pairs, the uneven last one included."""
        return -(-self.pairs // self.per_step)

    def window(self, step: int) -> Indices:
        """Indices of the pairs of optimiser step `step` (from 0): a function of the seed and the step, nothing else."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.pairs)
        return order[place * self.per_step : (place + 1) * self.per_step]
