"""Batches: what a source said, appended once, never changed.

`append` reads raw files, brings every record to votes, thumbs or rejects, proves by count that none
was lost, and writes one folder: comparisons, votes, thumbs, rejects, and the manifest last, under its
final name only when it is whole. The surprise: a file that was ingested from this source before is a
no-op, told by the content of the file and not by its name or date.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.appending.incoming import incoming, locked, sweep
from dpo_data.appending.inspection import Inspection, inspect
from dpo_data.appending.joining import TABLES, Joined, join, merge_attributes
from dpo_data.appending.parts import REJECTED, THUMBED, VOTED, Job, Written, convert
from dpo_data.formats.detect import reader
from dpo_data.formats.files import Piece, count, pieces
from dpo_data.formats.records import Reader
from dpo_data.schema import COMPARISONS, DataError, empty
from dpo_data.store import forgetting, lock
from dpo_data.store.durable import read_json, sync, sync_folder, write_json

__all__ = ["BatchSummary", "Batches", "Inspection", "append", "inspect", "open_batches"]

MANIFEST = "manifest.json"
Mapper = Callable[[Callable[[Job], list[Written]], Iterable[Job]], Iterable[list[Written]]]


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What became of the raw records of one append: every one ends in votes, thumbs or rejects.

    `records` is counted in the files, apart from the reading. `batch` is null when every file had been ingested
    before. `faults` counts the rejects beyond one a rejected record: unreadable parts of records that voted.
    `bytes` are those of the files that were read, as they lie there; a file known before is only hashed.
    """

    batch: str | None
    source: str
    files: int
    files_known: int
    records: int = 0
    voted: int = 0
    thumbs: int = 0
    rejected: int = 0
    comparisons: int = 0
    votes: int = 0
    faults: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        if self.records != self.voted + self.thumbs + self.rejected:
            raise AssertionError(
                f"{self.source}: {self.records} records counted, but {self.voted} voted + {self.thumbs} thumbs + "
                f"{self.rejected} rejected came out of the reader. Nothing was written; this is a fault of the reader."
            )


@dataclass(frozen=True, slots=True)
class Batches:
    """All batches of a store, opened together."""

    store: Path
    ids: list[str]

    @property
    def digest(self) -> str:
        """Hex hash of what the batches hold and the store forgot, the same whatever order they were appended in."""
        contents = sorted(_manifest(self.store, batch)["digest"] for batch in self.ids)
        contents.append(forgetting.read(self.store).digest)
        return blake2b("".join(contents).encode(), digest_size=16).hexdigest()

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
        """One table of one batch, without what the store was told to forget."""
        frame = pl.scan_parquet(self.store / "batches" / batch / f"{table}.parquet", glob=False)
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
    """The complete batches of the store, in the order in which they were appended."""
    folder = store / "batches"
    names = [path.parent.name for path in folder.glob(f"[0-9]*/{MANIFEST}")] if folder.is_dir() else []
    return Batches(store, sorted(names, key=lambda name: (int(name.split("-")[0]), name)))


def append(
    store: Path,
    files: Sequence[Path],
    source: str,
    format: str | None = None,
    annotator_kind: str | None = None,
    *,
    columns: Mapping[str, Any] | None = None,
    mapper: Mapper = map,
    progress: Callable[[int], None] | None = None,
) -> BatchSummary:
    """Read `files` as one snapshot of `source` and append it as a batch; files ingested before are skipped.

    `format` is a name of READERS, null to detect it per file; `columns` is a mapping for tables with other column
    names (formats/columns.py); `annotator_kind` (human, model) overrides what the reader knows. `mapper` runs the
    conversion: the built-in map, or that of an executor, with the same bytes as the result. `progress` is
    called with the number of records done so far. `DataError` when a file as a whole cannot be read: then nothing
    is written.
    """
    if not files:
        raise DataError(f"Source {source!r}: no files found. Give a file, a folder or a glob with raw comparisons.")
    sweep(store / "batches")
    readers = {path: reader(path, format, columns) for path in sorted(set(files))}
    keys = {path: _key(path, name, read.companions(path), columns) for path, (name, read) in readers.items()}
    known = _ingested(store, source)
    new = sorted({key: path for path, key in reversed(keys.items()) if key not in known}.values())
    if not new:
        return BatchSummary(None, source, 0, len(files))
    folder = store / "batches"
    folder.mkdir(parents=True, exist_ok=True)
    with incoming(folder) as unnamed:
        options = (source, format, columns, annotator_kind)
        joined = join(unnamed, _counted(mapper(convert, _jobs(unnamed, new, readers, options)), progress))
        counts = _counts(joined, new)
        summary = BatchSummary(None, source, len(new), len(files) - len(new), **counts)
        names = _names(new)
        about = [{"name": names[path], "format": readers[path][0], "key": keys[path]} for path in new]
        manifest = {"source": source, "digest": joined.digest, "files": about, "counts": counts}
        for table in TABLES:
            sync(unnamed / f"{table}.parquet")
        write_json(unnamed / MANIFEST, manifest)
        sync_folder(unnamed)
        with lock.hold(store), locked(folder):  # no batch appears while another process measures or publishes
            if not _ingested(store, source).isdisjoint(keys[path] for path in new):
                batch = None  # somebody appended one of these files meanwhile: start again with what is left
            else:
                batch = f"{_next_number(folder):04d}-{_slug(source)}-{joined.digest[:12]}"
                unnamed.replace(folder / batch)
                sync_folder(folder)
    if batch is None:
        return append(store, files, source, format, annotator_kind, columns=columns, mapper=mapper, progress=progress)
    return replace(summary, batch=batch)


def _jobs(
    folder: Path,
    files: Sequence[Path],
    readers: Mapping[Path, tuple[str, Reader]],
    options: tuple[str, str | None, Mapping[str, Any] | None, str | None],
) -> Iterator[Job]:
    """One job a file, or a piece of it where its records stand by themselves and it is large."""
    names = _names(files)
    number, folder = 0, folder.absolute()  # absolute: a worker may have another working directory
    for index, path in enumerate(files):
        cut: list[Piece | None] = [*pieces(path.absolute())] if readers[path][1].parse is not None else []
        for piece in cut or [None]:
            source, format, columns, kind = options
            name = None if columns is not None else format or readers[path][0]
            yield Job(number, folder, path.absolute(), piece, index, names[path], source, name, columns, kind)
            number += 1


def _counted(results: Iterable[list[Written]], progress: Callable[[int], None] | None) -> Iterator[Written]:
    done = 0
    for result in results:
        for written in result:
            yield written
            done += len(written.fates)
            if progress is not None:
                progress(done)


def _counts(joined: Joined, files: Sequence[Path]) -> dict[str, int]:
    rejected = joined.became(REJECTED)
    return {
        "records": sum(count(path) for path in files),
        "voted": joined.became(VOTED),
        "thumbs": joined.became(THUMBED),
        "rejected": rejected,
        "comparisons": joined.rows["comparisons"],
        "votes": joined.rows["votes"],
        "faults": joined.rows["rejects"] - rejected,
        "bytes": sum(path.stat().st_size for path in files),
    }


def _ingested(store: Path, source: str) -> set[str]:
    manifests = (_manifest(store, batch) for batch in open_batches(store).ids)
    return {file["key"] for manifest in manifests if manifest["source"] == source for file in manifest["files"]}


def _manifest(store: Path, batch: str) -> dict[str, Any]:
    return read_json(store / "batches" / batch / MANIFEST)


def _key(path: Path, format: str, companions: Sequence[Path], columns: Mapping[str, Any] | None) -> str:
    """What a file says to us: its content, that of the files read with it, and how it is read."""
    digest = blake2b(json.dumps([format, columns], sort_keys=True, default=str).encode(), digest_size=16)
    for file in (path, *companions):
        with file.open("rb") as stream:
            digest.update(file_digest(stream, partial(blake2b, digest_size=16)).digest())
    return digest.hexdigest()


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """Each file's name, with as many parent folders as tell it from the other files of the append."""
    names = {path: path.name for path in files}
    depth = 1
    while len(set(names.values())) < len(names) and depth < 32:
        depth += 1
        shared = {name for name, times in Counter(names.values()).items() if times > 1}
        names = {path: "/".join(path.parts[-depth:]) if name in shared else name for path, name in names.items()}
    return names


def _slug(source: str) -> str:
    slug = "".join(mark if mark.isalnum() and mark.isascii() else "-" for mark in source.lower())
    return slug[:40].strip("-") or "source"


def _next_number(folder: Path) -> int:
    return 1 + max((int(path.name.split("-")[0]) for path in folder.glob("[0-9]*-*")), default=0)
