"""OpenAssistant conversation trees: sibling replies with a `rank`, 0 the best.

Every pair of ranked assistant siblings is a vote (the lower rank wins; the strength is the rank gap as a
share of the ranks among the siblings). The prompt is the path from the root. Deleted messages and null
ranks take part in no pair; user turns are ranked too but are no responses. Replies are stored best first,
so the first side always wins: that is the file's order, not a position bias.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from dpo_data.formats.ratings import by_rating
from dpo_data.reading.decoding import Row, clipped
from dpo_data.reading.files import rows
from dpo_data.reading.messages import message
from dpo_data.reading.records import (
    Item,
    Message,
    Record,
    Reject,
    UnreadableError,
    Vote,
    number_of,
    plain,
    reject,
    response_of,
    text_of,
)


def detect(record: Record) -> bool:
    """A tree with its root in `prompt`."""
    return "message_tree_id" in record and isinstance(record.get("prompt"), dict)


def parse(record: Record) -> Iterator[Item]:
    """One vote for each pair of ranked assistant siblings, top down."""
    root = record.get("prompt")
    if not isinstance(root, dict):
        raise UnreadableError("Field 'prompt' is no message with replies.")
    yield from _below(root)


def _below(root: dict[str, Any]) -> Iterator[Vote]:
    """The votes at every message of the tree, parents first; iterative, since a conversation has any length."""
    waiting: list[tuple[dict[str, Any], list[Message]]] = [(root, [])]
    while waiting:
        node, path = waiting.pop()
        yield from _compare(node, path)
        here = [*path, _turn(node)]
        waiting.extend((reply, here) for reply in reversed(node.get("replies") or ()))


def _turn(node: dict[str, Any]) -> Message:
    return message({"role": node.get("role"), "content": node.get("text")}, "text")


def _compare(node: dict[str, Any], path: list[Message]) -> Iterator[Vote]:
    here = [*path, _turn(node)]
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
        common=Vote([], "", "", "tie", annotator_kind="human", attributes=facts),
    )


def detect_messages(record: Record) -> bool:
    """The flat export: one row a message."""
    return {"message_id", "parent_id", "text", "role", "rank"} <= record.keys() and "replies" not in record


def read_messages(path: Path) -> Iterator[Item]:
    """Votes of all trees of a flat export; a message in no comparison (no ranked sibling below or beside) is a reject.

    The messages of a tree may stand anywhere, so the whole file is held in memory.
    """
    nodes: dict[str, Row] = {}
    children: dict[str, list[Row]] = {}
    for row in rows(path):
        try:
            _check(row)
            first = nodes.setdefault(row.value["message_id"], row)
            if first is not row:
                key = clipped(row.value["message_id"], 60)
                raise UnreadableError(f"The message {key} is in the file twice, first in line {first.number}.")
            children.setdefault(row.value.get("parent_id") or "", []).append(row)
        except Exception as problem:
            yield reject(row, problem)
    used: set[int] = set()
    for parent in nodes.values():
        for vote in _siblings(parent, nodes, children.get(parent.value["message_id"], [])):
            used.update(vote.records)
            yield vote
    for row in nodes.values():
        if row.number not in used:
            yield Reject("The message takes part in no comparison: no two ranked replies.", row.text, (row.number,))


def _check(row: Row) -> None:
    """Raise unless the row is a message that can be placed in a tree."""
    if row.problem is not None:
        raise UnreadableError(row.problem)
    text_of(row.value, "message_id")
    _turn(row.value)
    response_of(row.value, "text")
    if row.value.get("parent_id") is not None:
        text_of(row.value, "parent_id")
    if row.value.get("rank") is not None:
        number_of(row.value["rank"], "rank")


def _path(node: Row, nodes: dict[str, Row]) -> list[Row]:
    """The messages from the root to this one; empty where the way up does not end at a root."""
    path = [node]
    while (up := path[0].value.get("parent_id")) is not None:
        if up not in nodes or len(path) > len(nodes):
            return []
        path.insert(0, nodes[up])
    return path


def _siblings(parent: Row, nodes: dict[str, Row], replies: list[Row]) -> Iterator[Vote]:
    ranked = [
        row
        for row in replies
        if row.value.get("role") == "assistant" and row.value.get("rank") is not None and not row.value.get("deleted")
    ]
    path = _path(parent, nodes) if len(ranked) > 1 else []
    if not path:
        return
    ranked.sort(key=lambda row: number_of(row.value["rank"], "rank"))
    node = {**parent.value, "replies": [row.value for row in ranked]}
    before = [_turn(row.value) for row in path[:-1]]
    for vote, (one, two) in zip(_compare(node, before), combinations(ranked, 2), strict=True):
        vote.records = (*(row.number for row in path), one.number, two.number)
        yield vote
