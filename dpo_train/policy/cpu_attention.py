"""Causal attention in float32 on a CPU, through oneDNN, which is faster than PyTorch's own the longer the pair.

Query heads that share a key head are stacked, so that one product serves them all; queries go in blocks, and a block
meets only the keys it may see. The probabilities are kept for the backward pass, which PyTorch's kernel
computes again. That is heads x tokens² / 2 numbers a layer: fewer than the activations beside it up to 1,000 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dpo_train.policy.cpu_matmul import matmul, usable

BLOCK = 128  # queries; blocks of 256 and 512 were no faster at 250 to 900 tokens and compute more that is masked


def fits(query: Tensor, key: Tensor) -> bool:
    """Whether `attend` takes these, (1, heads, tokens, width) each."""
    whole = query.shape[0] == 1 and query.shape[1] % key.shape[1] == 0
    return whole and usable(query.dtype, query.device)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(scale · query · keyᵀ) · value, a query seeing all keys but those that follow its own.

    `query` is (1, heads, tokens, width), `key` and `value` (1, key heads, keys, width) with keys >= tokens: the last
    `tokens` keys are those of the queries. Returns (1, tokens, heads, width), as transformers wants it.
    """
    apply: Callable[..., Tensor] = _Attention.apply
    return apply(query, key, value, scale)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        groups, stack = key.shape[1], query.shape[1] // key.shape[1]
        stacked, keys, values = _stacked(query * scale, groups), key[0].contiguous(), value[0].contiguous()
        result = torch.empty_like(stacked)
        kept = []
        for rows, seen, last in _blocks(query.shape[2], key.shape[2], stack):
            for group in range(groups):
                scores = matmul(stacked[group, rows], keys[group, :seen])
                scores.view(-1, stack, seen)[:, :, seen - last :] += _future(last)
                kept.append(torch.softmax(scores, 1))
                result[group, rows] = matmul(kept[-1], values[group, :seen].t())
        ctx.save_for_backward(stacked, keys, values, *kept)
        ctx.stack, ctx.scale = stack, scale
        return _unstacked(result, stack).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        stacked, keys, values, *kept = ctx.saved_tensors
        (grad,) = upstream
        groups, stack = keys.shape[0], ctx.stack
        grad = _stacked(grad.transpose(1, 2), groups)
        of_query, of_keys, of_values = torch.empty_like(stacked), torch.zeros_like(keys), torch.zeros_like(values)
        known = iter(kept)
        for rows, seen, _ in _blocks(stacked.shape[1] // stack, keys.shape[1], stack):
            for group in range(groups):
                shares = next(known)
                of_values[group, :seen] += matmul(shares.t(), grad[group, rows].t())
                of_shares = matmul(grad[group, rows], values[group, :seen])
                of_scores = torch._softmax_backward_data(of_shares, shares, 1, torch.float32)
                of_query[group, rows] = matmul(of_scores, keys[group, :seen].t())
                of_keys[group, :seen] += matmul(of_scores.t(), stacked[group, rows].t())
        return _unstacked(of_query, stack) * ctx.scale, of_keys[None], of_values[None], None


def _blocks(tokens: int, keys: int, stack: int) -> list[tuple[slice, int, int]]:
    """Blocks of queries: their rows in the stack, how many keys they see, and how many of those are their own."""
    starts = range(0, tokens, BLOCK)
    ends = [min(tokens, start + BLOCK) for start in starts]
    return [
        (slice(start * stack, end * stack), keys - tokens + end, end - start)
        for start, end in zip(starts, ends, strict=True)
    ]


def _stacked(heads: Tensor, groups: int) -> Tensor:
    """(1, heads, tokens, width) as (groups, tokens x heads of a group, width), in memory of its own."""
    _, count, tokens, width = heads.shape
    return heads[0].view(groups, count // groups, tokens, width).transpose(1, 2).flatten(1, 2).contiguous()


def _unstacked(stacked: Tensor, stack: int) -> Tensor:
    """Back to (1, heads, tokens, width)."""
    groups, rows, width = stacked.shape
    return stacked.view(groups, rows // stack, stack, width).transpose(1, 2).flatten(0, 1)[None]


def _future(tokens: int) -> Tensor:
    """(tokens, 1, tokens): minus infinity where a key follows the query."""
    return torch.full((tokens, tokens), -torch.inf).triu(1)[:, None, :]
