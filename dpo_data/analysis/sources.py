"""What each batch of a store holds and whether it counts, sources that left the recipe, items read in two ways."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.store import forgotten as forgetting
from dpo_data.store import readings
from dpo_data.store.batches import open_batches
from dpo_data.votes.agreement import REVIEWS

MOST_CONTRADICTED = 0.8
"""Share of a source's comparisons with equal votes both ways above which a second reading is the likelier cause: in
HelpSteer2 and MultiPref, where people really differ, 24% and 39% of the comparisons are not unanimous at all."""
FEWEST_CONTRADICTED = 5  # below, a single split vote is a large share


@dataclass(frozen=True)
class BatchRow:
    """One batch as `dpo sources` lists it. `state` is counts, superseded, partly superseded or forgotten."""

    batch: str
    source: str
    at: datetime
    files: tuple[str, ...]
    formats: tuple[str, ...]
    columns: dict[str, Any] | None
    annotator_kind: str | None
    records: int
    votes: int
    thumbs: int
    rejects: int
    state: str
    superseded: dict[str, str]  # file to the batch that supersedes it
    in_recipe: bool | None  # null where no recipe was given


@dataclass(frozen=True)
class SourceRow:
    """A source whose batches count though the recipe does not name it."""

    source: str
    batches: int
    votes: int


@dataclass(frozen=True)
class Contradicted:
    """A source most of whose comparisons have equal votes both ways, cast in several batches."""

    source: str
    comparisons: int
    of: int
    batches: tuple[str, ...]


def rows(store: Path, recipe_sources: Collection[str] | None = None) -> list[BatchRow]:
    """Every batch of the store, the oldest first; counts are those of the whole batch, whatever its state."""
    known, forgotten = readings.manifests(store), forgetting.read(store)
    return [_row(store, batch, known, forgotten, recipe_sources) for batch in known]


def _row(
    store: Path,
    batch: str,
    known: dict[str, dict[str, Any]],
    forgotten: forgetting.Forgotten,
    recipe_sources: Collection[str] | None,
) -> BatchRow:
    manifest, gone = known[batch], readings.superseded(known, forgotten)
    counts, reading = manifest.get("counts", {}), manifest.get("reading", {})
    by = {
        entry["file"]: later
        for later, other in known.items()
        if not readings.is_forgotten(later, other, forgotten)
        for entry in other.get("supersedes", ())
        if entry["batch"] == batch
    }
    state = "partly superseded" if by else "counts"
    if readings.is_forgotten(batch, manifest, forgotten):
        state = "forgotten"
    elif readings.whole(batch, manifest, gone):
        state = "superseded"
    source = str(manifest["source"])
    return BatchRow(
        batch=batch,
        source=source,
        at=readings.read_at(store, batch),
        files=tuple(file["name"] for file in manifest["files"]),
        formats=tuple(sorted({file["format"] for file in manifest["files"]})),
        columns=reading.get("columns"),
        annotator_kind=reading.get("annotator_kind"),
        records=counts.get("records", 0),
        votes=counts.get("votes", 0),
        thumbs=counts.get("thumbs", 0),
        rejects=counts.get("rejected", 0) + counts.get("faults", 0),
        state=state,
        superseded=by,
        in_recipe=None if recipe_sources is None else source in recipe_sources or source == REVIEWS,
    )


def departed(store: Path, recipe_sources: Collection[str]) -> list[SourceRow]:
    """Sources that the recipe no longer names and whose batches count; the store's own reviews are none of them."""
    opened = open_batches(store)
    listed: dict[str, list[int]] = {}
    for manifest in opened.manifests():
        if manifest["source"] not in recipe_sources and manifest["source"] != REVIEWS:
            listed.setdefault(manifest["source"], []).append(manifest.get("counts", {}).get("votes", 0))
    return [SourceRow(source, len(votes), sum(votes)) for source, votes in sorted(listed.items())]


def contradicted(store: Path, ledger: pl.LazyFrame) -> list[Contradicted]:
    """Sources most of whose comparisons are contradictory by votes of several batches: probably read in two ways."""
    against = pl.col("reasons").list.contains("contradictory_votes")
    counted = ledger.group_by("source").agg(of=pl.len(), comparisons=against.sum()).sort("source").collect()
    many = counted.filter(
        pl.col("comparisons") > MOST_CONTRADICTED * pl.col("of"), pl.col("comparisons") >= FEWEST_CONTRADICTED
    )
    found = []
    for row in many.drop_nulls("source").to_dicts():
        ids = ledger.filter(against, pl.col("source") == row["source"]).select("comparison_id")
        votes = open_batches(store).votes().select("comparison_id", "batch")
        batches = votes.join(ids, on="comparison_id", how="semi").select("batch").unique().sort("batch").collect()
        if batches.height > 1:
            found.append(Contradicted(row["source"], row["comparisons"], row["of"], tuple(batches["batch"])))
    return found
