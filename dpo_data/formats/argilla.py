"""Argilla 2 exports: fields, and for each question the responses of its users with their status.

Flat (`better.responses`, `better.responses.users`, `better.responses.status`: parallel lists) or nested
(`fields`, `responses`, `suggestions`). Only submitted responses count: drafts and discarded ones are not
votes. A value may be a label (which response is better), a ranking (best first) or, where a question is named
after one response, a rating. Suggestions are votes of the agent that made them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dpo_data.formats.ab_table import WINNERS
from dpo_data.formats.ratings import by_rating
from dpo_data.reading.decoding import names as keys_of
from dpo_data.reading.messages import messages
from dpo_data.reading.records import (
    Item,
    Message,
    Record,
    Side,
    UnreadableError,
    Vote,
    identifier,
    number_of,
    response_of,
)

PROMPTS = ("prompt", "instruction", "question", "input", "query", "context")
RESPONSE = re.compile(r"(response|completion|generation|answer|output)s?[-_ ]?(\d+|[ab])$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One submitted answer to one question."""

    user: str | None
    value: Any
    by_model: bool = False


def detect(record: Record) -> bool:
    """Questions with responses, flat or nested."""
    flat = any(key.endswith(".responses") for key in record)
    return flat or (isinstance(record.get("fields"), dict) and isinstance(record.get("responses"), dict))


def parse(record: Record) -> Iterator[Item]:
    """One vote a submitted answer (a ranking: one for each pair); the sides are the response fields in order."""
    fields = record.get("fields")
    fields = fields if isinstance(fields, dict) else record
    prompt_name = next((name for name in PROMPTS if name in fields), None)
    names = sorted(name for name in fields if RESPONSE.search(name))
    if prompt_name is None or len(names) < 2:
        raise UnreadableError(
            f"No prompt field ({', '.join(PROMPTS)}) with two response fields (response_1, response_2, …) among "
            f"{keys_of(fields)}."
        )
    prompt = messages(fields[prompt_name], prompt_name)
    texts = [response_of(fields, name) for name in names]
    rated: dict[str | None, dict[int, float]] = {}
    for question, answers in _questions(record).items():
        for answer in answers:
            index = _rated_side(question, names)
            if index is not None and isinstance(answer.value, int | float) and not isinstance(answer.value, bool):
                given = rated.setdefault(answer.user, {})
                if index in given:
                    who = "More than one anonymous user" if answer.user is None else f"User {answer.user}"
                    verb = "may have rated" if answer.user is None else "rated"
                    raise UnreadableError(f"{who} {verb} {names[index]} twice: their ratings cannot be told apart.")
                given[index] = number_of(answer.value, question)
            else:
                yield from _votes(prompt, texts, names, answer)
    ratings = [{user: given[side] for user, given in rated.items() if side in given} for side in range(len(texts))]
    yield from by_rating(prompt, texts, ratings, None, common=Vote([], "", "", "tie", annotator_kind="human"))


def _questions(record: Record) -> dict[str, list[Answer]]:
    if isinstance(record.get("responses"), dict):
        return _nested(record)
    found: dict[str, list[Answer]] = {}
    for key in record:
        if key.endswith(".responses"):
            name = key.removesuffix(".responses")
            values = record[key] or []
            users = record.get(f"{key}.users") or [None] * len(values)
            states = record.get(f"{key}.status") or ["submitted"] * len(values)
            if not len(values) == len(users) == len(states):
                raise UnreadableError(f"The lists of {key!r} are of different lengths.")
            answers = zip(values, users, states, strict=True)
            found[name] = [Answer(identifier(user), value) for value, user, state in answers if state == "submitted"]
            if record.get(f"{name}.suggestion") is not None:
                agent = identifier(record.get(f"{name}.suggestion.agent"))
                found[name].append(Answer(agent, record[f"{name}.suggestion"], by_model=True))
    return found


def _nested(record: Record) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for name, answers in record["responses"].items():
        given = [answer for answer in answers or () if isinstance(answer, dict)]
        found[name] = [
            Answer(identifier(answer.get("user_id")), answer.get("value"))
            for answer in given
            if answer.get("status", "submitted") == "submitted"
        ]
    for name, suggestion in (record.get("suggestions") or {}).items():
        if isinstance(suggestion, dict) and suggestion.get("value") is not None:
            agent = identifier(suggestion.get("agent"))
            found.setdefault(name, []).append(Answer(agent, suggestion["value"], by_model=True))
    return found


def _votes(prompt: list[Message], texts: list[str], names: list[str], answer: Answer) -> Iterator[Vote]:
    kind = "model" if answer.by_model else "human"
    if isinstance(answer.value, list):
        order = [_side(value, names) for value in answer.value]
        ranks: list[dict[str | None, float]] = [
            {answer.user: -float(order.index(side))} if side in order else {} for side in range(len(names))
        ]
        common = Vote([], "", "", "tie", annotator_kind=kind)
        yield from by_rating(prompt, texts, ranks, max(len(order) - 1, 1), names, common)
        return
    label = str(answer.value).strip().lower()
    named = label in {name.lower() for name in names} or re.fullmatch(r"\d+|[ab]", label)
    if named or WINNERS.get(label, "tie") != "tie":
        side = _side(answer.value, names)
        for other in range(len(names)):
            if other != side:
                first, second = sorted((side, other))
                choice: Side = "first" if side == first else "second"
                yield Vote(prompt, texts[first], texts[second], choice, annotator=answer.user, annotator_kind=kind)
    elif label in WINNERS and len(names) == 2:
        yield Vote(prompt, texts[0], texts[1], "tie", annotator=answer.user, annotator_kind=kind)


def _side(value: Any, names: list[str]) -> int:
    """Which response a label names: its field, its number from 1, or its letter."""
    label = str(value.get("value") if isinstance(value, dict) else value).strip().lower()
    lowered = [name.lower() for name in names]
    if label in lowered:
        return lowered.index(label)
    mark = re.search(r"(\d+|[ab])$", label)
    ends = [re.search(r"(\d+|[ab])$", name) for name in lowered]
    same = [index for index, end in enumerate(ends) if mark and end and end.group() == mark.group()]
    if len(same) == 1:
        return same[0]
    side = {"first": 0, "second": 1}.get(WINNERS.get(label, "tie"))
    if side is None:
        raise UnreadableError(f"The answer {label!r} names none of the responses {keys_of(names)}.")
    return side


def _rated_side(question: str, names: list[str]) -> int | None:
    found = [index for index, name in enumerate(names) if name.lower() in question.lower()]
    return found[0] if len(found) == 1 else None
