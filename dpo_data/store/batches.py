"""Append-only batches of a store: open all that count, and read their tables.

A batch is written once by `ingest.append` and never changed. Forgotten rows and superseded readings are left out when a
table is opened.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.schema import COMPARISONS, REJECTS, THUMBS, VOTES, empty
from dpo_data.store import forgotten as forgetting
from dpo_data.store import readings
from dpo_data.store.atomic import read_json

MANIFEST = readings.MANIFEST


@dataclass(frozen=True, slots=True)
class Batches:
    """All batches of a store that count, opened together.

    `ids` are without the batches that are forgotten or wholly superseded; `superseded` are files of the others.
    """

    store: Path
    ids: list[str]
    superseded: readings.Superseded = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hex hash of what the batches hold and the store forgot, the same whatever order they were appended in."""
        contents = sorted(manifest["digest"] for manifest in self.manifests())
        contents += sorted(f"{batch} {file}" for batch in self.ids for file in self.superseded.get(batch, ()))
        contents.append(forgetting.read(self.store).digest)
        return blake2b("".join(contents).encode(), digest_size=16).hexdigest()

    def manifests(self) -> list[dict[str, Any]]:
        """What each batch was made of, without superseded files, so that it is as in a store that never read them."""
        found = []
        for batch in self.ids:
            manifest = read_json(self.store / "batches" / batch / MANIFEST)
            files = [file for file in manifest["files"] if file["name"] not in self.superseded.get(batch, ())]
            found.append({**{name: manifest[name] for name in manifest if name != "supersedes"}, "files": files})
        return found

    def comparisons(self) -> pl.LazyFrame:
        """One row per comparison, schema COMPARISONS: the first batch's row, attributes merged over all batches."""
        frames = [self._open(batch, "comparisons") for batch in self.ids]
        if len(frames) < 2:
            return frames[0] if frames else empty(COMPARISONS).lazy()
        ids = pl.concat([frame.select("comparison_id", batch=pl.lit(index)) for index, frame in enumerate(frames)])
        sights = ids.group_by("comparison_id").agg(pl.col("batch").min(), pl.len())
        repeated = sights.filter(pl.col("len") > 1).collect()
        if repeated.is_empty():
            return pl.concat(frames)
        merged = merge_attributes(
            pl.concat([frame.select("comparison_id", "attributes") for frame in frames]).join(
                repeated.lazy(), on="comparison_id", how="semi"
            )
        ).rename({"attributes": "merged"})
        return pl.concat([_first_seen(frame, index, repeated, merged) for index, frame in enumerate(frames)])

    def votes(self) -> pl.LazyFrame:
        """Every vote of every batch, schema VOTES plus `batch`."""
        return self._scan("votes")

    def thumbs(self) -> pl.LazyFrame:
        """Every lone thumb of every batch, schema THUMBS plus `batch`."""
        return self._scan("thumbs")

    def rejects(self) -> pl.LazyFrame:
        """Every reject of every batch, schema REJECTS plus `batch`."""
        return self._scan("rejects")

    def _open(self, batch: str, table: str) -> pl.LazyFrame:
        """One table of one batch, without what the store forgot and what is superseded."""
        frame = readings.open_table(self.store, batch, table, self.superseded.get(batch))
        return forgetting.read(self.store).leave_out(frame)

    def _scan(self, table: str) -> pl.LazyFrame:
        frames = [self._open(batch, table).with_columns(batch=pl.lit(batch)) for batch in self.ids]
        return pl.concat(frames) if frames else empty(TABLES[table]).lazy().with_columns(batch=pl.lit(""))


def _first_seen(frame: pl.LazyFrame, index: int, repeated: pl.DataFrame, merged: pl.LazyFrame) -> pl.LazyFrame:
    """Batch `index` without the comparisons of earlier batches, and with the attributes of later ones."""
    earlier = repeated.filter(pl.col("batch") < index).lazy()
    return (
        frame.join(earlier, on="comparison_id", how="anti", maintain_order="left")
        .join(merged, on="comparison_id", how="left", maintain_order="left")
        .with_columns(attributes=pl.coalesce("merged", "attributes"))
        .drop("merged")
    )


def open_batches(store: Path) -> Batches:
    """The complete batches of the store that count, in the order in which they were appended."""
    known, forgotten = readings.manifests(store), forgetting.read(store)
    gone = readings.superseded(known, forgotten)
    ids = [
        batch
        for batch, manifest in known.items()
        if not readings.is_forgotten(batch, manifest, forgotten) and not readings.whole(batch, manifest, gone)
    ]
    return Batches(store, ids, {batch: gone[batch] for batch in ids if batch in gone})


TABLES = {"comparisons": COMPARISONS, "votes": VOTES, "thumbs": THUMBS, "rejects": REJECTS}


def merge_attributes(frame: pl.LazyFrame) -> pl.LazyFrame:
    """comparison_id and the distinct attributes of all its rows, sorted by key and value."""
    fields = pl.col("attributes").struct
    return (
        frame.explode("attributes")
        .drop_nulls("attributes")
        .unique()
        .sort("comparison_id", fields.field("key"), fields.field("value"))
        .group_by("comparison_id", maintain_order=True)
        .agg("attributes")
    )
