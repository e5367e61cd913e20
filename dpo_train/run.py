"""A run folder: what decides its id, and the claim on it while it trains.

A run id holds the settings that decide results and the version of the code that computes them, so settings of speed,
memory and logging can change between an interruption and the resumed run. `claim.json` names the version and the
process before anything of the version is read. It is locked while the process lives; a kill releases the lock.
Versions and runs whose claim is locked are never removed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpo_train.config import TrainError
from dpo_train.distributed import first_process

# Raise it when the same version, model and settings would give other numbers: a finished run is then trained again.
# tests/train/test_run_ids.py holds the numbers of a few tiny runs under it.
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


CLAIM = "claim.json"


@contextmanager
def held(run: Path, version: Path) -> Iterator[None]:
    """Hold the run folder of a training; raises `TrainError` where another process trains it, or the version is gone.

    Of the processes that a launcher started only the first one holds it.
    """
    if not first_process():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with (run / CLAIM).open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainError(
                f"{run}: this run is being trained by {_holder(run)}. Wait until it ends, then ask again: what it has "
                "done is not repeated."
            ) from None
        stream.truncate(0)
        json.dump({"version": version.name, "process": os.getpid()}, stream)
        stream.flush()
        if not version.is_dir():
            raise TrainError(
                f"version {version.name} is not there ({version}): it was removed meanwhile, or the path is wrong. "
                "Train on another one: `dpo versions` lists those that are there."
            )
        yield


def _holder(run: Path) -> str:
    try:
        return f"process {json.loads((run / CLAIM).read_text(encoding='utf-8'))['process']}"
    except (OSError, ValueError, KeyError):  # it has just opened the file
        return "another process"
