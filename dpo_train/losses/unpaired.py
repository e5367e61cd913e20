"""Losses of single responses marked good or bad, for thumbs that have no partner to be compared with.

A row is a pair with one empty side: a desirable response is its chosen side, an undesirable one its rejected side, and
a side of 0 tokens costs nothing. KTO measures every reward from a point of no gain and no loss: the policy's drift
from the reference, estimated on responses under the WRONG prompts.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dpo_train.losses.contract import Neutral, PairLogprobs, PairLoss, Shards, required


def kl_estimate(mismatched: Tensor, ref_mismatched: Tensor) -> Tensor:
    """max(0, mean(log π − log π_ref)) over responses scored under another row's prompt, shape (), detached.

    Both inputs are sums, shape (rows,). This is KTO's z₀ (Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1). TRL
    takes it over a micro-batch, so its noise depends on the batch size: take as many rows as are at hand.
    """
    return (mismatched - ref_mismatched).detach().mean().clamp(min=0)


class _UnpairedLoss(PairLoss):
    beta: float = Field(default=0.1, gt=0)
    desirable_weight: float = Field(default=1.0, ge=0)
    undesirable_weight: float = Field(default=1.0, ge=0)

    @property
    def shards(self) -> Shards:
        return "unpaired"

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(desirable, undesirable) rewards β log π/π_ref, each (rows,), 0 where the row is of the other kind.

        Their difference, the margin of a row, is its reward in the direction of its label.
        """
        return self.beta * (logps.chosen - logps.ref_chosen), self.beta * (logps.rejected - logps.ref_rejected)

    def at_reference(self) -> float | None:
        """½ for every row; None where the two weights differ, since then it depends on the label."""
        return self.desirable_weight / 2 if self.desirable_weight == self.undesirable_weight else None

    def _weighted(self, logps: PairLogprobs, origin: Tensor) -> Tensor:
        """1 − σ(reward − origin) for desirable rows and 1 − σ(origin − reward) for the others, times their weights."""
        good, bad = self.rewards(logps)
        wanted = self.desirable_weight * torch.sigmoid(origin - good)
        unwanted = self.undesirable_weight * torch.sigmoid(bad - origin)
        nothing = torch.zeros_like(wanted)
        return torch.where(logps.chosen_tokens > 0, wanted, nothing) + torch.where(
            logps.rejected_tokens > 0, unwanted, nothing
        )


class Kto(_UnpairedLoss):
    """Desirable: λ_D (1 − σ(βx − βz₀)); undesirable: λ_U (1 − σ(βz₀ − βx)); x = log π/π_ref, z₀ = `kl_estimate`.

    KTO (Ethayarajh et al. 2024, arXiv:2402.01306, Eqs. 7 and 8). The paper's advice: weights such that
    λ_D · desirable rows : λ_U · undesirable rows lies between 1 and 4/3.
    """

    loss_type: Literal["kto"] = "kto"

    @property
    def neutral(self) -> Neutral:
        return "kl"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("neutral",)

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each row, shape (rows,)."""
        (drift,) = required(self, logps, ("neutral",))
        return self._weighted(logps, self.beta * drift.detach())


class ApoZeroUnpaired(_UnpairedLoss):
    """`kto` with z₀ = 0, so no pass over mismatched responses (D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7)."""

    loss_type: Literal["apo_zero_unpaired"] = "apo_zero_unpaired"

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each row, shape (rows,)."""
        return self._weighted(logps, torch.zeros_like(logps.chosen))
