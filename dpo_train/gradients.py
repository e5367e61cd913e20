"""The gradient of one optimiser step: exactly Σ wᵢ ∇lᵢ / n over the step's n pairs, however they are cut up.

Micro-batches and processes only add; nothing is averaged twice, so uneven windows are exact. Gradients of the
processes are summed here and not by a wrapper around the model. A loss over the whole window (`aot`)
first scores the window without gradient, takes the derivative by each log-probability, and then pulls those back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoded_pair import EncodedPair
from dpo_train.data.pairs import PairSet
from dpo_train.distributed import gather, share
from dpo_train.logs.metrics import Floats, PairMetrics, joined, measure
from dpo_train.losses import PairLogprobs, window_gradients
from dpo_train.policy.packing import cut
from dpo_train.reference import memory_of, pair_logprobs
from dpo_train.scoring import ReferencedPairs, Scoring, neutral_point, together
from dpo_train.statistics import Indices

# Called after the gradient of some pairs was added to the parameters' `.grad`: (pairs, their indices).
Observer = Callable[[PairSet, Indices], None]


def add_gradient(
    scoring: Scoring, known: ReferencedPairs, window: Indices, observe: Observer | None = None
) -> PairMetrics:
    """Add Σ wᵢ ∇lᵢ / len(window) to the parameters' `.grad`; returns the window measured, in no particular order.

    Each process takes its share of the window; `processes.share_gradient` makes the sum over processes. Raises
    `TrainError` where memory runs out.
    """
    loss, policy, accelerator, pairs = scoring.loss, scoring.policy, scoring.accelerator, known.pairs
    mine = share(window, accelerator)
    groups = [mine[group] for group in cut(pairs.lengths[mine], scoring.budget, policy.beyond(pairs.ends[mine]))]
    neutral = neutral_point(scoring, known, mine)
    idle = policy.idle(len(groups), pairs)

    def score(places: Indices) -> PairLogprobs:
        encoded = pairs.encoded(places)
        sums = policy.score(encoded)
        return pair_logprobs(sums, known.reference, pairs, places, policy.device, encoded, neutral)

    parts: list[PairMetrics] = []
    with policy.learning(), memory_of(pairs, mine, scoring.budget):
        told = _window_slopes(scoring, pairs, groups, idle, score) if loss.scope == "window" else None
        for number, places in enumerate(groups):
            logps = score(places)
            weights = pairs.weights[places]
            part = measure(loss, logps, weights)
            if told is None:
                total = (loss(logps) * torch.from_numpy(weights).to(policy.device)).sum()
            else:
                part = part._replace(loss=told[number].loss)
                total = _pull(logps, told[number].slopes)
            accelerator.backward(total / len(window))
            if observe is not None:
                observe(pairs, places)  # the gradient of exactly these pairs has just been added
            parts.append(part)
        for nothing in idle:
            accelerator.backward(0 * policy.score(nothing).chosen.sum())
    measured = joined(gather(accelerator, [joined(parts)] if parts else []))
    scoring.seen.update(measured)
    return measured


class _Told(NamedTuple):
    """What the whole window says of some of its pairs: their losses, and d (Σ wᵢ lᵢ) / d (each log-probability)."""

    loss: Floats
    slopes: dict[str, Tensor]


def _window_slopes(
    scoring: Scoring,
    pairs: PairSet,
    groups: Sequence[Indices],
    idle: Sequence[Sequence[EncodedPair]],
    score: Callable[[Indices], PairLogprobs],
) -> list[_Told]:
    """Of each of this process's groups, the window of all processes in view.

    The random numbers are put back, so that the second pass meets the very dropout of this one.
    """
    policy, accelerator = scoring.policy, scoring.accelerator
    devices = [policy.device] if policy.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        mine = [(score(places), pairs.weights[places]) for places in groups]
        for nothing in idle:
            policy.score(nothing)
    mine = [(together([logps]), weights) for logps, weights in mine]
    everyone = gather(accelerator, mine)
    first = sum(gather(accelerator, [len(mine)])[: accelerator.process_index])
    weights = torch.from_numpy(np.concatenate([weight for _, weight in everyone]))
    values, gradients = window_gradients(scoring.loss, together([part for part, _ in everyone]), weights)
    sizes = [len(part.chosen) for part, _ in everyone]
    losses = torch.split(values, sizes)[first : first + len(mine)]
    split = {name: torch.split(value, sizes)[first : first + len(mine)] for name, value in gradients.items()}
    return [
        _Told(losses[number].numpy(), {name: value[number].to(policy.device) for name, value in split.items()})
        for number in range(len(mine))
    ]


def _pull(logps: PairLogprobs, slopes: Mapping[str, Tensor]) -> Tensor:
    """A scalar whose gradient is that of the window's loss through these pairs."""
    return torch.stack([(getattr(logps, name) * slope).sum() for name, slope in slopes.items()]).sum()


def check_gradient(norm: float, step: int, config: TrainConfig, going_on: str) -> None:
    """Refuse a step along a gradient that is not finite, before the weights are touched; `going_on` ends the sentence.

    Raises `TrainError`.
    """
    if not math.isfinite(norm):
        raise TrainError(
            f"the gradient of step {step} is {norm}: the weights were left as they were before it. Lower learning_rate "
            f"({config.rate:g}), or beta ({config.beta:g}) where margins have grown large, or set dtype to float32 "
            f"(it is {config.dtype}). {going_on}"
        )


def random_of_step(seed: int, step: int) -> None:
    """Set torch's generator for one step: adapter dropout is a function of seed and step, so resuming repeats it."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1)))
