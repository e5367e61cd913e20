"""Exact means over pairs, and what they warn of, in words.

Every metric is a mean over all pairs of a set, whatever batches they were scored in; ties count half in an accuracy.
Names are TRL's. Note: `loss` is the weighted mean that is minimised (Σ wᵢ lᵢ / number of pairs); every other metric is
unweighted. Single responses have one side: means of a
side are over the rows that have it, and a margin is the reward in the direction of the row's label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dpo_train.losses import PairLogprobs
from dpo_train.losses.contract import PairLoss

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
TIE = 1e-6  # margins closer to 0 are ties: what the slice report takes too


class PairMetrics(NamedTuple):
    """Per pair, float64, shape (pairs,): rewards as the loss sees them, log-probabilities as sums in nats."""

    loss: Floats
    reward_chosen: Floats
    reward_rejected: Floats
    logp_chosen: Floats
    logp_rejected: Floats
    ref_chosen: Floats
    ref_rejected: Floats
    tokens_chosen: Floats
    tokens_rejected: Floats
    weight: Floats

    @property
    def margin(self) -> Floats:
        """Reward of chosen minus reward of rejected."""
        return self.reward_chosen - self.reward_rejected

    @property
    def sides(self) -> tuple[Bools, Bools]:
        """Which rows have a chosen side, and which a rejected one: pairs have both, single responses one."""
        return self.tokens_chosen > 0, self.tokens_rejected > 0

    @property
    def log_loss(self) -> Floats:
        """−log σ(margin): how surprised the policy's rewards are by the label, whatever loss it was trained with."""
        return np.logaddexp(0.0, -self.margin)


def measure(loss: PairLoss, logps: PairLogprobs, weights: Floats) -> PairMetrics:
    """Turn log-probabilities of some pairs into numbers to keep; no gradient is kept."""
    with torch.no_grad():
        chosen, rejected = loss.rewards(logps)
        values = (loss(logps), chosen, rejected, logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected)
        stacked = torch.stack([value.detach().double() for value in values])
        tokens = torch.stack([logps.chosen_tokens, logps.rejected_tokens]).to(stacked)
        columns: list[Floats] = [*torch.cat([stacked, tokens]).cpu().numpy(), weights]
        return PairMetrics(*columns)


def joined(parts: Sequence[PairMetrics]) -> PairMetrics:
    """Parts of one set of pairs as one, in the order given."""
    return PairMetrics(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def means(values: PairMetrics) -> dict[str, float]:
    """The metrics of a set of pairs, each an exact mean over them, under TRL's names; none of a side nobody has."""
    margin, (good, bad) = values.margin, values.sides
    hits = np.where(np.abs(margin) < TIE, 0.5, margin > 0)
    found = {
        "loss": float((values.loss * values.weight).mean()),
        "log_loss": float(values.log_loss.mean()),
        "rewards/margins": float(margin.mean()),
        "rewards/accuracies": float(hits.mean()),
    }
    if good.any():
        found["rewards/chosen"] = float(values.reward_chosen[good].mean())
        found["logps/chosen"] = float(values.logp_chosen[good].mean())
    if bad.any():
        found["rewards/rejected"] = float(values.reward_rejected[bad].mean())
        found["logps/rejected"] = float(values.logp_rejected[bad].mean())
    return found


def alarms(first: PairMetrics, last: PairMetrics, train_margin: float | None = None) -> list[str]:
    """What a person should know about the way held-out pairs moved from the first to the last evaluation.

    Limits are engineering defaults (drift .05 nats a token, displaced half, saturated half), not published numbers.
    """
    chosen, rejected = last.logp_chosen - first.logp_chosen, last.logp_rejected - first.logp_rejected
    margin, (good, bad) = last.margin - first.margin, last.sides
    found = [_flat(margin), _saturated(last.margin)]
    if (good & bad).all():
        gap = last.tokens_chosen - last.tokens_rejected
        found += [
            _falling(chosen, rejected, margin),
            _length(margin, gap, "margins' movement", ", or use sigmoid_norm or a length_penalty"),
        ]
    else:  # single responses: what length does to them shows in how likely they became, whatever their label
        moved, tokens = chosen + rejected, last.tokens_chosen + last.tokens_rejected
        for rows in filter(np.any, (good, bad)):  # within a label: that labels move apart is what training is for
            moved[rows] -= moved[rows].mean()
            tokens[rows] -= tokens[rows].mean()
        found += [_undesired(chosen[good]), _length(moved, tokens, "responses' movement, whatever their label")]
    if good.any():
        found.append(_drift(float((chosen[good] / last.tokens_chosen[good]).mean())))
    if train_margin is not None and train_margin > 0 and float(margin.mean()) < 0.25 * train_margin:
        found.append(
            f"Margins grew by {train_margin:.3f} on training pairs but by {margin.mean():.3f} on held-out pairs: the "
            "policy memorises. Use fewer epochs, a lower learning rate or more prompts."
        )
    return [alarm for alarm in found if alarm is not None]


def untrained(kept: int, steps: int) -> list[str]:
    """The alarm of a run whose training was thrown away: the weights of step 0 are the ones it keeps."""
    if kept or not steps:
        return []
    return [
        f"The untrained weights are kept: at no evaluation up to step {steps} was the held-out log-loss lower than "
        "before the first step. Lower learning_rate or beta, evaluate earlier (eval_steps), or ask whether "
        "validation pairs are judged as training pairs are."
    ]


def _flat(margin: Floats) -> str | None:
    error = margin.std(ddof=1) / np.sqrt(len(margin)) if len(margin) > 1 else np.inf
    if len(margin) > 1 and abs(margin.mean()) < 2 * error:
        return (
            f"Held-out margins are flat: they moved by {margin.mean():.4f} ± {2 * error:.4f}, and the loss stays near "
            "its start. Raise learning_rate or lower beta, or ask whether the labels can be learned at all."
        )
    return None


def _falling(chosen: Floats, rejected: Floats, margin: Floats) -> str | None:
    displaced = float((chosen[margin > 0] < 0).mean()) if (margin > 0).any() else 0.0
    if chosen.mean() < 0 and rejected.mean() < 0 and displaced > 0.5:
        return (
            f"Both answers became less likely (chosen {chosen.mean():.2f}, rejected {rejected.mean():.2f} nats): in "
            f"{displaced:.0%} of the pairs whose margin grew, chosen fell too. Common where both are alike (Razin et "
            "al. 2024, arXiv:2410.08847); drop pairs that are too similar, lower learning_rate or add an sft term."
        )
    return None


def _undesired(chosen: Floats) -> str | None:
    if len(chosen) and chosen.mean() < 0:
        return (
            f"Desirable answers became less likely (by {-chosen.mean():.2f} nats on average): the policy learns what "
            "to avoid and not what to say. Raise desirable_weight, lower undesirable_weight or lower learning_rate."
        )
    return None


def _drift(per_token: float) -> str | None:
    if abs(per_token) > 0.05:
        return (
            f"Chosen answers moved by {per_token:+.3f} nats a token from the reference: far. Raise beta or lower "
            "learning_rate, and read some generations."
        )
    return None


def _saturated(margin: Floats) -> str | None:
    share = float((1 / (1 + np.exp(margin)) < 0.01).mean())
    if share > 0.5:
        return f"{share:.0%} of the pairs no longer teach (gradient weight below .01): stop earlier or raise beta."
    return None


def _length(moved: Floats, length: Floats, what: str, remedy: str = "") -> str | None:
    if len(moved) < 30 or length.std() == 0 or moved.std() == 0:
        return None
    r = float(np.corrcoef(length, moved)[0, 1])
    if abs(r) > 0.5:
        side = "longer" if r > 0 else "shorter"
        return (
            f"Length explains {r * r:.0%} of the {what}: the policy learns that the {side} answer is better. "
            f"Rebalance length{remedy}."
        )
    return None
