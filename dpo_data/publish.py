"""Publish a decided ledger as a version and make it current.

The version is written into a hidden folder, every file is flushed to disk, the manifest is written last, and one rename
makes it visible. A process killed before that leaves nothing that a reader can see; the next publish removes the rest.
The id is a hash of the inputs and the decisions, so publishing the same twice does nothing.
"""

import json
import logging
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dpo_data import schema
from dpo_data.analysis import diff, shortfall, thresholds
from dpo_data.analysis.stats import example_ids, stats
from dpo_data.config import CurationConfig
from dpo_data.measures import contamination
from dpo_data.release import card, checks, fingerprint, shards, unpaired
from dpo_data.release.shards import ShardSettings
from dpo_data.schema import DataError
from dpo_data.store import atomic, batches, lock, pointer
from dpo_data.store.versions import LEFTOVER, Version, current
from dpo_data.votes.agreement import collapse
from dpo_data.votes.annotators import annotators

logger = logging.getLogger(__name__)


def publish_version(
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
    for leftover in folder.glob(f"{LEFTOVER}*"):
        atomic.discard(leftover)
    created = not (folder / version / "manifest.json").exists()
    if created:
        before = _previous(store)
        lone = unpaired.lone(opened.thumbs().collect(), ledger, config.splits)
        thumbs = lone[0] if shard_settings.unpaired else lone[0].clear()
        if not checks.anything(ledger, thumbs):
            raise DataError(shortfall.explain(opened, ledger, config, lone[1], shard_settings.unpaired))
        earlier = checks.rows_of(before.ledger(), before.stats) if before else None
        checks.refuse(ledger, thumbs, earlier, publish_gates)
        hidden = folder / f"{LEFTOVER}{version}"
        hidden.mkdir()
        manifest = {"version": version, "schema": schema.SCHEMA, **identity, "batches": _sources(opened)}
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


def _previous(store: Path) -> Version | None:
    """The current version, to compare with; None, and a line in the log, where its tables have another schema."""
    before = current(store, any_schema=True)
    if before is None or before.manifest.get("schema", 1) == schema.SCHEMA:
        return before
    logger.warning(
        "Version %s has tables of another schema: the new version is not compared with it, and the limits on changes "
        "are not applied this once.",
        before.id,
    )
    return None


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
    people = annotators(votes, config.agreement.reliability, collapsed)
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
        summary = diff.compare_ledgers(before.ledger().select(diff.COMPARED).collect(), ledger).summary
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
