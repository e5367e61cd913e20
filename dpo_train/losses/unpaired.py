"""Losses of single responses marked good or bad, for thumbs that have no partner to be compared with.

They read `UnpairedLogprobs`, not pairs, and return one value a row. KTO measures every reward from a point of no gain
and no loss: the policy's drift from the reference, estimated on responses paired with the WRONG prompts.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class UnpairedLogprobs(NamedTuple):
    """Log-probability sums of single responses, each (rows,), in nats over the predicted response tokens.

    `desirable` is boolean. `kl` has shape () and is `kl_estimate(...)` of the same rows, or of the whole window.
    """

    response: Tensor
    ref_response: Tensor
    tokens: Tensor
    desirable: Tensor
    kl: Tensor | None = None


def kl_estimate(mismatched: Tensor, ref_mismatched: Tensor) -> Tensor:
    """max(0, mean(log π − log π_ref)) over responses scored under another row's prompt, shape (), detached.

    Both inputs are sums, shape (rows,). This is KTO's z₀ (Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1). TRL
    takes it over a micro-batch, so its noise depends on the batch size: take as many rows as are at hand.
    """
    return (mismatched - ref_mismatched).detach().mean().clamp(min=0)


class _UnpairedLoss(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    beta: float = Field(default=0.1, gt=0)
    desirable_weight: float = Field(default=1.0, ge=0)
    undesirable_weight: float = Field(default=1.0, ge=0)

    def rewards(self, logps: UnpairedLogprobs) -> Tensor:
        """β log π/π_ref of each row, shape (rows,)."""
        return self.beta * (logps.response - logps.ref_response)

    def at_reference(self) -> float | None:
        """½ for every row; None where the two weights differ, since then it depends on the label."""
        return self.desirable_weight / 2 if self.desirable_weight == self.undesirable_weight else None

    def _weighted(self, gain: Tensor, desirable: Tensor) -> Tensor:
        """1 − σ(gain) for desirable rows and 1 − σ(−gain) for the others, times their weights."""
        wanted = self.desirable_weight * torch.sigmoid(-gain)
        return torch.where(desirable, wanted, self.undesirable_weight * torch.sigmoid(gain))


class Kto(_UnpairedLoss):
    """Desirable: λ_D (1 − σ(βx − βz₀)); undesirable: λ_U (1 − σ(βz₀ − βx)); x = log π/π_ref, z₀ = `kl`.

    KTO (Ethayarajh et al. 2024, arXiv:2402.01306, Eqs. 7 and 8). The paper's advice: weights such that
    λ_D · desirable rows : λ_U · undesirable rows lies between 1 and 4/3.
    """

    loss_type: Literal["kto"] = "kto"

    def __call__(self, logps: UnpairedLogprobs) -> Tensor:
        """The loss of each row, shape (rows,)."""
        if logps.kl is None:
            raise ValueError(
                "kto measures rewards from the policy's drift: give UnpairedLogprobs.kl, see `kl_estimate`"
            )
        return self._weighted(self.beta * (logps.response - logps.ref_response - logps.kl), logps.desirable)


class ApoZeroUnpaired(_UnpairedLoss):
    """`kto` with z₀ = 0, so no pass over mismatched responses (D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7)."""

    loss_type: Literal["apo_zero_unpaired"] = "apo_zero_unpaired"

    def __call__(self, logps: UnpairedLogprobs) -> Tensor:
        """The loss of each row, shape (rows,)."""
        return self._weighted(self.rewards(logps), logps.desirable)


UnpairedLoss = Annotated[Kto | ApoZeroUnpaired, Field(discriminator="loss_type")]
