"""One raw record out of its bytes, or the sentence that says why not.

orjson does the decoding because it refuses what other readers swallow: lone surrogates, invalid UTF-8, NaN.
It turns whole numbers past 64 bits into floats, which would corrupt ids, so records that hold such numbers
are decoded once more, exactly.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

MAX_RECORD_BYTES = 64 << 20  # of one record; a longer one is far beyond any conversation and takes 6 times its size
MAX_DEPTH = 1024  # levels that orjson decodes
MAX_EXACT_DEPTH = 500  # levels that the standard library's json follows wherever it is called from
SHOWN_BYTES = 4 * 4096  # of a record's bytes that are decoded for people: the store keeps 4,096 characters
SHOWN_NAMES = 20
SHOWN_CHARACTERS = 60  # of one name in a message


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
        if self.raw:
            return self.raw[:SHOWN_BYTES].decode("utf-8", "replace")
        if is_deeper(self.value, MAX_EXACT_DEPTH):
            return f"(a record nested deeper than {MAX_EXACT_DEPTH} levels)"
        return json.dumps(self.value, default=str)


def decode(number: int, raw: bytes, limited: bool = True) -> Row:
    """One JSON object out of its bytes, or the sentence that says why not; `limited`: it is one record."""
    if limited and len(raw) > MAX_RECORD_BYTES:
        return oversized(number, raw, len(raw))
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        if re.search("depth|recursion", str(problem), re.IGNORECASE):
            return Row(number, {}, f"The record is nested deeper than {MAX_DEPTH:,} levels.", raw)
        return Row(number, {}, f"Not valid JSON: {_why(raw, str(problem))}.", raw)
    if type(value) is not dict:
        kind_found = {list: "a list", str: "text", type(None): "null"}.get(type(value), "a number or a truth value")
        return Row(number, {}, f"The record is {kind_found}, expected a JSON object.", raw)
    if has_long_number(value):
        if is_deeper(value, MAX_EXACT_DEPTH):
            reason = f"The record holds a number past 64 bits and is nested deeper than {MAX_EXACT_DEPTH} levels."
            return Row(number, {}, reason, raw)
        value = json.loads(raw)
    return Row(number, value, None, raw)


def oversized(number: int, start: bytes, size: int) -> Row:
    """The reject of a record that is too long to be read; `start` is what is shown of it."""
    reason = f"The record has {size:,} bytes, more than the {MAX_RECORD_BYTES:,} that are read as one record."
    return Row(number, {}, reason, start[:SHOWN_BYTES])


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


def has_long_number(value: Any) -> bool:
    """Whether a float may stand for a whole number of more than 64 bits in the source.

    Iterative: a record may be nested deeper than Python's stack.
    """
    queue = [value]
    for part in queue:
        if type(part) is float:
            if abs(part) >= 2**63:
                return True
        elif type(part) is dict:
            queue.extend(item for item in part.values() if type(item) in (float, dict, list))
        elif type(part) is list:
            queue.extend(item for item in part if type(item) in (float, dict, list))
    return False


def is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are nested deeper than this many levels."""
    level = [value]
    for _ in range(levels + 1):
        level = [item for part in level if isinstance(part, dict | list | tuple) for item in _inside(part)]
        if not level:
            return False
    return True


def _inside(part: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part


def names(keys: Iterable[object]) -> str:
    """Keys or columns for a message: the first ones, each of bounded length, and how many more there are."""
    shown = [clipped(str(key), SHOWN_CHARACTERS) for key in keys]
    more = len(shown) - SHOWN_NAMES
    return ", ".join(shown[:SHOWN_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def clipped(text: str, length: int) -> str:
    """The text, cut to a length that a message can hold."""
    return text if len(text) <= length else f"{text[:length]}…"
