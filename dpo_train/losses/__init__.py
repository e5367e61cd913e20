"""Every preference loss: the union a configuration chooses from, and weighted mixtures of its members.

`Loss` is a pydantic union told apart by `loss_type`, TRL's name where TRL has the loss; each member owns its knobs, so
a knob that a loss lacks is an error and never ignored. Equations and papers stand with the classes, one file a family.
To add a loss: one class in its family's file, and its name in `_Single` below (in `Loss` where its rows are no pairs).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator
from torch import Tensor

from dpo_train.losses.contract import BetaWarning, Neutral, Normalisation, PairLogprobs, PairLoss, Scope
from dpo_train.losses.margin import Discopop, ExoPair, Hinge, Ipo, Robust, Sigmoid, SigmoidNorm
from dpo_train.losses.pointwise import ApoDown, ApoZero, BcoPair, NcaPair, SppoHard
from dpo_train.losses.reference_free import Cpo, Orpo, Sft, Simpo
from dpo_train.losses.unpaired import ApoZeroUnpaired, Kto, kl_estimate
from dpo_train.losses.window import Aot, AotUnpaired, window_gradients

__all__ = [
    "Aot",
    "AotUnpaired",
    "ApoDown",
    "ApoZero",
    "ApoZeroUnpaired",
    "BcoPair",
    "BetaWarning",
    "Cpo",
    "Discopop",
    "ExoPair",
    "Hinge",
    "Ipo",
    "Kto",
    "Loss",
    "Mixture",
    "NcaPair",
    "Orpo",
    "PairLogprobs",
    "PairLoss",
    "Robust",
    "Sft",
    "Sigmoid",
    "SigmoidNorm",
    "Simpo",
    "SppoHard",
    "kl_estimate",
    "losses_of",
    "window_gradients",
]

_Single = (
    Sigmoid
    | SigmoidNorm
    | Hinge
    | Ipo
    | Robust
    | ExoPair
    | Discopop
    | NcaPair
    | BcoPair
    | SppoHard
    | ApoZero
    | ApoDown
    | Aot
    | AotUnpaired
    | Sft
    | Simpo
    | Orpo
    | Cpo
)


class Mixture(PairLoss):
    """Σ wₖ · lossₖ of each pair, such as MPO (Wang et al. 2024, arXiv:2411.10442): sigmoid .8, bco_pair .2, sft 1.

    Every term has its own β and knobs, where TRL's `loss_type` list shares one set. `loss_weights` defaults to ones.
    Rewards are those of the first term.
    """

    loss_type: Literal["mixture"] = "mixture"
    terms: tuple[Annotated[_Single, Field(discriminator="loss_type")], ...] = Field(min_length=1)
    loss_weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _one_weight_a_term(self) -> Self:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.terms):
            raise ValueError(f"{len(self.loss_weights)} loss_weights for {len(self.terms)} terms: give one a term")
        return self

    @property
    def normalisation(self) -> Normalisation:
        kinds = {term.normalisation for term in self.terms}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def scope(self) -> Scope:
        return "window" if any(term.scope == "window" for term in self.terms) else "pair"

    @property
    def neutral(self) -> Neutral:
        return "running_mean" if any(term.neutral == "running_mean" for term in self.terms) else "zero"

    @property
    def uses_reference(self) -> bool:
        return any(term.uses_reference for term in self.terms)

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(field for term in self.terms for field in term.needs))

    def __call__(self, logps: PairLogprobs) -> Tensor:
        """The loss of each pair, shape (pairs,)."""
        values = [weight * term(logps) for weight, term in self._weighted_terms()]
        return sum(values[1:], start=values[0])

    def rewards(self, logps: PairLogprobs) -> tuple[Tensor, Tensor]:
        """(chosen, rejected) rewards of the first term, each (pairs,)."""
        return self.terms[0].rewards(logps)

    def at_reference(self) -> float | None:
        """Σ wₖ times the terms' values; None where one of them differs from pair to pair."""
        total = 0.0
        for weight, term in self._weighted_terms():
            value = term.at_reference()
            if value is None:
                return None
            total += weight * value
        return total

    def _weighted_terms(self) -> list[tuple[float, _Single]]:
        return list(zip(self.loss_weights or [1.0] * len(self.terms), self.terms, strict=True))


Loss = Annotated[_Single | Kto | ApoZeroUnpaired | Mixture, Field(discriminator="loss_type")]


def losses_of(union: object) -> tuple[type[PairLoss], ...]:
    """The classes of a union such as `Loss`."""
    members: tuple[type[PairLoss], ...] = get_args(get_args(union)[0])
    return members
