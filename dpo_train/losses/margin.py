"""Margin losses: functions of score(chosen) − score(rejected), one number per pair.

DPO and its nearest relatives. Here d = s(chosen) − s(rejected), with s the score of the chosen f-divergence (the plain
log-ratio log π/π_ref by default). Two of them (`ipo`, `sigmoid_norm`) divide the scores by the number of predicted
tokens first; their β lives on another scale, and their construction says so when it looks wrong.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dpo_train.losses.contract import (
    LARGEST_EXPONENT,
    DivergenceLoss,
    Normalisation,
    PairLogprobs,
    per_token,
    required,
    smoothed,
)


class Sigmoid(DivergenceLoss):
    """DPO: −log σ(βd + α(|y_c| − |y_r|)) (Rafailov et al. 2023, arXiv:2305.18290, Eq. 7).

    `label_smoothing` ε makes it conservative DPO (TRL 1.16 ignores ε here), `soft_labels` takes each pair's
    `confidence` for its label. `length_penalty` α is R-DPO's (Park et al. 2024, arXiv:2403.19159): every token of a
    response costs it α of reward.
    """

    loss_type: Literal["sigmoid"] = "sigmoid"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    soft_labels: bool = False
    length_penalty: float = Field(default=0.0, ge=0)

    @property
    def needs(self) -> tuple[str, ...]:
        return super().needs + (("confidence",) if self.soft_labels else ())

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.scores(logps)
        margin = self.beta * (chosen - rejected)
        if self.length_penalty:
            margin = margin + self.length_penalty * (logps.chosen_tokens - logps.rejected_tokens)
        confidence = required(self, logps, ("confidence",))[0] if self.soft_labels else None
        return self.weigh(smoothed(margin, self.label_smoothing, confidence), logps)

    def at_reference(self) -> float | None:
        """ln 2; None with a length penalty, which speaks even where the policy has not moved."""
        return None if self.length_penalty else super().at_reference()


class SigmoidNorm(DivergenceLoss):
    """Length-normalised DPO: −log σ(β (s_c/|y_c| − s_r/|y_r|)) (Tülu 3, Lambert et al. 2024, arXiv:2411.15124, β = 5).

    Means per token, so β is about 1 to 10. Label smoothing and soft labels as in `sigmoid` (TRL 1.16 has neither here).
    Rewards are per token too, as the loss compares them; TRL logs β times the sums, a scale on which β = 5
    makes every pair look settled.
    """

    usual_beta: ClassVar[tuple[float, float] | None] = (1.0, 10.0)
    loss_type: Literal["sigmoid_norm"] = "sigmoid_norm"
    beta: float = Field(default=5.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    soft_labels: bool = False

    @property
    def normalisation(self) -> Normalisation:
        return "mean"

    @property
    def needs(self) -> tuple[str, ...]:
        return super().needs + (("confidence",) if self.soft_labels else ())

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.scores(logps)
        gap = per_token(chosen, logps.chosen_tokens) - per_token(rejected, logps.rejected_tokens)
        confidence = required(self, logps, ("confidence",))[0] if self.soft_labels else None
        return self.weigh(smoothed(self.beta * gap, self.label_smoothing, confidence), logps)

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected) implicit rewards per token, β log(π/π_ref)/|y|, each (pairs,)."""
        chosen, rejected = super().rewards(logps)
        return per_token(chosen, logps.chosen_tokens), per_token(rejected, logps.rejected_tokens)


class Hinge(DivergenceLoss):
    """max(0, 1 − βd) (SLiC-HF, Zhao et al. 2023, arXiv:2305.10425; RSO, Liu et al. 2024, arXiv:2309.06657)."""

    loss_type: Literal["hinge"] = "hinge"

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.scores(logps)
        return self.weigh(torch.relu(1 - self.beta * (chosen - rejected)), logps)


class Ipo(DivergenceLoss):
    """IPO: (s_c/|y_c| − s_r/|y_r| − 1/(2β))² (Azar et al. 2023, arXiv:2310.12036, Eq. 17; β is the paper's τ).

    Means per token, as its authors confirmed to TRL: the squared loss would otherwise grow with length. 1/(2β) is
    the gap it steers to, in nats a token; published runs used β from .01 to 1 on these means.
    """

    usual_beta: ClassVar[tuple[float, float] | None] = (0.01, 1.0)
    loss_type: Literal["ipo"] = "ipo"
    beta: float = Field(default=0.1, gt=0)

    @property
    def normalisation(self) -> Normalisation:
        return "mean"

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.scores(logps)
        gap = per_token(chosen, logps.chosen_tokens) - per_token(rejected, logps.rejected_tokens)
        return self.weigh((gap - 1 / (2 * self.beta)) ** 2, logps)


class Robust(DivergenceLoss):
    """[−(1−ε) log σ(βd) + ε log σ(−βd)] / (1−2ε): unbiased when a share ε of the labels is flipped.

    Robust DPO (Chowdhury et al. 2024, arXiv:2403.00409). Unlike smoothing, it may be negative.
    """

    loss_type: Literal["robust"] = "robust"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.scores(logps)
        margin, flipped = self.beta * (chosen - rejected), self.label_smoothing
        value = -(1 - flipped) * F.logsigmoid(margin) + flipped * F.logsigmoid(-margin)
        return self.weigh(value / (1 - 2 * flipped), logps)


class ExoPair(DivergenceLoss):
    """KL(q ‖ p) of q = (σ(βd), σ(−βd)) from p = (1−ε, ε) (EXO, Ji et al. 2024, arXiv:2402.00856, Eq. 16).

    ε must be positive: with ε = 0 the loss is infinite. The default, .001, is TRL's advice.
    """

    loss_type: Literal["exo_pair"] = "exo_pair"
    label_smoothing: float = Field(default=1e-3, gt=0, lt=0.5)

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.scores(logps)
        margin = self.beta * (chosen - rejected)
        wins = torch.sigmoid(margin) * (F.logsigmoid(margin) - math.log1p(-self.label_smoothing))
        loses = torch.sigmoid(-margin) * (F.logsigmoid(-margin) - math.log(self.label_smoothing))
        return self.weigh(wins + loses, logps)


class Discopop(DivergenceLoss):
    """(1−w)(−log σ(l)) + w e^(−l), l = βd, w = σ(l/τ) (DiscoPOP, Lu et al. 2024, arXiv:2406.08414, Eq. 5).

    Not convex: at the reference its slope by l is (1 − ln 2)/(4τ) − ¾, at τ = .05 +.78, so a pair near margin 0 is
    pushed the WRONG way at first, in TRL too; it wants margins that are large already, or τ above about .1.
    """

    loss_type: Literal["discopop"] = "discopop"
    discopop_tau: float = Field(default=0.05, gt=0)

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.scores(logps)
        margin = self.beta * (chosen - rejected)
        blend = torch.sigmoid(margin / self.discopop_tau)
        # w e^(−l) tends to 0 for l → −∞, but as floating point 0 · ∞ it is NaN: cut the exponent, w is 0 there anyway.
        exponential = torch.exp((-margin).clamp(max=LARGEST_EXPONENT))
        return self.weigh(-(1 - blend) * F.logsigmoid(margin) + blend * exponential, logps)
