"""Unpaired thumbs, as KTO takes them: `prompt`, `completion`, `label`, or `messages` with a `label`.

Nothing is paired here: opposite thumbs on one prompt become comparisons when the batch is written,
because they may stand anywhere in the file. `label` is true or false; 1/0, "true"/"false" and the
words up/down count too.
"""

from collections.abc import Iterator
from typing import Any

from dpo_data.reading.messages import message, messages, render
from dpo_data.reading.records import (
    BinaryRating,
    Item,
    Message,
    Record,
    UnreadableError,
    found,
    identifier,
    moment,
    plain,
)

LABELS = {"true": True, "false": False, "1": True, "0": False, "up": True, "down": False, "thumbs_up": True}
LABELS |= {"thumbs_down": False, "yes": True, "no": False, "1.0": True, "0.0": False, "-1": False}
NOT_ATTRIBUTES = {"prompt", "completion", "messages", "label", "annotator", "at", "tools"}


def detect(record: Record) -> bool:
    """A label beside a prompt and its completion, or beside a whole conversation."""
    return "label" in record and ({"prompt", "completion"} <= record.keys() or "messages" in record)


def parse(record: Record) -> Iterator[Item]:
    """One thumb a record."""
    prompt, completion = _conversation(record)
    rest = {key: value for key, value in record.items() if key not in NOT_ATTRIBUTES}
    yield BinaryRating(
        prompt,
        completion,
        thumb(record.get("label"), "label" in record),
        annotator=identifier(record.get("annotator")),
        at=moment(record.get("at")),
        attributes=plain(rest),
    )


def thumb(value: Any, present: bool) -> bool:
    """Up or down, however the source writes it."""
    if isinstance(value, bool):
        return value
    known = LABELS.get(str(value).strip().lower())
    if known is None:
        raise UnreadableError(f"Field 'label' {found(value, present)}, expected true or false.")
    return known


def _conversation(record: Record) -> tuple[list[Message], str]:
    if "messages" in record:
        turns = messages(record["messages"], "messages")
        if not turns or turns[-1]["role"] != "assistant":
            raise UnreadableError("The conversation does not end with a response.")
        return turns[:-1], turns[-1]["content"]
    prompt, completion = record.get("prompt"), record.get("completion")
    turns = messages(prompt, "prompt")
    if isinstance(completion, str):
        return turns, completion
    if not isinstance(completion, list) or not completion:
        raise UnreadableError(
            f"Field 'completion' {found(completion, 'completion' in record)}, expected text or messages."
        )
    answer = [message(item, f"completion[{index}]") for index, item in enumerate(completion)]
    if answer[: len(turns)] == turns and len(answer) > len(turns):
        answer = answer[len(turns) :]
    return turns, render(answer)
