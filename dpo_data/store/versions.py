"""Versions: published once, never changed, made current by one rename.

A version is written into a hidden folder beside the others, every file is flushed to disk, the manifest comes
last, and only then does one rename make it visible; a process that dies before that leaves nothing a reader can
see, and the next publish sweeps it away. The id is a hash of what went in and of what was decided, so publishing
the same twice is a no-op. The manifest seals the data (ledger, pairs, unpaired, annotators), so that the
same id has the same bytes; what only tells of them (stats.json and its examples, changes.json, audit.html, README.md)
names raw files and lines, or the version before, and a later release may tell more: it is not listed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.schema import SCHEMA, SPLITS, DataError, no_pairs
from dpo_data.store import atomic, lock, pointer

LEFTOVER = ".publishing-"

read_pointer = pointer.read


@dataclass(frozen=True)
class Version:
    """A published version.

    `created` is False when publishing found it there already; `became_current` is True when publishing moved the
    store's pointer to it, as after a rerun of a publish that was killed between the two.
    """

    id: str
    path: Path
    created: bool = False
    became_current: bool = False

    @property
    def manifest(self) -> dict[str, Any]:
        """What went in, under which limits, and every file of data with rows and sha256."""
        return atomic.read_json(self.path / "manifest.json")

    @property
    def stats(self) -> dict[str, Any]:
        """Every number the audit shows; `changes` is null in the first version of a store."""
        return read_stats(self.path)

    def ledger(self) -> pl.LazyFrame:
        """Every comparison, every measure, every reason; sorted by comparison_id."""
        return pl.scan_parquet(self.path / "ledger.parquet", glob=False)

    def pairs(self, split: str | None = None) -> pl.LazyFrame:
        """The published pairs, all or of one split, in the columns of `schema.PAIRS` and the slices.

        No rows where the version holds unpaired responses only.
        """
        without = not any(entry["path"].startswith("pairs/") for entry in self.manifest["files"])
        if without and split in (None, *SPLITS):
            return no_pairs(tuple(self.manifest["config"]["slices"])).lazy()
        files = sorted((self.path / "pairs").glob(f"{split or '*'}-*.parquet"))
        if not files:
            raise DataError(f"Version {self.id} has no pairs of split {split!r}. Splits: {', '.join(SPLITS)}.")
        return pl.scan_parquet(files, glob=False)


def read_stats(folder: Path) -> dict[str, Any]:
    """stats.json of a version folder, and `changes` against the version that was current before it."""
    history = folder / "changes.json"
    return {
        **atomic.read_json(folder / "stats.json"),
        "changes": atomic.read_json(history) if history.exists() else None,
    }


def open_version(store: Path, version: str = "current") -> Version:
    """A version by id, by a prefix that only it has, or the current one. Raises `DataError`."""
    if version == "current":
        found = current(store)
        if found is None:
            raise DataError(f"{store} has no current version. Publish one first (dpo refresh).")
        return found
    known = [path.name for path in list_versions(store)]
    matches = [name for name in known if name.startswith(version)] if version else []
    if len(matches) != 1:
        what = f"matches {len(matches)} versions" if matches else "is no version"
        raise DataError(f"{version!r} {what} of {store}. Versions there: {', '.join(known) or 'none'}.")
    return _readable(Version(matches[0], store / "versions" / matches[0]))


def list_versions(store: Path) -> list[Path]:
    """Folders of all published versions, by id (half-written ones are invisible)."""
    folder = store / "versions"
    return sorted(manifest.parent for manifest in folder.glob("[!.]*/manifest.json")) if folder.is_dir() else []


def _readable(version: Version) -> Version:
    number = version.manifest.get("schema", 1)
    if number != SCHEMA:
        raise DataError(
            f"Version {version.id} has tables of schema {number}, and this release reads schema {SCHEMA}. Run "
            "`dpo refresh`: it publishes a new version from the same batches."
        )
    return version


def current(store: Path, any_schema: bool = False) -> Version | None:
    """The version that current.json points at, or None in a store that has none.

    Raises `DataError` for a version whose tables have another schema, unless `any_schema`.
    """
    version = read_pointer(store).get("version")
    if version is None:
        return None
    path = store / "versions" / str(version)
    if not (path / "manifest.json").exists():
        raise DataError(
            f"{store / 'current.json'} points at version {path.name}, which is not there. "
            "Restore its folder, or remove current.json and refresh."
        )
    return Version(path.name, path) if any_schema else _readable(Version(path.name, path))


def make_current(store: Path, version: str) -> Version:
    """Point the store back (or forth) at a published version: the rollback."""
    open_version(store, version)
    with pointer.moving(store):
        chosen = open_version(store, version)  # once more: nothing is removed while the pointer is locked
        pointer.move(store, version=chosen.id)
    return chosen


def remove(store: Path, versions: Iterable[str]) -> None:
    """Take versions away for good, each by one rename first; the current one never. Raises `DataError`."""
    with lock.hold(store):
        for version in versions:
            hidden = store / "versions" / f"{LEFTOVER}removed-{version}"
            with pointer.moving(store):
                if version == read_pointer(store).get("version"):
                    raise DataError(f"Version {version} became current meanwhile and stays. Ask again what may go.")
                atomic.discard(hidden)
                (store / "versions" / version).replace(hidden)
            atomic.discard(hidden)


def set_champion(store: Path, run: str) -> None:
    """Point the store at its champion run; the current version stays what it is."""
    with pointer.moving(store):
        pointer.move(store, champion=run)


def verify(version: Version) -> list[str]:
    """Re-hash every sealed file; the names of those that changed or went, empty when all is as published."""
    bad = []
    for entry in version.manifest["files"]:
        path = version.path / entry["path"]
        if not path.exists() or atomic.sha256_of(path) != entry["sha256"]:
            bad.append(entry["path"])
    return bad
