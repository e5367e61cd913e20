"""SHP and SHP-2: two comments on one post; `labels` 1 means A is preferred, 0 means B.

The preference is inferred from votes and times, not judged by one person, so the annotator stays
unknown. `score_ratio` and `seconds_difference` stay attributes: the set's authors advise a ratio of at
least 2 and at most five pairs a post. The same comment stands in many pairs.
"""

from collections.abc import Iterator

from dpo_data.reading.messages import user
from dpo_data.reading.records import Item, Record, Side, UnreadableError, Vote, number_of, plain, response_of, text_of

CHOICES: dict[float, Side] = {1.0: "first", 0.0: "second"}
ATTRIBUTES = ("domain", "post_id", "score_ratio", "seconds_difference", "upvote_ratio")


def detect(record: Record) -> bool:
    """A history with two human references."""
    return {"history", "human_ref_A", "human_ref_B", "labels"} <= record.keys()


def parse(record: Record) -> Iterator[Item]:
    """One vote a record; the first side is A."""
    choice = CHOICES.get(number_of(record.get("labels"), "labels"))
    if choice is None:
        raise UnreadableError(f"Field 'labels' is {record['labels']!r}, expected 1 (A is preferred) or 0 (B).")
    yield Vote(
        user(text_of(record, "history")),
        response_of(record, "human_ref_A"),
        response_of(record, "human_ref_B"),
        choice,
        annotator_kind="human",
        attributes=plain({key: record.get(key) for key in ATTRIBUTES}),
        of_first=plain({"score": record.get("score_A")}),
        of_second=plain({"score": record.get("score_B")}),
    )
