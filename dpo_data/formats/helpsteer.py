"""HelpSteer2 ratings, HelpSteer2-Preference and HelpSteer3.

The ratings set has one row a response; rows of one prompt stand together and are paired here, weighted as
the authors' reward model does (`WEIGHTS`, Wang et al. 2024, the 70B model). The preference sets grade from
-3 to 3, and NEGATIVE means that response 1 is better; -100 means neither is valid, which is no preference.
Individual votes have no annotator id, so each is anonymous.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from dpo_data.formats.ratings import by_rating
from dpo_data.reading.decoding import Row
from dpo_data.reading.files import rows
from dpo_data.reading.messages import messages, user
from dpo_data.reading.records import (
    Item,
    Record,
    Reject,
    Side,
    UnreadableError,
    Vote,
    number_of,
    plain,
    reject,
    response_of,
    text_of,
)

WEIGHTS = {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45, "complexity": 0.55, "verbosity": -0.4}
HIGHEST = 4.0  # aspects run from 0 to 4
STRONGEST = 3.0
NEITHER = -100.0


def detect_ratings(record: Record) -> bool:
    """One response with the five aspects."""
    return {"prompt", "response", *WEIGHTS} <= record.keys()


def read_ratings(path: Path) -> Iterator[Item]:
    """One vote for each pair of consecutive rows with the same prompt; a row left alone is a reject."""
    for _, group in groupby(rows(path), key=lambda row: row.value.get("prompt") if row.problem is None else row.number):
        yield from _group(list(group))


def _group(group: list[Row]) -> Iterator[Item]:
    read: list[tuple[Row, str, float]] = []
    for row in group:
        try:
            if row.problem is not None:
                raise UnreadableError(row.problem)
            text_of(row.value, "prompt")
            score = sum(weight * number_of(row.value.get(name), name) for name, weight in WEIGHTS.items())
            read.append((row, response_of(row.value, "response"), round(score, 9)))
        except Exception as problem:
            yield reject(row, problem)
    if len(read) == 1:
        row = read[0][0]
        yield Reject("Found one rated response to this prompt, expected at least two.", row.text, (row.number,))
    width = HIGHEST * sum(map(abs, WEIGHTS.values()))
    for second in range(1, len(read)):
        for first in range(second):
            pair = (read[first], read[second])
            for item in by_rating(
                user(pair[0][0].value["prompt"]),
                [text for _, text, _ in pair],
                [{None: score} for _, _, score in pair],
                width=width,
                common=Vote([], "", "", "tie", annotator_kind="human"),
            ):
                item.records = tuple(row.number for row, _, _ in pair)
                yield item


def detect_preference(record: Record) -> bool:
    """HelpSteer2-Preference."""
    return {"prompt", "response_1", "response_2", "preference_strength"} <= record.keys()


def parse_preference(record: Record) -> Iterator[Item]:
    """One vote for every individual preference, else one for the row's; the first side is response_1."""
    yield from _votes(
        record, "response_1", "response_2", "all_preferences_unprocessed", "strength", "preference_strength"
    )


def detect_3(record: Record) -> bool:
    """HelpSteer3."""
    return {"context", "response1", "response2", "overall_preference"} <= record.keys()


def parse_3(record: Record) -> Iterator[Item]:
    """One vote for every individual preference, else one for the overall one; the first side is response1."""
    yield from _votes(record, "response1", "response2", "individual_preference", "score", "overall_preference")


def _votes(record: Record, first: str, second: str, many: str, key: str, one: str) -> Iterator[Item]:
    prompt = messages(record.get("context", record.get("prompt")), "prompt")
    texts = response_of(record, first), response_of(record, second)
    singles = record.get(many)
    grades: list[Any] = (
        [item.get(key) for item in singles if isinstance(item, dict)] if isinstance(singles, list) else []
    )
    grades = [grade for grade in grades if grade is not None] or [record.get(one)]
    facts = {name: record.get(name) for name in ("domain", "language", "split")}
    for grade in grades:
        strength = number_of(grade, one)
        if strength == NEITHER:
            yield Reject("An annotator found neither response valid (-100): no preference.", str(record.get(many)))
            continue
        if abs(strength) > STRONGEST:
            raise UnreadableError(f"A preference is {strength:g}, expected -3 (response 1 is better) to 3.")
        choice: Side = "first" if strength < 0 else "second" if strength > 0 else "tie"
        yield Vote(
            prompt, *texts, choice, strength=abs(strength) / STRONGEST, annotator_kind="human", attributes=plain(facts)
        )
