"""Batches: what a source said, appended once, never changed.

`append` reads raw files, brings every record to votes, thumbs or rejects, proves by count that none
was lost, and writes one folder: comparisons, votes, thumbs, rejects, and the manifest last, under its
final name only when it is whole. The surprise: a file that was ingested from this source before is a
no-op, told by the content of the file and not by its name or date.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data import forgetting, parts
from dpo_data.formats import READERS
from dpo_data.formats.detect import detect
from dpo_data.formats.files import count
from dpo_data.parts import Part, Texts
from dpo_data.schema import COMPARISONS, REJECTS, THUMBS, VOTES, DataError, empty

TABLES = {"comparisons": COMPARISONS, "votes": VOTES, "thumbs": THUMBS, "rejects": REJECTS}
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What became of the raw records of one append: every one ends in votes, thumbs or rejects.

    `records` is counted in the files, apart from the reading. `batch` is null when every file had been ingested
    before. `faults` counts unreadable parts of records that voted nevertheless; they are rows of the rejects too.
    """

    batch: str | None
    source: str
    files: int
    files_known: int
    records: int
    voted: int
    thumbs: int
    rejected: int
    comparisons: int
    votes: int
    faults: int = 0

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
        """Hex hash of what the batches hold, the same whatever order they were appended in; what the store forgot
        counts."""
        contents = sorted(_manifest(self.store, batch)["digest"] for batch in self.ids)
        contents.append(forgetting.read(self.store).digest)
        return blake2b("".join(contents).encode(), digest_size=16).hexdigest()

    def comparisons(self) -> pl.LazyFrame:
        """One row per comparison, schema COMPARISONS: the first batch's row, attributes merged over all batches."""
        frame = self._scan("comparisons")
        merged = (
            frame.select("comparison_id", "attributes")
            .explode("attributes")
            .drop_nulls("attributes")
            .unique()
            .sort("comparison_id", pl.col("attributes").struct.field("key"), pl.col("attributes").struct.field("value"))
            .group_by("comparison_id", maintain_order=True)
            .agg("attributes")
        )
        first = frame.drop("attributes", "batch").unique("comparison_id", keep="first", maintain_order=True)
        attributes = pl.col("attributes").fill_null(pl.lit([], dtype=COMPARISONS["attributes"]))
        return first.join(merged, on="comparison_id", how="left", maintain_order="left").with_columns(attributes)

    def votes(self) -> pl.LazyFrame:
        """Every vote of every batch, schema VOTES plus `batch`."""
        return self._scan("votes")

    def thumbs(self) -> pl.LazyFrame:
        """Every lone thumb of every batch, schema THUMBS plus `batch`."""
        return self._scan("thumbs")

    def rejects(self) -> pl.LazyFrame:
        """Every reject of every batch, schema REJECTS plus `batch`."""
        return self._scan("rejects")

    def _scan(self, table: str) -> pl.LazyFrame:
        frames = [
            pl.scan_parquet(self.store / "batches" / batch / f"{table}.parquet").with_columns(batch=pl.lit(batch))
            for batch in self.ids
        ]
        frames = [forgetting.read(self.store).leave_out(frame) for frame in frames]
        return pl.concat(frames) if frames else empty(TABLES[table]).lazy().with_columns(batch=pl.lit(""))


def open_batches(store: Path) -> Batches:
    """The complete batches of the store, in the order in which they were appended."""
    folder = store / "batches"
    names = sorted(path.parent.name for path in folder.glob(f"[0-9]*/{MANIFEST}")) if folder.is_dir() else []
    return Batches(store, names)


def append(
    store: Path,
    files: Sequence[Path],
    source: str,
    format: str | None = None,
    annotator_kind: str | None = None,
) -> BatchSummary:
    """Read `files` as one snapshot of `source` and append it as a batch; files ingested before are skipped.

    `format` is a name of READERS, null to detect it per file; `annotator_kind` (human, model) overrides what the
    reader knows. `DataError` when a file as a whole cannot be read: then nothing is written.
    """
    if not files:
        raise DataError(f"Source {source!r}: no files found. Give a file, a folder or a glob with raw comparisons.")
    if format is not None and format not in READERS:
        raise DataError(f"Source {source!r}: unknown format {format!r}. Known: {', '.join(sorted(READERS))}.")
    known = _ingested(store, source)
    keys = {path: _file_key(path, format) for path in files}
    new = [path for path in files if keys[path] not in known]
    if not new:
        return BatchSummary(None, source, 0, len(files), 0, 0, 0, 0, 0, 0)
    folder = store / "batches"
    folder.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=folder))
    try:
        formats = {path: format or detect(path) for path in new}
        counts = _convert(incoming, new, formats, source, annotator_kind)
        digest = blake2b("".join(sorted(keys[path] for path in new)).encode(), digest_size=16).hexdigest()
        manifest = {
            "source": source,
            "digest": _contents(incoming),
            "files": [{"name": _origin_name(path, new), "format": formats[path], "key": keys[path]} for path in new],
            "counts": counts,
        }
        _write_synced(incoming / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
        with _locked(folder):
            number = 1 + max((int(path.name.split("-")[0]) for path in folder.glob("[0-9]*-*")), default=0)
            batch = f"{number:04d}-{_slug(source)}-{digest[:12]}"
            incoming.replace(folder / batch)
        _sync(folder)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return BatchSummary(batch, source, len(new), len(files) - len(new), **counts)


def _convert(
    folder: Path, files: Sequence[Path], formats: dict[Path, str], source: str, annotator_kind: str | None
) -> dict[str, int]:
    texts = Texts()
    frames: dict[str, list[pl.DataFrame]] = {table: [] for table in TABLES}
    fates: dict[Path, dict[int, int]] = {}
    for path in files:
        part = Part(source, _origin_name(path, files))
        for item in READERS[formats[path]].read(path):
            part.add(item, texts, annotator_kind)
        for table, frame in (
            ("comparisons", part.comparisons_frame()),
            ("votes", part.votes_frame()),
            ("thumbs", part.thumbs_frame().with_columns(file=pl.lit(part.file))),
            ("rejects", part.rejects_frame()),
        ):
            frames[table].append(frame)
        fates[path] = part.fates
    tables = {table: pl.concat(frames[table]) for table in TABLES}
    paired = _pair_thumbs(tables)
    by_name = {_origin_name(path, files): fates[path] for path in files}
    for file, record in paired:
        by_name[file][record] = parts.VOTED
    tables["comparisons"] = _unique(tables["comparisons"])
    for table, schema in TABLES.items():
        tables[table].select(schema.names()).write_parquet(folder / f"{table}.parquet")
        _sync(folder / f"{table}.parquet")
    all_fates = [fate for file in by_name.values() for fate in file.values()]
    records = sum(count(path) for path in files)
    summary = BatchSummary(
        None,
        source,
        len(files),
        0,
        records,
        all_fates.count(parts.VOTED),
        all_fates.count(parts.THUMBED),
        all_fates.count(parts.REJECTED),
        tables["comparisons"].height,
        tables["votes"].height,
        tables["rejects"].height - all_fates.count(parts.REJECTED),
    )
    return {
        name: getattr(summary, name)
        for name in ("records", "voted", "thumbs", "rejected", "comparisons", "votes", "faults")
    }


def _unique(comparisons: pl.DataFrame) -> pl.DataFrame:
    merged = (
        comparisons.select("comparison_id", "attributes")
        .explode("attributes")
        .drop_nulls("attributes")
        .unique()
        .sort("comparison_id", pl.col("attributes").struct.field("key"), pl.col("attributes").struct.field("value"))
        .group_by("comparison_id", maintain_order=True)
        .agg("attributes")
    )
    first = comparisons.drop("attributes").unique("comparison_id", keep="first", maintain_order=True)
    return first.join(merged, on="comparison_id", how="left", maintain_order="left").with_columns(
        pl.col("attributes").fill_null(pl.lit([], dtype=COMPARISONS["attributes"]))
    )


def _pair_thumbs(tables: dict[str, pl.DataFrame]) -> set[tuple[str, int]]:
    """Move opposite thumbs on one prompt from `thumbs` to comparisons and votes; return the records that moved."""
    thumbs = tables["thumbs"].with_row_index("row")
    ups, downs = thumbs.filter(pl.col("label")), thumbs.filter(~pl.col("label"))
    pairs = ups.join(downs, on="prompt_hash", suffix="_down", maintain_order="left_right").filter(
        pl.col("completion_hash") != pl.col("completion_hash_down")
    )
    if pairs.is_empty():
        return set()
    part = Part("", "")
    texts = Texts()
    from dpo_data.formats.records import Judgement

    for row in pairs.iter_rows(named=True):
        part.source = row["source"]
        same = row["annotator"] == row["annotator_down"]
        kinds = {row["annotator_kind"], row["annotator_kind_down"]}
        times = [time for time in (row["at"], row["at_down"]) if time is not None]
        item = Judgement(
            row["prompt"],
            row["completion"],
            row["completion_down"],
            "first",
            annotator=row["annotator"] if same else None,
            annotator_kind=kinds.pop() if len(kinds) == 1 else "unknown",
            at=max(times, default=None),
        )
        part.add(item, texts, None)
        part.votes[-1] = (*part.votes[-1][:-1], f"{row['origin']},{row['record_down']}")
    tables["comparisons"] = pl.concat([tables["comparisons"], part.comparisons_frame()])
    tables["votes"] = pl.concat([tables["votes"], part.votes_frame()])
    moved = pl.concat([pairs["row"], pairs["row_down"]]).unique()
    gone = thumbs.filter(pl.col("row").is_in(moved.implode()))
    tables["thumbs"] = thumbs.filter(~pl.col("row").is_in(moved.implode())).drop("row")
    return set(gone.select("file", "record").iter_rows())


def _ingested(store: Path, source: str) -> set[str]:
    batches = open_batches(store)
    manifests = (_manifest(store, batch) for batch in batches.ids)
    return {file["key"] for manifest in manifests if manifest["source"] == source for file in manifest["files"]}


def _manifest(store: Path, batch: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((store / "batches" / batch / MANIFEST).read_bytes())
    return manifest


def _file_key(path: Path, format: str | None) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a file, a folder or a glob that holds raw comparisons.")
    digest = blake2b((format or "").encode(), digest_size=16)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _origin_name(path: Path, files: Sequence[Path]) -> str:
    """The file's name, with as many parent folders as tell it from the other files of the append."""
    for depth in range(1, len(path.parts) + 1):
        name = "/".join(path.parts[-depth:])
        if sum(other.parts[-depth:] == path.parts[-depth:] for other in files) == 1:
            return name
    return path.as_posix()


def _slug(source: str) -> str:
    return (
        "".join(mark if mark.isalnum() and mark.isascii() else "-" for mark in source.lower())[:40].strip("-")
        or "source"
    )


def _contents(folder: Path) -> str:
    digest = blake2b(digest_size=16)
    for table in TABLES:
        digest.update((folder / f"{table}.parquet").read_bytes())
    return digest.hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
