"""The update ledger: whose gradients moved the weights, bucket by bucket, adding up exactly to the movement.

Adam's step is linear in the gradients once the step's clip factor and second moment are fixed, so first moments kept
per bucket give each bucket its part of every step: theta_T - theta_0 = sum_k D_k + decay + residual. The second
account, "reallocated", is the derivative of the steps by each bucket's weight; it adds to zero, since Adam's step does
not grow when all gradients do. (Per-sample form: ExPLAIND, arXiv 2505.20076.) Beside them, as a baseline for both,
TracIn's rate times gradient (Pruthi et al. 2020, arXiv 2002.08484). The ledger only listens: gradients of single pairs
are read off the inputs and output gradients of the adapter's linear maps, and the weights of a run with it are those
of a run without it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpo_train.config import TrainError

GROUPS = 8  # hash groups of prompts inside each slice, from which standard errors come
STATES = 7  # float rows of the length of the weights that the ledger holds for each bucket, the gradient included
EXTRA = ("unbooked gradient", "weight decay", "rounding")  # accounts of no slice


class Plan(NamedTuple):
    """How many hash groups fit into the memory granted; 0 when not even one does."""

    groups: int
    bytes: int


def plan(weights: int, slices: int, limit: int, groups: int = GROUPS, itemsize: int = 4) -> Plan:
    """The most hash groups (a halving of `groups`) whose buckets stay within `limit` bytes."""
    while groups >= 2:
        needed = STATES * (slices * groups + 1) * weights * itemsize
        if needed <= limit:
            return Plan(groups, needed)
        groups //= 2
    return Plan(0, STATES * (2 * slices + 1) * weights * itemsize)


def cannot_book(network: nn.Module, parameters: Mapping[str, nn.Parameter]) -> str | None:
    """Why single pairs' gradients of these weights cannot be read off; None when they can."""
    known = {id(part) for module in network.modules() if isinstance(module, nn.Linear) for part in module.parameters()}
    others = [name for name, parameter in parameters.items() if id(parameter) not in known]
    if not others:
        return None
    return f"{len(others)} trained tensors are no linear maps (first {others[0]}); use adapters without DoRA"


class Interval(NamedTuple):
    """What happened between two edges: weights (weights,) at both, and the accounts (buckets + EXTRA, weights)."""

    first_step: int
    last_step: int
    before: Tensor
    after: Tensor
    pushed: Tensor  # rows add to after - before
    reallocated: Tensor  # rows of the buckets alone; they add to about zero
    tracin: Tensor  # rows of the buckets alone: what plain gradient descent would have moved, a baseline


class UpdateLedger:
    """Books every optimizer step of one run. Call order in the loop, nothing else is needed:

    `book(codes, lengths)` after the backward pass of some pairs, `step(norm)` after `optimizer.step()` and before the
    gradients are cleared, `close()` wherever an interval ends.
    """

    def __init__(
        self,
        network: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        buckets: Sequence[str],
        max_norm: float,
    ) -> None:
        """Raises `TrainError` where the optimizer is not AdamW or the weights are not all in linear maps."""
        reason = cannot_book(network, parameters)
        if not isinstance(optimizer, torch.optim.AdamW):
            reason = f"the optimizer is {type(optimizer).__name__}, and only AdamW's step can be split"
        if reason is not None:
            raise TrainError(f"the update ledger cannot account for this run: {reason}. Turn it off.")
        self.parameters, self.optimizer = parameters, optimizer
        self.buckets, self.max_norm = list(buckets), max_norm
        first = next(iter(parameters.values()))
        self.size = sum(parameter.numel() for parameter in parameters.values())
        empty = torch.zeros(0, dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)
        rows = len(buckets) + 1  # the last: what no bucket booked
        self.gradient, self.moment, self.pushed, self.moment_slope, self.square_slope, self.reallocated, self.tracin = (
            empty.new_zeros(rows, self.size) for _ in range(STATES)
        )
        self.decayed = empty.new_zeros(self.size)
        self.steps, self.first_step = 0, 0
        self.before = self.weights()
        self._places = self._places_of_weights()
        self._heard: list[tuple[nn.Linear, Tensor, Tensor]] = []
        self._listening = True
        self._hooks = [
            module.register_forward_hook(self._listen)
            for module in network.modules()
            if isinstance(module, nn.Linear) and id(module.weight) in self._places
        ]

    def _places_of_weights(self) -> dict[int, slice]:
        places, start = {}, 0
        for parameter in self.parameters.values():
            places[id(parameter)] = slice(start, start + parameter.numel())
            start += parameter.numel()
        return places

    def weights(self) -> Tensor:
        """All trained weights in one vector (weights,)."""
        return _flat(parameter.detach() for parameter in self.parameters.values())

    def _listen(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not (self._listening and output.requires_grad and isinstance(module, nn.Linear)):
            return
        read = inputs[0].detach()
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda slope: self._heard.append((module, read, slope.detach()))
        )

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Backward passes in here are no part of training."""
        self._listening = False
        try:
            yield
        finally:
            self._listening = True

    def book(self, codes: Sequence[int], lengths: Sequence[int]) -> None:
        """Put the gradient just added for some pairs into their buckets; `codes` (pairs,) in the order of scoring.

        A pair is one row of the batch, or two rows in a row (chosen, rejected), or one row holds all pairs one after
        the other: then `lengths` (pairs,) says how many tokens each has in it.
        """
        for module, read, slope in self._heard:
            tokens, slopes = _by_pair(read, lengths), _by_pair(slope, lengths)
            for code, a, g in zip(codes, tokens, slopes, strict=True):
                a, g = a.to(self.gradient.dtype), g.to(self.gradient.dtype)
                self.gradient[code, self._places[id(module.weight)]] += (g.T @ a).flatten()
                if module.bias is not None and id(module.bias) in self._places:
                    self.gradient[code, self._places[id(module.bias)]] += g.sum(0)
        self._heard.clear()

    @torch.no_grad()
    def step(self, norm: float, accelerator: Any = None) -> None:
        """Split the step just taken; `norm` is the gradient's before clipping, `.grad` still the clipped one."""
        booked = self.gradient[:-1]
        if accelerator is not None and accelerator.num_processes > 1:
            booked.copy_(accelerator.reduce(booked, "sum"))
        clip = min(1.0, self.max_norm / (norm + 1e-6))  # as torch.nn.utils.clip_grad_norm_
        whole = _flat(_gradient(parameter) for parameter in self.parameters.values()).to(self.gradient.dtype)
        booked *= clip
        self.gradient[-1] = whole - booked.sum(0)
        adam = _Adam.read(self.optimizer, self.parameters)
        scale = -adam.rate / adam.bias1
        self.moment.lerp_(self.gradient, 1 - adam.beta1)
        self.pushed += scale * self.moment / adam.divisor
        self.tracin -= adam.rate * self.gradient
        if adam.decay.any():
            update = scale * adam.moment / adam.divisor
            shrink = adam.rate * adam.decay
            self.decayed -= shrink / (1 - shrink) * (self.weights() - update)
        self._reallocate(whole, clip < 1, adam, scale)
        self.gradient.zero_()
        self.steps += 1

    def _reallocate(self, whole: Tensor, clipped: bool, adam: _Adam, scale: float) -> None:
        """Derivative of the step by each bucket's weight, at fixed raw gradients (clip factor and moments follow)."""
        slope = self.gradient
        if clipped:
            slope -= (self.gradient @ whole / (whole @ whole))[:, None] * whole
        self.moment_slope.lerp_(slope, 1 - adam.beta1)
        self.square_slope.lerp_(2 * whole * slope, 1 - adam.beta2)
        root = adam.root
        bent = torch.where(root > 0, adam.moment / (2 * root * adam.divisor**2), 0.0) / adam.bias2
        self.reallocated += scale * (self.moment_slope / adam.divisor - self.square_slope * bent)

    def close(self) -> Interval:
        """End the interval here and begin the next one."""
        after = self.weights()
        rounding = (after - self.before) - self.pushed.sum(0) - self.decayed
        pushed = torch.cat([self.pushed, self.decayed[None], rounding[None]])
        reallocated, tracin = self.reallocated[:-1].clone(), self.tracin[:-1].clone()
        found = Interval(self.first_step, self.steps, self.before, after, pushed, reallocated, tracin)
        for state in (self.pushed, self.reallocated, self.tracin, self.decayed):
            state.zero_()
        self.before, self.first_step = after, self.steps
        return found

    def state(self) -> dict[str, Tensor]:
        """All that `resume` needs, as plain tensors."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "steps": torch.tensor([self.steps, self.first_step])}

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's `state`; raises `TrainError` where its buckets are others."""
        if state["moment"].shape != self.moment.shape:
            raise TrainError(
                f"the checkpoint's ledger holds {tuple(state['moment'].shape)} (buckets, weights), this run "
                f"{tuple(self.moment.shape)}; resume with the same slices, groups and adapter."
            )
        for name in _KEPT:
            getattr(self, name).copy_(state[name])
        self.steps, self.first_step = (int(number) for number in state["steps"])

    def remove(self) -> None:
        """Stop listening to the network."""
        for hook in self._hooks:
            hook.remove()


_KEPT = ("moment", "pushed", "moment_slope", "square_slope", "reallocated", "tracin", "decayed", "before")


class _Adam(NamedTuple):
    """The optimizer's own numbers after its step: shared by all buckets, never split."""

    rate: float
    decay: Tensor  # of each weight: norms and biases have none
    beta1: float
    beta2: float
    bias1: float
    bias2: float
    moment: Tensor
    root: Tensor  # square root of the bias-corrected second moment
    divisor: Tensor  # root + epsilon

    @staticmethod
    def read(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> _Adam:
        group = optimizer.param_groups[0]
        decays = {id(one): part["weight_decay"] for part in optimizer.param_groups for one in part["params"]}
        decay = _flat(torch.full_like(parameter, decays[id(parameter)]) for parameter in parameters.values())
        states = [optimizer.state[parameter] for parameter in parameters.values()]
        count = float(states[0]["step"])
        beta1, beta2 = group["betas"]
        bias1, bias2 = 1 - beta1**count, 1 - beta2**count
        root = _flat(state["exp_avg_sq"] for state in states).sqrt() / bias2**0.5
        moment = _flat(state["exp_avg"] for state in states)
        return _Adam(group["lr"], decay, beta1, beta2, bias1, bias2, moment, root, root + group["eps"])


def _by_pair(batch: Tensor, lengths: Sequence[int]) -> Sequence[Tensor]:
    """The rows or the stretches (tokens, width) of a forward pass (rows, tokens, width) that belong to each pair."""
    if batch.dim() == 3 and len(batch) in (len(lengths), 2 * len(lengths)):
        return batch.reshape(len(lengths), -1, batch.shape[-1]).unbind()
    if batch.dim() == 3 and len(batch) == 1 and batch.shape[1] == sum(lengths):
        return torch.split(batch[0], list(lengths))
    raise TrainError(
        f"the update ledger met an input of shape {tuple(batch.shape)} for {len(lengths)} pairs of {sum(lengths)} "
        "tokens; expected (rows, tokens, width) with one or two rows per pair, or all pairs in one row. Set "
        "attribution.by to null for this model."
    )


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise TrainError(
            "the update ledger found a trained weight without gradient; all must take part in every step. Turn it off."
        )
    return parameter.grad
