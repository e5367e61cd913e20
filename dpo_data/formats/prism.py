"""PRISM: people rate several models' answers (1 to 100) turn by turn; from utterances.jsonl or conversations.jsonl.

Every pair of rated answers within a turn is a vote by that person; the higher score wins. The context of a
later turn is what was asked before and the answers that were chosen. `if_chosen` (which answer the
conversation went on with) need not be the highest score, so it stays an attribute of its response.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from dpo_data.formats.ratings import by_rating
from dpo_data.reading.decoding import Row
from dpo_data.reading.files import rows
from dpo_data.reading.records import (
    Item,
    Message,
    Record,
    Reject,
    UnreadableError,
    Vote,
    identifier,
    key_of,
    number_of,
    plain,
    reject,
    response_of,
    text_of,
)

SCALE_WIDTH = 99.0
FACTS = ("conversation_type", "generated_datetime", "included_in_balanced_subset")


def detect_utterances(record: Record) -> bool:
    """One row a model answer."""
    return {"conversation_id", "user_prompt", "model_response", "score", "turn"} <= record.keys()


def read_utterances(path: Path) -> Iterator[Item]:
    """Votes of each turn; the rows of a conversation stand together in the file."""
    key = lambda row: row.value.get("conversation_id") if row.problem is None else f"#{row.number}"  # noqa: E731
    lines: dict[tuple[str, str], int] = {}
    for _, group in groupby(rows(path), key=key):
        yield from _conversation(list(group), lines)


def _conversation(group: list[Row], lines: dict[tuple[str, str], int]) -> Iterator[Item]:
    """The votes of a conversation; `lines` has the line of every utterance of the file so far."""
    readable: list[Row] = []
    for row in group:
        try:
            if row.problem is not None:
                raise UnreadableError(row.problem)
            _check_new(row, lines)
            text_of(row.value, "user_prompt")
            response_of(row.value, "model_response")
            number_of(row.value.get("turn"), "turn")
            number_of(row.value.get("score"), "score")
            readable.append(row)
        except Exception as problem:
            yield reject(row, problem)
    context: list[Message] = []
    readable.sort(key=lambda row: number_of(row.value["turn"], "turn"))
    for _, turn in groupby(readable, key=lambda row: number_of(row.value["turn"], "turn")):
        answers = list(turn)
        yield from _turn(answers, context)
        context = [*context, *_went_on(answers)]


def _check_new(row: Row, lines: dict[tuple[str, str], int]) -> None:
    utterance = identifier(row.value.get("utterance_id"))
    place = (key_of(row.value, "conversation_id"), utterance or "")
    if utterance is not None and lines.setdefault(place, row.number) != row.number:
        raise UnreadableError(f"The utterance {utterance} is in the file twice, first in line {lines[place]}.")


def _turn(answers: list[Row], context: list[Message]) -> Iterator[Item]:
    if len(answers) == 1:
        yield Reject("Its turn has one answer only: nothing to compare.", answers[0].text, (answers[0].number,))
    prompt = [*context, Message(role="user", content=answers[0].value["user_prompt"])]
    for second in range(1, len(answers)):
        for first in range(second):
            for vote in _votes(prompt, [answers[first].value, answers[second].value], answers[first].value):
                vote.records = (answers[first].number, answers[second].number)
                yield vote


def _votes(prompt: list[Message], answers: list[Record], facts: Record) -> Iterator[Vote]:
    user = identifier(facts.get("user_id"))
    common = Vote(
        [], "", "", "tie", annotator_kind="human", attributes=plain({name: facts.get(name) for name in FACTS})
    )
    texts = [response_of(answer, "model_response") for answer in answers]
    scores: list[dict[str | None, float]] = [{user: number_of(answer.get("score"), "score")} for answer in answers]
    models = [answer.get("model_name") for answer in answers]
    votes = by_rating(prompt, texts, scores, SCALE_WIDTH, models, common)
    for vote, (first, second) in zip(votes, combinations(answers, 2), strict=True):
        vote.of_first = {**vote.of_first, **plain({"went_on": first.get("if_chosen")})}
        vote.of_second = {**vote.of_second, **plain({"went_on": second.get("if_chosen")})}
        yield vote


def _went_on(answers: list[Row]) -> Iterable[Message]:
    chosen = [row.value for row in answers if row.value.get("if_chosen") is True]
    answer = (chosen or [row.value for row in answers])[0]
    yield Message(role="user", content=answer["user_prompt"])
    yield Message(role="assistant", content=response_of(answer, "model_response"))


def detect_conversations(record: Record) -> bool:
    """One row a conversation."""
    return {"conversation_id", "conversation_history"} <= record.keys()


def parse_conversations(record: Record) -> Iterator[Item]:
    """Votes of every turn of one conversation."""
    history = record.get("conversation_history")
    if not isinstance(history, list) or not all(isinstance(item, dict) for item in history):
        raise UnreadableError("Field 'conversation_history' is no list of utterances.")
    context: list[Message] = []
    ordered = sorted(history, key=lambda item: number_of(item.get("turn"), "turn"))
    for _, group in groupby(ordered, key=lambda item: item["turn"]):
        asked, answers = _sides(list(group))
        prompt = [*context, Message(role="user", content=asked)]
        yield from _votes(prompt, answers, record)
        went_on = [item for item in answers if item.get("if_chosen") is True] or answers
        if went_on:
            context = [*prompt, Message(role="assistant", content=response_of(went_on[0], "model_response"))]


def _sides(turn: list[dict[str, Any]]) -> tuple[str, list[Record]]:
    asked = [item for item in turn if item.get("role") == "user"]
    answers = [{**item, "model_response": item.get("content")} for item in turn if item.get("role") == "model"]
    if len(asked) != 1:
        raise UnreadableError(f"Turn {turn[0].get('turn')} has {len(asked)} user messages, expected one.")
    return text_of(asked[0], "content"), [item for item in answers if item.get("score") is not None]
