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
from dpo_train.accounts import account
from dpo_train.adjustment import rank_axes
from dpo_train.axes import ALL, TOO_SMALL, Axis, label, left_out
from dpo_train.calibration import calibrate
from dpo_train.config import TrainError
from dpo_train.discovery import discover, rows
from dpo_train.movement import Movement, at_step, hits, movement, splits_of, steps_of
from dpo_train.slices import describe
from dpo_train.statistics import clustered_mean, slope

TEMPLATES = Path(__file__).parent
WORST = 12  # pairs shown with their text
MOST_EXPLORED = 300  # pairs of the explorer
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
    config = _json(run / "config.json")
    numbers["account"] = None
    if (run / "attribution.parquet").is_file():
        attributed = pq.read_table(run / "attribution.parquet")
        if attributed.num_rows:
            numbers["account"] = account(attributed, pairs, numbers["beta"], config.get("account_by") or "source")
            numbers["headline"] = _accounted(numbers)
    numbers |= {"run": run.name, "config": config, "summary": _json(run / "summary.json")}
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
    described = table.to_pylist()
    main = splits_of(pair_log)[0]
    moved = movement(pair_log, pairs, main)
    axes = label(moved.columns)
    words = headline.headline([row for row in described if row["split"] == main])
    return {
        "split": main,
        "beta": moved.beta,
        "headline": words,
        "slices": described,
        "axes": [found._asdict() for found in rank_axes(moved, axes)],
        "left_out": left_out(moved.columns),
        "discovered": rows(discover(moved, axes)),
        "calibration": calibrate(moved),
        "length": _length(moved),
        "trajectories": _trajectories(pair_log, pairs, main, words["row"]),
        "worst": _worst(moved),
        "explorer": _explorer(moved, axes),
    }


def _accounted(numbers: dict[str, Any]) -> dict[str, Any]:
    """The headline, raised to "accounted" where the slice's own gradients pushed the other held-out pairs down."""
    words, row = numbers["headline"], numbers["headline"]["row"]
    own = (
        numbers["account"]["elsewhere"].get(row["slice"]) if row and row["axis"] == numbers["account"]["axis"] else None
    )
    if not own or own["p"] is None or own["p"] * len(numbers["account"]["train"]) > headline.Q or own["excess"] >= 0:
        return dict(words)
    raised = headline.headline([one for one in numbers["slices"] if one["split"] == numbers["split"]], "accounted")
    raised["sure"] += (
        f" Its training pairs pushed the margins of held-out pairs outside it by {headline.interval(own, 'pushed')} a "
        f"pair, {own['pairs']} pairs looked at; the other slices pushed them more for their size."
    )
    return raised


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


def _length(moved: Movement) -> dict[str, Any]:
    """Margin against length gap: points (tokens, margin), the line through them, and who is right on either side."""
    found = slope(moved.final, moved.gap, moved.groups)
    longer, shorter = moved.gap > 0, moved.gap < 0
    order = np.linspace(0, len(moved.gap) - 1, min(charts.MOST_POINTS, len(moved.gap))).round().astype(int)
    return {
        "slope_per_100": None if np.isnan(found.value) else 100 * found.value,
        "slope_per_100_low": None if np.isnan(found.low) else 100 * found.low,
        "slope_per_100_high": None if np.isnan(found.high) else 100 * found.high,
        "right_when_longer": float(hits(moved.final[longer]).mean()) if longer.any() else None,
        "right_when_shorter": float(hits(moved.final[shorter]).mean()) if shorter.any() else None,
        "longer": int(longer.sum()),
        "shorter": int(shorter.sum()),
        "length_only_accuracy": float(hits(moved.gap).mean()),
        "intercept": float(moved.final.mean() - (0 if np.isnan(found.value) else found.value) * moved.gap.mean()),
        "points": [[float(moved.gap[i]), float(moved.final[i])] for i in order],
    }


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


def _explorer(moved: Movement, axes: dict[str, Axis]) -> dict[str, Any]:
    """What the page's sliders re-score: log-ratios of both sides in nats, the length gap, slices and texts by pair.

    At most `MOST_EXPLORED` pairs, spread evenly over the margins, so that the worst and the best are among them.
    """
    order = np.lexsort((moved.pair_ids.astype(str), moved.final))
    order = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_EXPLORED, len(order))).round().astype(int))]
    names = [("p", "prompt"), ("ct", "chosen"), ("rt", "rejected")]
    pairs = [
        {
            "id": str(moved.pair_ids[i]),
            "c": float(moved.chosen[i] / moved.beta),
            "r": float(moved.rejected[i] / moved.beta),
            "g": float(moved.gap[i]),
            "s": {axis: found.levels[found.codes[i]] for axis, found in axes.items()},
            **{short: _text(moved.columns[name][i] if name in moved.columns else "") for short, name in names},
        }
        for i in order
    ]
    return {"beta": moved.beta, "axes": list(axes), "pairs": pairs}


def _data_block(value: Any) -> Markup:
    """JSON that no text can close early: every < is written as an escape."""
    return Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c"))


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


def _heat(made: dict[str, Any] | None) -> dict[str, list[list[dict[str, Any]]]] | None:
    """Rows of cells for "pushed" and "reallocated", with a class for the colour: five shades each way."""
    if made is None:
        return None
    grids = {}
    for name in ("pushed", "reallocated"):
        most = max((abs(cell[name]) for cell in made["cells"]), default=0.0) or 1.0
        shaded = [{**cell, "value": cell[name], "shade": round(5 * cell[name] / most)} for cell in made["cells"]]
        grids[name] = [[cell for cell in shaded if cell["train"] == train] for train in made["train"]]
    return grids


def _length_picture(length: dict[str, Any]) -> Markup:
    through = None
    if length["slope_per_100"] is not None:
        through = (length["intercept"], length["slope_per_100"] / 100)
    points = [(gap, margin) for gap, margin in length["points"]]
    return charts.scatter(points, through, ("chosen longer by (tokens)", "margin (β · nats)"))


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
        explorer_data=_data_block(numbers["explorer"]),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        forests={split: _forest(rows) for split, rows in by_split.items()},
        heat=_heat(numbers["account"]),
        length_picture=_length_picture(numbers["length"]),
        calibration_picture=charts.reliability(numbers["calibration"]["bins"]) if numbers["calibration"] else None,
        trajectory_picture=charts.trajectories(numbers["trajectories"]),
        plane_picture=_plane(main, numbers["headline"]["row"]),
    )
    return page
