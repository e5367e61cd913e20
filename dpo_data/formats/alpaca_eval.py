"""AlpacaEval and AlpacaFarm: `instruction`, `output_1`, `output_2`, `preference`.

The preference is 1 or 2, a draw as 0 or 1.5, or, from weighted judges, any number between 1 and 2: the
probability that output_2 is better, plus one. The nearer side wins, with the distance from 1.5 as strength.
AlpacaFarm's human rows have an `annotator_index`.
"""

from collections.abc import Iterator

from dpo_data.formats.pandalm import prompt_of
from dpo_data.reading.messages import user
from dpo_data.reading.records import (
    Item,
    Record,
    Side,
    UnreadableError,
    Vote,
    identifier,
    number_of,
    plain,
    response_of,
)


def detect(record: Record) -> bool:
    """Two outputs and a preference."""
    return {"instruction", "output_1", "output_2", "preference"} <= record.keys()


def parse(record: Record) -> Iterator[Item]:
    """One vote a record; the first side is output_1."""
    preference = number_of(record.get("preference"), "preference")
    if preference != 0 and not 1 <= preference <= 2:
        raise UnreadableError(f"Field 'preference' is {preference:g}, expected 0 or 1.5 (draw), or 1 to 2.")
    lean = 0.0 if preference == 0 else preference - 1.5
    choice: Side = "first" if lean < 0 else "second" if lean > 0 else "tie"
    index = identifier(record.get("annotator_index"))
    yield Vote(
        user(prompt_of(record)),
        response_of(record, "output_1"),
        response_of(record, "output_2"),
        choice,
        strength=2 * abs(lean),
        annotator=index if index is not None else identifier(record.get("annotator")),
        annotator_kind="human" if index is not None else "model",
        attributes=plain({key: record.get(key) for key in ("dataset", "datasplit")}),
        of_first=plain({"model": record.get("generator_1")}),
        of_second=plain({"model": record.get("generator_2")}),
    )
