"""Files that appear whole or not at all, and survive a power cut.

Everything is written beside its place under a name of this process, flushed to the disk, and renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Hidden names that this package writes before it renames them; nothing else in a run folder is removed.
_PARTIAL = re.compile(
    r"\.(?:step|candidate|ledger|model|adapter|pair_log|pairs|attribution|metrics|config|preflight|summary)\b.*"
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; it is flushed and renamed to `path` if nothing was raised."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, whole under its name or not there."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file below `folder`, the folders that name them, and the folder that names `folder`."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        sync(path)


def sweep(run: Path) -> None:
    """Remove what killed trainings left half written in a run folder; only the process that trains it may call this."""
    for folder in (run, run / "checkpoints"):
        for path in folder.glob(".*"):
            if _PARTIAL.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
