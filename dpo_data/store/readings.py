"""Readings: which reading of a raw file counts when the file was read more than once.

A batch belongs to a source, its files and the way they were read. A later reading supersedes an earlier one of the
same source per file; nothing is deleted, and whoever opens the batches sees them without the superseded rows:

- The same content read another way (format, columns, winner_values, annotator_kind): the newest reading counts.
- The same file name with other content, while the old content is no longer among the source's files: the newer
  content counts where every comparison and lone thumb of the old reading occurs in it, as in a file that grew or whose
  votes were corrected. Otherwise both count, and the refresh reports it: an export of one day, or of the last thirty,
  that overwrites itself drops rows that nobody took back, and votes lost without a word are worse than a mistake that
  is reported and can be forgotten. Nothing counts twice then: an annotator has one vote per comparison, and
  anonymous votes of a source count as the fullest reading has them. An old reading whose thumbs were paired with those
  of another file counts too, since the other file's thumbs went into those pairs.

A forgotten batch supersedes nothing: the earlier reading counts again. Note: attributes that a comparison got from a
superseded file stay where another file of the same batch has that comparison.
"""

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from dpo_data.reading.files import Stamp
from dpo_data.reading.streams import Piece, span
from dpo_data.store.atomic import read_json
from dpo_data.store.forgotten import Forgotten

MANIFEST = "manifest.json"
Superseded = Mapping[str, frozenset[str]]
"""Names of superseded files by batch."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One file in one batch. `content` is null in batches written before it was recorded."""

    batch: str
    file: str
    key: str
    content: str | None
    annotator_kind: str | None
    superseded: bool
    forgotten: bool

    def is_of(self, key: str, annotator_kind: str | None) -> bool:
        """Whether this is the reading of the file with this key; superseded ones are read again."""
        same = self.content is None or self.annotator_kind == annotator_kind
        return not self.superseded and self.key == key and same


@dataclass(frozen=True, slots=True)
class Replaced:
    """An earlier reading that no longer counts, with its rows; `why` is `reading` or `content`."""

    batch: str
    file: str
    read: str  # when, ISO 8601, UTC
    why: str
    votes: int
    thumbs: int
    rejects: int


@dataclass(frozen=True, slots=True)
class Beside:
    """Earlier readings of other content under the same name that count too, and why.

    Of their `of` comparisons and thumbs the new content has `shared`; `paired`: their thumbs are paired with those of
    another file.
    """

    file: str
    batches: tuple[str, ...]
    shared: int
    of: int
    paired: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a new batch does to earlier readings.

    `entries` (batch and file) are for its manifest; `replaced` are those of them that counted until now.
    """

    entries: list[dict[str, str]]
    replaced: tuple[Replaced, ...]
    beside: tuple[Beside, ...]


def manifests(store: Path) -> dict[str, dict[str, Any]]:
    """The manifest of every complete batch, in the order in which they were appended."""
    folder = store / "batches"
    names = [path.parent.name for path in folder.glob(f"[0-9]*/{MANIFEST}")] if folder.is_dir() else []
    ordered = sorted(names, key=lambda name: (int(name.split("-")[0]), name))
    return {name: read_json(folder / name / MANIFEST) for name in ordered}


def key(
    files: Sequence[Path], stamps: Mapping[Path, Stamp], format: str, columns: Mapping[str, Any] | None
) -> tuple[str, str]:
    """Hashes of a file and those read with it, up to their stamped sizes: of content and way of reading, of content."""
    read_as = blake2b(json.dumps([format, columns], sort_keys=True, default=str).encode(), digest_size=16)
    content = blake2b(digest_size=16)
    for file in files:
        with span(Piece(file, 0, stamps[file].size, 1)) as stream:
            digest = file_digest(stream, partial(blake2b, digest_size=16)).digest()  # type: ignore[arg-type]
        read_as.update(digest)
        content.update(digest)
    return read_as.hexdigest(), content.hexdigest()


def is_forgotten(batch: str, manifest: Mapping[str, Any], forgotten: Forgotten) -> bool:
    """Whether the batch or its source was forgotten."""
    return batch in forgotten.batches or manifest["source"] in forgotten.sources


def superseded(known: Mapping[str, Mapping[str, Any]], forgotten: Forgotten) -> Superseded:
    """The superseded files of every batch that has any."""
    left: dict[str, set[str]] = {}
    for batch, manifest in known.items():
        if not is_forgotten(batch, manifest, forgotten):
            for entry in manifest.get("supersedes", ()):
                left.setdefault(entry["batch"], set()).add(entry["file"])
    return {batch: frozenset(files) for batch, files in left.items()}


def whole(batch: str, manifest: Mapping[str, Any], gone: Superseded) -> bool:
    """Whether every file of the batch is superseded."""
    names = {file["name"] for file in manifest["files"]}
    return bool(names) and names <= gone.get(batch, frozenset())


def history(known: Mapping[str, Mapping[str, Any]], source: str, forgotten: Forgotten) -> list[Reading]:
    """Every reading of the source, the oldest first."""
    gone = superseded(known, forgotten)
    return [
        Reading(
            batch=batch,
            file=file["name"],
            key=file["key"],
            content=file.get("content"),
            annotator_kind=manifest.get("reading", {}).get("annotator_kind"),
            superseded=file["name"] in gone.get(batch, ()),
            forgotten=is_forgotten(batch, manifest, forgotten),
        )
        for batch, manifest in known.items()
        if manifest["source"] == source
        for file in manifest["files"]
    ]


def in_files(names: Iterable[str]) -> pl.Expr:
    """True where `origin` names one of these files; a vote made of two thumbs may name two."""
    wanted, origin = sorted(names), pl.col("origin")
    last = origin.str.strip_chars_end("0123456789,").str.strip_suffix(":")
    first = origin.str.replace(r"(?s):[0-9,]+;.*$", "")
    second = last.str.replace(r"(?s)^.*:[0-9,]+;", "")
    return pl.any_horizontal(name.is_in(wanted) for name in (last, first, second))


def open_table(store: Path, batch: str, table: str, gone: frozenset[str] | None) -> pl.LazyFrame:
    """One table of a batch without the rows of its superseded files."""
    folder = store / "batches" / batch
    frame = pl.scan_parquet(folder / f"{table}.parquet", glob=False)
    if not gone:
        return frame
    if table != "comparisons":
        return frame.filter(~in_files(gone))
    voted = pl.scan_parquet(folder / "votes.parquet", glob=False).filter(~in_files(gone)).select("comparison_id")
    return frame.join(voted, on="comparison_id", how="semi", maintain_order="left")


def replace_earlier(
    store: Path, folder: Path, new: Mapping[Path, tuple[str, str]], present: Set[str], earlier: Sequence[Reading]
) -> Outcome:
    """Which `earlier` readings the batch in `folder` supersedes, and which of the same name count beside it.

    `new` has name and content of every file of that batch, `present` the contents and keys of all files that the
    source has now.
    """
    gone: list[tuple[Reading, str]] = []
    beside = []
    for path, (name, content) in new.items():
        gone += [(old, "reading") for old in earlier if old.content == content]
        stays = []
        for old in earlier:
            if old.superseded or not _is_named(path, old.file) or {old.content, old.key} & present:
                continue  # the old content may still be there, under another path
            shared, of, paired = _shared(store, old, folder, name)
            if shared == of and not (paired and of):
                gone.append((old, "content"))
            elif not old.forgotten:
                stays.append((old.batch, shared, of, paired))
        if stays:
            batches, shares, sizes, paireds = zip(*stays, strict=True)
            beside.append(Beside(name, batches, sum(shares), sum(sizes), any(paireds)))
    entries = [{"batch": old.batch, "file": old.file} for old, _ in gone]
    counted = [(old, why) for old, why in gone if not old.superseded and not old.forgotten]
    return Outcome(entries, tuple(_replaced(store, old, why) for old, why in counted), tuple(beside))


def elsewhere(known: Mapping[str, Mapping[str, Any]], source: str, contents: Iterable[str]) -> list[str]:
    """Batches of other sources that hold one of these contents too."""
    wanted = set(contents)
    return [
        batch
        for batch, manifest in known.items()
        if manifest["source"] != source and any(file.get("content") in wanted for file in manifest["files"])
    ]


def read_at(store: Path, batch: str) -> datetime:
    """When the batch was written: the time of its manifest's file, since its bytes depend on the input alone."""
    return datetime.fromtimestamp((store / "batches" / batch / MANIFEST).stat().st_mtime, UTC)


def _is_named(path: Path, name: str) -> bool:
    """Whether the file at `path` has this name, with as many parent folders as the name has."""
    parts = PurePath(name).parts
    return path.parts[-len(parts) :] == parts


def _replaced(store: Path, old: Reading, why: str) -> Replaced:
    tables = (pl.scan_parquet(store / "batches" / old.batch / f"{name}.parquet", glob=False) for name in _COUNTED)
    rows = pl.collect_all([table.filter(in_files([old.file])).select(pl.len()) for table in tables])
    counts = [int(frame.item()) for frame in rows]
    return Replaced(old.batch, old.file, read_at(store, old.batch).isoformat(timespec="seconds"), why, *counts)


_COUNTED = ("votes", "thumbs", "rejects")


def _shared(store: Path, old: Reading, folder: Path, name: str) -> tuple[int, int, bool]:
    """How many comparisons and lone thumbs of the old reading occur in the new one, of how many; is it paired?"""
    before = store / "batches" / old.batch
    votes = pl.scan_parquet(before / "votes.parquet", glob=False).filter(in_files([old.file]))
    crossed = pl.col("origin").str.contains(r":[0-9,]+;").any().alias("crossed")
    now = (
        pl.scan_parquet(folder / "votes.parquet", glob=False).filter(in_files([name])).select("comparison_id").unique()
    )
    ids = votes.select("comparison_id").unique()
    thumbs = pl.scan_parquet(before / "thumbs.parquet", glob=False).filter(in_files([old.file])).select("completion")
    paired, of, shared, lone = (
        frame.item()
        for frame in pl.collect_all(
            [
                votes.select(crossed.fill_null(False)),
                ids.select(pl.len()),
                ids.join(now, on="comparison_id", how="semi").select(pl.len()),
                thumbs.select(pl.len()),
            ]
        )
    )
    if lone:
        texts = [
            pl.scan_parquet(folder / "thumbs.parquet", glob=False).select(text="completion"),
            *(
                pl.scan_parquet(folder / "comparisons.parquet", glob=False).select(text=f"response_{side}")
                for side in "ab"
            ),
        ]
        met = thumbs.join(pl.concat(texts).unique(), left_on="completion", right_on="text", how="semi")
        of, shared = of + lone, shared + met.select(pl.len()).collect().item()
    return int(shared), int(of), bool(paired)
