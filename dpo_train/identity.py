"""What decides a run's results: the settings that do, and the version of the code that computes them.

A run id holds these, so that settings of speed, memory and watching can change between an interruption and the resumed
run: the advice given where memory runs out does not cost the steps that were taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Raise it when the same version, model and settings would give other numbers: a finished run is then trained again.
# tests/test_identity.py holds the numbers of a few tiny runs under it.
RESULTS = "1"

# The model and its revision are in a run id by content (`contents.of_model`).
_BY_CONTENT = frozenset({"model", "revision"})
_SPEED_AND_WATCHING = frozenset({"gradient_checkpointing", "fsdp", "save_steps", "save_total_limit", "report_to"})
_CUTS = frozenset({"token_budget", "prefix_sharing"})  # another cut into forward passes draws another dropout
_STEP = ("per_device_train_batch_size", "gradient_accumulation_steps")  # only their product reaches a step


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a dumped configuration that decide results; the batch as its pairs per step."""
    ignored = _BY_CONTENT | _SPEED_AND_WATCHING | set(_STEP)
    if not config.get("lora_dropout") or not config.get("use_peft", True):
        ignored |= _CUTS
    batch, accumulation = (config.get(name, 1) for name in _STEP)
    decisive = {name: value for name, value in config.items() if name not in ignored}
    return {**decisive, "pairs_per_step": batch * accumulation}
