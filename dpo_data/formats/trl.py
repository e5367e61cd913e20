"""TRL preference sets: `chosen` and `rejected` with `prompt`, or with the prompt inside both (implicit).

Plain texts or conversations ({role, content} lists, with tools, tool calls and thinking). Where a
conversation repeats the prompt inside `chosen` and `rejected`, the repetition is taken off. Note
on implicit prompts of plain texts: TRL takes the common prefix by character and moves a
shared answer opening into the prompt; here it is cut back to a turn, else a line, else a word.
"""

import re
from collections.abc import Iterator
from typing import Any

from dpo_data.formats.hh_rlhf import detect as is_transcript
from dpo_data.reading.messages import TRANSCRIPT, dialogue, diverge, message, messages, render, user
from dpo_data.reading.records import (
    Item,
    Message,
    Record,
    UnreadableError,
    Vote,
    identifier,
    moment,
    plain,
    response_of,
)

PROMPTS = ("prompt", "instruction", "question", "input")
TEXTS = {*PROMPTS, "chosen", "rejected", "messages", "system"}
NOT_ATTRIBUTES = TEXTS | {"annotator", "at", "tools", "chat_template_kwargs"}
SCORED = ("score_chosen", "chosen-rating", "chosen_rating", "chosen_score")
TURN_MARK = re.compile(
    r"\n\nAssistant:|### (?:Response|Assistant):|<\|assistant\|>|<\|im_start\|>assistant|\[/INST\]|"
    r"<start_of_turn>model|<\|start_header_id\|>assistant<\|end_header_id\|>|\nAnswer:|\nA:"
)


def detect(record: Record) -> bool:
    """`chosen` and `rejected`, both texts or both message lists with roles, and no scores beside them."""
    chosen, rejected = record.get("chosen"), record.get("rejected")
    if any(record.get(key) is not None for key in SCORED) or is_transcript(record):
        return False
    return (isinstance(chosen, str) and isinstance(rejected, str)) or (is_chat(chosen) and is_chat(rejected))


def is_chat(value: Any) -> bool:
    """Whether this is a list of {role, …} messages."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def parse(record: Record) -> Iterator[Item]:
    """One vote a record; the first side is `chosen`."""
    prompt, first, second, attributes = pair(record)
    rest = {key: value for key, value in record.items() if key not in NOT_ATTRIBUTES}
    yield Vote(
        prompt,
        first,
        second,
        "first",
        annotator=identifier(record.get("annotator")),
        at=moment(record.get("at")),
        attributes={**plain(rest), **attributes},
    )


def pair(record: Record) -> tuple[list[Message], str, str, dict[str, str]]:
    """Prompt, chosen, rejected and attributes of one record in any of TRL's shapes."""
    raw = record.get("chosen"), record.get("rejected")
    if is_chat(raw[0]) and is_chat(raw[1]):
        return _conversations(record, *raw)
    if is_chat(raw[0]) or is_chat(raw[1]):
        raise UnreadableError("One of 'chosen' and 'rejected' is a list of messages and the other is not.")
    chosen, rejected = response_of(record, "chosen"), response_of(record, "rejected")
    text = asked(record)
    if text is None:
        return *implicit(chosen, rejected), {}
    prompt = dialogue(text) if isinstance(text, str) and TRANSCRIPT.match(text) else messages(text, "prompt")
    if isinstance(text, str) and text and chosen.startswith(text) and rejected.startswith(text):
        chosen, rejected = chosen[len(text) :], rejected[len(text) :]
    return prompt, chosen, rejected, {}


def asked(record: Record) -> Any:
    """The prompt under any of its usual names, the system message before it; null where the answers hold it."""
    name = next((key for key in PROMPTS if record.get(key) is not None), None)
    if name is None:
        return None
    text = record[name]
    given = record.get("input")
    if name == "instruction" and isinstance(given, str) and given.strip():
        text = f"{text}\n\n{given}"
    system = record.get("system")
    if isinstance(system, str) and system.strip():
        return [Message(role="system", content=system), *messages(text, name)]
    return text


def _conversations(record: Record, chosen: Any, rejected: Any) -> tuple[list[Message], str, str, dict[str, str]]:
    sides = [
        [message(item, f"{name}[{index}]") for index, item in enumerate(turns)]
        for name, turns in (("chosen", chosen), ("rejected", rejected))
    ]
    text = asked(record)
    if text is None:
        return diverge(*sides)
    prompt = messages(text, "prompt")
    if all(side[: len(prompt)] == prompt for side in sides):
        return diverge(*sides)
    if all(side[0]["role"] != "assistant" for side in sides):  # one of them has a system message more, say
        shared, first, second, attributes = diverge(*sides)
        context = prompt if prompt[len(prompt) - len(shared) :] == shared else shared
        return context, first, second, attributes
    return prompt, render(sides[0]), render(sides[1]), {}


def implicit(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    """Split two texts that begin with the same prompt: after the last turn mark, else line end, else white space."""
    common = _shared(chosen, rejected)
    marks = list(TURN_MARK.finditer(common))
    cut = marks[-1].end() if marks else common.rfind("\n") + 1 or _word_end(common)
    prompt = common[:cut]
    return (user(prompt) if prompt.strip() else []), chosen[cut:], rejected[cut:]


def _word_end(common: str) -> int:
    return max((index + 1 for index, mark in enumerate(common) if mark.isspace()), default=0)


def _shared(one: str, other: str) -> str:
    """The longest common prefix, by character."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return one[:index]
    return min(one, other, key=len)
