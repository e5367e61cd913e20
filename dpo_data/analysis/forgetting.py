"""Exclude an annotator, comparison, source or batch from every future version, or undo that."""

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.schema import DataError
from dpo_data.store import batches, lock, versions
from dpo_data.store.atomic import read_json
from dpo_data.store.batches import Batches
from dpo_data.store.forgotten import KINDS, NAME, read
from dpo_data.store.readings import manifests


@dataclass(frozen=True)
class Change:
    """What a forget or an undo did: votes of the next version before and after, and versions that hold the name."""

    kind: str
    name: str
    votes_before: int
    votes_after: int
    still_in: tuple[str, ...]
    changed: bool  # False: it was so already


def forget(store: Path, *, undo: bool = False, **selector: str | None) -> Change:
    """Take one annotator, comparison, source or batch out of every future version, or with `undo` back in.

    A batch is named by its id or the start of one. Raises `DataError` when the store has no such name, so that a
    misspelling is noticed; an undo of what is not forgotten is an error too.
    """
    given = [(kind, name) for kind, name in selector.items() if name is not None and kind in KINDS]
    if len(given) != 1:
        raise DataError(
            "Forget either an annotator (by name), a comparison (by its whole id), a source (by name) or a batch (by "
            "the start of its id), one at a time."
        )
    [(kind, name)] = given
    forgotten = read(store)
    if kind == "batch":
        name = _batch(store, name)
    before = batches.open_batches(store)
    counted = _count(before)
    changed = forgotten.has(kind, name) == undo
    if undo and not changed:
        listed = sorted(forgotten.annotators | forgotten.comparisons | forgotten.sources | forgotten.batches)
        raise DataError(
            f"{store} has not forgotten the {kind} {name!r}, so there is nothing to take back. Forgotten: "
            f"{', '.join(map(repr, listed)) or 'nothing'}."
        )
    if changed:
        if not undo and not _known(before, kind, name):
            raise DataError(f"No vote of {store} has {kind} {name!r}, so nothing was forgotten. Check the spelling.")
        with lock.hold(store):  # not between another process's decision and its version id
            _append(store / NAME, {"undo": {kind: name}} if undo else {kind: name})
    holding = _holding(store, kind, name)
    held = tuple(path.name for path in versions.list_versions(store) if holding(path))
    return Change(kind, name, counted, _count(batches.open_batches(store)), held, changed)


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add one line and flush it; a last line that an editor or a crash left without its end is closed first."""
    line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _batch(store: Path, start: str) -> str:
    known = list(manifests(store))
    matches = [batch for batch in known if batch.startswith(start)] if start else []
    if len(matches) != 1:
        what = f"is the start of {len(matches)} batches" if matches else "is no batch"
        raise DataError(f"{start!r} {what} of {store}. Batches there: {', '.join(matches or known) or 'none'}.")
    return matches[0]


def _known(opened: Batches, kind: str, name: str) -> bool:
    if kind == "batch":
        return True
    if kind == "source":
        return any(manifest["source"] == name for manifest in manifests(opened.store).values())
    try:
        name.encode()
    except UnicodeEncodeError:
        return False  # no text of a batch holds half a character, and polars cannot look for one
    column = "annotator" if kind == "annotator" else "comparison_id"
    tables = [opened.votes(), *([opened.thumbs()] if kind == "annotator" else [])]
    return any(not table.filter(pl.col(column) == name).head(1).collect().is_empty() for table in tables)


def _count(opened: Batches) -> int:
    return int(opened.votes().select(pl.len()).collect().item())


def _holding(store: Path, kind: str, name: str) -> Callable[[Path], bool]:
    """Whether a version's folder holds the name: by its ledger or annotators, or by the batches in its manifest."""
    if kind in ("comparison", "annotator"):
        table, column = ("ledger", "comparison_id") if kind == "comparison" else ("annotators", "annotator")

        def by_rows(version: Path) -> bool:
            rows = pl.scan_parquet(version / f"{table}.parquet", glob=False).filter(pl.col(column) == name)
            return not rows.head(1).collect().is_empty()

        return by_rows
    source = name if kind == "source" else manifests(store)[name]["source"]
    keys = None if kind == "source" else {file["key"] for file in manifests(store)[name]["files"]}

    def by_batches(version: Path) -> bool:
        listed = [entry for entry in read_json(version / "manifest.json")["batches"] if entry["source"] == source]
        return any(keys is None or file["key"] in keys for entry in listed for file in entry["files"])

    return by_batches
