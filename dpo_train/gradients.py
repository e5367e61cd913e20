"""The gradient of one optimiser step: exactly Σ wᵢ ∇lᵢ / n over the step's n pairs, however they are cut up.

Micro-batches and processes only add; nothing is averaged twice, so uneven windows are exact. Gradients of the
processes are summed here and not by a wrapper around the model. The surprise: a loss over the whole window (`aot`)
first scores the window without gradient, takes the derivative by each log-probability, and then pulls those back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpo_train.batches import Indices, cut
from dpo_train.config import TrainError
from dpo_train.evaluation import gather
from dpo_train.losses import PairLogprobs, window_gradients
from dpo_train.losses_contract import PairLoss
from dpo_train.metrics import Measured, joined, measure
from dpo_train.model import Policy
from dpo_train.pairs import PairSet
from dpo_train.reference import Reference, pair_logprobs

# Called after the gradient of some pairs was added to the parameters' `.grad`: (pairs, their indices).
Observer = Callable[[PairSet, Indices], None]


def add_gradient(
    loss: PairLoss,
    policy: Policy,
    pairs: PairSet,
    reference: Reference,
    window: Indices,
    budget: int,
    accelerator: Any,
    observe: Observer | None = None,
) -> Measured:
    """Add Σ wᵢ ∇lᵢ / len(window) to the parameters' `.grad`; returns the window measured, in no particular order.

    Each process takes its share of the window; `share_gradient` makes the sum over processes. Raises `TrainError`
    where memory runs out.
    """
    mine = window[accelerator.process_index :: accelerator.num_processes]
    groups = [mine[group] for group in cut(pairs.lengths[mine], budget)]

    def score(places: Indices) -> PairLogprobs:
        encoded = pairs.encoded(places)
        return pair_logprobs(policy.score(encoded), reference, pairs, places, policy.device, encoded)

    parts: list[Measured] = []
    try:
        slopes = _window_slopes(loss, pairs, groups, score, accelerator) if loss.scope == "window" else None
        with policy.learning():
            for number, places in enumerate(groups):
                logps = score(places)
                weights = pairs.weights[places]
                if slopes is None:
                    total = (loss(logps) * torch.from_numpy(weights).to(policy.device)).sum()
                else:
                    total = _pull(logps, slopes[number])
                accelerator.backward(total / len(window))
                if observe is not None:
                    observe(pairs, places)  # the gradient of exactly these pairs has just been added
                parts.append(measure(loss, logps, weights))
    except torch.OutOfMemoryError as error:
        raise TrainError(
            f"memory ran out in a forward pass of at most {budget} padded tokens. Set token_budget to {budget // 2}, "
            f"or gradient_checkpointing to true, or max_length to less; a single row cannot be cut. ({error})"
        ) from error
    return joined(gather(accelerator, [joined(parts)] if parts else []))


def share_gradient(parameters: Mapping[str, nn.Parameter], accelerator: Any) -> None:
    """Sum `.grad` over the processes."""
    if accelerator.num_processes > 1:
        for parameter in parameters.values():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(grad, "sum")


def _window_slopes(
    loss: PairLoss,
    pairs: PairSet,
    groups: Sequence[Indices],
    score: Callable[[Indices], PairLogprobs],
    accelerator: Any,
) -> list[dict[str, Tensor]]:
    """d (Σ wᵢ lᵢ) / d (each log-probability) for each of this process's groups, the window of all processes in view."""
    with torch.no_grad():
        mine = [(score(places), torch.from_numpy(pairs.weights[places])) for places in groups]
    everyone = gather(accelerator, mine)
    first = sum(gather(accelerator, [len(mine)])[: accelerator.process_index])
    fields = zip(*(part for part, _ in everyone), strict=True)
    columns: list[Any] = [None if field[0] is None else torch.cat(field) for field in fields]
    whole = PairLogprobs(*columns)
    weights = torch.cat([weight for _, weight in everyone]).to(whole.chosen.device)
    _, gradients = window_gradients(loss, whole, weights)
    sizes = [len(part.chosen) for part, _ in everyone]
    split = {name: torch.split(value, sizes) for name, value in gradients.items()}
    return [{name: value[first + number] for name, value in split.items()} for number in range(len(mine))]


def _pull(logps: PairLogprobs, slopes: Mapping[str, Tensor]) -> Tensor:
    """A scalar whose gradient is that of the window's loss through these pairs."""
    return torch.stack([(getattr(logps, name) * slope).sum() for name, slope in slopes.items()]).sum()


def random_of_step(seed: int, step: int) -> None:
    """Set torch's generator for one step: adapter dropout is a function of seed and step, so resuming repeats it."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1)))
