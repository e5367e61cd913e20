"""Files that survive a crash: flushed before they are named, hashed as they lie.

Used by whatever publishes: a name appears only when its content is on the disk. Plain files only; nothing here
knows what a version is.
"""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from dpo_data.schema import DataError


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write sorted, indented JSON and flush it; NaN is an error."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or `DataError` that names it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}). Restore it, or remove it and refresh.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}, expected an object. Restore it, or refresh.")
    return found


def replace_json(path: Path, value: Mapping[str, Any]) -> None:
    """Put a JSON file in place of another by one rename: a reader sees the old one or the new one."""
    beside = path.with_name(f".{path.name}")
    write_json(beside, value)
    beside.replace(path)
    sync_folder(path.parent)


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
