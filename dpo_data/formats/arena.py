"""Chatbot Arena in its three published shapes: 33k and MT-bench, 55k (Kaggle), 100k/140k and expert.

Two models answer one conversation. The prompt is what both share, by turn; where the models answered an
earlier turn differently, the responses are the differing rests (attribute `diverges`). "Both bad" is a tie
with the attribute both_bad. Notes: MT-bench's `turn` cuts the conversation after the judged turn; 55k
stores JSON lists inside text cells, with null turns; in 140k the models change per vote, so the context
is in full_conversation only.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from dpo_data.formats.ab_table import winner
from dpo_data.reading.messages import diverge, message, messages
from dpo_data.reading.records import (
    Item,
    Message,
    Record,
    Side,
    UnreadableError,
    Vote,
    identifier,
    moment,
    number_of,
    plain,
)

USED = {"conversation_a", "conversation_b", "full_conversation", "model_a", "model_b", "winner", "judge", "tstamp"}
USED |= {"prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie", "timestamp"}
PEOPLE = re.compile(r"(author|expert|arena_user|human|annotator)[_\d-]", re.IGNORECASE)
JUDGES = re.compile(r"gpt|claude|gemini|llama|judge|mistral|qwen", re.IGNORECASE)
FLAGS: dict[str, Side] = {"winner_model_a": "first", "winner_model_b": "second", "winner_tie": "tie"}


def detect(record: Record) -> bool:
    """33k and MT-bench: two conversations, a winner, and no full_conversation."""
    return {"conversation_a", "conversation_b", "winner"} <= record.keys() and "full_conversation" not in record


def parse(record: Record) -> Iterator[Item]:
    """One vote a record; the first side is model_a."""
    sides = [messages(record.get(name), name) for name in ("conversation_a", "conversation_b")]
    turn = record.get("turn")
    if isinstance(turn, int) and not isinstance(turn, bool) and turn > 0:
        sides = [_first_turns(side, turn) for side in sides]
    yield _judgement(record, sides)


def _first_turns(turns: list[Message], count: int) -> list[Message]:
    """The conversation up to the answer to its `count`-th user message."""
    seen = 0
    for index, turn in enumerate(turns):
        seen += turn["role"] == "user"
        if seen > count:
            return turns[:index]
    return turns


def _judgement(record: Record, sides: list[list[Message]]) -> Vote:
    choice, attributes = winner(record.get("winner"), "winner" in record)
    prompt, first, second, further = diverge(sides[0], sides[1])
    judge = identifier(record.get("judge", record.get("judge_hash")))
    rest = {key: value for key, value in record.items() if key not in USED}
    return Vote(
        prompt,
        first,
        second,
        choice,
        annotator=judge,
        annotator_kind=_kind(judge),
        at=moment(record.get("tstamp", record.get("timestamp"))),
        attributes={**plain(rest), **attributes, **further},
        of_first=plain({"model": record.get("model_a")}),
        of_second=plain({"model": record.get("model_b")}),
    )


def _kind(judge: str | None) -> str:
    """A visitor of the arena is human; judges are told by their names."""
    if judge is None or PEOPLE.match(judge):
        return "human"
    return "model" if JUDGES.search(judge) else "unknown"


def detect_140k(record: Record) -> bool:
    """100k, 140k and expert: a full conversation, or contents in parts."""
    return {"conversation_a", "conversation_b", "winner", "full_conversation"} <= record.keys()


def parse_140k(record: Record) -> Iterator[Item]:
    """One vote a record; earlier votes' turns are the context of each side."""
    whole = record.get("full_conversation")
    sides = []
    for side in ("a", "b"):
        now = messages(_unpacked(record.get(f"conversation_{side}"), f"conversation_{side}"), f"conversation_{side}")
        sides.append([*_context(_unpacked(whole, "full_conversation"), side, now), *now])
    yield _judgement(record, sides)


def _unpacked(value: Any, name: str) -> Any:
    """A field that some exports hold as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as problem:
        raise UnreadableError(f"Field {name!r} holds text that is no JSON: {problem}.") from problem


def _context(whole: Any, side: str, now: list[Message]) -> list[Message]:
    """The turns before `now`, on which earlier votes were given, with this side's answers; none at the first."""
    earlier = [turn for turn in whole or () if isinstance(turn, dict)]
    earlier = earlier[: len(earlier) - sum(turn["role"] == "user" for turn in now)]
    context = []
    for index, turn in enumerate(earlier):
        for name in ("user", f"model_side_{side}"):
            if turn.get(name) is not None:
                context.append(message(turn[name], f"full_conversation[{index}].{name}"))
    return context


def detect_55k(record: Record) -> bool:
    """Kaggle: three winner flags."""
    return {"prompt", "response_a", "response_b"} <= record.keys() and "winner_model_a" in record


def parse_55k(record: Record) -> Iterator[Item]:
    """One vote a record; null turns are kept as blank ones."""
    asked = _turns(record, "prompt")
    sides = [_woven(asked, _turns(record, name), name) for name in ("response_a", "response_b")]
    on = [side for name, side in FLAGS.items() if number_of(record.get(name), name) == 1]
    if len(on) != 1:
        raise UnreadableError(f"{len(on)} of the three winner flags are 1, expected one.")
    prompt, first, second, further = diverge(*sides)
    rest = {key: value for key, value in record.items() if key not in USED}
    yield Vote(
        prompt,
        first,
        second,
        on[0],
        annotator_kind="human",
        attributes={**plain(rest), **further},
        of_first=plain({"model": record.get("model_a")}),
        of_second=plain({"model": record.get("model_b")}),
    )


def _turns(record: Record, name: str) -> list[str]:
    value = _unpacked(record.get(name), name)
    if not isinstance(value, list) or not all(isinstance(turn, str | None) for turn in value):
        raise UnreadableError(f"Field {name!r} is no JSON list of turns.")
    return [turn or "" for turn in value]


def _woven(asked: list[str], answers: list[str], name: str) -> list[Message]:
    if len(asked) != len(answers) or not asked:
        raise UnreadableError(f"Field {name!r} has {len(answers)} turns, the prompt {len(asked)}.")
    turns = []
    for question, answer in zip(asked, answers, strict=True):
        turns += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    return turns
