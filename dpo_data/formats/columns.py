"""A plain table with any column names, read by a mapping in the recipe: nobody writes Python for a table.

    sources:
      - name: survey
        path: survey.csv
        format: columns
        columns: {prompt: question, first: left_text, second: right_text, winner: better, annotator: worker}

Four kinds of table: two responses and a winner (`first`, `second`, `winner`); a better and a worse one (`chosen`,
`rejected`); one response and a thumb (`completion`, `label`); one response and a number (`response`, `rating`), whose
rows are paired by prompt over the whole file. Names may be dotted paths into nested objects (`meta.worker`).
"""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from dpo_data.formats.ab_table import winner
from dpo_data.formats.kto import thumb
from dpo_data.reading.decoding import names
from dpo_data.reading.files import rows
from dpo_data.reading.messages import messages
from dpo_data.reading.records import (
    BinaryRating,
    Item,
    Message,
    Reader,
    Record,
    Reject,
    Side,
    UnreadableError,
    Vote,
    identifier,
    moment,
    number_of,
    plain,
    reject,
    response,
)
from dpo_data.settings import Settings

KINDS = (("first", "second", "winner"), ("chosen", "rejected"), ("completion", "label"), ("response", "rating"))


class Columns(Settings):
    """Which column holds what; exactly one of the four kinds (see the module)."""

    prompt: str
    first: str | None = None
    second: str | None = None
    winner: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    completion: str | None = None
    label: str | None = None
    response: str | None = None
    rating: str | None = None
    system: str | None = None
    annotator: str | None = None
    at: str | None = None
    shown_first: str | None = None
    strength: str | None = None
    model: str | None = None
    model_first: str | None = None
    model_second: str | None = None
    winner_values: Mapping[str, Side] = Field(default_factory=dict)  # the table's own words
    annotator_kind: str = "unknown"
    attributes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> "Columns":
        given = [kind for kind in KINDS if any(getattr(self, name) is not None for name in kind)]
        whole = [kind for kind in given if all(getattr(self, name) is not None for name in kind)]
        if len(given) != 1 or len(whole) != 1:
            kinds = "; ".join(" + ".join(kind) for kind in KINDS)
            raise ValueError(f"columns: name the columns of exactly one kind of table, besides prompt: {kinds}.")
        return self


def reader(columns: Columns) -> Reader:
    """The reader of tables with these columns."""
    if columns.rating is not None:
        return Reader(partial(_fits, columns), whole=partial(_rated, columns))
    return Reader(partial(_fits, columns), partial(_parse, columns))


def _fits(columns: Columns, record: Record) -> bool:
    return columns.prompt in record or "." in columns.prompt


def _at(record: Record, name: str | None) -> Any:
    """The value under a column's name or a dotted path; null for a null name, unreadable where it is missing."""
    if name is None:
        return None
    if name in record:
        return record[name]
    value: Any = record
    for step in name.split("."):
        if not isinstance(value, dict) or step not in value:
            raise UnreadableError(f"Column {name!r} is missing; the record has {names(record)}.")
        value = value[step]
    return value


def _prompt(columns: Columns, record: Record) -> list[Message]:
    turns = messages(_at(record, columns.prompt), columns.prompt)
    system = _at(record, columns.system)
    return [Message(role="system", content=str(system)), *turns] if system else turns


def _text(record: Record, name: str | None) -> str:
    return response(_at(record, name), str(name))


def _parse(columns: Columns, record: Record) -> Iterator[Item]:
    prompt = _prompt(columns, record)
    facts = plain({name: _at(record, name) for name in columns.attributes})
    annotator, at = identifier(_at(record, columns.annotator)), moment(_at(record, columns.at))
    if columns.completion is not None:
        label = thumb(_at(record, columns.label), True)
        yield BinaryRating(
            prompt, _text(record, columns.completion), label, annotator, columns.annotator_kind, at, facts
        )
        return
    choice: Side = "first"
    more: dict[str, str] = {}
    sides = (columns.chosen, columns.rejected)
    if columns.chosen is None:
        sides = (columns.first, columns.second)
        choice, more = _winner(columns, _at(record, columns.winner))
    shown, strength = _at(record, columns.shown_first), _at(record, columns.strength)
    yield Vote(
        prompt,
        _text(record, sides[0]),
        _text(record, sides[1]),
        choice,
        strength=None if strength in (None, "") else number_of(strength, str(columns.strength)),
        annotator=annotator,
        annotator_kind=columns.annotator_kind,
        at=at,
        shown_first=None if shown in (None, "") else _winner(columns, shown)[0],
        attributes={**facts, **more},
        of_first=plain({"model": _at(record, columns.model_first)}),
        of_second=plain({"model": _at(record, columns.model_second)}),
    )


def _winner(columns: Columns, value: Any) -> tuple[Side, dict[str, str]]:
    own = columns.winner_values.get(str(value).strip())
    return (own, {}) if own else winner(value)


def _rated(columns: Columns, path: Path) -> Iterator[Item]:
    """Rows of one prompt and one annotator, wherever they stand, paired; a row without a partner is a reject."""
    groups: dict[tuple[Any, ...], list[tuple[int, list[Message], str, float, dict[str, str], str]]] = {}
    for row in rows(path):
        try:
            if row.problem is not None:
                raise UnreadableError(row.problem)
            prompt = _prompt(columns, row.value)
            rating = number_of(_at(row.value, columns.rating), str(columns.rating))
            key = (repr(prompt), identifier(_at(row.value, columns.annotator)))
            facts = plain({name: _at(row.value, name) for name in columns.attributes})
            text, model = _text(row.value, columns.response), plain({"model": _at(row.value, columns.model)})
            groups.setdefault(key, []).append((row.number, prompt, text, rating, {**facts}, model.get("model", "")))
        except Exception as problem:
            yield reject(row, problem)
    for (_, annotator), group in groups.items():
        if len(group) == 1:
            yield Reject("No second rated response to this prompt by this annotator.", group[0][2], (group[0][0],))
        for one, two in combinations(group, 2):
            choice: Side = "first" if one[3] > two[3] else "second" if one[3] < two[3] else "tie"
            yield Vote(
                one[1],
                one[2],
                two[2],
                choice,
                annotator=annotator,
                annotator_kind=columns.annotator_kind,
                attributes=one[4],
                of_first=plain({"model": one[5]}),
                of_second=plain({"model": two[5]}),
                records=(one[0], two[0]),
            )
