"""PandaLM: `instruction`, `input`, `response1`, `response2`, and `annotator1`, `annotator2`, … (0 tie, 1, 2).

The prompt is the instruction, with the input below it. The training set has one `evaluation_result`
("1", "2", "Tie") instead of annotators. Six responses of the published test set are
the JSON value true, not text. They stay, as JSON writes them ("true"), and the comparison says so in
the attribute non_text_response, so that a rule can drop it; nothing is dropped here.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dpo_data.reading.companions import Companion
from dpo_data.reading.messages import user
from dpo_data.reading.records import (
    Item,
    Record,
    Side,
    UnreadableError,
    Vote,
    each,
    key_of,
    plain,
    response_of,
    text_of,
)
from dpo_data.schema import DataError

CHOICES: dict[str, Side] = {"0": "tie", "1": "first", "2": "second", "tie": "tie"}
TESTSET = "testset-v1.json"
JUDGEMENT = re.compile(r"\w+_result")
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
    labels = {key: value for key, value in record.items() if ANNOTATOR.fullmatch(key) and value is not None}
    if labels:
        yield from _votes(record, labels, "human")
    else:
        yield from _votes(record, {None: record.get("evaluation_result")}, "model")


def _votes(record: Record, labels: Mapping[Any, Any], kind: str) -> Iterator[Item]:
    first, second = response_of(record, "response1"), response_of(record, "response2")
    model_1, _, model_2 = str(record.get("cmp_key", "")).partition("_")
    prompt = user(prompt_of(record))
    for name, value in labels.items():
        choice = CHOICES.get(str(value).strip().lower())
        if choice is None:
            raise UnreadableError(f"The verdict of {name or 'the judge'} is {value!r:.40}, expected 0 (tie), 1 or 2.")
        yield Vote(
            prompt,
            first,
            second,
            choice,
            annotator=name,
            annotator_kind=kind,
            attributes=plain({"category": record.get("motivation_app")}),
            of_first=plain({"model": model_1}),
            of_second=plain({"model": model_2}),
        )


def detect_judge(record: Record) -> bool:
    """A model's verdicts on the test set, by `idx`."""
    return "idx" in record and "response1" not in record and any(map(JUDGEMENT.fullmatch, record))


def judged(path: Path) -> list[Path]:
    """The test set whose pairs a judge's file is about."""
    return [path.parent / TESTSET] if (path.parent / TESTSET).is_file() else []


def read_judge(path: Path) -> Iterator[Item]:
    """One vote a record by the model the file is named after; "garbage" is a verdict that could not be read."""
    if not judged(path):
        raise DataError(f"{path}: the pairs of these verdicts are missing; expected {TESTSET} in the same folder.")
    pairs = Companion(path.parent / TESTSET, partial(key_of, name="idx"))
    judge = path.name.removesuffix(f"-{TESTSET}")

    def parse(record: Record) -> Iterator[Item]:
        index = key_of(record, "idx")
        pair = pairs.get(index, f"Pair {index}")
        verdict = next((value for key, value in record.items() if JUDGEMENT.fullmatch(key)), None)
        yield from _votes(pair, {judge: verdict}, "model")

    return each(path, parse)
