"""Records out of a .json file that is one JSON value: an array of objects, or an object that wraps one.

An array that does not decode as a whole is cut apart at the commas between its items, and each item is decoded by
itself, so that one broken item costs one reject.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from dpo_data.reading import decoding
from dpo_data.reading.decoding import Row, decode, has_long_number, oversized
from dpo_data.schema import DataError

# Larger arrays are decoded item by item: decoded as a whole they take several times their size in memory.
WHOLE_ARRAY_BYTES = 64 << 20
WRAPPERS = ("data", "rows", "records", "examples", "items", "train")


def records(path: Path, data: bytes) -> Iterator[Row]:
    """The records of a whole JSON value; `path` is for the messages."""
    if data.startswith(b"["):
        yield from _array(path, data)
    else:
        yield from _object(data)


def _array(path: Path, data: bytes) -> Iterator[Row]:
    """The items of an array; large, broken or long-numbered ones are cut apart by brackets and decoded one by one.

    So is an array with an item that is no object: its reject shows the item's own bytes.
    """
    items = None
    if len(data) <= WHOLE_ARRAY_BYTES:
        with suppress(orjson.JSONDecodeError):
            items = orjson.loads(data)
    if not items or not all(type(item) is dict for item in items) or has_long_number(items):
        yield from _cut(path, data)
        return
    for number, item in enumerate(items, 1):
        yield Row(number, item)


def _object(data: bytes) -> Iterator[Row]:
    """One object: the records under one of the usual names (`WRAPPERS`), or one record."""
    whole = decode(1, data, limited=False)
    lists = [value for key, value in whole.value.items() if key in WRAPPERS and type(value) is list and value]
    if len(lists) != 1 or not all(type(item) is dict for item in lists[0]):
        yield whole if len(data) <= decoding.MAX_RECORD_BYTES else oversized(1, data, len(data))
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
