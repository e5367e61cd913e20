"""Losses that read the policy alone: no reference pass is needed.

All but `cpo` work on means per token, since without a reference nothing else takes the length out. Where TRL averages
the negative log-likelihood over the tokens of whichever batch it is in, here each pair has its own mean over its own
chosen tokens, so that the value of a pair depends on no other; `sft` can do TRL's average too, over a whole window.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dpo_train.losses.contract import Normalisation, PairLogprobs, PairLoss, Scope, per_token, smoothed


class Sft(PairLoss):
    """−log π(y_c)/|y_c|: the negative log-likelihood of chosen, a term to mix in.

    RPO (Pang et al. 2024, arXiv:2404.19733). `average: pair` counts every pair alike, as that paper does;
    `average: token` counts every token alike, as TRL does: −log π(y_c) · pairs / Σ|y_c| over the window, so that the
    mean over pairs is the mean over tokens.
    """

    loss_type: Literal["sft"] = "sft"
    average: Literal["pair", "token"] = "pair"

    @property
    def normalisation(self) -> Normalisation:
        return "mean"

    @property
    def scope(self) -> Scope:
        return "pair" if self.average == "pair" else "window"

    @property
    def uses_reference(self) -> bool:
        return False

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        if self.average == "pair":
            return -per_token(logps.chosen, logps.chosen_tokens)
        return -logps.chosen * (len(logps.chosen) / logps.chosen_tokens.sum().clamp(min=1))

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected) mean log-probability per token, each (pairs,)."""
        return per_token(logps.chosen, logps.chosen_tokens), per_token(logps.rejected, logps.rejected_tokens)


class Simpo(PairLoss):
    """−log σ(β(a_c − a_r) − γ), a = log π(y)/|y| (SimPO, Meng et al. 2024, arXiv:2405.14734, Eq. 6).

    β = 2 and γ = .5 lie inside the paper's grid; TRL's default β of .1 is DPO's, and is warned of here. `alpha` ≠ 0 is
    AlphaPO (Gupta et al. 2025, arXiv:2501.03884): a becomes (1 − e^(−α a))/α.
    """

    usual_beta: ClassVar[tuple[float, float] | None] = (1.0, 10.0)
    loss_type: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0)
    simpo_gamma: float = Field(default=0.5, ge=0)
    alpha: float = 0.0
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)

    @property
    def normalisation(self) -> Normalisation:
        return "mean"

    @property
    def uses_reference(self) -> bool:
        return False

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.rewards(logps)
        return smoothed(chosen - rejected - self.simpo_gamma, self.label_smoothing)

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected): β times the mean log-probability per token (bent by `alpha`), each (pairs,)."""
        chosen, rejected = (
            per_token(logps.chosen, logps.chosen_tokens),
            per_token(logps.rejected, logps.rejected_tokens),
        )
        if self.alpha:
            chosen, rejected = (-torch.expm1(-self.alpha * average) / self.alpha for average in (chosen, rejected))
        return self.beta * chosen, self.beta * rejected


class Orpo(PairLoss):
    """−a_c − β log σ(log odds(a_c) − log odds(a_r)), a = log π(y)/|y|, log odds(a) = a − log(1 − e^a).

    ORPO (Hong et al. 2024, arXiv:2403.07691, Eqs. 6 and 7; β is the paper's λ). The likelihood is the response's alone,
    as in the paper; TRL's also counts the prompt's tokens.
    """

    usual_beta: ClassVar[tuple[float, float] | None] = (0.01, 1.0)
    loss_type: Literal["orpo"] = "orpo"
    beta: float = Field(default=0.1, ge=0)

    @property
    def normalisation(self) -> Normalisation:
        return "mean"

    @property
    def uses_reference(self) -> bool:
        return False

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen = per_token(logps.chosen, logps.chosen_tokens)
        rejected = per_token(logps.rejected, logps.rejected_tokens)
        return -chosen - self.beta * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected): β times the mean log-probability per token, each (pairs,)."""
        return (
            self.beta * per_token(logps.chosen, logps.chosen_tokens),
            self.beta * per_token(logps.rejected, logps.rejected_tokens),
        )


class Cpo(PairLoss):
    """−log σ(β(log π(y_c) − log π(y_r))) − λ log π(y_c)/|y_c|, λ = `cpo_alpha`.

    CPO (Xu et al. 2024, arXiv:2401.08417, Eq. 3), the preference term on sums, the likelihood on a mean, as in TRL.
    """

    usual_beta: ClassVar[tuple[float, float] | None] = (0.01, 1.0)
    loss_type: Literal["cpo"] = "cpo"
    beta: float = Field(default=0.1, ge=0)
    cpo_alpha: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)

    @property
    def uses_reference(self) -> bool:
        return False

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        chosen, rejected = self.rewards(logps)
        likelihood = per_token(logps.chosen, logps.chosen_tokens)
        return smoothed(chosen - rejected, self.label_smoothing) - self.cpo_alpha * likelihood

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected): β times the log-probability of the whole response, each (pairs,)."""
        return self.beta * logps.chosen, self.beta * logps.rejected


def _log_odds(average: Tensor) -> Tensor:
    """log(p/(1−p)) of p = e^average < 1; a certain response (average = 0) counts as the next number below 1."""
    average = average.clamp(max=-torch.finfo(average.dtype).eps)
    # Each form loses its digits where the other keeps them; they meet at p = ½.
    rest = torch.where(average < -0.6931471805599453, torch.log1p(-average.exp()), torch.log(-torch.expm1(average)))
    return average - rest
