"""audit.html: one self-contained page from a version's stats.json and the texts of its examples.

Nothing is computed here and nothing is fetched: no script, no font, no link that leaves the page. Every text
of the data goes through Jinja2's autoescape, and the content policy would stop what slipped through.
"""

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from dpo_data.audit import charts, wording
from dpo_data.audit.summary import answers, changed
from dpo_data.audit.text_diff import pieces
from dpo_data.text.escape import short, visible

_MOST_CHARS = 1000
"""Characters shown of a text; the rest is `dpo explain`'s."""
_MOST_MESSAGES = 4
"""Messages shown of a prompt, the last ones."""
_EXAMPLES = 3
"""Examples shown per reason, cluster or limit. With these three a page stays under 3 MB whatever the texts hold."""
_MOST_ROWS = 60
"""Rows of a table; the rest is in stats.json."""


def write(folder: Path) -> Path:
    """Write audit.html of the version in `folder` (stats.json, examples.parquet, ledger.parquet); its path."""
    stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    history = folder / "changes.json"
    changes = json.loads(history.read_text(encoding="utf-8")) if history.exists() else None
    context = {
        "stats": stats,
        "changes": changes,
        "changed": changed(changes),
        "version": folder.name.removeprefix(".publishing-"),
        "answers": answers(stats, changes),
        "tasks": wording.tasks(stats),
        "before": wording.overall(stats, "before"),
        "after": wording.overall(stats, "after"),
        "reasons_picture": charts.reasons(stats["reasons"]),
        "annotators_picture": charts.annotators(stats["annotators"]["rows"]),
        "length_picture": charts.length_bias(stats["length_bias"]["before"], stats["length_bias"]["after"]),
        "style_picture": charts.style(stats["style_bias"]),
        "yield_picture": charts.yield_curves(stats["yield"], stats["limits"]),
        "examples": examples(folder),
        "examples_shown": _EXAMPLES,
        "rows_shown": _MOST_ROWS,
        "words": wording,
    }
    page = folder / "audit.html"
    page.write_text(render(context), encoding="utf-8")
    return page


def render(context: dict[str, Any]) -> str:
    """The page with its style inside and a policy that allows that style and embedded pictures, nothing else."""
    style = files("dpo_data.audit").joinpath("audit.css").read_text(encoding="utf-8")
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return _template().render(style=style, policy=policy, **context)


@cache
def _template() -> Template:
    """The page's template, compiled once a process: that takes as long as filling it."""
    surroundings = templates("dpo_data.audit", "audit", "parts")
    surroundings.globals["pieces"] = pieces
    return surroundings.get_template("audit.html")


def templates(package: str, *names: str) -> Environment:
    """The templates of these names beside a package's code; text of the data is escaped, a gap is an error."""
    here = files(package)
    made = Environment(
        loader=DictLoader(
            {f"{name}.html": here.joinpath(f"{name}.html").read_text(encoding="utf-8") for name in names}
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    made.filters["short"] = short
    return made


def shown(value: Any) -> Any:
    """Every value on its way into the page: text with hidden signs made visible; escaping comes after."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def examples(folder: Path) -> dict[str, dict[str, Any]]:
    """Comparison id -> its prompt, both responses, cut to what is shown, and what was decided."""
    texts = pl.read_parquet(folder / "examples.parquet", glob=False)
    ids = texts["comparison_id"].to_list()
    votes = ("votes_a", "votes_b", "votes_tie", "agreement", "confidence", "p_equal")
    facts = ("source", "preferred", "reasons", "duplicate_swapped", *votes)
    decided = (
        pl.scan_parquet(folder / "ledger.parquet", glob=False)
        .filter(pl.col("comparison_id").is_in(ids))
        .select("comparison_id", *facts)
        .collect()
    )
    found = {}
    for row in texts.join(decided, on="comparison_id", how="left").to_dicts():
        prompt = row["prompt"]
        found[row["comparison_id"]] = {
            **row,
            "title": short(prompt[-1]["content"] if prompt else "", 70),
            "prompt": [{**message, "content": _cut(message["content"])} for message in prompt[-_MOST_MESSAGES:]],
            "messages_before": max(0, len(prompt) - _MOST_MESSAGES),
            "response_a": _cut(row["response_a"]),
            "response_b": _cut(row["response_b"]),
            "reasons": row["reasons"] or [],
        }
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}… ({len(text) - _MOST_CHARS:,} characters more)"
