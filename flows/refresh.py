"""Refresh: raw files in, a published version out, and nothing done twice.

Every stage finds out by content whether its work is already there, so a refresh that was killed goes on
where it stopped, and one that finds nothing new publishes nothing. Stages pass paths and ids, never frames.
"""

import glob
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from dpo_data import curate
from dpo_data.analysis import sources
from dpo_data.executor import Executor, start
from dpo_data.formats import detect
from dpo_data.ingest import paths
from dpo_data.ingest.append import append_batch
from dpo_data.publish import publish_version
from dpo_data.review import verdicts
from dpo_data.schema import DataError
from dpo_data.store import forgotten, lock, versions
from dpo_data.votes.agreement import REVIEWS
from flows import tables
from flows.recipe import Recipe, Source
from flows.source_text import contradicted_lines
from flows.steps import Step, announce, plain, record_link, record_table


class RefreshSummary(TypedDict):
    """What a refresh did, in counts; `version` is current afterwards, `created` says whether it is new.

    `became_current` is also true for a version that an earlier refresh wrote and was killed before it was current.
    """

    version: str
    created: bool
    became_current: bool
    path: str
    audit: str
    ingested: list[dict[str, Any]]
    departed: list[dict[str, Any]]
    contradicted: list[dict[str, Any]]
    measured: dict[str, int]
    stats: dict[str, Any]


def refresh(recipe: Recipe, store: Path, step: Step = plain) -> RefreshSummary:
    """Ingest every source, measure what is new, decide, publish, and say what was kept."""
    with start(recipe.executor, store) as workers:
        ingested = [
            step(f"ingest {source.name}", ingest, store, source, workers, retries=2)
            for source in (*recipe.sources, *reviews(recipe, store))
        ]
        with lock.hold(store):  # another refresh may read its sources meanwhile, and then waits
            measured = step("measure texts", curate.measure_texts, store, recipe.curation, workers)
            version = step("curate and publish", curate_and_publish, store, recipe, workers)
    stats, page = version.stats, version.path / "audit.html"
    for table in tables.of(version.id, stats):
        record_table(table.key, table.rows, table.description, step)
    record_link("audit", page.absolute().as_uri(), f"Audit of version {version.id}", step)
    if version.created or version.became_current:
        announce("dpo.version.published", f"dpo.store.{store.name}", {"version": version.id}, step)
    return {
        "version": version.id,
        "created": version.created,
        "became_current": version.became_current,
        "path": str(version.path),
        "audit": str(page),
        "ingested": ingested,
        "departed": [asdict(row) for row in sources.departed(store, [source.name for source in recipe.sources])],
        "contradicted": [asdict(row) for row in sources.contradicted(store, version.ledger())],
        "measured": measured,
        "stats": stats,
    }


def reviews(recipe: Recipe, store: Path) -> list[Source]:
    """The store's own reviews as a source, where there are any and the recipe does not name one `reviews` itself.

    A reviewer's file grows and is read again whole; an annotator has one vote per comparison, so none counts twice.
    """
    if not verdicts.files(store) or any(source.name == REVIEWS for source in recipe.sources):
        return []
    found = f"{glob.escape(str(store / verdicts.FOLDER))}/*.jsonl"
    return [Source(name=REVIEWS, path=found, format="dpo_review", annotator_kind="human")]


def check_sources(recipe: Recipe) -> None:
    """Find every local source and detect its files' formats; raises `DataError` for the first that cannot be read.

    For a command to fail at once where Prefect takes many seconds to start. Remote sources are left to `ingest`.
    """
    for source in recipe.sources:
        if "://" not in source.path:
            for path in paths.find(source.path, format=source.format):
                detect.reader(path, source.format, source.columns)


def ingest(store: Path, source: Source, workers: Executor) -> dict[str, Any]:
    """Append those of the source's files that were not ingested before; its summary as plain counts."""
    found = paths.find(source.path, store / "cache" / "remote", source.format)
    how = (source.name, source.format, source.annotator_kind)
    summary = append_batch(store, found, *how, columns=source.columns, mapper=workers.map)
    return {**asdict(summary), "forgotten": source.name in forgotten.read(store).sources}


def curate_and_publish(store: Path, recipe: Recipe, workers: Executor) -> versions.Version:
    """Decide about every comparison of the store and publish."""
    config = recipe.curation
    decided = curate.decide(curate.measure(store, config, workers), config)
    try:
        return publish_version(store, decided, config, shard_settings=recipe.shards, publish_gates=recipe.gates)
    except DataError as error:
        likely = contradicted_lines([asdict(row) for row in sources.contradicted(store, decided.lazy())], store)
        raise DataError("\n".join([str(error), *likely])) from error
