"""Nectar: one prompt and up to seven `answers` with a `rank`, 1 the best: every pair is a vote.

The prompt is a transcript that ends with an open "Assistant:". Answers may themselves contain
"Human:", so an answer is never split into turns.
"""

from collections.abc import Iterator

from dpo_data.formats.ratings import by_rating
from dpo_data.reading.messages import dialogue
from dpo_data.reading.records import Item, Record, UnreadableError, Vote, number_of, plain, response_of, text_of


def detect(record: Record) -> bool:
    """Ranked answers."""
    answers = record.get("answers")
    return (
        "prompt" in record
        and isinstance(answers, list)
        and any(isinstance(item, dict) and {"answer", "rank"} <= item.keys() for item in answers)
    )


def parse(record: Record) -> Iterator[Item]:
    """One vote for each pair of answers, in the order of the record."""
    answers = record.get("answers")
    if not isinstance(answers, list) or not all(isinstance(item, dict) for item in answers):
        raise UnreadableError("Field 'answers' is no list of objects with an answer and a rank.")
    turns = dialogue(text_of(record, "prompt"))
    ranked = [item for item in answers if item.get("rank") is not None]
    ranks = [number_of(item["rank"], "rank") for item in ranked]
    yield from by_rating(
        turns,
        [response_of(item, "answer") for item in ranked],
        [{None: -rank} for rank in ranks],
        width=max(len(ranks) - 1, 1),
        models=[item.get("model") for item in ranked],
        common=Vote(
            [], "", "", "tie", annotator_kind="model", attributes=plain({"good_natured": record.get("good_natured")})
        ),
    )
