"""The policy: a causal language model, its adapter, and the one forward pass that everything goes through.

The network stays in evaluation mode even while it trains, so that no dropout of any kind is live; only
the adapter's own dropout, where it was asked for, is switched on around a training step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from xxhash import xxh3_128

from dpo_train.data.encoded_pair import EncodedPair, end
from dpo_train.data.pairs import Rows
from dpo_train.policy.flops import FlopCounter, shape_of
from dpo_train.policy.fsdp import Sharded, as_first, most_passes, recover, shard
from dpo_train.policy.logprobs import Sums, sums
from dpo_train.policy.packed_attention import NAME, read_whole_pairs
from dpo_train.policy.packing import collate
from dpo_train.progress import quiet_bars, quiet_peft
from dpo_train.statistics import Indices

ScoringMode = Literal["packed", "separate", "full_logits"]  # of scoring pairs; see scoring_modes.py


class Policy:
    """A network with what is needed to score pairs with it; `network` is the causal LM, adapters injected."""

    def __init__(self, network: Any, tokenizer: Any, base: dict[str, str], device: torch.device) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.base = base  # name, folder, sha256 of a GGUF: said in the run and beside the adapter
        self.device = device
        self.adapter: Any = None  # the PeftModel around `network`
        self.sharded: Sharded | None = None
        self.way: ScoringMode = "packed"
        self.window: int | None = None  # input tokens up to which responses may share a row; None: all of them may
        self.attention: str = network.config._attn_implementation  # the model's own
        self.needs: tuple[str, ...] = ()
        self.autocast = False
        self.weights = fingerprint_of(network)
        self.counter = FlopCounter(shape_of(network))

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights."""
        return next(iter(self.network.parameters())).dtype  # type: ignore[no-any-return]

    @property
    def rows(self) -> int:
        """Tokens that the model has an embedding of."""
        return int(self.network.get_input_embeddings().weight.shape[0])

    def score(self, pairs: Sequence[EncodedPair], way: ScoringMode | None = None) -> Sums:
        """Log-probabilities of the pairs, with gradient unless the caller turned it off.

        A pair that ends beyond the attention window takes all pairs of its pass out of their shared row.
        """
        if way is None:
            outgrown = self.way == "packed" and self.beyond(np.array([end(pair) for pair in pairs])).any()
            way = "separate" if outgrown else self.way
        self._attend(way)
        batch = collate(pairs, way == "packed", self.device)
        self.counter.add(batch, torch.is_grad_enabled(), whole_logits=way == "full_logits")
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            read = self.sharded or partial(sums, self.network)
            try:
                found: Sums = read(batch, self.needs, way == "full_logits")
            except Exception:
                if self.sharded is not None:
                    recover(self.sharded)
                raise
            return found

    def idle(self, passes: int, pairs: Rows) -> list[list[EncodedPair]]:
        """What this process scores for nothing after its own `passes`, so that all make equally many; ask before."""
        if self.sharded is None or not len(pairs):
            return []
        shortest = pairs.encoded([int(pairs.lengths.argmin())])
        return [shortest] * (most_passes(passes, self.device) - passes)

    def shard(self) -> None:
        """Cut the weights over the processes; raises `TrainError` where that cannot be."""
        apart = list(self.trainable().values()) if self.adapter is not None else []
        self.sharded = shard(self.network, apart, self.device)
        self.weights = as_first(self.weights)  # of the first process, which may be the only one that has loaded any

    def beyond(self, ends: Indices) -> npt.NDArray[np.bool_]:
        """Which of the pairs with these last tokens outgrow the model's attention window."""
        return np.zeros(len(ends), dtype=bool) if self.window is None else ends > self.window

    def _attend(self, way: ScoringMode) -> None:
        """Whole pairs in a row need an attention of ours; any other way the model's own, with the masks it makes."""
        if way == "packed" and self.network.config._attn_implementation != NAME:
            if not self.network._can_set_attn_implementation():
                raise ValueError("the model computes its attention by itself, not through transformers' interface")
            read_whole_pairs(self.network)
        elif way != "packed" and self.network.config._attn_implementation != self.attention:
            self.network.set_attn_implementation(self.attention)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name, in a fixed order."""
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """The starting weights: the adapter off. For full fine-tuning: only before the first step."""
        with torch.no_grad(), self.adapter.disable_adapter() if self.adapter is not None else nullcontext():
            yield

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Adapter dropout on, for the forward passes of a training step; nothing else ever drops."""
        drops = [part for name, part in self.network.named_modules() if ".lora_dropout." in name]
        for part in drops:
            part.train()
        try:
            yield
        finally:
            for part in drops:
                part.eval()

    @quiet_bars()
    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write what `AutoPeftModelForCausalLM` or `AutoModelForCausalLM` opens, and where the base came from.

        `weights` are those that were trained, whole, by name.
        """
        if self.adapter is not None:
            with quiet_peft():
                self.adapter.save_pretrained(folder)
        else:
            parameters = {name for name, _ in self.network.named_parameters(remove_duplicate=False)}
            buffers = {name: value for name, value in self.network.state_dict().items() if name not in parameters}
            self.network.save_pretrained(folder, state_dict={**buffers, **weights})
        if self.adapter is None or len(self.tokenizer) <= self.rows:  # to a longer one, peft would fit the embedding
            self.tokenizer.save_pretrained(folder)
        (folder / "base.json").write_text(json.dumps(self.base, indent=1), encoding="utf-8")


def fingerprint_of(network: nn.Module) -> str:
    """32 hex digits over name, dtype, shape and bytes of every tensor: the same weights, wherever they came from.

    By xxHash, which reads half a gigabyte in 20 ms where BLAKE2 takes .6 s: it tells weights apart, and is no proof
    against somebody who forges them.
    """
    digest = xxh3_128()
    tensors = sorted(network.state_dict().items())
    addresses = [value.data_ptr() for name, value in tensors if not name.endswith("lm_head.weight")]
    for name, value in tensors:
        if name.endswith("lm_head.weight") and value.data_ptr() in addresses:
            continue  # the embedding once more
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
