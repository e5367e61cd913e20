"""SQuALITY human evaluation: summaries by several systems, ranked and rated (0 to 100) by several reviewers.

For each question every pair of systems is a comparison and every reviewer of both a vote: the lower overall
rank wins, and the gap of the overall ratings is the strength. questions.jsonl beside the file gives the
question texts (numbered from 1; the responses count from 0). The passages are not part of the set: the prompt
names them by number.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from dpo_data.formats.files import rows
from dpo_data.formats.messages import user
from dpo_data.formats.records import (
    Item,
    Judgement,
    Message,
    Record,
    Side,
    UnreadableError,
    each,
    identifier,
    number_of,
    plain,
    response_of,
)
from dpo_data.schema import DataError

QUESTIONS = "questions.jsonl"


def detect(record: Record) -> bool:
    """A passage with its questions."""
    return "passage-id" in record and isinstance(record.get("questions"), dict)


def companions(path: Path) -> list[Path]:
    """The question texts."""
    return [path.parent / QUESTIONS] if (path.parent / QUESTIONS).is_file() else []


def read(path: Path) -> Iterator[Item]:
    """One vote for each pair of systems and reviewer of both."""
    beside = path.parent / QUESTIONS
    if not beside.is_file():
        raise DataError(f"{path}: the question texts are missing; expected {QUESTIONS} in the same folder.")
    asked = {
        (str(row.value.get("passage_id")), int(row.value["question_number"]) - 1): str(row.value["question_text"])
        for row in rows(beside)
        if row.problem is None and "question_number" in row.value
    }

    def parse(record: Record) -> Iterator[Item]:
        passage = str(record.get("passage-id"))
        for number, systems in record["questions"].items():
            question = asked.get((passage, int(number)))
            if question is None:
                raise UnreadableError(f"Question {number} of passage {passage} is not in {QUESTIONS}.")
            yield from _votes(user(f"{question}\n\n(Project Gutenberg passage {passage})"), systems)

    return each(path, parse)


def _votes(prompt: list[Message], systems: dict[str, Any]) -> Iterator[Judgement]:
    reviewed = {name: said for name, said in systems.items() if isinstance(said, dict) and "reviews" in said}
    for (name_1, said_1), (name_2, said_2) in combinations(reviewed.items(), 2):
        other = {review["worker_id"]: review for review in said_2["reviews"]}
        for review in said_1["reviews"]:
            match = other.get(review["worker_id"])
            if match is None:
                continue
            ranks = [number_of(one.get("overall-rank"), "overall-rank") for one in (review, match)]
            ratings = [number_of(one.get("overall-rating"), "overall-rating") for one in (review, match)]
            choice: Side = "first" if ranks[0] < ranks[1] else "second" if ranks[0] > ranks[1] else "tie"
            yield Judgement(
                prompt,
                response_of(said_1, "response"),
                response_of(said_2, "response"),
                choice,
                strength=abs(ratings[0] - ratings[1]) / 100,
                annotator=identifier(review["worker_id"]),
                annotator_kind="human",
                of_first=plain({"model": name_1}),
                of_second=plain({"model": name_2}),
            )
