"""AdamW over the parameters that learn; norms and biases are not decayed, as transformers' Trainer does it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dpo_train.config import TrainConfig

# transformers 5.23, Trainer.get_decay_parameter_names: these names, and whatever lies in an nn.LayerNorm.
_NOT_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def optimizer_of(config: TrainConfig, network: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Any:
    """One group of parameters, or a second one without decay where there are norms or biases and a decay is set."""
    plain = undecayed(network, parameters) if config.weight_decay else set()
    decayed = [parameter for name, parameter in parameters.items() if name not in plain]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}]
    if plain:
        groups.append({"params": [parameters[name] for name in parameters if name in plain], "weight_decay": 0.0})
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
    )


def undecayed(network: nn.Module, parameters: Mapping[str, nn.Parameter]) -> set[str]:
    """Names of the parameters that weight decay leaves alone."""
    in_norms = {
        f"{place}.{name}"
        for place, module in network.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
    return {name for name in parameters if name in in_norms or _NOT_DECAYED.search(name.lower())}


def rate_factor(kind: str, step: int, total: int, warmup_ratio: float) -> float:
    """What the peak learning rate is multiplied by at optimiser step `step` (from 0) of `total`.

    transformers' schedules of these names, but for one thing: the first step of a warm-up is not spent at rate 0.
    """
    warmup = 0 if kind == "constant" else int(np.ceil(warmup_ratio * total))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    if kind == "linear":
        return 1 - done
    return float(0.5 * (1 + np.cos(np.pi * done))) if kind == "cosine" else 1.0
