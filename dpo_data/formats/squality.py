"""SQuALITY human evaluation: summaries by several systems, ranked and rated (0 to 100) by several reviewers.

For each question every pair of systems is a comparison and every reviewer of both a vote: the lower overall
rank wins, and the gap of the overall ratings is the strength. questions.jsonl beside the file gives the
question texts (numbered from 1; the responses count from 0). The passages are not part of the set: the prompt
names them by number.
"""

from collections.abc import Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from dpo_data.reading.companions import Companion
from dpo_data.reading.messages import user
from dpo_data.reading.records import (
    Item,
    Message,
    Record,
    Side,
    UnreadableError,
    Vote,
    each,
    key_of,
    number_of,
    plain,
    response_of,
    text_of,
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
    asked = Companion(beside, _place, partial(text_of, key="question_text"))

    def parse(record: Record) -> Iterator[Item]:
        passage = key_of(record, "passage-id")
        for number, systems in record["questions"].items():
            question = asked.get((passage, int(number)), f"Question {number} of passage {passage}")
            yield from _votes(user(f"{question}\n\n(Project Gutenberg passage {passage})"), systems)

    return each(path, parse)


def _place(row: Record) -> tuple[str, int]:
    """Passage and number of a question, counted from 0 as the responses count."""
    number = number_of(row.get("question_number"), "question_number")
    if not number.is_integer():
        raise UnreadableError(f"Field 'question_number' is {number:g}, expected a whole number.")
    return key_of(row, "passage_id"), int(number) - 1


def _votes(prompt: list[Message], systems: dict[str, Any]) -> Iterator[Vote]:
    reviewed = {name: said for name, said in systems.items() if isinstance(said, dict) and "reviews" in said}
    for (name_1, said_1), (name_2, said_2) in combinations(reviewed.items(), 2):
        other = _by_worker(said_2, name_2)
        for worker, review in _by_worker(said_1, name_1).items():
            match = other.get(worker)
            if match is None:
                continue
            ranks = [number_of(one.get("overall-rank"), "overall-rank") for one in (review, match)]
            ratings = [number_of(one.get("overall-rating"), "overall-rating") for one in (review, match)]
            choice: Side = "first" if ranks[0] < ranks[1] else "second" if ranks[0] > ranks[1] else "tie"
            yield Vote(
                prompt,
                response_of(said_1, "response"),
                response_of(said_2, "response"),
                choice,
                strength=abs(ratings[0] - ratings[1]) / 100,
                annotator=worker,
                annotator_kind="human",
                of_first=plain({"model": name_1}),
                of_second=plain({"model": name_2}),
            )


def _by_worker(said: dict[str, Any], name: str) -> dict[str, Record]:
    reviews: dict[str, Record] = {}
    for review in said["reviews"]:
        if reviews.setdefault(key_of(review, "worker_id"), review) is not review:
            raise UnreadableError(f"Worker {review['worker_id']} reviews {name} twice.")
    return reviews
