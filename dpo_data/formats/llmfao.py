"""LLMFAO: votes in crowd-comparisons.csv (and gpt3-, gpt4-), texts beside them in pairs-crowd.jsonl.

One CSV row is one vote on the pair `id`; left is x, right is y. Without a `worker` the judge is a model, told
by the file's name. Blank outputs are kept as blank responses.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dpo_data.formats.ab_table import winner
from dpo_data.reading.companions import Companion
from dpo_data.reading.messages import user
from dpo_data.reading.records import Item, Record, Vote, each, identifier, key_of, plain, response_of, text_of
from dpo_data.schema import DataError

PAIRS = "pairs-crowd.jsonl"
BESIDE = (PAIRS, "models.jsonl", "prompts.jsonl")


def detect(record: Record) -> bool:
    """Votes on pairs of models by number."""
    return {"id", "model_x", "model_y", "winner", "left", "right"} <= record.keys()


def companions(path: Path) -> list[Path]:
    """The texts, and the lists of models and prompts."""
    return [path.parent / name for name in BESIDE if (path.parent / name).is_file()]


def read(path: Path) -> Iterator[Item]:
    """One vote a row; the first side is left (x)."""
    beside = path.parent / PAIRS
    if not beside.is_file():
        raise DataError(f"{path}: the texts of these votes are missing; expected {PAIRS} in the same folder.")
    pairs = Companion(beside, partial(key_of, name="id"))
    judge = path.name.split("-")[0] if not path.name.startswith("crowd-") else None

    def parse(record: Record) -> Iterator[Item]:
        number = key_of(record, "id")
        yield _vote(record, pairs.get(number, f"Pair {number}"), judge)

    return each(path, parse)


def _vote(record: Record, pair: Record, judge: str | None) -> Vote:
    choice, attributes = winner(record.get("winner"), "winner" in record)
    worker = identifier(record.get("worker"))
    return Vote(
        user(text_of(pair, "text")),
        _output(pair, "result_x"),
        _output(pair, "result_y"),
        choice,
        annotator=worker or judge,
        annotator_kind="human" if worker else "model",
        attributes={**plain({"category": pair.get("type"), "slug": pair.get("slug")}), **attributes},
        of_first=plain({"model": record.get("left")}),
        of_second=plain({"model": record.get("right")}),
    )


def _output(pair: Record, name: str) -> str:
    """A model's output; models that said nothing are null or blank, and stay blank."""
    return "" if pair.get(name) is None else response_of(pair, name)
