"""ShareGPT-style DPO (LLaMA-Factory): `conversations` of {from, value}, and one `chosen`, one `rejected` message."""

from collections.abc import Iterator

from dpo_data.reading.messages import message, messages, render
from dpo_data.reading.records import Item, Message, Record, UnreadableError, Vote, plain

NOT_ATTRIBUTES = {"conversations", "chosen", "rejected", "system", "tools"}


def detect(record: Record) -> bool:
    """A conversation and two single answers to it."""
    return (
        "conversations" in record
        and isinstance(record.get("chosen"), dict)
        and isinstance(record.get("rejected"), dict)
    )


def parse(record: Record) -> Iterator[Item]:
    """One vote a record; the first side is `chosen`."""
    prompt = messages(record.get("conversations"), "conversations")
    system = record.get("system")
    if isinstance(system, str) and system.strip():
        prompt = [Message(role="system", content=system), *prompt]
    chosen, rejected = message(record.get("chosen"), "chosen"), message(record.get("rejected"), "rejected")
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if side["role"] != "assistant":
            raise UnreadableError(f"The {name} message is spoken by {side['role']}, expected the assistant.")
    rest = {key: value for key, value in record.items() if key not in NOT_ATTRIBUTES}
    yield Vote(prompt, render([chosen]), render([rejected]), "first", attributes=plain(rest))
