"""What every scoring of a run shares, and the rows that are scored with all that is known of them beforehand.

Two losses measure gains and losses from a point that no single row tells: KTO from an estimate of the policy's drift,
BCO from the mean reward so far. `neutral_point` finds it for any set of rows, over all processes. The
running mean is that of the steps before, so that a step needs no pass of its own for it and any cut gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dpo_train.data.mismatched import Mismatched
from dpo_train.data.pairs import PairSet
from dpo_train.distributed import gather
from dpo_train.logs.metrics import PairMetrics
from dpo_train.losses import PairLoss, kl_estimate
from dpo_train.losses.contract import PairLogprobs
from dpo_train.policy.policy import Policy
from dpo_train.reference import Floats, Reference, reference, scored
from dpo_train.statistics import Indices


@dataclass
class RunningMean:
    """Mean log-ratio, nats, of both sides of all pairs trained on so far; goes into a checkpoint and back."""

    total: float = 0.0
    count: int = 0

    def update(self, window: PairMetrics) -> None:
        """Take in the pairs of one step."""
        ratios = (window.logp_chosen - window.ref_chosen, window.logp_rejected - window.ref_rejected)
        order = np.lexsort(ratios)  # the window comes in the order of its passes; the sum must not tell
        self.total += float(sum(ratio[order].sum() for ratio in ratios))
        self.count += 2 * len(window.loss)

    @property
    def value(self) -> float:
        """The mean; 0 before the first step, where policy == reference."""
        return self.total / max(self.count, 1)


@dataclass(frozen=True)
class Scoring:
    """How rows are scored in one run: by which loss and policy, how many tokens a pass, with which other processes."""

    loss: PairLoss
    policy: Policy
    budget: int
    accelerator: Any
    seen: RunningMean = field(default_factory=RunningMean)


@dataclass(frozen=True)
class ReferencedPairs:
    """Rows of one split and what the starting weights say of them; of their mismatches too where the loss asks."""

    pairs: PairSet
    reference: Reference
    mismatched: Mismatched | None = None
    ref_mismatched: Floats | None = None


def with_reference(scoring: Scoring, pairs: PairSet, indices: Indices, cache: Any) -> ReferencedPairs:
    """The rows at `indices` with their references, from the cache or computed now; only before the first step."""
    policy, budget = scoring.policy, scoring.budget
    own = reference(policy, pairs, indices, cache, budget, scoring.accelerator)
    if scoring.loss.neutral != "kl" or not len(indices) or without_estimate(pairs):
        return ReferencedPairs(pairs, own)
    mismatched = Mismatched(pairs)
    other = reference(policy, mismatched, indices, cache, budget, scoring.accelerator)
    return ReferencedPairs(pairs, own, mismatched, other.chosen)


def without_estimate(pairs: PairSet) -> bool:
    """Whether a held-out split has one prompt only, so that the drift cannot be estimated on it; it counts as 0 there.

    In a small set of thumbs a held-out split often has one prompt. The training rows need the estimate: `Mismatched`
    raises for them.
    """
    return pairs.split != "train" and len(set(pairs.prompts)) == 1


def neutral_point(scoring: Scoring, known: ReferencedPairs, mine: Indices) -> float:
    """The log-ratio, nats, that counts as neither gain nor loss among some rows, `mine` being this process's share."""
    if scoring.loss.neutral != "kl":
        return scoring.seen.value
    if known.mismatched is None or known.ref_mismatched is None:
        return 0.0
    found: dict[int, float] = {}
    for places, sums in scored(scoring.policy, known.mismatched, mine, scoring.budget):
        found |= dict(zip(places.tolist(), sums.chosen.double().cpu().tolist(), strict=True))
    rows = gather(scoring.accelerator, [(found[int(k)], float(known.ref_mismatched[k])) for k in mine])
    live, before = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2).T
    return float(kl_estimate(live, before)) if len(rows) else 0.0


def together(parts: Sequence[PairLogprobs]) -> PairLogprobs:
    """Parts of one set of pairs as one, in the order given, on the CPU: other processes' lie on other devices."""
    columns: list[Any] = [
        None
        if values[0] is None
        else values[0].cpu()  # one number for all
        if values[0].dim() == 0
        else torch.cat([value.detach().cpu() for value in values])
        for values in zip(*parts, strict=True)
    ]
    return PairLogprobs(*columns)
