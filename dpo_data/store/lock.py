"""One lock per store, held while a process measures, decides, publishes or removes.

The second process waits for the first, and reports once for which. Readers take no lock: what they open has its name
only when it is whole. The lock is a `flock`, which the system frees even after kill -9; it needs a file system that
has them (NFS from version 4 on).
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

logger = logging.getLogger(__name__)

NAME = ".lock"
# In a context variable: stages of one flow may run in several threads and share the lock, unrelated threads may not.
_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
_reported: set[str] = set()


@contextmanager
def hold(store: Path) -> Iterator[None]:
    """Hold the store's lock; waits while another process has it. May be nested."""
    path = store.absolute() / NAME
    if path in _held.get():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        _take(file, store)
        before = _held.get()
        _held.set(before | {path})
        try:
            _write(file, str(os.getpid()))
            yield
        finally:
            _held.set(before)
            _write(file, "")


def _take(file: TextIO, store: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        line = f"{store}: waiting for process {file.read().strip() or '(unknown)'}, which works on this store."
        if line not in _reported:  # a refresh takes the lock for each source; one line is enough
            _reported.add(line)
            logger.warning("%s", line)
        fcntl.flock(file, fcntl.LOCK_EX)


def _write(file: TextIO, pid: str) -> None:
    file.truncate(0)
    file.write(pid)
    file.flush()
