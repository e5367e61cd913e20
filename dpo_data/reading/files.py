"""Raw records out of files: JSON lines, JSON arrays, CSV and Parquet, plain, .gz or .zst.

Each record is decoded by itself, so that one broken line costs one reject; a file that cannot be read at all is a
`DataError`. A large file of JSON lines can be read in pieces, whose records keep their line numbers.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq

from dpo_data.reading import decoding, json_arrays, parquet, streams
from dpo_data.reading.decoding import SHOWN_BYTES, Row, clipped, decode, names, oversized
from dpo_data.reading.streams import BLOCK_BYTES, BOM, Piece, Stamp, lines, opened
from dpo_data.schema import DataError

__all__ = ["Piece", "Stamp", "check_name", "count", "fixed", "kind", "opened", "pieces", "rows"]

LINES = (".jsonl", ".ndjson")
SUFFIXES = (*LINES, ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
PIECE_BYTES = 32 << 20  # a piece converts in some seconds, and its rows fit in memory many times over

csv.field_size_limit(decoding.MAX_RECORD_BYTES)  # csv's own limit is 131,072 characters; a response may be longer


def pieces(path: Path, size: int = PIECE_BYTES, total: int | None = None) -> list[Piece]:
    """The first `total` bytes of a file of JSON lines (all, where null), cut into runs of lines of about `size` bytes.

    Empty where the file is smaller or cannot be cut (.json, .csv, .gz).
    """
    total = total if total is not None else path.stat().st_size if path.is_file() else 0
    if path.suffix.lower() not in LINES or total <= size:
        return []
    cut, line, runs = 0, 1, []
    with streams.span(Piece(path, 0, total, 1)) as stream:
        while cut < total:
            length, breaks = _run(stream, size)
            runs.append(Piece(path, cut, cut + length, line))
            cut, line = cut + length, line + breaks
    return runs


def _run(stream: IO[bytes], size: int) -> tuple[int, int]:
    """Bytes and line ends of the next run of whole lines of at least `size` bytes."""
    length = breaks = 0
    while part := stream.readline(BLOCK_BYTES) if length >= size else stream.read(min(BLOCK_BYTES, size - length)):
        length += len(part)
        breaks += part.count(b"\n")
        if length >= size and part.endswith(b"\n"):
            break
    return length, breaks


def fixed(path: Path, total: int) -> Piece | None:
    """The first `total` bytes of a file of JSON lines, whatever is appended to it later; null for other files."""
    return Piece(path, 0, total, 1) if path.suffix.lower() in LINES and total else None


def check_name(path: Path | str) -> None:
    """Raise `DataError` where a path is not UTF-8: origins and messages could not name the file."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise DataError(f"{shown}: the name of the file or a folder above it is not UTF-8. Rename it.") from None


def kind(path: Path) -> str:
    """The file's suffix without its compression, one of `SUFFIXES`; `DataError` for any other."""
    check_name(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    if suffixes and suffixes[-1] in SUFFIXES:
        return suffixes[-1]
    raise DataError(
        f"{path}: the file's name ends in {path.suffix or 'nothing'!r}; expected one of {', '.join(SUFFIXES)}, "
        f"plain or with {' or '.join(COMPRESSIONS)}. Rename it after what it holds, or export it in one of these forms."
    )


def rows(path: Path | Piece) -> Iterator[Row]:
    """Every raw record of the file or piece, readable or not. `DataError` when the file as a whole cannot be read."""
    if isinstance(path, Piece):
        with _readable(path.path):
            yield from _lines(path)
        return
    suffix = kind(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a file, a folder or a glob that holds raw comparisons.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); expected records. Export or download it again.")
    with _readable(path):
        _check_encoding(path, suffix)
        if suffix == ".parquet":
            yield from parquet.rows(path)
        elif suffix in (".csv", ".tsv"):
            yield from _table(path, "\t" if suffix == ".tsv" else ",")
        elif suffix == ".json":
            yield from _json(path)
        else:
            yield from _lines(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever damaged files raise into the one error that people can act on."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as problem:
        raise DataError(
            f"{path}: the file cannot be read to its end ({clipped(str(problem), 300)}). It looks cut or damaged; "
            "export or download it again."
        ) from problem


def _check_encoding(path: Path, suffix: str) -> None:
    with opened(path) as stream:
        head = stream.read(2)
    if suffix != ".parquet" and head in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: the file is UTF-16, expected UTF-8. Save or convert it as UTF-8.")


def count(path: Path | Piece) -> int:
    """How many raw records the file or piece holds, counted without decoding them where the form allows it."""
    if isinstance(path, Piece) or kind(path) in LINES:
        with _readable(path.path if isinstance(path, Piece) else path):
            return sum(1 for _ in lines(path))
    if kind(path) == ".parquet":
        with _readable(path):
            return int(pq.ParquetFile(path).metadata.num_rows)
    return sum(1 for _ in rows(path))


def _lines(path: Path | Piece) -> Iterator[Row]:
    for number, raw, size in lines(path):
        yield decode(number, raw) if size <= decoding.MAX_RECORD_BYTES else oversized(number, raw, size)


def _json(path: Path) -> Iterator[Row]:
    """A .json file: JSON lines, as many tools write it, or one JSON value."""
    first = list(islice(lines(path), 2))
    if not first:
        raise DataError(f"{path}: the file holds nothing but white space; expected records. Export it again.")
    start = first[0][1]
    if len(first) > 1 and start.startswith(b"{") and decode(1, start).problem is None:
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
        _check_header(path, header)
        blank = 0
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as problem:
                yield Row(number, {}, f"Not valid CSV: {problem}; the record starts here.", b"(see the file)")
                continue
            blank = 0 if cells else blank + 1
            if blank > streams.MAX_BLANK_LINES:
                raise streams.too_blank(path, number)
            if cells:
                yield _cells(number, header, cells)


def _check_header(path: Path, header: list[str]) -> None:
    if any(map(_escaped, header)):
        raise DataError(
            f"{path}: the first line, with the names of the columns, is not UTF-8; save the table as UTF-8."
        )
    if len(header) < 2 or len(set(header)) < len(header):
        twice = [name for name, times in Counter(header).items() if times > 1]
        raise DataError(
            f"{path}: the first line names the columns {names(header) or 'nothing'}"
            f"{f' ({names(twice)} more than once)' if twice else ''}; expected two or more "
            "names, each once, with commas, semicolons or (.tsv) tabs between them."
        )


def _escaped(cell: str) -> bool:
    """Whether a cell held bytes that are not UTF-8."""
    return not cell.isascii() and any("\udc80" <= mark <= "\udcff" for mark in cell)


def _cells(number: int, header: list[str], cells: list[str]) -> Row:
    if (size := sum(map(len, cells))) > decoding.MAX_RECORD_BYTES:
        return oversized(number, cells[0][:SHOWN_BYTES].encode("utf-8", "surrogateescape"), size)
    raw = json.dumps(cells, ensure_ascii=False).encode("utf-8", "surrogateescape")
    if len(cells) != len(header):
        return Row(number, {}, f"The row has {len(cells)} cells, the header {len(header)}.", raw)
    if any(map(_escaped, cells)):
        return Row(number, {}, "The row is not UTF-8; save the table as UTF-8.", raw)
    return Row(number, dict(zip(header, cells, strict=True)), None, raw)
