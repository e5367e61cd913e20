"""Label Studio exports (full JSON): tasks with `data` and `annotations`, each with `result` regions.

Pairwise (left/right, which knows no tie), choices, ratings of each response, and rankers are read. Cancelled
annotations are not votes. `completed_by` is a number or an object. Results name TAGS of the
labelling page, not data keys, so the two responses are found by name where they agree, else in key order.
The JSON-MIN export keeps one answer a task and loses the other votes: export as JSON.
"""

import re
from collections.abc import Iterator
from typing import Any

from dpo_data.formats.ab_table import winner
from dpo_data.formats.argilla import PROMPTS, RESPONSE
from dpo_data.formats.ratings import by_rating
from dpo_data.reading.decoding import names
from dpo_data.reading.messages import messages
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
    response_of,
)

SIDES: dict[str, Side] = {"left": "first", "right": "second"}
NAMED = re.compile(r"(text|left|right|chosen|rejected)[-_ ]?(\d+|[ab])?$", re.IGNORECASE)


def detect(record: Record) -> bool:
    """A task with its data and annotations."""
    return isinstance(record.get("data"), dict) and isinstance(record.get("annotations"), list)


def parse(record: Record) -> Iterator[Item]:
    """One vote for each result that compares two responses; ratings and rankings: one for each pair."""
    data = record.get("data")
    if not isinstance(data, dict):
        raise UnreadableError("Field 'data' is no object.")
    prompt_name = next((name for name in PROMPTS if name in data), None)
    if prompt_name is None:
        raise UnreadableError(f"No prompt among the data keys {names(data)}; expected one of {', '.join(PROMPTS)}.")
    prompt = messages(data[prompt_name], prompt_name)
    for annotation in record.get("annotations") or ():
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            yield from _annotation(prompt, data, annotation)


def _annotation(prompt: list[Message], data: Record, annotation: Record) -> Iterator[Vote]:
    who = annotation.get("completed_by")
    who = (who.get("email") or who.get("id")) if isinstance(who, dict) else who
    common = Vote(
        prompt,
        "",
        "",
        "tie",
        annotator=identifier(who),
        annotator_kind="human",
        at=moment(annotation.get("created_at")),
    )
    rated: dict[str, float] = {}
    for region in annotation.get("result") or ():
        value = region.get("value") or {}
        if region.get("type") == "pairwise":
            yield _choice(common, data, region, SIDES.get(str(value.get("selected"))), value.get("selected"))
        elif region.get("type") == "choices":
            picked = (value.get("choices") or [None])[0]
            yield _choice(common, data, region, winner(picked)[0], picked)
        elif region.get("type") == "rating":
            name = str(region.get("to_name"))
            if name in rated:
                raise UnreadableError(f"An annotation rates {name} twice.")
            rated[name] = number_of(value.get("rating"), "rating")
        elif region.get("type") == "ranker":
            yield from _ranking(common, data, value.get("ranker"))
    if rated:
        keys = [key for key in _responses(data, None) if key in rated]
        yield from _rated(common, [response_of(data, key) for key in keys], [rated[key] for key in keys], 4.0)


def _choice(common: Vote, data: Record, region: Record, choice: Side | None, said: Any) -> Vote:
    if choice is None:
        raise UnreadableError(f"The pairwise result selects {said!r}, expected left or right.")
    keys = _responses(data, region.get("to_name"))
    if len(keys) != 2:
        raise UnreadableError(f"{len(keys)} responses among the data keys {names(data)}, expected two.")
    return Vote(
        common.prompt,
        response_of(data, keys[0]),
        response_of(data, keys[1]),
        choice,
        annotator=common.annotator,
        annotator_kind="human",
        at=common.at,
        shown_first="first",
    )


def _responses(data: Record, tags: Any) -> list[str]:
    """The data keys of the responses: those the result names, else those that are named like responses."""
    named = tags.split(",") if isinstance(tags, str) else tags if isinstance(tags, list) else []
    named = [str(tag).strip() for tag in named]
    if len(named) > 1 and all(tag in data for tag in named):
        return named
    return sorted(key for key in data if RESPONSE.search(key)) or sorted(key for key in data if NAMED.search(key))


def _ranking(common: Vote, data: Record, ranker: Any) -> Iterator[Vote]:
    items = next((value for value in data.values() if isinstance(value, list) and value and "id" in value[0]), [])
    order = (
        next((value for value in ranker.values() if isinstance(value, list)), []) if isinstance(ranker, dict) else []
    )
    texts = {str(item["id"]): str(item.get("body") or item.get("html") or item.get("title") or "") for item in items}
    ranked = [str(key) for key in order if str(key) in texts]
    if len(texts) < len(items) or len(set(ranked)) < len(ranked):
        raise UnreadableError("The ranking names one of the task's items twice, or two items have one id.")
    if len(ranked) < 2:
        raise UnreadableError("The ranking names fewer than two of the task's items.")
    yield from _rated(
        common, [texts[key] for key in ranked], [-float(rank) for rank in range(len(ranked))], len(ranked) - 1
    )


def _rated(common: Vote, texts: list[str], grades: list[float], width: float) -> Iterator[Vote]:
    return by_rating(common.prompt, texts, [{common.annotator: grade} for grade in grades], width, common=common)
