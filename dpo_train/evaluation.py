"""Score a frozen set of pairs with the policy as it is, every pair once, in the order asked for.

Processes share the pairs out and gather the numbers. At step 0 nothing is computed: the policy is the reference, so
its numbers are the reference's and margins are exactly 0 (that it truly is, is checked live by
`reference.check_start`).
"""

from __future__ import annotations

import numpy as np
import torch

from dpo_train.distributed import gather, share
from dpo_train.logs.metrics import PairMetrics, joined, measure
from dpo_train.policy.logprobs import Sums
from dpo_train.reference import pair_logprobs, scored
from dpo_train.scoring import ReferencedPairs, Scoring, neutral_point, together
from dpo_train.statistics import Indices


def evaluate(scoring: Scoring, known: ReferencedPairs, indices: Indices) -> PairMetrics:
    """The pairs at `indices`, measured live, in that order, on every process."""
    loss, policy, accelerator, pairs = scoring.loss, scoring.policy, scoring.accelerator, known.pairs
    mine = share(indices, accelerator)
    neutral = neutral_point(scoring, known, mine)
    places, parts, numbers = [], [], []
    for group, sums in scored(policy, pairs, mine, scoring.budget):
        logps = pair_logprobs(sums, known.reference, pairs, group, policy.device, pairs.encoded(group), neutral)
        parts.append(measure(loss, logps, pairs.weights[group]))
        numbers.append(logps)
        places.append(group)
    if loss.scope == "window":  # the loss of a pair depends on all others, and not on how they were cut up
        values, sizes = loss(together(gather(accelerator, numbers))), [len(part.loss) for part in parts]
        before = sum(gather(accelerator, [sum(sizes)])[: accelerator.process_index])
        own = torch.split(values[before : before + sum(sizes)], sizes)
        parts = [part._replace(loss=value.cpu().numpy()) for part, value in zip(parts, own, strict=True)]
    gathered = gather(accelerator, [(np.concatenate(places), joined(parts))] if parts else [])
    seen = np.concatenate([group for group, _ in gathered])
    order = np.argsort(seen)[np.argsort(np.argsort(indices))]
    return PairMetrics(*(column[order] for column in joined([part for _, part in gathered])))


def at_start(scoring: Scoring, known: ReferencedPairs, indices: Indices) -> PairMetrics:
    """The same before the first step, from the reference alone where the loss needs nothing else."""
    if "chosen_collision" in scoring.loss.needs:
        return evaluate(scoring, known, indices)
    device, pairs = scoring.policy.device, known.pairs
    here = known.reference.of(indices, device)
    sums = Sums(here["ref_chosen"], here["ref_rejected"], here["ref_chosen_prefix"], here["ref_rejected_prefix"])
    with torch.no_grad():
        logps = pair_logprobs(sums, known.reference, pairs, indices, device, pairs.encoded(indices))
        return measure(scoring.loss, logps, pairs.weights[indices])
