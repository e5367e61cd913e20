"""A plain A/B table: `prompt`, `response_a`, `response_b`, `winner`, and where known `annotator`, `at`, `shown_first`.

One row a vote, from CSV, JSON lines or Parquet. The winner may be written in any of the usual ways
(`WINNERS`); "both bad" is a tie with the attribute both_bad. `model_a`/`model_b` describe the
sides; every other column becomes an attribute. Tables with other column names are read by
`columns.py`, from a mapping in the recipe.
"""

import re
from collections.abc import Iterator
from typing import Any

from dpo_data.reading.messages import messages
from dpo_data.reading.records import (
    Item,
    Record,
    Side,
    UnreadableError,
    Vote,
    found,
    identifier,
    moment,
    number_of,
    plain,
    response_of,
)

FIRST = ("a", "model_a", "response_a", "answer_a", "first", "left")
SECOND = ("b", "model_b", "response_b", "answer_b", "second", "right")
TIE = ("tie", "draw", "equal", "same", "neither", "both", "tie (inconsistent)", "both_good")
BOTH_BAD = ("both_bad", "bothbad", "both bad", "tie (bothbad)")
WINNERS: dict[str, Side] = {
    **dict.fromkeys(FIRST, "first"),
    **dict.fromkeys(SECOND, "second"),
    **dict.fromkeys((*TIE, *BOTH_BAD), "tie"),
}
_UNKNOWN = re.compile(r"The winner is (?:(?P<quote>['\"])(?P<text>.*)(?P=quote);|the number (?P<number>[^\s,]+))")
FIELDS = {"prompt", "response_a", "response_b", "winner", "choice", "annotator", "annotator_kind", "at", "strength"}
FIELDS |= {"shown_first", "model_a", "model_b"}


def detect(record: Record) -> bool:
    """The four columns; a verdict of the review app has a version too and is not this."""
    return {"prompt", "response_a", "response_b"} <= record.keys() and "winner" in record and "version" not in record


def winner(value: Any, present: bool = True) -> tuple[Side, dict[str, str]]:
    """The side a winner's name stands for, and the attribute both_bad where it says so."""
    name = str(value).strip().lower() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    side = WINNERS.get(name)
    if side is None:
        if name.replace(".", "").isdigit():
            raise UnreadableError(
                f"The winner is the number {name}, which may mean 1 and 2 or 0 and 1: say which by "
                "columns with winner_values."
            )
        raise UnreadableError(f"The winner {found(value, present)}; expected a, b, tie or one of their usual names.")
    return side, {"both_bad": "true"} if name in BOTH_BAD else {}


def unknown_winner(reason: str) -> str | None:
    """The value that `winner` did not know, from the sentence of its reject; None for any other sentence."""
    match = _UNKNOWN.match(reason)
    return None if match is None else match["text"] or match["number"]


def parse(record: Record) -> Iterator[Item]:
    """One vote a row; the first side is response_a."""
    choice, attributes = winner(record.get("winner"), "winner" in record)
    shown = record.get("shown_first")
    strength = record.get("strength")
    rest = {key: value for key, value in record.items() if key not in FIELDS}
    yield Vote(
        messages(record.get("prompt"), "prompt"),
        response_of(record, "response_a"),
        response_of(record, "response_b"),
        choice,
        strength=None if strength in (None, "") else number_of(strength, "strength"),
        annotator=identifier(record.get("annotator")),
        annotator_kind=kind(record.get("annotator_kind")),
        at=moment(record.get("at")),
        shown_first=None if shown in (None, "") else winner(shown)[0],
        attributes={**plain(rest), **attributes},
        of_first=plain({"model": record.get("model_a")}),
        of_second=plain({"model": record.get("model_b")}),
    )


def kind(value: Any) -> str:
    """human or model as the source says it, else unknown."""
    return value if value in ("human", "model") else "unknown"
