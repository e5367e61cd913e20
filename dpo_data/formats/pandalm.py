"""PandaLM: `instruction`, `input`, `response1`, `response2`, and `annotator1`, `annotator2`, … (0 tie, 1, 2).

The prompt is the instruction, with the input below it. The training set has one `evaluation_result`
("1", "2", "Tie") instead of annotators. The surprise: six responses of the published test set are
the JSON value true, not text. They stay, as JSON writes them ("true"), and the comparison says so in
the attribute non_text_response, so that a rule can drop it; nothing is dropped here.
"""

import re
from collections.abc import Iterator
from typing import Any

from dpo_data.formats.messages import user
from dpo_data.formats.records import Item, Judgement, Record, Side, UnreadableError, plain, response_of, text_of

CHOICES: dict[str, Side] = {"0": "tie", "1": "first", "2": "second", "tie": "tie"}
ANNOTATOR = re.compile(r"annotator\d+")


def detect(record: Record) -> bool:
    """Two numbered responses and a judgement of them."""
    return {"instruction", "response1", "response2"} <= record.keys() and (
        "evaluation_result" in record or any(map(ANNOTATOR.fullmatch, record))
    )


def prompt_of(record: Record) -> str:
    """The instruction, and below it the input where there is one."""
    given = record.get("input")
    instruction = text_of(record, "instruction")
    return f"{instruction}\n\n{given}" if isinstance(given, str) and given.strip() else instruction


def parse(record: Record) -> Iterator[Item]:
    """One vote an annotator a record; the first side is response1."""
    first, second = response_of(record, "response1"), response_of(record, "response2")
    model_1, _, model_2 = str(record.get("cmp_key", "")).partition("_")
    prompt = user(prompt_of(record))
    for name, value in _labels(record).items():
        choice = CHOICES.get(str(value).strip().lower())
        if choice is None:
            raise UnreadableError(f"Field {name!r} is {value!r:.40}, expected 0 (tie), 1 or 2.")
        named = name != "evaluation_result"
        yield Judgement(
            prompt,
            first,
            second,
            choice,
            annotator=name if named else None,
            annotator_kind="human" if named else "model",
            attributes=plain({"category": record.get("motivation_app")}),
            of_first=plain({"model": model_1}),
            of_second=plain({"model": model_2}),
        )


def _labels(record: Record) -> dict[str, Any]:
    labels = {key: value for key, value in record.items() if ANNOTATOR.fullmatch(key) and value is not None}
    return labels or {"evaluation_result": record.get("evaluation_result")}
