"""`report.html`, `report.json` and `slices.parquet` of one run: the numbers first, then the page that shows them.

The page is one file that asks nothing of the network: pictures are in it, the style and the one small script are
allowed by their hashes in the content policy, and everything that came from the data is escaped. The script only
re-scores logged log-probabilities; no number of the page but the explorer's is computed in the browser.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from dpo_train.ablation.effects import read as confirmations
from dpo_train.ablation.predictions import prediction_quality
from dpo_train.attribution.tables import account, cost, cost_in_words, direction, redundant
from dpo_train.config import TrainError
from dpo_train.data.axes import ALL, TOO_SMALL, label, left_out
from dpo_train.report import charts, headline, wording
from dpo_train.report.evidence import told
from dpo_train.report.explorer import explorable, worst
from dpo_train.report.forest_plot import forest
from dpo_train.report.sql import in_shell, where
from dpo_train.slices.adjusted import rank_axes
from dpo_train.slices.calibration import calibrate
from dpo_train.slices.interactions import crossings
from dpo_train.slices.margin_change import Movement, at_step, hits, movement, splits_of, steps_of
from dpo_train.slices.subgroups import discover, rows
from dpo_train.slices.table import describe
from dpo_train.slices.topics import no_topics, with_topics
from dpo_train.statistics import clustered_mean, slope

TEMPLATES = Path(__file__).parent


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
    pair_log, pairs = _read(run / "pair_log.parquet"), with_topics(_read(run / "pairs.parquet"))
    table = describe(pair_log, pairs)
    pq.write_table(table, run / "slices.parquet", compression="zstd")
    config = _json(run / "config.json")
    numbers: dict[str, Any] = gather(pair_log, pairs, table) if pair_log.num_rows else _nothing()
    numbers |= {"run": run.name, "config": config, "summary": _json(run / "summary.json")}
    numbers["account"] = _account(run, pairs, numbers["beta"], config, numbers["summary"])
    numbers["confirmations"] = confirmations(run)
    numbers["predictions"] = prediction_quality(numbers["confirmations"])
    numbers["redundant"] = redundant(numbers["account"], numbers["confirmations"])
    main = [row for row in numbers["slices"] if row["split"] == numbers["split"]]
    numbers["audit"] = _audit(run, config.get("version"))
    numbers["headline"] = headline.headline(main, numbers["account"], numbers["confirmations"])
    if numbers["headline"]["suspect"]:  # the explorer opens on the axis of the slice to fix
        numbers["explorer"]["axes"].sort(key=lambda axis: axis != numbers["headline"]["suspect"]["axis"])
    if pair_log.num_rows:
        numbers["trajectories"] = _trajectories(pair_log, pairs, numbers["split"], numbers["headline"]["suspect"])
    _replace(run / "report.json", json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False, default=str))
    page = run / "report.html"
    _replace(page, render_page(numbers))
    return page


def _account(
    run: Path, pairs: pa.Table, beta: float, config: Mapping[str, Any], summary: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Whose gradients moved the margins, where the run kept an account."""
    path = run / "attribution.parquet"
    attributed = pq.read_table(path) if path.is_file() else None
    if attributed is None or not attributed.num_rows:
        return None
    made = account(attributed, pairs, beta, config.get("attribution", {}).get("by") or "source")
    return {**made, "cost": cost(attributed, (summary.get("speed") or {}).get("seconds"))}


def _nothing() -> dict[str, Any]:
    """The numbers of a run that evaluated no pair: a page that says so."""
    lists: dict[str, Any] = {name: [] for name in ("slices", "axes", "discovered", "trajectories", "worst")}
    crossed: dict[str, Any] = {"axes": [], "tested": 0, "rows": []}
    explorer: dict[str, Any] = {"beta": 1.0, "axes": [], "pairs": []}
    rest: dict[str, Any] = {"split": None, "beta": 1.0, "left_out": {}, "calibration": None, "length": None}
    return {**lists, **rest, "crossings": crossed, "explorer": explorer}


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
    ranked = rank_axes(moved, axes)
    return {
        "split": main,
        "beta": moved.beta,
        "slices": described,
        "axes": [found._asdict() for found in ranked],
        "crossings": crossings(moved, axes, ranked),
        "left_out": left_out(moved.columns) | no_topics(moved.columns),
        "discovered": rows(discover(moved, axes)),
        "calibration": calibrate(moved),
        "length": _length(moved),
        "worst": worst(moved),
        "explorer": explorable(moved, axes),
    }


def _trajectories(
    pair_log: pa.Table, pairs: pa.Table, split: str, fix: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Mean margin by step: all pairs, the slice to fix, and the rest."""
    first = movement(pair_log, pairs, split)
    members = {"all pairs": np.ones(len(first.margin), dtype=bool)}
    axis = label(first.columns).get(fix["axis"]) if fix else None
    if fix and axis and fix["slice"] in axis.levels:
        inside = axis.codes == axis.levels.index(fix["slice"])
        members |= {f"{fix['axis']} = {fix['slice']}": inside, "the rest": ~inside}
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


def _data_block(value: Any) -> Markup:
    """JSON that no text can close early: every < is written as an escape."""
    return Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c"))


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _heat(made: dict[str, Any] | None) -> dict[str, list[list[dict[str, Any]]]] | None:
    """Rows of cells for "pushed" and "reallocated", with a class for the colour: five shades each way."""
    if made is None:
        return None
    grids = {}
    for name in ("pushed", "reallocated"):
        most = max((abs(cell[name]) for cell in made["cells"]), default=0.0) or 1.0
        shaded = [
            {**cell, "value": cell[name], "shade": round(5 * cell[name] / most), "told": direction(cell) is not None}
            for cell in made["cells"]
        ]
        grids[name] = [[cell for cell in shaded if cell["train"] == train] for train in made["train"]]
    return grids


def _length_picture(length: Mapping[str, Any]) -> charts.Picture:
    through = None
    if length["slope_per_100"] is not None:
        through = (length["intercept"], length["slope_per_100"] / 100)
    return charts.scatter(length["points"], through, ("chosen longer by (tokens)", "margin (β · nats)"))


def _questions(
    rows: Sequence[Mapping[str, Any]], version: str | None, explored: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For every slice whose rows a query can find: its name, the line to copy, and the pair with its lowest margin."""
    told = f" --version {version}" if version else ""
    asked = []
    for row in rows:
        condition = where(row["axis"], row["slice"])
        if condition is None:
            continue
        query = f"select pair_id, split, weight from pairs where {condition}"
        lowest = next((pair["id"] for pair in explored if pair["s"].get(row["axis"]) == row["slice"]), None)
        asked.append(
            {
                "key": (row["axis"], row["slice"]),
                "name": f"{row['axis']} = {row['slice']}",
                "command": f"dpo sql {in_shell(query)}{told}",
                "lowest": lowest,
            }
        )
    return asked


def _audit(run: Path, version: str | None) -> str | None:
    """The way from the run's folder to the audit of its version, where run and version lie in one store."""
    there = run.parent.parent / "versions" / (version or "") / "audit.html"
    return f"../../versions/{quote(version)}/audit.html" if version and there.is_file() else None


def _waterfall(made: Mapping[str, Any] | None) -> charts.Picture | None:
    """From the start to what was observed over all held-out pairs, a bar for each training slice."""
    if made is None:
        return None
    cells = [cell for cell in made["cells"] if cell["slice"] == ALL]
    head = next(column for column in made["columns"] if column["slice"] == ALL)
    parts = [(cell["train"], cell["pushed"]) for cell in sorted(cells, key=lambda one: -one["pushed"])]
    gap = head["observed"] - head["rest"] - sum(value for _, value in parts)
    return charts.waterfall([*parts, ("decay, rounding", head["rest"]), ("not closed", gap)], head["observed"])


def _plane(rows: Sequence[Mapping[str, Any]], fix: Mapping[str, Any] | None) -> charts.Picture:
    """All slices that can be judged; named are the whole, the slice to fix, and the other levels of its axis."""
    shown = []
    for row in sorted(rows, key=lambda row: (row["axis"] != ALL, fix is None or row["slice"] != fix["slice"])):
        if row["status"] != TOO_SMALL:
            named = row["axis"] == ALL or (fix is not None and row["axis"] == fix["axis"])
            name = "all pairs" if row["axis"] == ALL else f"{row['axis']} = {row['slice']}"
            shown.append({**row, "name": name if named else ""})
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
    environment.filters |= {"number": wording.number, "percent": wording.percent, "chance": wording.chance}
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    by_split = {
        split: [row for row in numbers["slices"] if row["split"] == split]
        for split in dict.fromkeys(row["split"] for row in numbers["slices"])
    }
    main, suspect = by_split.get(numbers["split"], []), numbers["headline"]["suspect"]
    questions = _questions(main, numbers["config"].get("version"), numbers["explorer"]["pairs"])
    page: str = environment.get_template("report.html").render(
        **numbers,
        explorer_data=_data_block(numbers["explorer"]),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        forests={split: forest(rows, suspect["axis"] if suspect else None) for split, rows in by_split.items()},
        questions=questions,
        asked={one["key"]: f"rows-{place}" for place, one in enumerate(questions)},
        told=told(numbers["account"]) if numbers["account"] else [],
        account_cost=cost_in_words(numbers["account"]) if numbers["account"] else "",
        waterfall=_waterfall(numbers["account"]),
        heat=_heat(numbers["account"]),
        length_picture=_length_picture(numbers["length"]) if numbers["length"] else None,
        calibration_picture=charts.reliability(numbers["calibration"]["bins"]) if numbers["calibration"] else None,
        trajectory_picture=charts.trajectories(numbers["trajectories"]) if numbers["trajectories"] else None,
        plane_picture=_plane(main, suspect) if main else None,
    )
    return page
