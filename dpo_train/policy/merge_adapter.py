"""An adapter merged into the weights that it was trained on: one model folder, for programs that know no adapters.

Merged and saved in float32 (float64 for a run in float64): in bfloat16 most of a small update would be rounded away.
Where an adapter is on an embedding that the head shares, the two become separate weights. The folder is compared with
the run before it gets its name. Note: weights that were trained in 4 bit are merged into the model as it was before it
was packed, which is not quite the one that the adapter was trained on, so held-out numbers do not carry over exactly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from dpo_train.config import TrainError
from dpo_train.policy import saved
from dpo_train.policy.card import write_card
from dpo_train.progress import quiet_bars, quiet_peft


@quiet_bars()
def merge(run: Path) -> Path:
    """The folder `model` of a finished run, which `AutoModelForCausalLM` opens; made from its adapter where it is not
    there.

    Raises `TrainError` where the run is not finished, the adapter or its base cannot be opened, or the merged model
    does not score as the run did.
    """
    target = run / "model"
    if target.is_dir():
        return target
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        settings = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainError(f"{error.filename} is missing: only a finished run can be merged.") from error
    dtype = torch.float64 if settings["dtype"] == "float64" else torch.float32
    opened, tokenizer = _open(run / "adapter", dtype)
    probe = saved.read(run)
    if probe is not None and not probe["exact"]:
        probe = saved.exactly(opened, run, probe)
    with saved.checked(run, target.name, probe) as folder:
        _untie(opened.get_base_model())
        with quiet_peft():
            opened.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_card(folder, summary["base"], settings, {**summary, "output": "model"})
    return target


def _open(adapter: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The adapter on its base, and its tokenizer, or the base's where the adapter was saved without one."""
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        settings = PeftConfig.from_pretrained(adapter)
        base, options = settings.base_model_name_or_path, {"revision": settings.revision} if settings.revision else {}
        # Not by AutoPeftModel, which fits the embedding to a tokenizer that is longer.
        network = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, **options)
        with quiet_peft():
            opened = PeftModel.from_pretrained(network, adapter, autocast_adapter_dtype=False)
        if (adapter / "tokenizer_config.json").is_file():
            return opened.eval(), AutoTokenizer.from_pretrained(adapter)
        return opened.eval(), AutoTokenizer.from_pretrained(base, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainError(f"{adapter}: it or its base model could not be opened: {error}.") from error


def _untie(network: Any) -> None:
    """Give the head a weight of its own where an adapter is on it, or on the embedding whose weight it shares."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    parts = [network.get_input_embeddings(), network.get_output_embeddings()]
    if not any(isinstance(part, BaseTunerLayer) for part in parts) or parts[1] is None:
        return
    embedding, head = (part.get_base_layer() if isinstance(part, BaseTunerLayer) else part for part in parts)
    if head.weight.data_ptr() != embedding.weight.data_ptr():
        return
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    for config in (network.config, network.config.get_text_config()):
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False
