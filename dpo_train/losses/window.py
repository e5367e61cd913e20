"""Losses that compare pairs with each other, so that they need the whole accumulation window at once.

Alignment via optimal transport (AOT) sorts the log-ratios of a set of pairs and asks that one sorted list dominate
the other. TRL sorts each micro-batch, so there accumulation and the number of processes silently change the objective.
Here the caller gathers the sums of the whole window, takes `window_gradients` of them (a few kilobytes of numbers), and
runs backward per micro-batch with those gradients: exact, whatever the micro-batches were.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dpo_train.losses.contract import PairLogprobs, PairLoss, ReferenceLoss, Scope, smoothed


class Aot(ReferenceLoss):
    """−log σ(β (a₍ₖ₎ − b₍ₖ₎)), a = log π(y_c)/π(y_r) and b the same of the reference, each sorted over the window.

    Distributional preference alignment, paired form (Melnyk et al. 2024, arXiv:2406.05882). The value of rank k goes to
    the pair whose policy ratio has rank k. With label smoothing as in `sigmoid`. No WPO weights: a rank is no pair.
    """

    loss_type: Literal["aot"] = "aot"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    use_weighting: Literal[False] = False

    @property
    def scope(self) -> Scope:
        return "window"

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair of a WHOLE window, shape (pairs,)."""
        chosen, rejected, ref_chosen, ref_rejected = self.totals(logps)
        ratio = chosen - rejected
        order = ratio.argsort(stable=True)
        value = smoothed(self.beta * (ratio[order] - (ref_chosen - ref_rejected).sort().values), self.label_smoothing)
        return value[order.argsort()]


class AotUnpaired(ReferenceLoss):
    """−log σ(β (c₍ₖ₎ − r₍ₖ₎)), log-ratios of chosen and of rejected each sorted over the window (arXiv:2406.05882).

    Unpaired form: chosen and rejected need not answer the same prompt. The value of rank k goes to the pair whose
    chosen log-ratio has rank k.
    """

    loss_type: Literal["aot_unpaired"] = "aot_unpaired"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    use_weighting: Literal[False] = False

    @property
    def scope(self) -> Scope:
        return "window"

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair of a WHOLE window, shape (pairs,)."""
        chosen, rejected = self.logratios(logps)
        order = chosen.argsort(stable=True)
        value = smoothed(self.beta * (chosen[order] - rejected.sort().values), self.label_smoothing)
        return value[order.argsort()]


def window_gradients(
    loss: PairLoss, logps: PairLogprobs, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Values (pairs,) and gradients of Σ weight · loss by each policy sum of `logps`, for a loss of either scope.

    Steps of a caller: forward each micro-batch without gradient and gather the sums of the window (from all processes);
    call this; forward again micro-batch by micro-batch and call
    `torch.autograd.backward([chosen, rejected, …], [gradients["chosen"][rows], gradients["rejected"][rows], …])`.
    The gradients have the keys chosen, rejected and, where given, chosen_prefix and rejected_prefix, each (pairs,).
    Divide by the number of pairs (or by Σ weight) as for any other loss.
    """
    policy = [
        field
        for field in ("chosen", "rejected", "chosen_prefix", "rejected_prefix")
        if getattr(logps, field) is not None
    ]
    leaves = {field: getattr(logps, field).detach().clone().requires_grad_() for field in policy}
    with torch.enable_grad():
        values = loss(logps._replace(**leaves))
        total = (values if weight is None else values * weight).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return values.detach(), dict(zip(leaves, gradients, strict=True))
