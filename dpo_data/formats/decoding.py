"""One raw record out of its bytes, or the sentence that says why not.

orjson does the decoding because it refuses what other readers swallow: lone surrogates, invalid UTF-8, NaN. The
surprise: it turns whole numbers past 64 bits into floats, which would corrupt ids, so records that hold such numbers
are decoded once more, exactly.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import orjson


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


def decode(number: int, raw: bytes) -> Row:
    """One JSON object out of its bytes, or the sentence that says why not."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        return Row(number, {}, f"Not valid JSON: {_why(raw, str(problem))}.", raw)
    if type(value) is not dict:
        kind_found = {list: "a list", str: "text", type(None): "null"}.get(type(value), "a number or a truth value")
        return Row(number, {}, f"The record is {kind_found}, expected a JSON object.", raw)
    if has_long_number(value):
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


def has_long_number(value: Any) -> bool:
    """Whether a float stands where the source may have written a whole number of more than 64 bits."""
    if type(value) is float:
        return abs(value) >= 2**63
    if type(value) is dict:
        return any(has_long_number(part) for part in value.values() if type(part) in (float, dict, list))
    if type(value) is list:
        return any(has_long_number(part) for part in value if type(part) in (float, dict, list))
    return False
