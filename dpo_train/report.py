"""`report.html`, `report.json` and `slices.parquet` of one run: the numbers first, then the page that shows them.

The page is one file that asks nothing of the network: pictures are inline SVG, the style and the one small script are
allowed by their hashes in the content policy, and everything that came from the data is escaped. The script only
re-scores logged log-probabilities; no number of the page but the explorer's is computed in the browser.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from dpo_train import charts, headline
from dpo_train.adjustment import rank_axes
from dpo_train.axes import ALL, TOO_SMALL, label, left_out
from dpo_train.config import TrainError
from dpo_train.movement import Movement, at_step, movement, splits_of, steps_of
from dpo_train.slices import describe
from dpo_train.statistics import clustered_mean

TEMPLATES = Path(__file__).parent
WORST = 12  # pairs shown with their text
MOST_CHARACTERS = 1200  # of a text on the page; the shards hold the whole


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise TrainError(f"{path} is missing; the report reads what a training run wrote. Is {path.parent} a run?")
    return pq.read_table(path)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write(run: Path) -> Path:
    """Write slices.parquet, report.json and report.html into the run folder; returns the path of the page.

    Reads pair_log.parquet and pairs.parquet (required), config.json and summary.json (shown where present).
    Raises `TrainError` naming the file that is missing or does not fit.
    """
    pair_log, pairs = _read(run / "pair_log.parquet"), _read(run / "pairs.parquet")
    table = describe(pair_log, pairs)
    pq.write_table(table, run / "slices.parquet", compression="zstd")
    numbers = gather(pair_log, pairs, table)
    numbers |= {"run": run.name, "config": _json(run / "config.json"), "summary": _json(run / "summary.json")}
    _replace(run / "report.json", json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False, default=str))
    page = run / "report.html"
    _replace(page, render_page(numbers))
    return page


def _replace(path: Path, content: str) -> None:
    """Write beside and rename, so that nobody reads half a page."""
    beside = path.with_suffix(path.suffix + ".tmp")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)


def gather(pair_log: pa.Table, pairs: pa.Table, table: pa.Table) -> dict[str, Any]:
    """Every number and word of the page, as plain JSON types; the page computes nothing from it but pixels."""
    rows = table.to_pylist()
    main = splits_of(pair_log)[0]
    moved = movement(pair_log, pairs, main)
    axes = label(moved.columns)
    words = headline.headline([row for row in rows if row["split"] == main])
    return {
        "split": main,
        "beta": moved.beta,
        "headline": words,
        "slices": rows,
        "axes": [found._asdict() for found in rank_axes(moved, axes)],
        "left_out": left_out(moved.columns),
        "trajectories": _trajectories(pair_log, pairs, main, words["row"]),
        "worst": _worst(moved),
        "pairs": [],
    }


def _trajectories(pair_log: pa.Table, pairs: pa.Table, split: str, fix: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Mean margin by step: all pairs, and the slices of the axis that holds the slice to fix."""
    first = movement(pair_log, pairs, split)
    members = {"all pairs": np.ones(len(first.margin), dtype=bool)}
    axis = label(first.columns).get(fix["axis"]) if fix else None
    if fix and axis:
        members |= {f"{fix['axis']} = {level}": axis.codes == code for code, level in enumerate(axis.levels)}
    series: list[dict[str, Any]] = [{"name": name, "steps": [], "mean": [], "low": [], "high": []} for name in members]
    for step in steps_of(pair_log, split):
        margins = at_step(pair_log, split, step)["margin"]
        for one, inside in zip(series, members.values(), strict=True):
            found = clustered_mean(margins[inside], first.groups[inside])
            one["steps"].append(step)
            for name, value in (("mean", found.value), ("low", found.low), ("high", found.high)):
                one[name].append(None if np.isnan(value) else value)
    return series


def _text(value: Any) -> str:
    """A text of the data as it stands, cut; message lists as their contents under their roles."""
    if isinstance(value, list):
        value = "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in value)
    words = str(value or "")
    return words if len(words) <= MOST_CHARACTERS else words[:MOST_CHARACTERS] + " …"


def _worst(moved: Movement) -> list[dict[str, Any]]:
    order = np.lexsort((moved.pair_ids.astype(str), moved.final))[:WORST]
    return [
        {
            "pair_id": str(moved.pair_ids[i]),
            "margin": float(moved.final[i]),
            "movement": float(moved.margin[i]),
            "source": str(moved.columns["source"][i]) if "source" in moved.columns else "",
            **{
                name: _text(moved.columns[name][i])
                for name in ("prompt", "chosen", "rejected")
                if name in moved.columns
            },
        }
        for i in order
    ]


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _forest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their picture; the shrunken movement is the split's mean plus the slice's shrunken part of it."""
    total = rows[0]["movement"] or 0.0
    x = charts.scale((row[name] for row in rows for name in ("movement_low", "movement_high", "movement")), 6, 254)
    drawn = []
    for row in rows:
        shrunken = None
        if row["shrunken"] is not None:
            shrunken = total + (1 - row["pairs_share"]) * row["shrunken"]
        picture = None if row["status"] == TOO_SMALL else charts.whisker(row, x, shrunken)
        drawn.append({**row, "picture": picture, "flagged": headline.stands(row)})
    return drawn


def _plane(rows: Sequence[dict[str, Any]], fix: dict[str, Any] | None) -> Markup:
    axis = fix["axis"] if fix else None
    shown = [{**row, "named": row["axis"] in (ALL, axis)} for row in rows if row["status"] != TOO_SMALL]
    return charts.plane(shown)


def render_page(numbers: dict[str, Any]) -> str:
    """The HTML of `gather`'s numbers: one file, escaped, under a policy that allows only its own style and script."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": headline.number, "percent": headline.percent, "chance": headline.chance}
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    by_split = {
        split: [row for row in numbers["slices"] if row["split"] == split]
        for split in dict.fromkeys(row["split"] for row in numbers["slices"])
    }
    main = by_split[numbers["split"]]
    page: str = environment.get_template("report.html").render(
        **numbers,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        forests={split: _forest(rows) for split, rows in by_split.items()},
        trajectory_picture=charts.trajectories(numbers["trajectories"]),
        plane_picture=_plane(main, numbers["headline"]["row"]),
    )
    return page
