"""What a reader yields: judgements, thumbs and rejects, each with the raw record it came from.

A `Judgement` is one vote on one comparison, with the sides as the source has them ("first", "second"); nothing is
canonicalised, judged or dropped here. Side-bound facts (a model's name, a gold label) are kept apart from plain
attributes, because the store orders sides by text hash. Record numbers are filled in by `each`, never by a reader.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

import orjson

from dpo_data.reading.decoding import MAX_EXACT_DEPTH, Row, clipped, is_deeper
from dpo_data.reading.files import Piece, rows
from dpo_data.schema import DataError

REASON_CHARACTERS = 500  # of a reject's reason: it may quote the data

NOT_FACTS = {"id", "idx", "index", "question_id", "prompt_id", "uuid", "conversation_id", "session_id", "row_id"}
NOT_FACTS |= {"evaluation_session_id", "tstamp", "timestamp", "created_at", "updated_at"}
Side = Literal["first", "second", "tie"]
Record = dict[str, Any]


class Message(TypedDict):
    """One message of a prompt."""

    role: str
    content: str


class NonText(str):
    """A response that is another JSON value (true, 3.5, …), as JSON writes it: the attribute non_text_response."""

    __slots__ = ()


class UnreadableError(ValueError):
    """Why one raw record cannot become a vote or a thumb: becomes one row of the rejects."""


@dataclass(slots=True)
class Vote:
    """One vote: `choice` between two responses to `prompt`.

    `strength` is 0..1, the share of the source's full scale by which the choice wins (null where it does not grade).
    `of_first` and `of_second` describe one response ({"model": …}); `sided` holds facts whose VALUE is a side
    ({"gold": "first"}). `records` are the numbers of the raw records the vote came from.
    """

    prompt: list[Message]
    first: str
    second: str
    choice: Side
    strength: float | None = None
    annotator: str | None = None
    annotator_kind: str = "unknown"
    at: datetime | None = None
    shown_first: Side | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    of_first: Mapping[str, str] = field(default_factory=dict)
    of_second: Mapping[str, str] = field(default_factory=dict)
    sided: Mapping[str, str] = field(default_factory=dict)
    records: tuple[int, ...] = ()


@dataclass(slots=True)
class BinaryRating:
    """A thumb up (`label` true) or down on one response, without a second response beside it."""

    prompt: list[Message]
    completion: str
    label: bool
    annotator: str | None = None
    annotator_kind: str = "unknown"
    at: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    records: tuple[int, ...] = ()


@dataclass(slots=True)
class Reject:
    """A raw record, or a part of one, that says nothing usable: `reason` is a sentence, `text` the record."""

    reason: str
    text: str
    records: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.reason = clipped(self.reason, REASON_CHARACTERS)


Item = Vote | BinaryRating | Reject


def alone(path: Path) -> list[Path]:
    """The companions of a file that says everything itself: none."""
    return []


@dataclass(frozen=True, slots=True)
class Reader:
    """One raw format: how to recognise a record of it, and how to read one record (`parse`) or one file (`whole`).

    A format whose records stand by themselves has `parse`: then a file can be read in pieces. One whose votes need
    several records has `whole`. `companions` are the files beside a file of this format that are read with it.
    """

    detect: Callable[[Record], bool]
    parse: Callable[[Record], Iterable[Item]] | None = None
    whole: Callable[[Path], Iterator[Item]] | None = None
    companions: Callable[[Path], list[Path]] = alone

    def read(self, path: Path | Piece) -> Iterator[Item]:
        """Every judgement, thumb and reject of the file; a piece can be read where records stand by themselves."""
        if self.parse is not None:
            return each(path, self.parse)
        if self.whole is None or isinstance(path, Piece):
            raise TypeError("a reader without `parse` reads whole files by its `whole`")
        return _guarded(path, self.whole)


def _guarded(path: Path, whole: Callable[[Path], Iterator[Item]]) -> Iterator[Item]:
    """The items of a whole file; what no reject accounts for is one error that names the file."""
    try:
        yield from whole(path)
    except (DataError, MemoryError, OSError):
        raise
    except Exception as problem:
        reason = f"{type(problem).__name__}: {clipped(str(problem), 300)}"
        raise DataError(
            f"{path}: cannot be read in this format ({reason}). Check it and the files beside it."
        ) from problem


def each(path: Path | Piece, parse: Callable[[Record], Iterable[Item]]) -> Iterator[Item]:
    """Parse every raw record by itself; whatever cannot be read, or says nothing, becomes one `Reject`.

    A record that fails half-way through keeps what it yielded before and adds the reject.
    """
    for row in rows(path):
        yield from one(row, parse)


def one(row: Row, parse: Callable[[Record], Iterable[Item]]) -> Iterator[Item]:
    """The items of one raw record, each bearing the record's number."""
    where = (row.number,)
    silent = True
    try:
        if row.problem is not None:
            raise UnreadableError(row.problem)
        for item in parse(row.value):
            item.records = where
            silent = False
            yield item
    except Exception as problem:
        yield reject(row, problem)
        return
    if silent:
        yield Reject("The record holds no preference: nothing in it compares or rates two responses.", row.text, where)


def reject(row: Row, problem: Exception) -> Reject:
    """The reject of a record whose reading raised; raises again what is no fault of the record."""
    if isinstance(problem, OSError | MemoryError | DataError):
        raise problem
    reason = f"The record does not have the shape of this format ({type(problem).__name__}: {problem})."
    if isinstance(problem, UnreadableError):
        reason = str(problem)
    elif isinstance(problem, RecursionError):
        reason = "The record is nested deeper than its reader follows."
    return Reject(reason, row.text, (row.number,))


def text_of(record: Record, key: str) -> str:
    """The string under `key`, or `UnreadableError` saying what stands there instead."""
    value = record.get(key)
    if isinstance(value, str):
        return value
    raise UnreadableError(f"Field {key!r} {found(value, key in record)}, expected text.")


def response_of(record: Record, key: str) -> str:
    """The response under `key`: text as it is, other JSON values as `NonText`; null and missing are unreadable."""
    return response(record.get(key), key, key in record)


def response(value: object, name: str, present: bool = True) -> str:
    """A response's value as text; see `response_of`."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN stands for null in tables that went through pandas
        raise UnreadableError(f"Field {name!r} {found(value, present)}, expected text.")
    return NonText(as_json(value, name))


def as_json(value: object, name: str) -> str:
    """A JSON value as text, whatever the length of its numbers; unreadable where it is nested too deep to write."""
    try:
        return orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError as problem:
        if is_deeper(value, MAX_EXACT_DEPTH):
            raise UnreadableError(f"Field {name!r} is nested deeper than {MAX_EXACT_DEPTH} levels.") from problem
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def number_of(value: object, name: str) -> float:
    """`value` as a finite float; numbers written as text count, booleans do not."""
    if isinstance(value, str):
        try:
            return number_of(float(value), name)
        except ValueError as problem:
            raise UnreadableError(f"Field {name!r} is {value!r:.40}, expected a number.") from problem
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UnreadableError(f"Field {name!r} {found(value, True)}, expected a number.")
    return float(value)


def found(value: object, present: bool) -> str:
    """The words for what stands in a field: "is missing", "is null", "is blank", "is a list", …"""
    if not present:
        return "is missing"
    if isinstance(value, str):
        return f"is {value!r:.40}" if value.strip() else "is blank"
    names = {type(None): "is null", bool: "is true or false", dict: "is an object", list: "is a list"}
    return names.get(type(value), f"is {value!r:.40}")


def key_of(record: Record, name: str) -> str:
    """The id under `name` as text, for looking rows up; unreadable where the record has none."""
    key = identifier(record.get(name))
    if key is None:
        raise UnreadableError(f"Field {name!r} {found(record.get(name), name in record)}, expected an id.")
    return key


def identifier(value: object) -> str | None:
    """An annotator, worker or row id as text: whole numbers without a point, blanks as null (anonymous)."""
    if value is None or isinstance(value, bool | dict | list):
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    return str(value).strip() or None


def moment(value: object) -> datetime | None:
    """A time in UTC from ISO text, epoch seconds (or milliseconds), or a datetime; null where it is none of these.

    A time without a zone is taken as UTC: the sources that omit it (Arena, UKPConvArg1) record UTC.
    """
    if isinstance(value, datetime):
        try:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError:  # in UTC it is before the year 1 or after 9999
            return None
    if isinstance(value, bool) or value is None or value == "":
        return None
    if isinstance(value, int | float):
        return _from_epoch(float(value))
    if not isinstance(value, str):
        return None
    text = value.strip().removesuffix(" UTC")
    with suppress(ValueError):
        return moment(datetime.fromisoformat(text))
    with suppress(ValueError):
        return _from_epoch(float(text))
    return None


def _from_epoch(seconds: float) -> datetime | None:
    if seconds > 1e11:  # past the year 5138 in seconds: milliseconds
        seconds /= 1000
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def plain(values: Mapping[str, object]) -> dict[str, str]:
    """Attributes as text: null, blank and nested values are left out, true/false in lower case.

    Row numbers, ids and times of the vote are left out too (`NOT_FACTS`): they differ between votes on one
    comparison, and `origin` leads back to the record.
    """
    kept = {}
    for key, value in values.items():
        if value is None or value != value or isinstance(value, dict | list) or key in NOT_FACTS:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value).strip()
        if text:
            kept[key] = text
    return kept
