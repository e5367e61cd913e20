"""Read a network's architecture from its configuration and modules: layers, position tables, single values.

A configuration may differ from layer to layer (Gemma 4): transformers then raises `RuntimeError` where such an
attribute is read from the whole model's configuration, so every read that may meet one goes through `attribute`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

_POSITIONS = re.compile(r"(?:^|[._])(?:wpe|pos|positions?)(?:[._]|$)")  # of GPT-2, CTRL, GPT, OPT and GPT-J


def attribute(config: Any, name: str, default: Any = None) -> Any:
    """A value of a configuration; `default` where it has none, or none that holds for all layers."""
    try:
        return getattr(config, name, default)
    except RuntimeError:
        return default


def layer_configs(config: Any) -> list[Any]:
    """One configuration per layer; the model's own, once per layer, where all are equal."""
    return list(getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers)


def position_limit(network: Any) -> int | None:
    """The most input tokens that a model with a fixed table of positions (GPT-2, OPT, GPT-J) can read.

    None where positions are computed for any length.
    """
    config = network.config.get_text_config()
    if config.model_type == "mpt":  # builds its ALiBi biases for so many tokens and no more
        return int(config.max_seq_len)
    most = attribute(config, "max_position_embeddings")
    sizes = [size for name, module in network.named_modules() for size in _table_sizes(name, module)]
    return most if isinstance(most, int) and most in sizes else None


def _table_sizes(name: str, module: nn.Module) -> Iterator[int]:
    """Positions in each table that a module itself holds; OPT's has two more rows, for an offset."""
    if hasattr(module, "make_weights"):  # XGLM's table grows with the input
        return
    for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if tensor.dim() == 2 and tensor.is_floating_point() and _POSITIONS.search(f"{name}.{own}"):
            yield tensor.shape[0] - int(getattr(module, "offset", 0) or 0)
