"""Interface of a loss: log-probability sums in, one value per pair out.

A loss is a frozen pydantic model: its fields are its knobs, and a knob it lacks is an error. Calling it returns a
tensor of shape (pairs,), never a mean, so that weights, slices and exact means over any window stay possible. Note
`scope`: a few losses compare pairs with each other and must see a whole accumulation window at once.
"""

from __future__ import annotations

import math
import warnings
from typing import ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

Normalisation = Literal["sum", "mean", "mixed"]
Scope = Literal["pair", "window"]
Shards = Literal["pairs", "unpaired"]
Neutral = Literal["zero", "kl", "running_mean"]

# The exponent of an exponential score is cut here, as TRL cuts it: e^80 still fits float32 and bfloat16.
LARGEST_EXPONENT = 80.0


class PairLogprobs(NamedTuple):
    """Log-probabilities of some pairs, every tensor of shape (pairs,), sums in nats over the PREDICTED response tokens.

    The first six are always there; a side with 0 tokens does not exist (a single response) and its sums are 0. The
    optional ones are read by the losses whose `needs` names them:

    * `confidence`: probability in [0, 1] that the pair points the right way (soft labels); half where neither
      response is better.
    * `*_prefix`: sums over the first min(chosen_tokens, rejected_tokens) tokens of each response (`ld_alpha`).
    * `*_collision`: sums over the tokens of log Σ_v π(v)², the policy's own log chance of agreeing with itself (WPO).
    * `neutral`: one number, shape (), nats: the log-ratio that counts as neither gain nor loss (`PairLoss.neutral`).
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    confidence: Tensor | None = None
    chosen_prefix: Tensor | None = None
    rejected_prefix: Tensor | None = None
    ref_chosen_prefix: Tensor | None = None
    ref_rejected_prefix: Tensor | None = None
    chosen_collision: Tensor | None = None
    rejected_collision: Tensor | None = None
    neutral: Tensor | None = None


PREFIXES = ("chosen_prefix", "rejected_prefix", "ref_chosen_prefix", "ref_rejected_prefix")
COLLISIONS = ("chosen_collision", "rejected_collision")


class BetaWarning(UserWarning):
    """β lies outside the range in which the loss is known to work, most often because it was meant for another loss."""


class PairLoss(BaseModel):
    """Contract of a loss; `usual_beta` is the range of β in the literature, outside of which construction warns."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    usual_beta: ClassVar[tuple[float, float] | None] = None

    @property
    def normalisation(self) -> Normalisation:
        """Whether the loss reads sums over tokens or means per token: β has another range on a mean."""
        return "sum"

    @property
    def scope(self) -> Scope:
        """Which pairs a call must hold: `pair`, any micro-batch; `window`, all pairs of the accumulation window.

        A window loss given less than its window (all processes' pairs) means something else: see `window_gradients`.
        """
        return "pair"

    @property
    def shards(self) -> Shards:
        """What one row of the training data is: a pair, or a single response with a label."""
        return "pairs"

    @property
    def neutral(self) -> Neutral:
        """From which log-ratio gains and losses are measured, and so what the caller gives as `PairLogprobs.neutral`.

        `zero`: none is needed; `kl`: `kl_estimate` over the rows at hand; `running_mean`: the mean log-ratio of all
        responses trained on so far.
        """
        return "zero"

    @property
    def uses_reference(self) -> bool:
        """False where ref_chosen and ref_rejected are never read, so that no reference pass is needed."""
        return True

    @property
    def needs(self) -> tuple[str, ...]:
        """The optional fields of `PairLogprobs` that must not be None."""
        return ()

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,); pair weights are the caller's to multiply in."""
        raise NotImplementedError

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """The rewards of chosen and of rejected as the loss sees them, each (pairs,); difference: the margin."""
        raise NotImplementedError

    def at_reference(self) -> float | None:
        """The value of every pair where policy == reference; None where it differs from pair to pair."""
        return None

    @model_validator(mode="after")
    def _warn_of_a_beta_from_another_range(self) -> Self:
        beta = getattr(self, "beta", None)
        if self.usual_beta is not None and beta is not None and not self.usual_beta[0] <= beta <= self.usual_beta[1]:
            unit = {"sum": "sums over tokens", "mean": "means per token", "mixed": "a mixture"}[self.normalisation]
            warnings.warn(
                f"beta={beta:g} is unusual for loss_type '{getattr(self, 'loss_type', '?')}', which reads {unit}: "
                f"use {self.usual_beta[0]:g} to {self.usual_beta[1]:g}",
                BetaWarning,
                stacklevel=3,
            )
        return self


class ReferenceLoss(PairLoss):
    """A loss of the log-ratios log π/π_ref of chosen and rejected, with the two knobs that any such loss can have.

    `ld_alpha` (LD-DPO, Liu et al. 2024, arXiv:2409.06411): tokens beyond the shorter response's length count this much,
    in policy and reference alike, as in TRL. `use_weighting` (WPO, Zhou et al. 2024, arXiv:2406.11827, Eq. 2): the
    value is multiplied by the detached chance exp(mean_t[log π(y_t) − log Σ_v π(v)²]) of chosen times that of rejected.
    """

    usual_beta: ClassVar[tuple[float, float] | None] = (0.01, 1.0)
    beta: float = Field(default=0.1, ge=0)
    ld_alpha: float | None = Field(default=None, ge=0, le=1)
    use_weighting: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        return (PREFIXES if self.ld_alpha is not None else ()) + (COLLISIONS if self.use_weighting else ())

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected) implicit rewards β log π/π_ref, each (pairs,)."""
        chosen, rejected = self.logratios(logps)
        return self.beta * chosen, self.beta * rejected

    def at_reference(self) -> float | None:
        """The value of every pair where policy == reference, found by evaluating the loss there."""
        if self.use_weighting:
            return None
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        at_start = PairLogprobs(zero, zero, zero, zero, one, one, one, zero, zero, zero, zero, zero, zero, zero[0])
        return self(at_start).item()

    def totals(self, logps: PairLogprobs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(chosen, rejected, ref_chosen, ref_rejected) sums, each (pairs,), the tails scaled by `ld_alpha`."""
        full = (logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected)
        if self.ld_alpha is None:
            return full
        chosen, rejected, ref_chosen, ref_rejected = (
            torch.lerp(prefix, total, self.ld_alpha)
            for prefix, total in zip(required(self, logps, PREFIXES), full, strict=True)
        )
        return chosen, rejected, ref_chosen, ref_rejected

    def logratios(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected): log π/π_ref of each response, each (pairs,), the tails scaled by `ld_alpha`."""
        chosen, rejected, ref_chosen, ref_rejected = self.totals(logps)
        return chosen - ref_chosen, rejected - ref_rejected

    def weigh(self, value: Tensor, logps: PairLogprobs) -> Tensor:
        """`value` times the WPO weight of each pair, or `value` itself where the knob is off."""
        if not self.use_weighting:
            return value
        chosen_collision, rejected_collision = required(self, logps, COLLISIONS)
        chosen = (logps.chosen.detach() - chosen_collision.detach()) / logps.chosen_tokens.clamp(min=1)
        rejected = (logps.rejected.detach() - rejected_collision.detach()) / logps.rejected_tokens.clamp(min=1)
        return value * torch.exp(chosen + rejected)


class DivergenceLoss(ReferenceLoss):
    """A loss of the difference of two scores, the score being f'(π/π_ref) of a chosen f-divergence (Wang et al. 2024,
    arXiv:2309.16240); with x = log π/π_ref: reverse_kl x, forward_kl 1 − e^(−x), js_divergence log 2 + log σ(x),
    alpha_divergence (e^((α−1)x) − 1)/(α−1) with α = `f_alpha_divergence_coef`, ½ unless given."""

    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    f_alpha_divergence_coef: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _coefficient_only_with_its_divergence(self) -> Self:
        if self.f_alpha_divergence_coef is not None and self.f_divergence_type != "alpha_divergence":
            raise ValueError(
                f"f_alpha_divergence_coef is not read by f_divergence_type {self.f_divergence_type}: "
                "leave it out, or choose alpha_divergence"
            )
        return self

    def scores(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected) scores, each (pairs,)."""
        chosen, rejected = self.logratios(logps)
        return self._score(chosen), self._score(rejected)

    def _score(self, logratio: Tensor) -> Tensor:
        if self.f_divergence_type == "forward_kl":
            return -torch.expm1((-logratio).clamp(max=LARGEST_EXPONENT))
        if self.f_divergence_type == "js_divergence":
            return math.log(2) + F.logsigmoid(logratio)
        power = (0.5 if self.f_alpha_divergence_coef is None else self.f_alpha_divergence_coef) - 1
        if self.f_divergence_type == "alpha_divergence" and abs(power) >= 1e-6:  # the limit α → 1 is reverse_kl
            return torch.expm1((power * logratio).clamp(max=LARGEST_EXPONENT)) / power
        return logratio


def per_token(total: Tensor, tokens: Tensor) -> Tensor:
    """`total` / `tokens`, where no token counts as one: a response without a scored token gives 0, not NaN."""
    return total / tokens.clamp(min=1)


def smoothed(margin: Tensor, label_smoothing: float, confidence: Tensor | None = None) -> Tensor:
    """−q log σ(m) − (1−q) log σ(−m), q = chance that the label is right: p(1−ε) + (1−p)ε, p = `confidence` or 1.

    Conservative DPO (Mitchell 2023, ericmitchell.ai/cdpo.pdf); with p from votes, the maximum-likelihood loss of them.
    """
    if confidence is None and label_smoothing == 0:
        return -F.logsigmoid(margin)
    right = torch.ones_like(margin) if confidence is None else confidence.to(margin.dtype)
    right = right * (1 - label_smoothing) + (1 - right) * label_smoothing
    return -right * F.logsigmoid(margin) - (1 - right) * F.logsigmoid(-margin)


def required(loss: PairLoss, logps: PairLogprobs, fields: tuple[str, ...]) -> tuple[Tensor, ...]:
    """The optional `fields` of `logps`; ValueError naming those the caller left out."""
    absent = [field for field in fields if getattr(logps, field) is None]
    if absent:
        raise ValueError(
            f"{loss!r} reads the optional log-probabilities {', '.join(absent)}, which were not given: "
            "compute whatever its `needs` names"
        )
    return tuple(getattr(logps, field) for field in fields)
