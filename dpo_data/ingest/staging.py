"""The folder that a batch is written in before it has its name, and the lock under which it gets one.

A process that dies leaves only a hidden folder, which the next append sweeps away; one that lives holds a lock file.
"""

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpo_data.store.atomic import discard

_PREFIX = ".incoming-"
_ALIVE = ".alive"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one append names its batch at a time; a killed process frees the lock."""
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sweep(folder: Path) -> None:
    """Remove what killed appends left in `folder`, which need not be there."""
    if any(folder.glob(f"{_PREFIX}*")):
        with locked(folder):
            _sweep(folder)


@contextmanager
def incoming(folder: Path) -> Iterator[Path]:
    """A folder for the batch to be, removed unless it was renamed; what killed appends left behind goes too.

    A living append holds the lock file beside its folder, which is there first: a folder without one is dead.
    """
    with locked(folder):
        _sweep(folder)
        unnamed = folder / f"{_PREFIX}{secrets.token_hex(8)}"
        alive = unnamed.with_name(unnamed.name + _ALIVE)
        handle = alive.open("x")
        fcntl.flock(handle, fcntl.LOCK_EX)
        unnamed.mkdir()
    try:
        yield unnamed
    finally:
        with suppress(OSError):  # the next append sweeps it; what went wrong is worth more than this
            discard(unnamed)
        alive.unlink(missing_ok=True)
        handle.close()


def _sweep(folder: Path) -> None:
    for alive in folder.glob(f"{_PREFIX}*{_ALIVE}"):
        if alive.is_symlink():
            discard(alive)
            continue
        with alive.open("w") as handle, suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            discard(alive.with_suffix(""))
            alive.unlink(missing_ok=True)
    for unnamed in folder.glob(f"{_PREFIX}*"):
        if unnamed.suffix != _ALIVE and not unnamed.with_name(unnamed.name + _ALIVE).exists():
            discard(unnamed)
