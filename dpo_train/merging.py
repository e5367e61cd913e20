"""An adapter merged into the weights that it was trained on: one model folder, for programs that know no adapters.

The surprise: weights that were trained in 4 bit are merged into the model as it was before it was packed, which is not
quite the one that the adapter was trained on, so a run's held-out numbers do not carry over exactly.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import torch

from dpo_train.card import write_card
from dpo_train.config import TrainError
from dpo_train.terminal import quiet_bars


@quiet_bars()
def merge(run: Path) -> Path:
    """The folder `model` of a finished run, which `AutoModelForCausalLM` opens; made from its adapter where it is not
    there. Raises `TrainError` where the run is not finished or the adapter's base cannot be opened."""
    target = run / "model"
    if target.is_dir():
        return target
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        settings = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainError(f"{error.filename} is missing: only a finished run can be merged.") from error
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    try:
        with warnings.catch_warnings():  # as where the adapter is made: peft 0.21 asks transformers by an old name
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            opened = AutoPeftModelForCausalLM.from_pretrained(run / "adapter", dtype=_dtype(settings["dtype"]))
    except (OSError, ValueError) as error:
        raise TrainError(f"{run / 'adapter'}: its base model could not be opened: {error}.") from error
    partial = run / f".model.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    opened.merge_and_unload().save_pretrained(partial)
    AutoTokenizer.from_pretrained(run / "adapter").save_pretrained(partial)
    write_card(partial, summary["base"], settings, {**summary, "output": "model"})
    partial.rename(target)
    return target


def _dtype(name: str) -> torch.dtype | str:
    """That of the run; "auto" is the one the base is stored in."""
    return "auto" if name == "auto" else {"float64": torch.float64, "float32": torch.float32}.get(name, torch.bfloat16)
