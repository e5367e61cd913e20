"""The folder that a batch is written in before it has its name, and the lock under which it gets one.

A process that dies leaves only a hidden folder, which the next append sweeps away; one that lives holds a lock file.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".incoming-"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one append names its batch at a time; a killed process frees the lock."""
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def incoming(folder: Path) -> Iterator[Path]:
    """A folder for the batch to be, removed unless it was renamed; what killed appends left behind goes too.

    A living append holds the lock file beside its folder.
    """
    with locked(folder):
        for left in folder.glob(f"{_PREFIX}*.alive"):
            with left.open("w") as handle, suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                left.unlink(missing_ok=True)
        unnamed = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        unnamed.chmod(0o755)
        alive = unnamed.with_name(f"{unnamed.name}.alive")
        handle = alive.open("w")
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield unnamed
    finally:
        shutil.rmtree(unnamed, ignore_errors=True)
        alive.unlink(missing_ok=True)
        handle.close()
