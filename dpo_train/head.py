"""From hidden states to log-probabilities of the next tokens, in one pass over the vocabulary.

Only scored positions come here, in chunks, so that the logits of a whole batch never exist. With a frozen head the
surprise is that no backward matmul is needed: d log p(y) / d h = W[y] − Σ_v p(v) W[v] does not depend on the loss, so
the forward pass, which has p at hand, computes it, and the backward pass scales one row a token. A head that is itself
trained (full fine-tuning, an adapter on the head) takes the plain path and recomputes its chunk in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpo_train.cpu_matmul import FastLinear, matmul

CHUNK = 2**25  # logits held at once: 128 MB of float32


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: nn.Linear, targets: Tensor, rows: int, keep: bool) -> Tensor:
        weight = head.weight
        product = matmul if isinstance(head, FastLinear) else F.linear
        logps = hidden.new_empty(targets.shape, dtype=_accumulator(hidden.dtype))
        slopes = torch.empty_like(hidden) if keep else hidden.new_empty(0)
        for start in range(0, targets.numel(), rows):
            part = slice(start, start + rows)
            target = targets[part, None]
            logits = product(hidden[part], weight, head.bias).to(logps.dtype)
            top = logits.amax(-1, keepdim=True)
            chosen = logits.gather(1, target) - top
            powers = logits.sub_(top).exp_()
            total = powers.sum(-1, keepdim=True)
            logps[part] = (chosen - total.log()).squeeze(1)
            if keep:
                expected = product(powers.to(weight.dtype), weight.t()).to(logps.dtype) / total
                slopes[part] = (weight[target.squeeze(1)].to(logps.dtype) - expected).to(hidden.dtype)
        ctx.save_for_backward(slopes)
        return logps

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * upstream[0].unsqueeze(1)).to(slopes.dtype), None, None, None, None


def token_logps(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    """log p(target) of every row, shape (rows,), float32 or wider; hidden (rows, width), targets (rows,)."""
    rows = max(1, CHUNK // _vocabulary(head))
    if _is_frozen_linear(head):
        keep = hidden.requires_grad and torch.is_grad_enabled()
        scored: Callable[..., Tensor] = _FrozenHead.apply
        return scored(hidden, head, targets, rows, keep)
    parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    return torch.cat([checkpoint(_plain, head, part, target, use_reentrant=False) for part, target in parts])


def token_collisions(hidden: Tensor, head: nn.Module) -> Tensor:
    """log Σ_v p(v)² of every row, shape (rows,), without gradient: the model's log chance of agreeing with itself."""
    rows = max(1, CHUNK // _vocabulary(head))
    with torch.no_grad():
        logits = (head(part).to(_accumulator(hidden.dtype)) for part in torch.split(hidden, rows))
        return torch.cat([(2 * part).logsumexp(-1) - 2 * part.logsumexp(-1) for part in logits])


def _plain(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    logits: Tensor = head(hidden).to(_accumulator(hidden.dtype))
    return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(-1)


def _is_frozen_linear(head: nn.Module) -> bool:
    return type(head) in (nn.Linear, FastLinear) and not any(parameter.requires_grad for parameter in head.parameters())


def _vocabulary(head: nn.Module) -> int:
    return int(head.out_features) if hasattr(head, "out_features") else 2**16  # type: ignore[arg-type]


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
