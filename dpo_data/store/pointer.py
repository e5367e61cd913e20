"""current.json: which version is current and which run is champion, changed by one rename."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpo_data.store import atomic

_ADVICE = (
    "Remove it and run `dpo refresh`: without new data it points at the same version again. `dpo versions` lists what "
    "is there; which run is champion is decided again by the next `dpo retrain`."
)


def read(store: Path) -> dict[str, Any]:
    """current.json: `version` and `champion` (a run id), each absent until there is one."""
    path = store / "current.json"
    return atomic.read_json(path, _ADVICE) if path.exists() else {}


@contextmanager
def moving(store: Path) -> Iterator[None]:
    """Hold the pointer's own lock, for the moment in which it changes: no promotion waits for a refresh."""
    folder = store / "versions"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def move(store: Path, **keys: str) -> bool:
    """Set keys by one atomic replace, the other keys stay; whether that changed anything. Call it while `moving`."""
    pointer = read(store)
    moved = {**pointer, **keys} != pointer
    if moved:
        for leftover in store.glob(f".current.json.*{atomic.PARTIAL}"):  # of a killed process: this one has the lock
            atomic.discard(leftover)
        atomic.replace_json(store / "current.json", {**pointer, **keys})
    return moved
