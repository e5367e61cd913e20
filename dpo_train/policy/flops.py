"""FLOP accounting: minimum required, actually executed, and measured device peak.

The minimum processes each prompt once, applies the LM head only at scored positions, attends only to visible tokens,
and excludes the cached reference. Executed work is counted in `Policy.score`. A good ratio does not imply speed, so the
achieved rate is compared with the measured matmul rate for the model's own shapes.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpo_train.data.encoded_pair import EncodedPair, opening
from dpo_train.data.pairs import PairSet
from dpo_train.policy.architecture import attribute, layer_configs
from dpo_train.policy.cpu_matmul import matmul, usable
from dpo_train.policy.packing import MicroBatch
from dpo_train.statistics import Indices

MULTIPLY_ADD = 2  # floating-point operations of a weight met by a token


class ModelFlops(NamedTuple):
    """What of a network costs: weights met by every token, by every scored one, and by a query that meets a key."""

    body: int  # of all linear layers but the output matrix and the adapters; experts of a mixture are not counted
    head: int
    attention: int  # numbers multiplied for a query-key pair, scores and values, in all layers

    def forward(self, tokens: float, scored: float, attention_pairs: float) -> float:
        """Operations of a forward pass; `attention_pairs` counts query-key pairs."""
        return MULTIPLY_ADD * (self.body * tokens + self.head * scored + self.attention * attention_pairs)

    def backward(self, tokens: float, scored: float, attention_pairs: float, all_weights: bool) -> float:
        """Operations of its backward pass: gradients of inputs; of weights too where all of them learn."""
        twice = 2 if all_weights else 1
        return MULTIPLY_ADD * (twice * (self.body * tokens + self.head * scored) + 2 * self.attention * attention_pairs)


def shape_of(network: Any) -> ModelFlops:
    """Counted from the layers; a model without attention heads has none to count."""
    head = network.get_output_embeddings()
    config = network.config.get_text_config()
    body = sum(inner * outer for inner, outer in _matrices(network))
    return ModelFlops(body, head.weight.numel(), 2 * sum(map(_width, layer_configs(config))))


def _width(config: Any) -> int:
    """Numbers of a layer's queries: heads times their width; 0 for a layer without attention heads."""
    heads = attribute(config, "num_attention_heads") or 0
    return int(heads * (attribute(config, "head_dim") or (config.hidden_size // heads if heads else 0)))


def _matrices(network: Any) -> list[tuple[int, int]]:
    """Sizes (in, out) of the layers that multiply every token, adapters and the output matrix apart."""
    head = network.get_output_embeddings()
    found = []
    for name, layer in network.named_modules():
        weight = getattr(layer, "weight", None)
        if weight is None or weight.dim() != 2 or isinstance(layer, nn.Embedding) or layer is head or "lora_" in name:
            continue
        # packed 4 bit weights lie in another shape
        sizes = (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else tuple(weight.shape)
        found.append(sizes)
    return found


def least(shape: ModelFlops, pairs: Sequence[EncodedPair], all_weights: bool) -> float:
    """Operations that the gradient of these pairs needs, whoever computes it."""
    return least_forward(shape, pairs) + sum(shape.backward(*_cost(pair), all_weights) for pair in pairs)


def least_forward(shape: ModelFlops, pairs: Sequence[EncodedPair]) -> float:
    """Operations that scoring these pairs needs."""
    return sum(shape.forward(*_cost(pair)) for pair in pairs)


def _cost(pair: EncodedPair) -> tuple[int, int, float]:
    """Input tokens of a pair, scored tokens, query-key pairs."""
    same = opening(pair)
    prefix = len(pair.prompt) + same
    chosen, rejected = (max(0, len(side) - same - 1) for side in (pair.chosen, pair.rejected))
    attention_pairs = (prefix + chosen) ** 2 / 2 + rejected * (prefix + rejected / 2)
    return prefix + chosen + rejected, len(pair.chosen) + len(pair.rejected) - same, attention_pairs


@dataclass
class FlopCounter:
    """Operations done by one policy so far; attention is counted in full squares, though a kernel may skip half."""

    shape: ModelFlops
    all_weights: bool = False  # all learn, not adapters alone
    recomputed: bool = False  # activations are checkpointed: the forward pass is done again on the way back
    done: float = 0.0

    def add(self, batch: MicroBatch, learning: bool, whole_logits: bool = False) -> None:
        """Count a forward pass and, where it is `learning`, the backward pass that follows."""
        tokens = batch.input_ids.numel()
        if batch.spans is None:
            attention_pairs = float(tokens * batch.input_ids.shape[1])
        else:
            attention_pairs = float(
                sum(one.main**2 + one.rejected * (one.prefix + one.rejected) for one in batch.spans)
            )
        cost = (tokens, tokens if whole_logits else len(batch.targets), attention_pairs)
        self.done += self.shape.forward(*cost)
        if learning:
            self.done += self.shape.backward(*cost, self.all_weights)
            if self.recomputed:
                self.done += self.shape.forward(tokens, 0, attention_pairs)


@dataclass
class Throughput:
    """Pairs, tokens, seconds and operations of the optimiser steps alone; evaluations and checkpoints apart."""

    counter: FlopCounter
    processes: int = 1  # that share a step's pairs; operations are those of this one
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    needed: float = 0.0
    done: float = 0.0

    @contextmanager
    def on(self, pairs: PairSet, window: Indices) -> Iterator[None]:
        """Around all that one step does."""
        began, before = time.perf_counter(), self.counter.done
        yield
        self.seconds += time.perf_counter() - began
        self.done += self.counter.done - before
        self.pairs += len(window)
        self.tokens += int(pairs.lengths[window].sum())
        self.needed += least(self.counter.shape, pairs.encoded(window), self.counter.all_weights) / self.processes

    def told(self, network: Any) -> dict[str, float]:
        """The rates, where a step was made: plain numbers for summary.json."""
        if not self.pairs:
            return {}
        return {
            "step_seconds": self.seconds,
            "pairs_per_second": self.pairs / self.seconds,
            "tokens_per_second": self.tokens / self.seconds,
            "work_ratio": self.done / self.needed,
            "share_of_matmul_peak": self.needed / self.seconds / matmul_rate(network, min(0.3, self.seconds / 50)),
            "peak_memory_gb": peak_memory() / 2**30,
        }


@torch.inference_mode()
def matmul_rate(network: Any, seconds: float = 0.3) -> float:
    """Operations a second of a product as large as the network's largest layer: the best of PyTorch's library and ours.

    About `seconds` for each of the two.
    """
    inner, outer = max(_matrices(network), key=lambda sizes: sizes[0] * sizes[1])
    embedding = network.get_input_embeddings().weight  # never packed, so its type is the one computed in
    left, right = (torch.randn(rows, inner, dtype=embedding.dtype, device=embedding.device) for rows in (512, outer))
    ways = [nn.functional.linear, *([matmul] if usable(left.dtype, left.device) else [])]
    return max(_rate(way, left, right, seconds) for way in ways)


def _rate(way: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor, seconds: float) -> float:
    way(left, right)
    count, began, spent = 0, time.perf_counter(), 0.0
    while spent < seconds:
        for _ in range(4):
            way(left, right)
        if left.is_cuda:
            torch.cuda.synchronize()
        count += 4
        spent = time.perf_counter() - began
    return MULTIPLY_ADD * left.shape[0] * right.numel() * count / spent


def peak_memory() -> int:
    """Bytes: of the GPU's allocator where there is one, else the most this process ever held."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
