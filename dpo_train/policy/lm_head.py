"""From hidden states to log-probabilities of the next tokens, in one pass over the vocabulary.

Only scored positions come here, in chunks, so that the logits of a whole batch never exist. With a frozen head no
backward matmul is needed: d log p(y) / d h = W[y] − Σ_v p(v) W[v] does not depend on the loss, so
the forward pass, which has p at hand, computes it, and the backward pass scales one row a token. A head that is itself
trained (full fine-tuning, an adapter on the head) takes the plain path and recomputes its chunk in the backward pass.
Some families scale or cap what the matrix gives before it counts as a logit; each path knows their slope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpo_train.policy.architecture import attribute
from dpo_train.policy.cpu_matmul import FastLinear, matmul

CHUNK = 2**25  # logits held at once: 128 MB of float32


class Shaping(NamedTuple):
    """What a model makes of the products z of hidden state and output matrix: logits cap · tanh(scale · z / cap)."""

    scale: float = 1.0
    cap: float | None = None  # None: not capped, scale · z

    def logits(self, products: Tensor) -> Tensor:
        """Of any shape; the products themselves where nothing is to be done."""
        scaled = products if self.scale == 1 else products * self.scale
        return scaled if self.cap is None else (scaled / self.cap).tanh() * self.cap

    def bend(self, logits: Tensor) -> Tensor | None:
        """Slope of each logit by its scaled product, 1 − tanh²; None where all are 1."""
        return None if self.cap is None else 1 - (logits / self.cap).square()


def shaping_of(config: Any) -> Shaping:
    """Logit scaling and soft-capping as in the model's config; `choose_scoring_mode` verifies the model's own logits.

    Cohere multiplies by `logit_scale` and Falcon H1 by `lm_head_multiplier`. Granite divides by `logits_scaling`, by
    which HyperCLOVA X multiplies. Gemma and nanochat cap by `final_logit_softcapping`, RecurrentGemma by
    `logits_soft_cap`.
    """

    def number(name: str) -> float | None:
        value = attribute(config, name)
        return float(value) if isinstance(value, (int, float)) else None

    scaling = number("logits_scaling") or 1.0
    scale = 1 / scaling if config.model_type.startswith("granite") else scaling
    scale *= (number("logit_scale") or 1.0) * (number("lm_head_multiplier") or 1.0)
    return Shaping(scale, number("final_logit_softcapping") or number("logits_soft_cap"))


PLAIN = Shaping()


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: nn.Linear, targets: Tensor, shaping: Shaping, rows: int, keep: bool
    ) -> Tensor:
        weight = head.weight
        product = matmul if isinstance(head, FastLinear) else F.linear
        logps = hidden.new_empty(targets.shape, dtype=_accumulator(hidden.dtype))
        slopes = torch.empty_like(hidden) if keep else hidden.new_empty(0)
        for start in range(0, targets.numel(), rows):
            part = slice(start, start + rows)
            target = targets[part, None]
            logits = shaping.logits(product(hidden[part], weight, head.bias).to(logps.dtype))
            bend = shaping.bend(logits) if keep else None
            top = logits.amax(-1, keepdim=True)
            chosen = logits.gather(1, target) - top
            powers = logits.sub_(top).exp_()
            total = powers.sum(-1, keepdim=True)
            logps[part] = (chosen - total.log()).squeeze(1)
            if keep:
                scored = weight[target.squeeze(1)].to(logps.dtype)
                if bend is not None:
                    scored *= bend.gather(1, target)
                    powers *= bend
                expected = product(powers.to(weight.dtype), weight.t()).to(logps.dtype) / total
                slopes[part] = (shaping.scale * (scored - expected)).to(hidden.dtype)
        ctx.save_for_backward(slopes)
        return logps

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * upstream[0].unsqueeze(1)).to(slopes.dtype), None, None, None, None, None


def token_logps(hidden: Tensor, head: nn.Module, targets: Tensor, shaping: Shaping = PLAIN) -> Tensor:
    """log p(target) of every row, shape (rows,), float32 or wider; hidden (rows, width), targets (rows,)."""
    rows = max(1, CHUNK // _vocabulary(head))
    if _is_frozen_linear(head):
        keep = hidden.requires_grad and torch.is_grad_enabled()
        scored: Callable[..., Tensor] = _FrozenHead.apply
        return scored(hidden, head, targets, shaping, rows, keep)
    parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    return torch.cat([checkpoint(_plain, head, part, target, shaping, use_reentrant=False) for part, target in parts])


def token_collisions(hidden: Tensor, head: nn.Module, shaping: Shaping = PLAIN) -> Tensor:
    """log Σ_v p(v)² of every row, shape (rows,), without gradient: the model's log chance of agreeing with itself."""
    rows = max(1, CHUNK // _vocabulary(head))
    with torch.no_grad():
        logits = (_logits(head, part, shaping) for part in torch.split(hidden, rows))
        return torch.cat([(2 * part).logsumexp(-1) - 2 * part.logsumexp(-1) for part in logits])


def _logits(head: nn.Module, hidden: Tensor, shaping: Shaping) -> Tensor:
    return shaping.logits(head(hidden).to(_accumulator(hidden.dtype)))


def _plain(head: nn.Module, hidden: Tensor, targets: Tensor, shaping: Shaping) -> Tensor:
    logits = _logits(head, hidden, shaping)
    return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(-1)


def _is_frozen_linear(head: nn.Module) -> bool:
    return type(head) in (nn.Linear, FastLinear) and not any(parameter.requires_grad for parameter in head.parameters())


def _vocabulary(head: nn.Module) -> int:
    return int(head.out_features) if hasattr(head, "out_features") else 2**16  # type: ignore[arg-type]


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
