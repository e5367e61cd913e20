"""Verdicts of this project's own review app: JSON lines that come back as votes at the next refresh.

{comparison_id?, prompt, response_a, response_b, choice, annotator, at, shown_first, version}. The choice is a, b
or tie, in the sides of the record; a skipped comparison is no vote and becomes a reject that says so.
"""

from collections.abc import Iterator

from dpo_data.formats.ab_table import winner
from dpo_data.reading.messages import messages
from dpo_data.reading.records import Item, Record, UnreadableError, Vote, identifier, moment, plain, response_of


def detect(record: Record) -> bool:
    """A verdict with the version that was reviewed."""
    return {"prompt", "response_a", "response_b", "choice", "version"} <= record.keys()


def parse(record: Record) -> Iterator[Item]:
    """One vote a verdict."""
    if record.get("choice") == "skip":
        raise UnreadableError("The reviewer skipped this comparison: no vote.")
    choice, attributes = winner(record.get("choice"), "choice" in record)
    shown = record.get("shown_first")
    yield Vote(
        messages(record.get("prompt"), "prompt"),
        response_of(record, "response_a"),
        response_of(record, "response_b"),
        choice,
        annotator=identifier(record.get("annotator")),
        annotator_kind="human",
        at=moment(record.get("at")),
        shown_first=None if shown in (None, "") else winner(shown)[0],
        attributes={**attributes, **plain({"reviewed_in": record.get("version")})},
    )
