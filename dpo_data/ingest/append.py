"""Append raw files of one source to the store as a batch.

`append_batch` reads raw files, turns every record into votes, unpaired ratings or rejects, proves by count that none
was lost, and writes one folder: comparisons, votes, thumbs, rejects, and the manifest last, under its final name only
when it is complete. A file that was ingested from this source before and read the same way is skipped, detected by its
content and not by its name or date; read another way, or corrected under its name, it supersedes its earlier reading
(store/readings.py).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpo_data.formats.detect import reader
from dpo_data.ingest.accounting import check_fates, stamps, unchanged
from dpo_data.ingest.convert import REJECTED, THUMBED, VOTED, Job, PartFiles, convert
from dpo_data.ingest.merge import BatchContents, merge_parts
from dpo_data.ingest.staging import incoming, locked, sweep
from dpo_data.reading.files import Piece, Stamp, count, fixed, pieces
from dpo_data.reading.records import Reader
from dpo_data.schema import DataError
from dpo_data.store import forgotten as forgetting
from dpo_data.store import lock, readings
from dpo_data.store.atomic import sync, sync_folder, write_json
from dpo_data.store.batches import MANIFEST, TABLES

Mapper = Callable[[Callable[[Job], list[PartFiles]], Iterable[Job]], Iterable[list[PartFiles]]]


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What became of the raw records of one append: every one ends in votes, thumbs or rejects.

    `records` is counted in the files, apart from the reading. `batch` is null when every file had been ingested
    before. `faults` counts the rejects beyond one a rejected record: unreadable parts of records that voted.
    `bytes` are those of the files that were read, as they lie there; a file known before is only hashed.
    `supersedes` are earlier readings that no longer count, `beside` those of the same name that still do, `elsewhere`
    batches of other sources with the same content.
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
    supersedes: tuple[readings.Replaced, ...] = ()
    beside: tuple[readings.Beside, ...] = ()
    elsewhere: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.records != self.voted + self.thumbs + self.rejected:
            raise DataError(
                f"{self.source}: {self.records} records counted, but {self.voted} voted + {self.thumbs} thumbs + "
                f"{self.rejected} rejected came out of the reader. Nothing was written; this is a fault of the reader."
            )


def append_batch(
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
    beside = {path: read.companions(path) for path, (_, read) in readers.items()}
    before = stamps([*readers, *(file for files in beside.values() for file in files)])
    keys = {path: readings.key([path, *beside[path]], before, name, columns) for path, (name, _) in readers.items()}
    known = readings.manifests(store)
    earlier = readings.history(known, source, forgetting.read(store))
    unread = {
        key: path
        for path, (key, _) in reversed(keys.items())
        if not any(reading.is_of(key, annotator_kind) for reading in earlier)
    }
    new = sorted(unread.values())
    if not new:
        return BatchSummary(None, source, 0, len(files))
    folder = store / "batches"
    folder.mkdir(parents=True, exist_ok=True)
    with incoming(folder) as unnamed:
        names = _names([*keys])
        options = (source, format, columns, annotator_kind)
        spans = {path: fixed(path, before[path].size) for path in new if readers[path][1].parse is not None}
        read_files = {file: before[file] for path in new for file in (path, *beside[path])}
        with unchanged(read_files, growing=[path for path, piece in spans.items() if piece is not None]):
            jobs = _jobs(unnamed, new, names, readers, options, spans)
            joined = merge_parts(unnamed, _counted(mapper(convert, jobs), progress))
            counts = _counts(joined, new, spans, before)
        summary = BatchSummary(None, source, len(new), len(files) - len(new), **counts)
        contents = {path: (names[path], keys[path][1]) for path in new}
        present = {part for pair in keys.values() for part in pair}
        outcome = readings.replace_earlier(store, unnamed, contents, present, earlier)
        manifest = {
            "source": source,
            "digest": joined.digest,
            "files": [
                {"name": names[path], "format": readers[path][0], "key": keys[path][0], "content": keys[path][1]}
                for path in new
            ],
            "counts": counts,
            "reading": {"columns": json.loads(json.dumps(columns, default=str)), "annotator_kind": annotator_kind},
            "supersedes": outcome.entries,
        }
        for table in TABLES:
            sync(unnamed / f"{table}.parquet")
        write_json(unnamed / MANIFEST, manifest)
        sync_folder(unnamed)
        with lock.hold(store), locked(folder):  # no batch appears while another process measures or publishes
            later = readings.manifests(store).items()
            if any(name not in known and about["source"] == source for name, about in later):
                batch = None  # this source was appended to meanwhile: start again with what is left
            else:
                batch = f"{_next_number(folder):04d}-{_slug(source)}-{joined.digest[:12]}"
                unnamed.replace(folder / batch)
                sync_folder(folder)
    if batch is None:
        return append_batch(
            store, files, source, format, annotator_kind, columns=columns, mapper=mapper, progress=progress
        )
    others = tuple(readings.elsewhere(known, source, [content for _, content in contents.values()]))
    return replace(summary, batch=batch, supersedes=outcome.replaced, beside=outcome.beside, elsewhere=others)


def _jobs(
    folder: Path,
    files: Sequence[Path],
    names: Mapping[Path, str],
    readers: Mapping[Path, tuple[str, Reader]],
    options: tuple[str, str | None, Mapping[str, Any] | None, str | None],
    spans: Mapping[Path, Piece | None],
) -> Iterator[Job]:
    """One job per file, or per piece of it where its records stand by themselves and it is large."""
    number, folder = 0, folder.absolute()  # absolute: a worker may have another working directory
    for index, path in enumerate(files):
        whole = spans.get(path)
        cut: list[Piece | None] = [*pieces(path.absolute(), total=whole.stop)] if whole else []
        for piece in cut or [whole and replace(whole, path=path.absolute())]:
            source, format, columns, kind = options
            name = None if columns is not None else format or readers[path][0]
            yield Job(number, folder, path.absolute(), piece, index, names[path], source, name, columns, kind)
            number += 1


def _counted(results: Iterable[list[PartFiles]], progress: Callable[[int], None] | None) -> Iterator[PartFiles]:
    done = 0
    for result in results:
        for written in result:
            yield written
            done += len(written.fates)
            if progress is not None:
                progress(done)


def _counts(
    joined: BatchContents, files: Sequence[Path], spans: Mapping[Path, Piece | None], before: Mapping[Path, Stamp]
) -> dict[str, Any]:
    records = [count(spans.get(path) or path) for path in files]
    for index, path in enumerate(files):
        check_fates(path, records[index], joined.of(index))
    rejected = joined.became(REJECTED)
    return {
        "records": sum(records),
        "voted": joined.became(VOTED),
        "thumbs": joined.became(THUMBED),
        "rejected": rejected,
        "comparisons": joined.rows["comparisons"],
        "votes": joined.rows["votes"],
        "faults": joined.rows["rejects"] - rejected,
        "bytes": sum(before[path].size for path in files),
    }


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
