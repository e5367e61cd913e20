"""QLoRA's pairwise judgements by one model: pairwise/<m1>-vs-<m2>-<judge>-reviewer-threeclass.jsonl.

`score` is 1, 2 or 3 (tie); -1 means that the judge's verdict could not be parsed, which is no vote. The
answers stand in ../generations, the questions in ../vicuna_questions.jsonl. The trap: where a generation
file has the key `generation`, its `text` is the question; elsewhere `text` is the answer. Model 1 was shown first.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dpo_data.reading.companions import Companion
from dpo_data.reading.messages import user
from dpo_data.reading.records import Item, Record, Side, UnreadableError, Vote, each, key_of, number_of, plain, text_of
from dpo_data.schema import DataError

NAME = re.compile(r"(?P<one>.+?)-vs-(?P<two>.+?)-(?P<judge>[^-]+-[^-]+)-reviewer")
CHOICES: dict[float, Side] = {1.0: "first", 2.0: "second", 3.0: "tie"}
QUESTIONS = "vicuna_questions.jsonl"
BY_QUESTION = partial(key_of, name="question_id")


def detect(record: Record) -> bool:
    """A review with a score."""
    return {"review_id", "question_id", "answer1_id", "answer2_id", "score"} <= record.keys()


def companions(path: Path) -> list[Path]:
    """The generations, the questions and the judge's prompt."""
    root = path.parent.parent
    return sorted([*root.glob("generations/*.jsonl"), *root.glob("vicuna_*.jsonl")])


def read(path: Path) -> Iterator[Item]:
    """One vote a record; the first side is the model named first."""
    named = NAME.match(path.name)
    root = path.parent.parent
    if named is None or not (root / QUESTIONS).is_file():
        raise DataError(f"{path}: expected a name like <m1>-vs-<m2>-<judge>-reviewer… and {QUESTIONS} one folder up.")
    questions = Companion(root / QUESTIONS, BY_QUESTION)
    sides = [_answers(root / "generations", named[side]) for side in ("one", "two")]
    return each(path, partial(_vote, questions, sides, (named["one"], named["two"]), named["judge"]))


def _answers(folder: Path, name: str) -> Companion:
    """Answers by question; the comparison's name writes - where the file's has _."""
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        if path.stem.replace("_", "-") == name.replace("_", "-"):
            return Companion(path, BY_QUESTION, _answer)
    raise DataError(f"{folder}: no file of answers by {name}; expected {name}.jsonl.")


def _answer(row: Record) -> str:
    return text_of(row, "generation" if "generation" in row else "text")


def _vote(
    questions: Companion, sides: list[Companion], names: tuple[str, str], judge: str, record: Record
) -> Iterator[Item]:
    number = key_of(record, "question_id")
    question = questions.get(number, f"Question {number}")
    first, second = (side.get(number, f"The answer to question {number}") for side in sides)
    score = number_of(record.get("score"), "score")
    if score not in CHOICES:
        raise UnreadableError(f"The score is {score:g}, no readable verdict; expected 1, 2 or 3 (tie).")
    yield Vote(
        user(text_of(question, "text")),
        first,
        second,
        CHOICES[score],
        annotator=judge,
        annotator_kind="model",
        shown_first="first",
        attributes=plain({"category": question.get("category")}),
        of_first={"model": names[0]},
        of_second={"model": names[1]},
    )
