"""audit.html: one self-contained page from a version's stats.json and the texts of its examples.

Nothing is computed here and nothing is fetched: no script, no font, no link that leaves the page. Every text
of the data goes through Jinja2's autoescape, and the content policy would stop what slipped through.
"""

import difflib
import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, StrictUndefined

from dpo_data.audit import charts, words

_MOST_CHARS = 1500
"""Characters shown of a text; the rest is `dpo explain`'s."""
_MOST_TOKENS = 400
"""Tokens diffed of a side: difflib's time grows with the square."""
_EXAMPLES = 4
"""Examples shown open per section."""


def write(folder: Path) -> Path:
    """Write audit.html of the version in `folder` (stats.json, examples.parquet, ledger.parquet); its path."""
    stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    changes = folder / "changes.json"
    context = {
        "stats": stats,
        "changes": json.loads(changes.read_text(encoding="utf-8")) if changes.exists() else None,
        "version": folder.name.removeprefix(".publishing-"),
        "headline": words.headline(stats),
        "tasks": words.tasks(stats),
        "before": words.overall(stats, "before"),
        "after": words.overall(stats, "after"),
        "reasons_picture": charts.reasons(stats["reasons"]),
        "length_picture": charts.length_bias(stats["length_bias"]["before"], stats["length_bias"]["after"]),
        "yield_picture": charts.yield_curves(stats["yield"]),
        "examples": examples(folder),
        "examples_shown": _EXAMPLES,
        "words": words,
    }
    page = folder / "audit.html"
    page.write_text(render(context), encoding="utf-8")
    return page


def render(context: dict[str, Any]) -> str:
    """The page with its style inside and a policy that allows that style and embedded pictures, nothing else."""
    here = files("dpo_data.audit")
    style = here.joinpath("audit.css").read_text(encoding="utf-8")
    template = here.joinpath("audit.html").read_text(encoding="utf-8")
    surroundings = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return surroundings.from_string(template).render(style=style, policy=policy, **context)


def examples(folder: Path) -> dict[str, dict[str, Any]]:
    """Comparison id -> its prompt, both responses as diffed pieces, and what was decided."""
    texts = pl.read_parquet(folder / "examples.parquet")
    ids = texts["comparison_id"].to_list()
    decided = (
        pl.scan_parquet(folder / "ledger.parquet")
        .filter(pl.col("comparison_id").is_in(ids))
        .select("comparison_id", "source", "preferred", "agreement", "confidence", "similarity", "reasons")
        .collect()
    )
    found = {}
    for row in texts.join(decided, on="comparison_id", how="left").to_dicts():
        first, second = row["response_a"][:_MOST_CHARS], row["response_b"][:_MOST_CHARS]
        pieces_a, pieces_b = pieces(first, second)
        found[row["comparison_id"]] = {
            **row,
            "prompt": [{**message, "content": message["content"][:_MOST_CHARS]} for message in row["prompt"]],
            "pieces_a": pieces_a,
            "pieces_b": pieces_b,
            "reasons": row["reasons"] or [],
        }
    return found


def pieces(first: str, second: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts cut into (text, differs) pieces by words, for side by side reading."""
    left, right = _tokens(first), _tokens(second)
    if len(left) > _MOST_TOKENS or len(right) > _MOST_TOKENS:
        return [(first, False)], [(second, False)]
    cut_left: list[tuple[str, bool]] = []
    cut_right: list[tuple[str, bool]] = []
    for tag, start, end, other, finish in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        differs = tag != "equal"
        if end > start:
            cut_left.append(("".join(left[start:end]), differs))
        if finish > other:
            cut_right.append(("".join(right[other:finish]), differs))
    return cut_left, cut_right


def _tokens(text: str) -> list[str]:
    cut: list[str] = []
    for word in text.split(" "):
        cut += [word, " "]
    return cut[:-1]
