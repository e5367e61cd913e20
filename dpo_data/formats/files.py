"""Raw records out of files: JSON lines, JSON arrays, CSV and Parquet, plain, .gz or .zst.

Each record is decoded by itself, so that one broken line costs one reject; a file that cannot be read at all is a
`DataError`. The surprise: a large file of JSON lines can be read in pieces, whose records keep their line numbers.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpo_data.formats import json_arrays
from dpo_data.formats.decoding import Row, decode
from dpo_data.schema import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"
PIECE_BYTES = 32 << 20  # a piece converts in some seconds, and its rows fit in memory many times over

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a response may be longer than csv's default of 131,072 characters


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of whole lines of a JSON lines file: bytes from `start` to `stop`, the first one line number `line`."""

    path: Path
    start: int
    stop: int
    line: int


def pieces(path: Path, size: int = PIECE_BYTES) -> list[Piece]:
    """The file cut into runs of lines of about `size` bytes; empty where it cannot be cut (.json, .csv, .gz)."""
    if path.suffix.lower() not in (".jsonl", ".ndjson") or not path.is_file() or path.stat().st_size <= size:
        return []
    cut, line, found = 0, 1, []
    total = path.stat().st_size
    with path.open("rb") as stream:
        while cut < total:
            block = stream.read(size)
            block += stream.readline()
            found.append(Piece(path, cut, cut + len(block), line))
            cut, line = cut + len(block), line + block.count(b"\n")
    return found


def kind(path: Path) -> str:
    """The file's suffix without its compression, one of `SUFFIXES`; `DataError` for any other."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    if suffixes and suffixes[-1] in SUFFIXES:
        return suffixes[-1]
    raise DataError(
        f"{path}: the file's name ends in {path.suffix or 'nothing'!r}; expected one of {', '.join(SUFFIXES)}, "
        f"plain or with {' or '.join(COMPRESSIONS)}. Rename it after what it holds, or export it in one of these forms."
    )


def opened(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed, as a stream."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(gzip.open(path))
    if suffix == ".zst":
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def rows(path: Path | Piece) -> Iterator[Row]:
    """Every raw record of the file or piece, readable or not. `DataError` when the file as a whole cannot be read."""
    if isinstance(path, Piece):
        yield from _piece(path)
        return
    suffix = kind(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a file, a folder or a glob that holds raw comparisons.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); expected records. Export or download it again.")
    with _readable(path):
        _check_encoding(path, suffix)
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix in (".csv", ".tsv"):
            yield from _table(path, "\t" if suffix == ".tsv" else ",")
        elif suffix == ".json":
            yield from _json(path)
        else:
            yield from _lines(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what damaged files raise into the one error that people can act on."""
    try:
        yield
    except (EOFError, OSError, UnicodeDecodeError, zlib.error, csv.Error, pa.ArrowException) as problem:
        raise DataError(
            f"{path}: the file cannot be read to its end ({problem}). It looks cut or damaged; "
            "export or download it again."
        ) from problem


def _check_encoding(path: Path, suffix: str) -> None:
    with opened(path) as stream:
        head = stream.read(2)
    if suffix != ".parquet" and head in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: the file is UTF-16, expected UTF-8. Save or convert it as UTF-8.")


def count(path: Path) -> int:
    """How many raw records the file holds, counted without decoding them where the form allows it."""
    with _readable(path):
        if kind(path) in (".jsonl", ".ndjson"):
            with opened(path) as stream:
                return sum(1 for line in stream if line.removeprefix(BOM).strip())
        if kind(path) == ".parquet":
            return int(pq.ParquetFile(path).metadata.num_rows)
    return sum(1 for _ in rows(path))


def _lines(path: Path) -> Iterator[Row]:
    with opened(path) as stream:
        for number, line in enumerate(stream, 1):
            raw = (line.removeprefix(BOM) if number == 1 else line).strip()
            if raw:
                yield decode(number, raw)


def _piece(piece: Piece) -> Iterator[Row]:
    with piece.path.open("rb") as stream:
        stream.seek(piece.start)
        left = piece.stop - piece.start
        number = piece.line
        while left > 0:
            line = stream.readline(left)
            left -= len(line)
            raw = (line.removeprefix(BOM) if number == 1 else line).strip()
            if raw:
                yield decode(number, raw)
            number += 1


def _json(path: Path) -> Iterator[Row]:
    """A .json file: JSON lines, as many tools write it, or one JSON value."""
    with opened(path) as stream:
        first = stream.readline().removeprefix(BOM).strip()
        while not first and stream.peek(1):  # type: ignore[attr-defined]
            first = stream.readline().strip()
        more = bool(stream.read(4096).strip())
    if first.startswith(b"{") and (not more or decode(1, first).problem is None):
        yield from _lines(path)
        return
    with opened(path) as stream:
        data = stream.read().removeprefix(BOM).strip()
    yield from json_arrays.records(path, data)


def _table(path: Path, delimiter: str) -> Iterator[Row]:
    with opened(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        first = text.readline()
        if delimiter == "," and "," not in first and ";" in first:
            delimiter = ";"  # as spreadsheets write it where the comma is the decimal mark
        reader = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
        header = next(reader, [])
        if len(header) < 2 or len(set(header)) < len(header):
            raise DataError(
                f"{path}: the first line names the columns {', '.join(header) or 'nothing'}; expected two or more "
                "names, each once, with commas, semicolons or (.tsv) tabs between them."
            )
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as problem:
                yield Row(number, {}, f"Not valid CSV: {problem}; the record starts here.", b"(see the file)")
                continue
            if cells:
                yield _cells(number, header, cells)


def _cells(number: int, header: list[str], cells: list[str]) -> Row:
    raw = json.dumps(cells, ensure_ascii=False).encode("utf-8", "surrogateescape")
    if len(cells) != len(header):
        return Row(number, {}, f"The row has {len(cells)} cells, the header {len(header)}.", raw)
    if any("\udc80" <= mark <= "\udcff" for cell in cells if not cell.isascii() for mark in cell):
        return Row(number, {}, "The row is not UTF-8; save the table as UTF-8.", raw)
    return Row(number, dict(zip(header, cells, strict=True)), None, raw)


def _parquet(path: Path) -> Iterator[Row]:
    number = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
        for value in _values(batch):
            number += 1
            yield (
                Row(number, value) if value is not None else Row(number, {}, "The row is not UTF-8.", b"(see the file)")
            )


def _values(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """The rows of a batch; null for a row with text that is not UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [value for index in range(batch.num_rows) for value in _values(batch.slice(index, 1))]
