"""Refresh: raw files in, a published version out, and nothing done twice.

Every stage finds out by content whether its work is already there, so a refresh that was killed goes on
where it stopped, and one that finds nothing new publishes nothing. Stages pass paths and ids, never frames.
"""

from pathlib import Path
from typing import Any, TypedDict

from dpo_data import batches, curate, sources, text_measures, versions
from dpo_data.curate import CurationConfig
from flows.recipe import Recipe, Source
from flows.steps import Step, announce, plain, record_table


class RefreshSummary(TypedDict):
    """What a refresh did, in counts; `version` is the version that is current afterwards."""

    version: str
    created: bool
    path: str
    audit: str
    ingested: list[dict[str, Any]]
    measured: dict[str, int]
    stats: dict[str, Any]


def refresh(recipe: Recipe, store: Path, step: Step = plain) -> RefreshSummary:
    """Ingest every source, measure what is new, decide, publish, and say what was kept."""
    ingested = [
        step(f"ingest {source.name}", ingest, store, source, retries=2) for source in recipe.sources
    ]
    measured = step("measure texts", measure_texts, store)
    measured |= step("embed texts", embed_texts, store, recipe.curation)
    version_id, created = step("curate and publish", curate_and_publish, store, recipe.curation)
    version = versions.open_version(store, version_id)
    stats = version.stats()
    record_table("kept", kept_table(stats), f"What version {version_id} kept", step)
    if created:
        announce("dpo.version.published", f"dpo.store.{store.name}", {"version": version_id}, step)
    return {
        "version": version_id,
        "created": created,
        "path": str(version.path),
        "audit": str(version.path / "audit.html"),
        "ingested": ingested,
        "measured": measured,
        "stats": stats,
    }


def ingest(store: Path, source: Source) -> dict[str, Any]:
    """Append one source's files that were not ingested before; the counts of its summary."""
