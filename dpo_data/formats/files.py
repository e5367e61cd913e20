"""Raw records out of files: JSON lines, JSON arrays, CSV and Parquet, plain, .gz or .zst.

Each record is decoded by itself, so that one broken line costs one reject. orjson does the
decoding because it refuses what other readers swallow: lone surrogates, invalid UTF-8, NaN. A
file that cannot be read at all is a `DataError`. The surprise: orjson turns whole numbers past 64
bits into floats, which would corrupt ids, so such records are decoded once more, exactly.
"""

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_data.schema import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"
WHOLE_ARRAY_BYTES = (
    64 << 20
)  # larger arrays are decoded item by item: the objects of a whole one take many times its size
WRAPPERS = ("data", "rows", "records", "examples", "items", "train")
PIECE_BYTES = 32 << 20  # a piece converts in some seconds, and its rows fit in memory many times over

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a response may be longer than csv's default of 131,072 characters


@dataclass(slots=True)
class Row:
    """One raw record: its number (line, array item or table row, from 1), its value, or why it has none."""

    number: int
    value: dict[str, Any]
    problem: str | None = None
    raw: bytes = b""

    @property
    def text(self) -> str:
        """The raw record for people to read."""
        return self.raw.decode("utf-8", "replace") if self.raw else json.dumps(self.value, default=str)


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
    try:
        _check_encoding(path, suffix)
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix in (".csv", ".tsv"):
            yield from _table(path, "\t" if suffix == ".tsv" else ",")
        elif suffix == ".json":
            yield from _json(path)
        else:
            yield from _lines(path)
    except (EOFError, OSError, pa.ArrowException) as problem:
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
    if kind(path) in (".jsonl", ".ndjson"):
        with opened(path) as stream:
            return sum(1 for line in stream if line.removeprefix(BOM).strip())
    if kind(path) == ".parquet":
        return int(pq.ParquetFile(path).metadata.num_rows)
    return sum(1 for _ in rows(path))


def decode(number: int, raw: bytes) -> Row:
    """One JSON object out of its bytes, or the sentence that says why not."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        return Row(number, {}, f"Not valid JSON: {_why(raw, str(problem))}.", raw)
    if type(value) is not dict:
        kind_found = {list: "a list", str: "text", type(None): "null"}.get(type(value), "a number or a truth value")
        return Row(number, {}, f"The record is {kind_found}, expected a JSON object.", raw)
    if _has_long_number(value):
        value = json.loads(raw)
    return Row(number, value, None, raw)


def _why(raw: bytes, message: str) -> str:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        return f"byte {problem.start + 1} of the record is not UTF-8 ({problem.reason})"
    if "surrogate" in message:
        return f"it holds half of a surrogate pair, which is no character ({message})"
    if re.search(rb"[\s:,\[](NaN|-?Infinity)\b", raw):
        return f"NaN and Infinity are not JSON numbers ({message})"
    return message


def _has_long_number(value: Any) -> bool:
    """Whether a float stands where the source may have written a whole number of more than 64 bits."""
    if type(value) is float:
        return abs(value) >= 2**63
    if type(value) is dict:
        return any(_has_long_number(part) for part in value.values() if type(part) in (float, dict, list))
    if type(value) is list:
        return any(_has_long_number(part) for part in value if type(part) in (float, dict, list))
    return False


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
    """A .json file: an array of objects, one object, or (as many tools write it) JSON lines."""
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
    if data.startswith(b"["):
        yield from _array(path, data)
    else:
        yield from _object(data)


def _array(path: Path, data: bytes) -> Iterator[Row]:
    """The items of an array; large, broken or long-numbered ones are cut apart by brackets and decoded one by one."""
    items = None
    if len(data) <= WHOLE_ARRAY_BYTES:
        with suppress(orjson.JSONDecodeError):
            items = orjson.loads(data)
    if not items or _has_long_number(items):
        yield from _cut(path, data)
        return
    for number, item in enumerate(items, 1):
        yield Row(number, item) if type(item) is dict else decode(number, orjson.dumps(item))


def _object(data: bytes) -> Iterator[Row]:
    """One object: the records under one of the usual names (`WRAPPERS`), or one record."""
    whole = decode(1, data)
    lists = [value for key, value in whole.value.items() if key in WRAPPERS and type(value) is list and value]
    if len(lists) != 1 or not all(type(item) is dict for item in lists[0]):
        yield whole
        return
    for number, item in enumerate(lists[0], 1):
        yield Row(number, item)


_STRUCTURE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},]', re.DOTALL)


def _cut(path: Path, data: bytes) -> Iterator[Row]:
    """The items of an array, cut apart at the commas between them; each is decoded by itself."""
    depth, start, number = 0, 1, 0
    for token in _STRUCTURE.finditer(data):
        mark = token.group()[:1]
        depth += (mark in b"[{") - (mark in b"]}")
        if (mark == b"," and depth == 1) or (mark in b"]}" and depth == 0):
            item = data[start : token.start()].strip()
            start = token.end()
            if item or mark == b",":
                number += 1
                yield decode(number, item)
            if depth == 0:
                break
    rest = data[start:].strip()
    if rest:
        said = "The array is cut off inside this item: the file ends early." if depth else "Text after the array's end."
        yield Row(number + 1, {}, said, rest)
    elif number == 0:
        raise DataError(f"{path}: an array without a single item. Expected [{{…}}, …]; export it again.")


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
                f"{path}: the first line names the columns {', '.join(header) or 'nothing'}; expected two or more names, "
                "each once, with commas, semicolons or (.tsv) tabs between them."
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
    table = pq.ParquetFile(path)
    number = 0
    for batch in table.iter_batches(batch_size=1024):
        for value in batch.to_pylist():
            number += 1
            yield Row(number, value)
