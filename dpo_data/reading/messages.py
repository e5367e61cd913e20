"""Conversations in the shapes that sources use, as message lists and response texts.

A prompt is every message up to the last assistant turn, a response is what follows. Roles are
brought to system, user, assistant and tool. Tool calls and thinking are part of what was judged,
so they stay in the text: `<think>…</think>` before it, `<tool_call>{…}</tool_call>` after it, as
the Qwen and Hermes templates write them; images become `<image>`. Pairs can diverge
before the last turn; then the response is the whole differing rest, written as a transcript.
"""

import re
from typing import Any

from dpo_data.reading.records import Message, UnreadableError, as_json, response

ROLES = {
    "human": "user", "user": "user", "prompter": "user", "prompt": "user", "question": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
    "function_call": "assistant",
}  # fmt: skip
TRANSCRIPT = re.compile(r"\n\n(Human|Assistant|System):")
NAMES = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def user(text: str) -> list[Message]:
    """A prompt of one user message."""
    return [Message(role="user", content=text)]


def messages(value: Any, where: str) -> list[Message]:
    """A message list from a plain text, from {role, content} or from ShareGPT {from, value} objects."""
    if isinstance(value, str):
        return user(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise UnreadableError(f"Field {where!r} is neither text nor a list of messages.")
    return [message(item, f"{where}[{index}]") for index, item in enumerate(value)]


def message(item: Any, where: str) -> Message:
    """One message; an unknown role is an error, since it decides who is speaking."""
    if not isinstance(item, dict):
        raise UnreadableError(f"Message {where} is not an object with a role and a content.")
    role = item.get("role", item.get("from"))
    known = ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise UnreadableError(f"Message {where} has the role {role!r:.40}; expected one of {', '.join(sorted(ROLES))}.")
    return Message(role=known, content=content(item, where))


def content(item: dict[str, Any], where: str) -> str:
    """The message's text with its thinking before and its tool calls after."""
    value = item.get("content", item.get("value"))
    if isinstance(value, bool | int | float):
        return response(value, where)
    body = parts(value, where, bool(item.get("tool_calls")))
    thinking = item.get("thinking") or item.get("reasoning_content")
    if isinstance(thinking, str) and thinking.strip():
        body = f"<think>\n{thinking.strip()}\n</think>\n\n{body}"
    for call in item.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, dict) else call
        body += f"{'' if not body else chr(10)}<tool_call>\n{as_json(function, where)}\n</tool_call>"
    return body


def parts(value: Any, where: str, may_be_null: bool = False) -> str:
    """Text, or a list of content parts ({type: text|image|…}) joined by line ends."""
    if isinstance(value, str):
        return value
    if value is None and may_be_null:
        return ""
    if isinstance(value, list):
        return "\n".join(_part(part, where) for part in value)
    raise UnreadableError(f"Message {where} has no text.")


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        text = part.get("text")
        if isinstance(text, str) and part.get("type", "text") == "text":
            return text
        if isinstance(part.get("type"), str):
            return f"<{part['type'].removesuffix('_url')}>"
    raise UnreadableError(f"Message {where} holds a content part that is neither text nor named.")


def transcript(text: str) -> list[Message]:
    """The turns of a `\\n\\nHuman: …\\n\\nAssistant: …` string; consecutive turns of one speaker stay apart.

    One space after the colon belongs to the notation; other white space is the speaker's.
    """
    marks = list(TRANSCRIPT.finditer(text if text.startswith("\n\n") else f"\n\n{text}"))
    text = text if text.startswith("\n\n") else f"\n\n{text}"
    if not marks or text[: marks[0].start()].strip():
        raise UnreadableError("The transcript does not begin with a Human, Assistant or System turn.")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        Message(role=ROLES[mark.group(1).lower()], content=text[mark.end() : end].removeprefix(" "))
        for mark, end in zip(marks, ends, strict=True)
    ]


def dialogue(text: str) -> list[Message]:
    """The turns of a transcript that may end with an open "Assistant:", which is no turn."""
    turns = transcript(text)
    if turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip():
        return turns[:-1]
    return turns


def render(turns: list[Message]) -> str:
    """The text of a response: one assistant message as it is, several as a transcript after the first."""
    head, *rest = turns
    if not rest:
        return head["content"]
    return "".join([head["content"], *(f"\n\n{NAMES[turn['role']]}: {turn['content']}" for turn in rest)])


def diverge(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], str, str, dict[str, str]]:
    """Prompt, the two responses, and attributes, from two whole conversations.

    The prompt is the common prefix BY TURN, at most up to the last turn of the shorter one. Where the
    conversations differ before their last turn, the responses are the whole differing rests and the attribute
    `diverges` says "before the last turn".
    """
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if not turns:
            raise UnreadableError(f"The {name} conversation is empty.")
        if turns[-1]["role"] != "assistant":
            raise UnreadableError(f"The {name} conversation ends with a {turns[-1]['role']} turn, not with a response.")
    common, limit = 0, min(len(chosen), len(rejected)) - 1
    while common < limit and chosen[common] == rejected[common]:
        common += 1
    if chosen[common]["role"] != "assistant" or rejected[common]["role"] != "assistant":
        raise UnreadableError(
            f"The conversations differ in turn {common + 1}, which is not a response: they answer different prompts."
        )
    early = common + 1 < max(len(chosen), len(rejected))
    attributes = {"diverges": "before the last turn"} if early else {}
    return chosen[:common], render(chosen[common:]), render(rejected[common:]), attributes
