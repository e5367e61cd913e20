"""Files that survive a crash: flushed before they are named, hashed as they lie.

Used by whatever publishes: a name appears only when its content is on the disk. Plain files only; nothing here
knows what a version is.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from dpo_data.schema import DataError

PARTIAL = ".partial"
_ADVICE = (
    "Restore it from a copy, or remove the folder it is in: `dpo refresh` makes a batch or a version again from the "
    "sources, `dpo train` a run."
)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write sorted, indented JSON and flush it; NaN is an error."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path, advice: str = _ADVICE) -> dict[str, Any]:
    """A JSON object from a file, or `DataError` that names it and gives the advice."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}). {advice}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: found {json.dumps(value)[:40]}, expected a JSON object. {advice}")
    return value


def replace_json(path: Path, value: Mapping[str, Any]) -> None:
    """Put a JSON file in place of another by one rename: a reader sees the old one or the new one."""
    with replacing(path) as partial:
        write_json(partial, value)
    sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` that takes its name when the block ends, and is removed when the block raises.

    The name is of this process and this call alone: with a fixed one, a process that fails would write its last bytes
    into the file that another process has published meanwhile.
    """
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def discard(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link (never what it points at); fine when it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a file to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
