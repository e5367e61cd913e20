"""NeMo-RL preference sets: `context` messages and `completions` of {rank, completion: [messages]}, rank 0 the best."""

from collections.abc import Iterator

from dpo_data.formats.ratings import by_rating
from dpo_data.reading.messages import messages, render
from dpo_data.reading.records import Item, Record, UnreadableError, Vote, number_of, plain


def detect(record: Record) -> bool:
    """Ranked completions to a context."""
    completions = record.get("completions")
    return (
        "context" in record
        and isinstance(completions, list)
        and any(isinstance(item, dict) and {"rank", "completion"} <= item.keys() for item in completions)
    )


def parse(record: Record) -> Iterator[Item]:
    """One vote for each pair of completions; equal ranks tie."""
    completions = record.get("completions")
    if not isinstance(completions, list) or not all(isinstance(item, dict) for item in completions):
        raise UnreadableError("Field 'completions' is no list of objects with a rank and a completion.")
    answers = [_answer(item) for item in completions]
    ranks = [number_of(item.get("rank"), "rank") for item in completions]
    facts = {key: value for key, value in record.items() if key not in ("context", "completions")}
    yield from by_rating(
        messages(record.get("context"), "context"),
        answers,
        [{None: -rank} for rank in ranks],
        width=max(len(set(ranks)) - 1, 1),
        common=Vote([], "", "", "tie", attributes=plain(facts)),
    )


def _answer(item: Record) -> str:
    value = item.get("completion")
    if isinstance(value, str):
        return value
    turns = messages(value, "completion")
    if not turns:
        raise UnreadableError("A completion holds no message.")
    return render(turns)
