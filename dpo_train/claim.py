"""One training per run folder, and a claim on its version while it trains.

`claim.json` names the version and the process before anything of the version is read, and is locked for as long as the
process lives: a kill frees the lock. Whoever removes old versions or runs keeps those whose claim is locked.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpo_train.config import TrainError

NAME = "claim.json"


@contextmanager
def held(run: Path, version: Path) -> Iterator[None]:
    """Hold the run folder of a training; raises `TrainError` where another process trains it, or the version is gone.

    Of the processes that a launcher started only the first one holds it.
    """
    if not first_process():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with (run / NAME).open("a+", encoding="utf-8") as stream:
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


def first_process() -> bool:
    """Whether this is the only process of a training, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _holder(run: Path) -> str:
    try:
        return f"process {json.loads((run / NAME).read_text(encoding='utf-8'))['process']}"
    except (OSError, ValueError, KeyError):  # it has just opened the file
        return "another process"
