"""The samples of every raw format in one folder: those of tests/formats, and these three, written out here.

LLMFAO lies in files whose names its reader knows, OASST in deep trees of fields that hardly differ: both read better as
code. Every text is the tests' own, as in tests/formats.
"""

import csv
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FOLDER = tempfile.TemporaryDirectory(prefix="formats-")  # goes when the process ends
SAMPLES = Path(_FOLDER.name)
REVIEWED = {"lang": "en", "review_count": 3, "review_result": True, "synthetic": False, "model_name": None}


def message(key: str, text: str, role: str, rank: int | None, deleted: bool = False) -> dict[str, Any]:
    """What trees and flat messages of OASST have in common."""
    return {"message_id": key, "text": text, "role": role, "rank": rank, "deleted": deleted, **REVIEWED}


def ask(key: str, text: str, *replies: dict[str, Any], rank: int | None = None) -> dict[str, Any]:
    """A prompter's turn of a tree."""
    return {**message(key, text, "prompter", rank), "replies": list(replies)}


def reply(key: str, text: str, *replies: dict[str, Any], rank: int | None, deleted: bool = False) -> dict[str, Any]:
    """An assistant's turn of a tree."""
    return {**message(key, text, "assistant", rank, deleted), "replies": list(replies)}


TREES = [
    ask(
        "m1",
        "How do bees dance?",
        reply(
            "m2",
            "In figures of eight.",
            ask(
                "m5",
                "Why?",
                reply("m6", "To show the way.", rank=1),
                reply("m7", "To point at flowers.", rank=0),
                rank=0,
            ),
            ask("m8", "Where?", rank=1),
            rank=0,
        ),
        reply("m3", "They do not.", rank=2),
        reply("m4", "In rounds.", rank=1),
        reply("m9", "Deleted.", rank=3, deleted=True),
        reply("m10", "No rank.", rank=None),
    ),
    ask("n1", "Do wasps dance?", reply("n2", "No.", rank=None)),
]
MESSAGES = [
    (None, message("k1", "What is a cairn?", "prompter", None)),
    ("k1", message("k2", "A heap of stones.", "assistant", 1)),
    ("k1", message("k3", "A heap of stones that marks a way.", "assistant", 0)),
    ("k3", message("k4", "Thanks.", "prompter", None)),
]
FLAT = {"user_id": "u", "created_date": "2020-02-02T00:00:00", "detoxify": None, "emojis": None, "labels": None}
CROWD = [
    ("id", "prompt", "model_x", "model_y", "worker", "winner", "left", "right"),
    (0, 3, 1, 2, 58, "tie", "Fir 7B", "Oak 7B"),
    (0, 3, 1, 2, 60, "left", "Fir 7B", "Oak 7B"),
    (1, 3, 1, 3, 58, "right", "Fir 7B", "Elm 7B"),
    (9, 3, 1, 3, 58, "right", "Fir 7B", "Elm 7B"),  # of a pair that has no texts
]
JUDGE = [("id", "prompt", "model_x", "model_y", "winner", "left", "right"), (0, 3, 1, 2, "right", "Fir 7B", "Oak 7B")]
CLOUD = {"prompt": 3, "text": "Name a cloud.", "type": "knowledge", "slug": "cloud", "note": None}
CLOUDS = [
    {"id": 0, **CLOUD, "model_x": 1, "result_x": "Cirrus.", "model_y": 2, "result_y": "Cloud."},
    {"id": 1, **CLOUD, "model_x": 1, "result_x": "", "model_y": 3, "result_y": "Stratus."},
]


def _lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def _table(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


shutil.copytree(Path(__file__).parents[1] / "formats", SAMPLES, dirs_exist_ok=True)
_state = {"tree_state": "ready_for_export"}
_lines(
    SAMPLES / "oasst" / "trees.jsonl",
    [{"message_tree_id": tree["message_id"], **_state, "prompt": tree} for tree in TREES],
)
_lines(
    SAMPLES / "oasst_messages" / "messages.jsonl",
    [{**turn, "parent_id": parent, "message_tree_id": "k1", **_state, **FLAT} for parent, turn in MESSAGES],
)
_table(SAMPLES / "llmfao" / "crowd-comparisons.csv", CROWD)
_table(SAMPLES / "llmfao" / "gpt4-crowd-comparisons.csv", JUDGE)
_lines(SAMPLES / "llmfao" / "pairs-crowd.jsonl", CLOUDS)
