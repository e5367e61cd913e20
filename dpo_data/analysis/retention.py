"""What a store holds, and what of it may go: old versions that nothing names, and caches of models no version names.

A version stays while it is current, among the newest that are to be kept, or named by a run (`runs/*/config.json`) or
by whoever asks (a scheduled training). Batches are never touched: every version can be made again from them.
A version's folder does not say when it was published, since the same content has the same bytes; the time is
that of its manifest's file, and a copied store needs `cp -a`.
"""

import fcntl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dpo_data.schema import DataError
from dpo_data.store import lock, versions
from dpo_data.store.atomic import discard, read_json

CLAIM = "claim.json"  # of a run folder; written and locked by dpo_train/claim.py
_TRAINERS = ("shards", "tokens", "reference")
"""Folders of the cache that a training fills. `models` is none of them: adapters open their base model there."""


@dataclass(frozen=True)
class Published:
    """One version as a list shows it; `parent` is the version that was current before it, null for the first."""

    id: str
    at: datetime
    comparisons: int
    kept: int
    parent: str | None
    bytes: int
    runs: tuple[str, ...]
    current: bool


@dataclass(frozen=True)
class Pruning:
    """What would go: version ids, and folders or files of caches; `stays` says why each old version does not.

    `trainers` are caches that stay too: folders that a person may remove while nothing trains.
    """

    versions: tuple[str, ...]
    caches: tuple[Path, ...]
    stays: Mapping[str, str]
    bytes: int
    trainers: tuple[Path, ...]
    trainers_bytes: int


def published(store: Path) -> list[Published]:
    """Every version of the store, the newest first."""
    pointer = versions.read_pointer(store).get("version")
    trained = _trained_on(store)
    found = []
    for path in versions.list_versions(store):
        try:
            found.append(_published(path, tuple(trained.get(path.name, ())), path.name == pointer))
        except (DataError, OSError):
            if path.exists():  # else another process removed it while this one was reading, which takes no lock
                raise
    return sorted(found, key=lambda one: (one.at, one.id), reverse=True)


def _published(path: Path, runs: tuple[str, ...], current: bool) -> Published:
    stats = versions.read_stats(path)
    return Published(
        id=path.name,
        at=datetime.fromtimestamp((path / "manifest.json").stat().st_mtime, UTC),
        comparisons=stats["counts"]["comparisons"],
        kept=stats["counts"]["kept"],
        parent=stats["changes"]["old"] if stats["changes"] else None,
        bytes=_size(path),
        runs=runs,
        current=current,
    )


def plan(store: Path, keep: int, named: Mapping[str, str] | None = None) -> Pruning:
    """What would go if the `keep` newest versions stay, and those still in use; nothing is removed.

    `named` maps a version to what else names it. Caches go when no version that stays was measured with their model;
    the trainer's own (tokens, reference log-probabilities) serve later versions too and stay.
    Raises `DataError` for a `keep` below one.
    """
    if keep < 1:
        raise DataError(
            f"Found {keep} versions to keep, expected 1 or more: the newest is what the next one builds on."
        )
    listed = published(store)
    stays = {}
    for version in listed[keep:]:
        if version.current:
            stays[version.id] = "is current"
        elif version.runs:
            stays[version.id] = f"run {', '.join(version.runs)} was trained on it"
        elif version.id in (named or {}):
            stays[version.id] = (named or {})[version.id]
    gone = tuple(version.id for version in listed[keep:] if version.id not in stays)
    left = [store / "versions" / version.id for version in listed if version.id not in gone]
    caches = tuple(_unnamed(store, left)) if left else ()
    freed = [*(store / "versions" / version for version in gone), *caches]
    trainers = tuple(path for name in _TRAINERS if (path := store / "cache" / name).is_dir())
    return Pruning(gone, caches, stays, sum(map(_size, freed)), trainers, sum(map(_size, trainers)))


def prune(store: Path, keep: int, named: Mapping[str, str] | None = None) -> Pruning:
    """Remove what `plan` finds, and say what it was; a reader sees a version whole or not at all."""
    with lock.hold(store):  # or a refresh that measures would lose its caches
        found = plan(store, keep, named)
        versions.remove(store, found.versions)
        for cache in found.caches:
            discard(cache)
    return found


def _trained_on(store: Path) -> dict[str, list[str]]:
    """The runs, finished or not, by the version that each was trained on; those about to start included."""
    found: dict[str, list[str]] = {}
    for folder in sorted((store / "runs").glob("*/")):
        page = folder / "config.json"
        if not page.exists():  # written once the version is open; until then the claim of a living process counts
            if not being_trained(folder):
                continue
            page = folder / CLAIM
        found.setdefault(str(read_json(page).get("version")), []).append(folder.name)
    return found


def being_trained(run: Path) -> bool:
    """Whether a process trains this run now: it holds a lock on its claim, which the system frees when it ends."""
    try:
        with (run / CLAIM).open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _unnamed(store: Path, left: list[Path]) -> list[Path]:
    """Vectors, tables, neighbours and cosines by embedding models that no version `left` was measured with."""
    models = [read_json(path / "manifest.json")["models"].get("embedding", "") for path in left]
    named = {str(model).rpartition(" ")[2] for model in models}
    by_name = [*store.glob("cache/embeddings/*"), *store.glob("cache/static/*")]
    unnamed = [path for path in by_name if path.name not in named]
    for start in ("cache/near/topics-", "batches/[0-9]*/similarity-"):
        made = store.glob(f"{start}*.parquet")
        unnamed += [path for path in made if path.stem.partition("-")[2] not in named]
    return sorted(unnamed)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
