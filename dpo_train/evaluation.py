"""Score a frozen set of pairs with the policy as it is, every pair once, in the order asked for.

Processes share the pairs out and gather the numbers. At step 0 nothing is computed: the policy is the reference, so
its numbers are the reference's and margins are exactly 0 (that it truly is, is checked live by
`reference.check_start`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dpo_train.batches import Indices
from dpo_train.logprobs import Sums
from dpo_train.losses.contract import PairLogprobs, PairLoss
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
    places, parts, numbers = [], [], []
    for group, sums in scored(policy, pairs, mine, budget):
        logps = pair_logprobs(sums, reference, pairs, group, policy.device, pairs.encoded(group))
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


def together(parts: Sequence[PairLogprobs]) -> PairLogprobs:
    """Parts of one set of pairs as one, in the order given, on the CPU: other processes' lie on other devices."""
    columns: list[Any] = [
        None if values[0] is None else torch.cat([value.detach().cpu() for value in values])
        for values in zip(*parts, strict=True)
    ]
    return PairLogprobs(*columns)


def gather(accelerator: Any, items: list[Any]) -> list[Any]:
    """The lists of all processes, one behind the other, on every process."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    found: list[Any] = gather_object(items)
    return found
