"""Log-probabilities of both responses of each pair, from one forward pass of any causal language model.

Only response tokens are scored, each from the position before it; sums are float64, so that a margin (a small
difference of large sums) keeps its digits. `Policy` is the one forward code: training, evaluation and the reference
all go through it. The model's own forward is never called, only its body and then its head on the
scored positions; a model for which that is not the same thing is scored from its own logits (`whole_logits`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpo_train.policy.lm_head import shaping_of, token_collisions, token_logps
from dpo_train.policy.packed_attention import NAME
from dpo_train.policy.packing import MicroBatch


class Sums(NamedTuple):
    """Per pair, float64, shape (pairs,); the optional ones as `losses.PairLogprobs` names them."""

    chosen: Tensor
    rejected: Tensor
    chosen_prefix: Tensor | None = None
    rejected_prefix: Tensor | None = None
    chosen_collision: Tensor | None = None
    rejected_collision: Tensor | None = None


def sums(model: Any, batch: MicroBatch, needs: tuple[str, ...] = (), whole_logits: bool = False) -> Sums:
    """Score a micro-batch with a causal language model of transformers; `needs` as a loss states them."""
    collisions: Tensor | None
    if whole_logits:
        logps, collisions = _from_logits(model, batch)
    else:
        hidden = hidden_states(model, batch)[batch.rows, batch.columns]
        head, shaping = model.get_output_embeddings(), shaping_of(model.config.get_text_config())
        logps = token_logps(hidden, head, batch.targets, shaping)
        collisions = token_collisions(hidden, head, shaping) if "chosen_collision" in needs else None
    total = _Adder(batch)
    extra: dict[str, Tensor] = {}
    if "chosen_prefix" in needs:
        extra |= {"chosen_prefix": total.chosen(logps, True), "rejected_prefix": total.rejected(logps, True)}
    if "chosen_collision" in needs and collisions is not None:
        extra |= {"chosen_collision": total.chosen(collisions), "rejected_collision": total.rejected(collisions)}
    return Sums(total.chosen(logps), total.rejected(logps), **extra)


def hidden_states(model: Any, batch: MicroBatch) -> Tensor:
    """What the head reads, (rows, length, width), from the model's body alone."""
    body = getattr(model, model.base_model_prefix, None) or model.model  # Llama 4 names a part that its text lacks
    if batch.spans is None:
        return body(input_ids=batch.input_ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]
    if model.config._attn_implementation != NAME:
        raise RuntimeError("whole pairs in a row need the attention that `read_whole_pairs` sets")
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "spans": batch.spans}
    return body(**inputs, use_cache=False).last_hidden_state  # type: ignore[no-any-return]


def _from_logits(model: Any, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Token log-probabilities and collisions from the model's own logits: slow, and right by definition."""
    logits = model(input_ids=batch.input_ids, use_cache=False).logits[batch.rows, batch.columns]
    logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    norm = logits.logsumexp(-1)
    collisions = (2 * logits.detach()).logsumexp(-1) - 2 * norm.detach()
    return logits.gather(1, batch.targets[:, None]).squeeze(1) - norm, collisions


class _Adder:
    """Sums token values into pairs, in float64."""

    def __init__(self, batch: MicroBatch) -> None:
        self.batch = batch

    def chosen(self, values: Tensor, prefix: bool = False) -> Tensor:
        return self._add(values, self.batch.chosen_of, self.batch.chosen_tokens, prefix)

    def rejected(self, values: Tensor, prefix: bool = False) -> Tensor:
        return self._add(values, self.batch.rejected_of, self.batch.rejected_tokens, prefix)

    def _add(self, values: Tensor, members: Tensor, tokens: Tensor, prefix: bool) -> Tensor:
        token, pair = members
        picked = values.double()[token]
        if prefix:  # the first min(chosen, rejected) tokens of the response; a response's tokens lie in order
            first = torch.cumsum(tokens, 0) - tokens
            place = torch.arange(len(pair), device=pair.device) - first[pair]
            shorter = torch.minimum(self.batch.chosen_tokens, self.batch.rejected_tokens)
            picked = torch.where(place < shorter[pair], picked, 0)
        return torch.zeros(len(tokens), dtype=torch.float64, device=values.device).index_add(0, pair, picked)
