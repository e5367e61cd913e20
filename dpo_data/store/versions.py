"""Versions: published once, never changed, made current by one rename.

A version is written into a hidden folder beside the others, every file is flushed to disk, the manifest comes
last, and only then does one rename make it visible; a process that dies before that leaves nothing a reader can
see, and the next publish sweeps it away. The id is a hash of what went in and of what was decided, so publishing
the same twice is a no-op. The surprise: the manifest seals the data (ledger, pairs, unpaired, annotators), so that the
same id has the same bytes; what only tells of them (stats.json and its examples, changes.json, audit.html, README.md)
names raw files and lines, or the version before, and a later release may tell more: it is not listed.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dpo_data import schema
from dpo_data.analysis import diff, shortfall, thresholds
from dpo_data.analysis.stats import example_ids, stats
from dpo_data.curate import CurationConfig
from dpo_data.measures import contamination
from dpo_data.release import card, checks, fingerprint, shards, unpaired
from dpo_data.release.shards import ShardSettings
from dpo_data.schema import DataError
from dpo_data.store import atomic, batches, lock, pointer
from dpo_data.votes.agreement import collapse
from dpo_data.votes.annotators import annotators

_LEFTOVER = ".publishing-"

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
        if without and split in (None, *shards.SPLITS):
            return shards.no_pairs(tuple(self.manifest["config"]["slices"])).lazy()
        files = sorted((self.path / "pairs").glob(f"{split or '*'}-*.parquet"))
        if not files:
            raise DataError(f"Version {self.id} has no pairs of split {split!r}. Splits: {', '.join(shards.SPLITS)}.")
        return pl.scan_parquet(files, glob=False)


def read_stats(folder: Path) -> dict[str, Any]:
    """stats.json of a version folder, and `changes` against the version that was current before it."""
    history = folder / "changes.json"
    return {
        **atomic.read_json(folder / "stats.json"),
        "changes": atomic.read_json(history) if history.exists() else None,
    }


def publish(
    store: Path,
    ledger: pl.DataFrame,
    config: CurationConfig,
    *,
    shard_settings: ShardSettings | None = None,
    publish_gates: checks.PublishGates | None = None,
) -> Version:
    """Write the ledger that `curate.decide(…, config)` gave as a version, and make it current.

    Waits for another process that measures or publishes. Raises `DataError`, and changes nothing, when no row is kept,
    no kept row is in train, or a gate refuses.
    """
    with lock.hold(store):
        return _publish(
            store, ledger, config, shard_settings or ShardSettings(), publish_gates or checks.PublishGates()
        )


def _publish(
    store: Path,
    ledger: pl.DataFrame,
    config: CurationConfig,
    shard_settings: ShardSettings,
    publish_gates: checks.PublishGates,
) -> Version:
    ledger = schema.check(ledger, schema.LEDGER, "ledger").sort("comparison_id")
    opened = batches.open_batches(store)
    identity = {
        "inputs": fingerprint.inputs(opened),
        "config": config.model_dump(mode="json"),
        "shards": shard_settings.model_dump(mode="json"),
        "models": fingerprint.models(config),
        "code": {"dpo_data": fingerprint.RESULTS, "methods": fingerprint.methods(config)},
        "decisions": fingerprint.decisions(ledger),
    }
    version = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = store / "versions"
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_LEFTOVER}*"):
        atomic.discard(leftover)
    created = not (folder / version / "manifest.json").exists()
    if created:
        before = current(store)
        lone = unpaired.lone(opened.thumbs().collect(), ledger, config.splits)
        thumbs = lone[0] if shard_settings.unpaired else lone[0].clear()
        if not checks.anything(ledger, thumbs):
            raise DataError(shortfall.explain(opened, ledger, config, lone[1], shard_settings.unpaired))
        earlier = checks.rows_of(before.ledger(), before.stats) if before else None
        checks.refuse(ledger, thumbs, earlier, publish_gates)
        hidden = folder / f"{_LEFTOVER}{version}"
        hidden.mkdir()
        manifest = {"version": version, **identity, "batches": _sources(opened)}
        try:
            _write(hidden, ledger, opened, config, shard_settings, manifest, lone)
            _compare(hidden, ledger, before)
            _write_audit(hidden)
            atomic.write_json(hidden / "manifest.json", manifest)
            atomic.sync_folder(hidden)
            atomic.discard(folder / version)  # without a manifest it is no version, only what is left of one
            hidden.replace(folder / version)
        except BaseException:
            with suppress(OSError):
                atomic.discard(hidden)  # a full disk needs the room now
            raise
        atomic.sync_folder(folder)
    with pointer.moving(store):
        moved = pointer.move(store, version=version)
    return Version(version, folder / version, created, moved)


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
    version = read_pointer(store).get("version")
    if version is None:
        return None
    path = store / "versions" / str(version)
    if not (path / "manifest.json").exists():
        raise DataError(
            f"{store / 'current.json'} points at version {path.name}, which is not there. "
            "Restore its folder, or remove current.json and refresh."
        )
    return Version(path.name, path)


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
            hidden = store / "versions" / f"{_LEFTOVER}removed-{version}"
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


def _write(
    hidden: Path,
    ledger: pl.DataFrame,
    opened: batches.Batches,
    config: CurationConfig,
    settings: ShardSettings,
    manifest: dict[str, Any],
    thumbs: tuple[pl.DataFrame, dict[str, int]],
) -> None:
    """Fill the hidden folder: the data, which the manifest lists, and then what tells of it."""
    lone, fates = thumbs
    shards.write_table(ledger, hidden / "ledger.parquet", settings)
    shards.write_pairs(ledger, opened.comparisons(), hidden, config.slices, settings, lone)
    votes = opened.votes().collect()
    collapsed = collapse(votes)  # the slowest of the sums over votes, so it is done once
    people = annotators(votes, collapsed=collapsed)
    shards.write_table(people, hidden / "annotators.parquet", settings)
    manifest["files"] = [_sealed(path, hidden) for path in sorted(hidden.rglob("*")) if path.is_file()]
    numbers = stats(
        ledger,
        votes,
        annotators=people,
        rejects=opened.rejects().collect(),
        thumbs=fates,
        slices=config.slices,
        limits=thresholds.of(manifest["config"]),
        benchmark_items=contamination.found_items(ledger, config.contamination),
        targets=config.targets,
        collapsed=collapsed,
    )
    atomic.write_json(hidden / "stats.json", numbers)
    shown = opened.comparisons().filter(pl.col("comparison_id").is_in(sorted(example_ids(numbers)))).collect()
    shards.write_table(shown.sort("comparison_id"), hidden / "examples.parquet", settings)
    atomic.sync(hidden / "examples.parquet")
    (hidden / "README.md").write_text(card.dataset_card(manifest, numbers), encoding="utf-8")
    atomic.sync(hidden / "README.md")


def _compare(hidden: Path, ledger: pl.DataFrame, before: Version | None) -> None:
    if before is not None:
        summary = diff.compare(before.ledger().select(diff.COMPARED).collect(), ledger).summary
        atomic.write_json(hidden / "changes.json", {"old": before.id, **summary})


def _write_audit(hidden: Path) -> None:
    from dpo_data.audit import page  # draws charts: too slow to import for those who only open versions

    atomic.sync(page.write(hidden))


def _sources(opened: batches.Batches) -> list[dict[str, Any]]:
    """What each batch was made of, in an order that does not depend on when it was appended."""
    return sorted(opened.manifests(), key=lambda manifest: json.dumps(manifest, sort_keys=True))


def _sealed(path: Path, folder: Path) -> dict[str, Any]:
    """Flush a file to the disk and describe it for the manifest."""
    atomic.sync(path)
    atomic.sync_folder(path.parent)
    return {
        "path": path.relative_to(folder).as_posix(),
        "rows": pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None,
        "bytes": path.stat().st_size,
        "sha256": atomic.sha256_of(path),
    }
