"""Preference losses: one frozen class a loss, one value per pair.

A loss takes the summed log-probabilities of the responses of some pairs (`PairLogprobs`) and returns a tensor of shape
(pairs,): never a mean, so that weights, slices and exact means over any window stay possible. A knob that a loss lacks
is an error. Names and equations are TRL's where it has the loss.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class PairLogprobs(NamedTuple):
    """What every loss reads: sums of log-probabilities over the predicted tokens of each response, shape (pairs,)."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    confidence: Tensor | None = None
    """Probability in [0, 1] that the pair points the right way: the soft label; None means 1."""
    chosen_prefix: Tensor | None = None
    rejected_prefix: Tensor | None = None
    ref_chosen_prefix: Tensor | None = None
    ref_rejected_prefix: Tensor | None = None
    """Sums over the first min(chosen_tokens, rejected_tokens) tokens of each response, for `ld_alpha`."""
    chosen_collision: Tensor | None = None
    rejected_collision: Tensor | None = None
    """Sums over the response's tokens of log Σ_v π(v)², for `use_weighting` (WPO)."""


class Sigmoid(BaseModel):
    """DPO: −log σ(β d), d = chosen minus rejected log-ratio (Rafailov et al. 2023, arXiv:2305.18290)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    loss_type: Literal["sigmoid"] = "sigmoid"
    beta: float = Field(default=0.1, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    normalisation: ClassVar[str] = "sum"
    scope: ClassVar[str] = "pair"
    uses_reference: ClassVar[bool] = True

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """(pairs,): the loss of each pair."""
        margin = self.beta * (logps.chosen - logps.ref_chosen - logps.rejected + logps.ref_rejected)
        return -(1 - self.label_smoothing) * F.logsigmoid(margin) - self.label_smoothing * F.logsigmoid(-margin)

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected) implicit rewards, β times the log-ratio, each (pairs,)."""
        return self.beta * (logps.chosen - logps.ref_chosen), self.beta * (logps.rejected - logps.ref_rejected)

    def at_reference(self) -> float | None:
        """The value of every pair where the policy equals the reference: ln 2."""
        return 0.6931471805599453


Loss = Annotated[Sigmoid, Field(discriminator="loss_type")]
