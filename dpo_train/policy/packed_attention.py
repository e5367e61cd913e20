"""Attention for rows that hold whole pairs one after the other: a pair's prompt is read once, by both its responses.

A pair lies as [prefix, chosen, rejected]. Prefix and chosen are plain causal attention; rejected tokens attend to the
prefix and to each other. So every pair takes two calls of scaled dot product attention, no score between two pairs or
between chosen and rejected is ever computed, and nothing is padded. This is registered with transformers
as one of its attention implementations, so any model of it that hands keyword arguments down to its attention works.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpo_train.policy import cpu_attention

NAME = "whole_pairs"
CHANGING_SCORES = ("softcap", "s_aux", "position_bias")  # keyword arguments of transformers' attentions


class Span(NamedTuple):
    """Where one pair lies in a row: input tokens of prefix and chosen, then of rejected, and who sees what there."""

    main: int  # tokens of prefix + chosen
    prefix: int
    rejected: int
    mask: Tensor | None  # (1, 1, rejected, prefix + rejected), true where a rejected token may look; None without any


def span(prefix: int, chosen: int, rejected: int, device: torch.device) -> Span:
    """The span of a pair with so many input tokens of each part."""
    if not rejected:
        return Span(prefix + chosen, prefix, 0, None)
    mask = torch.ones(rejected, prefix + rejected, dtype=torch.bool, device=device).tril(prefix)
    return Span(prefix + chosen, prefix, rejected, mask[None, None])


def whole_pairs(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    spans: Sequence[Span] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (1, heads, tokens, width) to (1, tokens, heads, width).

    Raises ValueError where the model asks for what is not done here: for rows without `spans`, since no mask is made
    for them, and for options that change the scores.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as sdpa

    if spans is None:
        raise ValueError("the model does not hand `spans` down to its attention")
    asked = [name for name in CHANGING_SCORES if options.get(name) is not None]
    if asked:
        raise ValueError(f"the model's attention wants {', '.join(asked)}")
    fast = cpu_attention.fits(query, key)
    scale = options.get("scaling") or query.shape[-1] ** -0.5

    def read(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        if fast:
            return cpu_attention.attend(queries, keys, values, scale)
        return sdpa(module, queries, keys, values, mask, **options)[0]  # type: ignore[no-any-return]

    sizes = [size for one in spans for size in (one.main, one.rejected)]
    queries, keys, values = (torch.split(part, sizes, dim=2) for part in (query, key, value))
    parts: list[Tensor] = []
    for number, one in enumerate(spans):
        main, rest = 2 * number, 2 * number + 1
        parts.append(read(queries[main], keys[main], values[main], None))
        if one.rejected:
            seen = [torch.cat([part[main][:, :, : one.prefix], part[rest]], 2) for part in (keys, values)]
            parts.append(read(queries[rest], seen[0], seen[1], one.mask))
    return torch.cat(parts, 1), None


def read_whole_pairs(network: Any) -> None:
    """Let a model of transformers take `spans`; raises ValueError where it cannot choose its attention."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, whole_pairs)
    network.set_attn_implementation(NAME)
