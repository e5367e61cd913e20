"""Score a frozen set of pairs with the policy as it is, every pair once, in the order asked for.

Processes share the pairs out and gather the numbers. At step 0 nothing is computed: the policy is the reference, so
its numbers are the reference's and margins are exactly 0 (that it truly is, is checked live by
`reference.check_start`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dpo_train.batches import Indices
from dpo_train.logprobs import Sums
from dpo_train.losses_contract import PairLoss
from dpo_train.metrics import Measured, joined, measure
from dpo_train.model import Policy
from dpo_train.pairs import PairSet
from dpo_train.reference import Reference, pair_logprobs, scored


def evaluate(
    loss: PairLoss,
    policy: Policy,
    pairs: PairSet,
    reference: Reference,
    indices: Indices,
    budget: int,
    accelerator: Any,
) -> Measured:
    """The pairs at `indices`, measured live, in that order, on every process."""
    mine = indices[accelerator.process_index :: accelerator.num_processes]
    places, parts = [], []
    for group, sums in scored(policy, pairs, mine, budget):
        encoded = pairs.encoded(group)
        parts.append(
            measure(loss, pair_logprobs(sums, reference, pairs, group, policy.device, encoded), pairs.weights[group])
        )
        places.append(group)
    gathered = gather(accelerator, [(np.concatenate(places), joined(parts))] if parts else [])
    seen = np.concatenate([group for group, _ in gathered])
    order = np.argsort(seen)[np.argsort(np.argsort(indices))]
    return Measured(*(column[order] for column in joined([part for _, part in gathered])))


def at_start(
    loss: PairLoss,
    policy: Policy,
    pairs: PairSet,
    reference: Reference,
    indices: Indices,
    budget: int,
    accelerator: Any,
) -> Measured:
    """The same before the first step, from the reference alone where the loss needs nothing else."""
    if "chosen_collision" in loss.needs:
        return evaluate(loss, policy, pairs, reference, indices, budget, accelerator)
    here = reference.of(indices, policy.device)
    sums = Sums(here["ref_chosen"], here["ref_rejected"], here["ref_chosen_prefix"], here["ref_rejected_prefix"])
    with torch.no_grad():
        encoded = pairs.encoded(indices)
        return measure(
            loss, pair_logprobs(sums, reference, pairs, indices, policy.device, encoded), pairs.weights[indices]
        )


def gather(accelerator: Any, items: list[Any]) -> list[Any]:
    """The lists of all processes, one behind the other, on every process."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    found: list[Any] = gather_object(items)
    return found
