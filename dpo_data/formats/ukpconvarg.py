"""UKPConvArg1 as JSON lines: two arguments for one side of a debate, four or five workers' votes, a gold label.

The prompt is the debate, its description and the stance. Values are a1, a2 or equal. The gold label (MACE) is
no vote: it stays the attribute `gold`, turned to the store's sides.
"""

from collections.abc import Iterator

from dpo_data.reading.messages import user
from dpo_data.reading.records import (
    Item,
    Record,
    Side,
    UnreadableError,
    Vote,
    identifier,
    moment,
    plain,
    response_of,
    text_of,
)

CHOICES: dict[str, Side] = {"a1": "first", "a2": "second", "equal": "tie"}


def detect(record: Record) -> bool:
    """Two arguments and their votes."""
    return {"debate", "stance", "arg1", "arg2", "votes"} <= record.keys()


def parse(record: Record) -> Iterator[Item]:
    """One vote a worker; the first side is arg1."""
    parts = [text_of(record, "debate"), record.get("description") or "", f"Side: {text_of(record, 'stance')}"]
    prompt = user("\n\n".join(part for part in parts if part))
    gold = CHOICES.get(str(record.get("gold")))
    for vote in record.get("votes") or ():
        choice = CHOICES.get(str(vote.get("value")))
        if choice is None:
            raise UnreadableError(f"A vote is {vote.get('value')!r}, expected a1, a2 or equal.")
        yield Vote(
            prompt,
            response_of(record, "arg1"),
            response_of(record, "arg2"),
            choice,
            annotator=identifier(vote.get("worker")),
            annotator_kind="human",
            at=moment(vote.get("submitted_at")),
            attributes=plain({"debate": record.get("debate"), "stance": record.get("stance")}),
            sided={"gold": gold} if gold else {},
        )
