"""Sets in which some statistic has nothing to measure, and a visit to everything that shows a version."""

import json
import re
from pathlib import Path
from typing import Any, get_args

from starlette.testclient import TestClient

from dpo_data.analysis import retention
from dpo_data.analysis.diff import compare_versions
from dpo_data.analysis.explain import explain, render
from dpo_data.analysis.export import Format, export
from dpo_data.analysis.sql import VIEWS, query
from dpo_data.analysis.what_if import decide_again
from dpo_data.review import queues
from dpo_data.review.app import create_app
from dpo_data.review.results import findings
from dpo_data.store import versions
from flows.cli.text import diff_lines, refresh_lines, stats_lines, version_lines, what_if_lines
from flows.recipe import Recipe
from flows.refresh import RefreshSummary

Row = dict[str, Any]


def row(number: int, better: str, worse: str, **more: Any) -> Row:
    """A vote for `better`, whose side alternates so that neither side of a file always wins."""
    sides = (better, worse) if number % 2 else (worse, better)
    return {
        "prompt": f"Question {number}: which is right?",
        "response_a": sides[0],
        "response_b": sides[1],
        "winner": "a" if number % 2 else "b",
        "annotator": f"reader-{number % 3}",
        **more,
    }


def letters(count: int, **more: Any) -> list[Row]:
    return [row(i, "BA"[i % 2], "AB"[i % 2], **more) for i in range(count)]


def essays(count: int, **more: Any) -> list[Row]:
    return [
        row(i, f"Thing {i} is long, good and clear, see.", f"Thing {i}: no.", **more) for i in range(100, 100 + count)
    ]


SETS: dict[str, list[Row]] = {
    "one row": essays(1),
    "one row of letters": letters(1),
    "letters": letters(4),
    "letters and essays": [*letters(4), *essays(4)],
    "one prompt": [
        {**row(i, f"Yes, {word} is right.", f"Nothing at all of {word}?"), "prompt": "Which one?"}
        for i, word in enumerate(("iron", "copper and tin", "gold"))
    ],
    "ties and one row": [*(dict(one, winner="tie") for one in essays(3)), row(7, "A whole answer.", "None")],
    "all anonymous": [dict(one, annotator=None) for one in essays(4)],
    "one annotator": essays(4, annotator="only"),
    "one annotator, no name for some": [dict(one, annotator="only" if i else None) for i, one in enumerate(essays(4))],
    "all split but one": [
        *(dict(one, winner=side, annotator=f"for {side}") for one in essays(3) for side in "ab"),
        row(7, "A whole answer.", "None"),
    ],
    "always longer": essays(6),
    "one style for all": [row(i, f"# Title\n- **thing** {i}", f"# Other\n- **thing** {i + 1}") for i in range(4)],
    "a category never given": essays(3, category=None),
}
CURATION: dict[str, Row] = {
    "defaults": {},
    "drop": {"length_bias": {"rebalance": "drop"}},
    "weight": {"length_bias": {"rebalance": "weight"}},
    "by category": {"length_bias": {"rebalance": "drop", "by": ["category"]}, "slices": ["category"]},
    "train alone": {"splits": {"train": 1.0, "validation": 0.0, "test": 0.0}},
}


def written(file: Path, rows: list[Row]) -> str:
    file.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(file)


def thumbs(count: int, **more: Any) -> list[Row]:
    return [
        {"prompt": f"Topic {i}?", "completion": f"It is {i}, I think.", "label": i % 2 == 0, **more}
        for i in range(count)
    ]


def recipe_of(folder: Path, rows: list[Row], lone: list[Row], **curation: Any) -> Recipe:
    """A recipe without models over a file of votes and a file of thumbs, where they have rows."""
    mapping = {"prompt": "prompt", "first": "response_a", "second": "response_b", "winner": "winner"}
    votes = {"name": "votes", "path": written(folder / "votes.jsonl", rows)}
    liked = {"name": "thumbs", "path": written(folder / "thumbs.jsonl", lone), "format": "kto"}
    text = {
        "sources": [
            *([{**votes, "columns": {**mapping, "annotator": "annotator"}}] if rows else []),
            *([liked] if lone else []),
        ],
        "curation": {"tokenizer": None, "embedding_model": None, **curation},
    }
    return Recipe.model_validate(text)


def read_all(store: Path, summary: RefreshSummary) -> None:
    """Everything that shows a version: the page, the card, every command that reads it, and the review app."""
    version = versions.open_version(store)
    page = Path(summary["audit"]).read_text(encoding="utf-8")
    card = (version.path / "README.md").read_text(encoding="utf-8")
    shown = [page, card, *refresh_lines(summary), *stats_lines(version.stats)]
    changed = decide_again(store, "current", {"agreement.min_confidence": 0.9})
    compared = compare_versions(store, version.id)
    shown += [*what_if_lines(changed), *diff_lines(compared), *version_lines(retention.published(store))]
    assert versions.verify(version) == []
    for name in VIEWS:
        query(store, f"SELECT * FROM {name}")
    for comparison in version.ledger().select("comparison_id").collect()["comparison_id"][:2]:
        shown.append(render(explain(store, comparison)))
    for kind in get_args(Format):
        count = export(store, store.parent / f"out.{kind}", kind)
        assert count == version.stats["counts"]["kept"]
    findings(store, version)
    queues.standard(version)
    visit_review(store)
    for text in shown:
        assert re.findall(r".{0,80}(?:\b(?:nan|NaN|inf)\b|>None<| None ).{0,80}", text) == []


def visit_review(store: Path) -> None:
    with TestClient(create_app(store), base_url="http://127.0.0.1") as client:
        token = re.search(r'name="form_token" value="([^"]+)"', client.get("/").text)
        assert token
        client.post("/enter", data={"form_token": token[1], "reviewer": "lena"})
        for path in ("/", "/findings", "/read?q=kept", "/read?q=borderline"):
            assert client.get(path).status_code == 200, path
