"""The published sets as votes and texts, straight from their files: an independent road to what the store would hold.

Each function yields `Judged` rows with the sides as the file has them; `tables` brings them into the store's form.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import polars as pl

from dpo_data.ids import canonical, comparison_hash, text_hash
from dpo_data.schema import VOTES


class Judged(NamedTuple):
    """One vote; `choice` is first, second or tie; `origin` names the record."""

    prompt: str
    first: str
    second: str
    choice: str
    annotator: str | None
    origin: str
    kind: str = "human"
    strength: float | None = None
    shown: bool = False  # whether `first` is known to have been shown first
    gold: str | None = None


SIDES = {"1": "first", "2": "second", "0": "tie", "a1": "first", "a2": "second", "equal": "tie"}
SIDES |= {"left": "first", "right": "second", "tie": "tie"}


def _lines(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def pandalm(data: Path) -> Iterator[Judged]:
    for row in json.loads((data / "pandalm" / "testset-v1.json").read_text(encoding="utf-8")):
        prompt = row["instruction"] + "\n\n" + row["input"]
        for n in ("1", "2", "3"):
            choice = SIDES[str(row[f"annotator{n}"])]
            yield Judged(prompt, str(row["response1"]), str(row["response2"]), choice, n, str(row["idx"]))


def llmfao(data: Path) -> Iterator[Judged]:
    pairs = {row["id"]: row for row in _lines(data / "llmfao" / "pairs-crowd.jsonl")}
    with (data / "llmfao" / "crowd-comparisons.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            pair = pairs[int(row["id"])]
            texts = str(pair["text"]), str(pair["result_x"]), str(pair["result_y"])
            yield Judged(*texts, SIDES[row["winner"]], row["worker"], row["id"], shown=True)


def ukpconvarg1(data: Path) -> Iterator[Judged]:
    for path in sorted((data / "ukpconvarg1").glob("*.jsonl")):
        for row in _lines(path):
            prompt = f"{row['debate']}\n{row['stance']}"
            gold = SIDES.get(str(row["gold"]))
            for vote in row["votes"]:  # type: ignore[attr-defined]
                sides = str(row["arg1"]), str(row["arg2"]), SIDES[vote["value"]]
                yield Judged(prompt, *sides, vote["worker"], f"{path.name}:{row['id']}", gold=gold)


def squality(data: Path) -> Iterator[Judged]:
    """Ranks as choices; the gap of the overall ratings, as a share of the scale, as strength."""
    for row in _lines(data / "squality-human-eval" / "all-responses.jsonl"):
        for number, question in row["questions"].items():  # type: ignore[attr-defined]
            answers = sorted(name for name in question if isinstance(question[name], dict))
            for one, two in combinations(answers, 2):
                reviews = zip(question[one]["reviews"], question[two]["reviews"], strict=True)
                texts = question[one]["response"], question[two]["response"]
                for x, y in reviews:
                    choice = "first" if x["overall-rank"] < y["overall-rank"] else "second"
                    strength = abs(x["overall-rating"] - y["overall-rating"]) / 100
                    origin = f"{row['passage-id']}:{number}:{one}:{two}"
                    prompt = f"{row['passage-id']}:{number}"
                    yield Judged(prompt, *texts, choice, str(x["worker_id"]), origin, strength=strength)


def qlora(data: Path) -> Iterator[Judged]:
    folder = data / "qlora-vicuna-gpt4"
    answers = {path.stem: _answers(path) for path in sorted((folder / "generations").glob("*.jsonl"))}
    questions = {row["question_id"]: str(row["text"]) for row in _lines(folder / "vicuna_questions.jsonl")}
    for path in sorted((folder / "pairwise").glob("*.jsonl")):
        one, two = path.name.removesuffix("-gpt-4-reviewer-threeclass.jsonl").split("-vs-")
        first, second = (answers[name.replace("answer-", "answer_")] for name in (one, two))
        for row in _lines(path):
            if row["score"] in (1, 2, 3):
                choice = {1: "first", 2: "second", 3: "tie"}[int(str(row["score"]))]
                key = row["question_id"]
                yield Judged(
                    questions[key], first[key], second[key], choice, "gpt-4", f"{path.name}:{key}", "model", shown=True
                )


def _answers(path: Path) -> dict[object, str]:
    return {row["question_id"]: str(row.get("generation", row["text"])) for row in _lines(path)}


def hh_harmless(data: Path) -> Iterator[Judged]:
    for number, row in enumerate(_lines(data / "hh-rlhf-harmless" / "harmless-base-test.part.jsonl")):
        chosen, rejected = (str(row[side]).rpartition("\n\nAssistant:") for side in ("chosen", "rejected"))
        yield Judged(chosen[0], chosen[2], rejected[2], "first", None, str(number))


def oasst(data: Path) -> Iterator[Judged]:
    """Every two ranked siblings of a tree; the prompt is the whole path."""

    def walk(node: dict[str, object], path: str) -> Iterator[Judged]:
        here = f"{path}\n{node['text']}"
        replies = list(node["replies"])  # type: ignore[call-overload]
        ranked = sorted((reply for reply in replies if reply.get("rank") is not None), key=lambda reply: reply["rank"])
        for better, worse in combinations(ranked, 2):
            yield Judged(here, better["text"], worse["text"], "first", None, better["message_id"] + worse["message_id"])
        for reply in replies:
            yield from walk(reply, here)

    for tree in _lines(data / "oasst-en100" / "en_100_tree.jsonl"):
        yield from walk(tree["prompt"], "")  # type: ignore[arg-type]


SETS: dict[str, Callable[[Path], Iterable[Judged]]] = {
    "pandalm": pandalm,
    "llmfao": llmfao,
    "ukpconvarg1": ukpconvarg1,
    "squality": squality,
    "qlora": qlora,
    "hh-rlhf-harmless": hh_harmless,
    "oasst": oasst,
}


def _sides(row: Judged, as_stored: bool = False) -> tuple[dict[str | None, str | None], str, str, str]:
    """What the file's sides are called in the store, and the hashes of prompt, first and second response."""
    prompt, first, second = (text_hash(canonical(text)) for text in (row.prompt, row.first, row.second))
    turned = first > second and not as_stored
    sides: dict[str | None, str | None] = {"first": "b" if turned else "a", "second": "a" if turned else "b"}
    return sides | {"tie": "tie", None: None}, prompt, first, second


def golds(data: Path) -> pl.DataFrame:
    """UKPConvArg1's gold labels by record: comparison_id (the origin of the votes) and gold (a, b, tie or null)."""
    found = {row.origin: _sides(row)[0][row.gold] for row in ukpconvarg1(data)}
    return pl.DataFrame({"comparison_id": list(found), "gold": list(found.values())})


def tables(data: Path, name: str, as_stored: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Votes (schema.VOTES) and one row per comparison with its texts, hashes and lengths.

    `as_stored` keeps the file's own first side as a in the votes, which the store never does.
    """
    votes, texts = [], {}
    for row in SETS[name](data):
        sides, prompt, first, second = _sides(row, as_stored)
        key = comparison_hash(prompt, first, second)
        votes.append(
            {
                "comparison_id": key,
                "choice": sides[row.choice],
                "strength": row.strength,
                "annotator": row.annotator,
                "annotator_kind": row.kind,
                "shown_first": sides["first"] if row.shown else None,
                "source": name,
                "origin": row.origin,
            }
        )
        if key not in texts:
            a, b = (row.first, row.second) if first <= second else (row.second, row.first)
            texts[key] = {
                "comparison_id": key,
                "prompt_hash": prompt,
                "hash_a": min(first, second),
                "hash_b": max(first, second),
                "response_a": a,
                "response_b": b,
            }
    ledger = pl.DataFrame(list(texts.values())).sort("comparison_id")
    lengths = [pl.col(f"response_{side}").str.len_chars().alias(f"chars_{side}") for side in "ab"]
    return pl.DataFrame(votes, schema=VOTES), ledger.with_columns(lengths)
