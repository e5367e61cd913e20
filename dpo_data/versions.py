"""Versions: published once, never changed, made current by one rename.

A version is written into a hidden folder beside the others, every file is flushed to disk, the manifest comes
last, and only then does one rename make it visible; a process that dies before that leaves nothing a reader can
see, and the next publish sweeps it away. The id is a hash of what went in and of what was decided, so publishing
the same twice is a no-op. The surprise: `changes.json` (against the version before) is the one file that depends
on the store's history, and therefore the one file the manifest does not list.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from pydantic import Field

from dpo_data import __version__, batches, schema, shards
from dpo_data.schema import DataError
from dpo_data.settings import Settings
from dpo_data.shards import ShardSettings

_LEFTOVER = ".publishing-"


class PublishGates(Settings):
    """What must hold before a version may become current."""

    max_drop: float | None = Field(default=None, ge=0, le=1)
    """Refuse when kept rows fall by more than this share against the current version. Off by default, because the
    first weeks of a project change limits daily; .1 is a sound value once a schedule publishes unwatched: the
    refreshes of a growing store add rows, so a fall of a tenth means a source or a limit broke."""


@dataclass(frozen=True)
class Version:
    """A published version. `created` is False when publishing found it there already."""

    id: str
    path: Path
    created: bool = False

    @property
    def manifest(self) -> dict[str, Any]:
        """What went in, under which limits, and every file with rows and sha256."""
        return _read_json(self.path / "manifest.json")

    @property
    def stats(self) -> dict[str, Any]:
        """Every number the audit shows; `changes` (against the version before) is added where there is one."""
        numbers = _read_json(self.path / "stats.json")
        changes = self.path / "changes.json"
        return {**numbers, "changes": _read_json(changes) if changes.exists() else None}

    def ledger(self) -> pl.LazyFrame:
        """Every comparison, every measure, every reason; sorted by comparison_id."""
        return pl.scan_parquet(self.path / "ledger.parquet")

    def pairs(self, split: str | None = None) -> pl.LazyFrame:
        """The published pairs, all or of one split, in the columns of `schema.PAIRS` and the slices."""
        files = sorted((self.path / "pairs").glob(f"{split or '*'}-*.parquet"))
        if not files:
            raise DataError(f"Version {self.id} has no pairs of split {split!r}. Splits: {', '.join(shards.SPLITS)}.")
        return pl.scan_parquet(files)


def publish(
    store: Path,
    ledger: pl.DataFrame,
    config: Settings,
    *,
    shard_settings: ShardSettings | None = None,
    gates: PublishGates | None = None,
    models: Mapping[str, str] | None = None,
) -> Version:
    """Write the decided `ledger` as a version and make it current.

    `models` names the fingerprints behind the measures (tokenizer, embedding); they are part of the id. Raises
    `DataError`, and changes nothing, when no row is kept, no kept row is in train, or a gate refuses.
    """
    ledger = schema.check(ledger, schema.LEDGER, "ledger").sort("comparison_id")
    shard_settings = shard_settings or ShardSettings()
    opened = batches.open_batches(store)
    identity = {
        "inputs": opened.digest,
        "config": config.model_dump(mode="json"),
        "shards": shard_settings.model_dump(mode="json"),
        "models": dict(sorted((models or {}).items())),
        "code": {"dpo_data": __version__},
        "decisions": decision_digest(ledger),
    }
    version_id = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = store / "versions"
    final = folder / version_id
    folder.mkdir(parents=True, exist_ok=True)
    with _only_publisher(folder):
        _sweep(folder)
        before = current(store)
        if not (final / "manifest.json").exists():
            _refuse(ledger, before, gates or PublishGates())
            hidden = folder / f"{_LEFTOVER}{version_id}"
            hidden.mkdir()
            _write(hidden, ledger, opened, config, shard_settings, {"version": version_id, **identity}, before)
            hidden.replace(final)
            _sync_folder(folder)
            created = True
        else:
            created = False
        _point(store, version=version_id)
    return Version(version_id, final, created)


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
    return Version(matches[0], store / "versions" / matches[0])


def list_versions(store: Path) -> list[Path]:
    """Folders of all published versions, by id (half-written ones are invisible)."""
    folder = store / "versions"
    return sorted(manifest.parent for manifest in folder.glob("[!.]*/manifest.json")) if folder.is_dir() else []


def current(store: Path) -> Version | None:
    """The version that current.json points at, or None in a store that has none."""
    pointer = read_pointer(store)
    if pointer.get("version") is None:
        return None
    path = store / "versions" / str(pointer["version"])
    if not (path / "manifest.json").exists():
        raise DataError(
            f"{store / 'current.json'} points at version {path.name}, which is not there. "
            "Restore its folder, or remove current.json and refresh."
        )
    return Version(path.name, path)


def read_pointer(store: Path) -> dict[str, Any]:
    """current.json: `version` and `champion` (a run id), each absent until there is one."""
    path = store / "current.json"
    return _read_json(path) if path.exists() else {}


def make_current(store: Path, version: str) -> Version:
    """Point the store back (or forth) at a published version: the rollback."""
    found = open_version(store, version)
    with _only_publisher(store / "versions"):
        _point(store, version=found.id)
    return found


def verify(version: Version) -> list[str]:
    """Re-hash every file of the manifest; the names of those that changed or went, empty when all is as published."""
    bad = []
    for entry in version.manifest["files"]:
        path = version.path / entry["path"]
        if not path.exists() or _sha256(path) != entry["sha256"]:
            bad.append(entry["path"])
    return bad


def decision_digest(ledger: pl.DataFrame) -> str:
    """Hash of what was decided for every comparison (side, split, weight, reasons), whatever the row order."""
    lines = ledger.sort("comparison_id").select(
        pl.concat_str(
            "comparison_id",
            "preferred",
            "split",
            pl.col("weight").round(9).cast(pl.String),
            pl.col("reasons").list.join(","),
            separator="\t",
            ignore_nulls=True,
        )
    )
    digest = blake2b(digest_size=16)
    for line in lines.to_series():
        digest.update(line.encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _write(
    hidden: Path,
    ledger: pl.DataFrame,
    opened: batches.Batches,
    config: Settings,
    shard_settings: ShardSettings,
    identity: dict[str, Any],
    before: Version | None,
) -> None:
    slices = tuple(getattr(config, "slices", ()))
    shards.write_ledger(ledger, hidden, shard_settings)
    shards.write_pairs(ledger, opened.comparisons(), hidden, slices, shard_settings)
    manifest = {**identity, "batches": list(opened.ids), "files": _seal(hidden)}
    _write_json(hidden / "manifest.json", manifest)
    _sync_folder(hidden)


def _refuse(ledger: pl.DataFrame, before: Version | None, gates: PublishGates) -> None:
    """Raise `DataError` when this ledger must not become a version."""
    rows = shards.kept(ledger)
    if rows.height == 0:
        most = ledger.select(pl.col("reasons").explode().drop_nulls().value_counts(sort=True)).head(3)
        named = "; ".join(f"{row['reasons']} {row['count']}" for row in most.to_series().struct.unnest().to_dicts())
        raise DataError(
            f"Nothing to publish: 0 of {ledger.height} comparisons are kept (first reasons: {named or 'none'}). "
            "Look at the rejects and loosen the limits that drop most."
        )
    if rows.filter(pl.col("split") == "train").height == 0:
        raise DataError(
            f"Nothing to train on: none of the {rows.height} kept pairs is in the train split. "
            "Give train a larger share, or bring more prompts."
        )
    if gates.max_drop is None or before is None:
        return
    earlier = shards.kept(before.ledger().select("comparison_id", "reasons", "preferred").collect()).height
    if rows.height < earlier * (1 - gates.max_drop):
        raise DataError(
            f"Kept rows fall from {earlier} (version {before.id}) to {rows.height}, more than the gate "
            f"max_drop={gates.max_drop} allows. Find out why (dpo decide), or raise max_drop for this one refresh."
        )


@contextmanager
def _only_publisher(folder: Path) -> Iterator[None]:
    """Hold the store's publish lock; it is freed by the system even after kill -9."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"Another process is publishing into {folder}. Wait for it, then run again.") from error
        yield


def _sweep(folder: Path) -> None:
    """Remove what earlier publishes left half-written (only ever called under the lock)."""
    for leftover in folder.glob(f"{_LEFTOVER}*"):
        shutil.rmtree(leftover)


def _seal(folder: Path) -> list[dict[str, Any]]:
    """Flush every file to disk and list it with rows, bytes and sha256."""
    entries = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        entries.append(
            {
                "path": path.relative_to(folder).as_posix(),
                "rows": pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None,
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
            }
        )
    for subfolder in {path.parent for path in folder.rglob("*")}:
        _sync_folder(subfolder)
    return entries


def _point(store: Path, **keys: str) -> None:
    """Set keys of current.json by one atomic replace; the other keys stay."""
    pointer = read_pointer(store)
    if {**pointer, **keys} == pointer:
        return
    beside = store / ".current.json"
    _write_json(beside, {**pointer, **keys})
    beside.replace(store / "current.json")
    _sync_folder(store)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}). Restore it, or remove it and refresh.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}, expected an object. Restore it, or refresh.")
    return found


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
