"""Losses that judge chosen and rejected each on its own, not only their difference.

Here c and r are the log-ratios log π/π_ref of chosen and rejected. Because c and r enter apart, these losses can keep
the chosen response likely while the margin grows; adding a constant to the reference of a pair is not harmless for
them, as it is for `sigmoid`. None of them takes an f-divergence.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from dpo_train.losses.contract import Neutral, PairLogprobs, ReferenceLoss, required


class NcaPair(ReferenceLoss):
    """−log σ(βc) − ½ log σ(−βc) − ½ log σ(−βr) (NCA, Chen et al. 2024, arXiv:2402.05369)."""

    loss_type: Literal["nca_pair"] = "nca_pair"

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.rewards(logps)
        value = -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)
        return self.weigh(value, logps)


class BcoPair(ReferenceLoss):
    """−log σ(βc − δ) − log σ(−(βr − δ)) (BCO, Jung et al. 2024, arXiv:2404.04656).

    `delta: zero` is TRL's δ = 0. The paper's δ is the mean reward of all responses; with `running_mean` it is
    β times the mean log-ratio of both sides of all pairs of the steps before, so 0 at the first step.
    """

    loss_type: Literal["bco_pair"] = "bco_pair"
    delta: Literal["zero", "running_mean"] = "zero"

    @property
    def needs(self) -> tuple[str, ...]:
        return super().needs + (("neutral",) if self.delta == "running_mean" else ())

    @property
    def neutral(self) -> Neutral:
        return self.delta

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.rewards(logps)
        if self.delta == "running_mean":
            delta = self.beta * required(self, logps, ("neutral",))[0].detach()
            chosen, rejected = chosen - delta, rejected - delta
        return self.weigh(-F.logsigmoid(chosen) - F.logsigmoid(-rejected), logps)

    @model_validator(mode="after")
    def _mean_of_whole_responses(self) -> Self:
        if self.delta == "running_mean" and self.ld_alpha is not None:
            raise ValueError(
                "delta 'running_mean' is a mean over whole responses, ld_alpha scales their tails down: use one of them"
            )
        return self


class SppoHard(ReferenceLoss):
    """(c − 1/(2β))² + (r + 1/(2β))² (SPPO, Wu et al. 2024, arXiv:2405.00675, Eq. 4.7 with P = 1 for the winner)."""

    loss_type: Literal["sppo_hard"] = "sppo_hard"
    beta: float = Field(default=0.1, gt=0)

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.logratios(logps)
        return self.weigh((chosen - 0.5 / self.beta) ** 2 + (rejected + 0.5 / self.beta) ** 2, logps)


class ApoZero(ReferenceLoss):
    """1 − σ(βc) + σ(βr): chosen up, rejected down; for chosen responses better than the model's own.

    APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7).
    """

    loss_type: Literal["apo_zero"] = "apo_zero"

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.rewards(logps)
        return self.weigh(torch.sigmoid(-chosen) + torch.sigmoid(rejected), logps)


class ApoDown(ReferenceLoss):
    """σ(βc) + 1 − σ(β(c − r)): both down, rejected more; for chosen responses worse than the model's own.

    APO-down (D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 8). It pushes chosen down by design.
    """

    loss_type: Literal["apo_down"] = "apo_down"

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.rewards(logps)
        return self.weigh(torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen), logps)
