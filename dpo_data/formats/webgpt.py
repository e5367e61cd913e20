"""WebGPT comparisons: two answers, each with the quotes it was written from, and scores in -1..1 that sum to 0.

An answer wins when its score is positive; 0 is a tie. The two answers had different
quotes in view, so the comparison is of answer and search together; the shared prompt is the question.
"""

from collections.abc import Iterator

from dpo_data.reading.messages import user
from dpo_data.reading.records import Item, Record, Side, UnreadableError, Vote, number_of, plain, response_of, text_of


def detect(record: Record) -> bool:
    """A question with two scored answers."""
    return {"question", "answer_0", "answer_1", "score_0", "score_1"} <= record.keys()


def parse(record: Record) -> Iterator[Item]:
    """One vote a record; the first side is answer_0."""
    question = record.get("question")
    asked = text_of(question, "full_text") if isinstance(question, dict) else text_of(record, "question")
    first, second = (number_of(record.get(key), key) for key in ("score_0", "score_1"))
    if abs(first + second) > 1e-6:
        raise UnreadableError(f"The scores {first:g} and {second:g} do not sum to 0.")
    choice: Side = "first" if first > 0 else "second" if first < 0 else "tie"
    yield Vote(
        user(asked),
        response_of(record, "answer_0"),
        response_of(record, "answer_1"),
        choice,
        strength=abs(first),
        annotator_kind="human",
        attributes=plain({"dataset": question.get("dataset")} if isinstance(question, dict) else {}),
    )
