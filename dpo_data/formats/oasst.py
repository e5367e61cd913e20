"""OpenAssistant conversation trees: sibling replies with a `rank`, 0 the best.

Every pair of ranked assistant siblings is a vote (the lower rank wins; the strength is the rank gap as a
share of the ranks among the siblings). The prompt is the path from the root. Deleted messages and null
ranks take part in no pair; user turns are ranked too but are no responses. Replies are stored best first,
so the first side always wins: that is the file's order, not a position bias.
"""

from collections.abc import Iterator
from typing import Any

from dpo_data.formats.messages import message
from dpo_data.formats.ratings import by_rating
from dpo_data.formats.records import Item, Judgement, Message, Record, UnreadableError, number_of, plain, response_of


def detect(record: Record) -> bool:
    """A tree with its root in `prompt`."""
    return "message_tree_id" in record and isinstance(record.get("prompt"), dict)


def parse(record: Record) -> Iterator[Item]:
    """One vote for each pair of ranked assistant siblings, top down."""
    root = record.get("prompt")
    if not isinstance(root, dict):
        raise UnreadableError("Field 'prompt' is no message with replies.")
    yield from _below(root, [])


def _below(node: dict[str, Any], path: list[Message]) -> Iterator[Judgement]:
    here = [*path, message({"role": node.get("role"), "content": node.get("text")}, "text")]
    replies = [reply for reply in node.get("replies") or () if isinstance(reply, dict)]
    ranked = [
        reply
        for reply in replies
        if reply.get("role") == "assistant" and reply.get("rank") is not None and not reply.get("deleted")
    ]
    ranks = [number_of(reply["rank"], "rank") for reply in ranked]
    facts = plain({"language": node.get("lang")})
    yield from by_rating(
        here,
        [response_of(reply, "text") for reply in ranked],
        [{None: -rank} for rank in ranks],
        width=max(ranks) - min(ranks) if len(ranks) > 1 else None,
        models=[reply.get("model_name") for reply in ranked],
        common=Judgement([], "", "", "tie", annotator_kind="human", attributes=facts),
    )
    for reply in replies:
        yield from _below(reply, here)
