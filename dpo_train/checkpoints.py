"""Checkpoints: all that a run needs to resume as if it had never stopped.

A checkpoint holds trained weights, optimizer moments, the update ledger where there is one, and one page of JSON. Which
pairs a step takes, its learning rate and its dropout are functions of the seed and the step. Folders appear by rename,
are flushed to the disk, and hold safetensors and JSON only, nothing that runs code on loading. The JSON lists the
SHA-256 of every file, so that one that a power cut left damaged is found before it is used. Candidates (evaluations
whose weights may be kept) hold weights alone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpo_train.atomic import sync, sync_tree
from dpo_train.config import TrainError
from dpo_train.distributed import put
from dpo_train.run import settings_of

logger = logging.getLogger(__name__)
LEDGER = "ledger"  # the file of the update ledger, in checkpoints of runs that keep one


def save(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    state: dict[str, Any],
    history: Mapping[str, Tensor],
    keep: int,
    ledger: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write checkpoint `step` and remove the oldest beyond `keep`; returns its folder. `moments` as `moments_of`."""
    target = at(folder, step)
    files = {"weights": weights, "optimizer": moments, "history": history}
    if ledger is not None:
        files[LEDGER] = ledger
    _write(target, files, {**state, "step": step})
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def at(folder: Path, step: int) -> Path:
    """The folder of checkpoint `step`."""
    return folder / f"step-{step:08d}"


def candidate(folder: Path, step: int) -> Path:
    """Where the weights of an evaluation lie that may be the ones to keep."""
    return folder / f"candidate-{step:08d}"


def save_candidate(folder: Path, step: int, weights: Mapping[str, Tensor]) -> None:
    """Put the trained weights of a step aside."""
    _write(candidate(folder, step), {"weights": weights}, {"step": step})


def moments_of(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments as `save` takes them, under "name of the weight|name of the moment"."""
    return {
        f"{name}|{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def drop_candidates(folder: Path, steps: Sequence[int]) -> None:
    """Remove all candidates but those of `steps`."""
    for old in set(folder.glob("candidate-*")) - {candidate(folder, step) for step in steps}:
        shutil.rmtree(old)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint, or None; `newest_whole` says whether it can be read."""
    steps = _steps(folder)
    return steps[-1] if steps else None


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose files are as they were written; None where there is none.

    Damaged ones are logged and left where they are: a resumed run writes them again.
    """
    for checkpoint in reversed(_steps(folder)):
        problem = _damage(checkpoint)
        if problem is None:
            return checkpoint
        logger.warning("%s is damaged (%s); resuming from an earlier one", checkpoint, problem)
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The JSON page of a checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    return state


def read_history(checkpoint: Path) -> dict[str, Tensor]:
    """The held-out evaluations so far, as the run named them."""
    from safetensors.torch import load_file

    found: dict[str, Tensor] = load_file(checkpoint / "history.safetensors")
    return found


def load_weights(checkpoint: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put the checkpoint's weights into `parameters`; raises `TrainError` where they are of another model."""
    from safetensors.torch import load_file

    found = load_file(checkpoint / "weights.safetensors")
    if set(found) != set(parameters):
        other = sorted(set(found) ^ set(parameters))[:3]
        raise TrainError(
            f"{checkpoint}: holds other trained weights than this model has (such as {', '.join(other)}). Resume with "
            "the model and adapter settings of the run, or start a new run."
        )
    for name, parameter in parameters.items():
        put(found[name], parameter)


def load_optimizer(checkpoint: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Put the checkpoint's moments into the optimiser."""
    from safetensors.torch import load_file

    for key, value in load_file(checkpoint / "optimizer.safetensors").items():
        name, _, field = key.rpartition("|")
        parameter, moments = parameters[name], optimizer.state[parameters[name]]
        if field == "step":
            moments[field] = value.clone()  # AdamW keeps its step count on the CPU
        else:
            moments[field] = torch.empty_like(parameter, requires_grad=False)
            put(value, moments[field])


def check_same_run(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse to resume under other settings, data or reference than the checkpoint's, showing both."""
    other = _differences(state["reference"], identity["reference"])
    if other:
        raise TrainError(
            f"the checkpoint was trained against another reference: {other}. Resume with the model it started from, or "
            "start a new run."
        )
    before, now = (
        {**settings_of(of["config"]), **{name: of.get(name) for name in ("version", "processes")}}
        for of in (state, identity)
    )
    changed = _differences(before, now)
    if changed:
        raise TrainError(f"a run resumes under its own settings: {changed}. Set them back, or start a new run.")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: checkpoint {before.get(name)!r}, now {now.get(name)!r}" for name in names)


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").exists())


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        listed = dict(read_state(checkpoint)["files"])
        for name, digest in listed.items():
            if _sha256(checkpoint / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"state.json or a file that it lists cannot be read: {type(error).__name__}"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _write(target: Path, files: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> None:
    """Write a folder beside `target`, flush it and rename it into place: it is there whole or not at all."""
    from safetensors.torch import save_file

    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tensors in files.items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, partial / f"{name}.safetensors")
    digests = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
    (partial / "state.json").write_text(json.dumps({**state, "files": digests}, indent=1), encoding="utf-8")
    sync_tree(partial)
    if target.exists():
        old = target.with_name(f".{target.name}.old.{os.getpid()}")
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old)
    else:
        partial.rename(target)
    sync(target.parent)
