"""What the store must forget: comparisons, annotators, batches and sources that no future version may hold.

`forgotten.jsonl` only ever grows; an undo is a further line. Batches stay as they were ingested; whoever opens them
sees them without what is listed here, so the next version is made as if it had never come. Note: forgetting an
annotator takes away votes, and a comparison that loses its last vote stays in the ledger with the reason `no_votes`;
what was in a forgotten batch or source alone is in no ledger.
"""

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.schema import DataError
from dpo_data.store import lock
from dpo_data.store.atomic import read_json

NAME = "forgotten.jsonl"
KINDS = ("annotator", "comparison", "source", "batch")


@dataclass(frozen=True)
class Forgotten:
    """Names and ids to leave out; empty in a store that forgot nothing."""

    annotators: frozenset[str] = frozenset()
    comparisons: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    batches: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.annotators or self.comparisons or self.sources or self.batches)

    @property
    def digest(self) -> str:
        """Hex hash of what is forgotten, empty for nothing; part of the digest of a store's inputs."""
        if not self:
            return ""
        names = [sorted(self.annotators), sorted(self.comparisons)]
        if self.sources or self.batches:
            names += [sorted(self.sources), sorted(self.batches)]
        return blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()

    def has(self, kind: str, name: str) -> bool:
        """Whether this annotator, comparison, source or batch is forgotten."""
        listed = (self.annotators, self.comparisons, self.sources, self.batches)
        return name in dict(zip(KINDS, listed, strict=True))[kind]

    def leave_out(self, table: pl.LazyFrame) -> pl.LazyFrame:
        """The table without forgotten rows; works on any table with comparison_id or annotator."""
        names = table.collect_schema().names()
        if self.comparisons and "comparison_id" in names:
            table = table.filter(~pl.col("comparison_id").is_in(sorted(self.comparisons)))
        if self.annotators and "annotator" in names:
            table = table.filter(~pl.col("annotator").is_in(sorted(self.annotators)).fill_null(False))
        return table


@dataclass(frozen=True)
class Change:
    """What a forget or an undo did: votes of the next version before and after, and versions that hold the name."""

    kind: str
    name: str
    votes_before: int
    votes_after: int
    still_in: tuple[str, ...]
    changed: bool  # False: it was so already


def read(store: Path) -> Forgotten:
    """What the store forgot. `DataError` names a line that cannot be read."""
    path = store / NAME
    if not path.exists():
        return Forgotten()
    listed: dict[str, set[str]] = {kind: set() for kind in KINDS}
    # Lines end at "\n" alone: a name may hold U+2028, U+0085 and others at which str.splitlines cuts.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            _apply(json.loads(line), listed)
        except (ValueError, KeyError, AttributeError) as error:
            shown = line[:80].decode("utf-8", "replace")
            raise DataError(
                f'{path}:{number}: found {shown!r}, expected {{"annotator": name}}, {{"comparison": id}}, '
                '{"source": name} or {"batch": id}, or one of these under "undo". Correct the line by hand; nothing is '
                "read until then, so that nothing forgotten comes back."
            ) from error
    return Forgotten(*(frozenset(listed[kind]) for kind in KINDS))


def _apply(entry: Any, listed: Mapping[str, set[str]]) -> None:
    [(kind, name)] = entry.items()
    if kind == "undo":
        [(kind, name)] = name.items()
        listed[kind].discard(str(name))
    else:
        listed[kind].add(str(name))


def forget(store: Path, *, undo: bool = False, **selector: str | None) -> Change:
    """Take one annotator, comparison, source or batch out of every future version, or with `undo` back in.

    A batch is named by its id or the start of one. Raises `DataError` when the store has no such name, so that a
    misspelling is noticed; an undo of what is not forgotten is an error too.
    """
    from dpo_data.store import batches, versions  # both read this module

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
    from dpo_data.store.readings import manifests

    known = list(manifests(store))
    matches = [batch for batch in known if batch.startswith(start)] if start else []
    if len(matches) != 1:
        what = f"is the start of {len(matches)} batches" if matches else "is no batch"
        raise DataError(f"{start!r} {what} of {store}. Batches there: {', '.join(matches or known) or 'none'}.")
    return matches[0]


def _known(opened: Any, kind: str, name: str) -> bool:
    from dpo_data.store.readings import manifests

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


def _count(opened: Any) -> int:
    return int(opened.votes().select(pl.len()).collect().item())


def _holding(store: Path, kind: str, name: str) -> Callable[[Path], bool]:
    """Whether a version's folder holds the name: by its ledger or annotators, or by the batches in its manifest."""
    from dpo_data.store.readings import manifests

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
