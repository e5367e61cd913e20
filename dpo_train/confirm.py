"""What changes without a slice: retrain with its pairs at weight 0, set the truth beside what the account predicted.

The estimand is the weight-0 mask: the same batches in the same order, the same learning rates, as many steps; the
slice's pairs take their places and teach nothing. It is not "drop and fill up with others". Each seed is trained with
and without, so that what a seed does alone cancels; how far seeds disagree is the ceiling of any prediction.
The surprise: no training code is touched. Weights are a column, so a copy of the shards with zeros in it is enough.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_train.account.accounts import FEWEST, account
from dpo_train.config import TrainConfig, TrainError
from dpo_train.describe.axes import ALL, columns_of, label
from dpo_train.describe.movement import Movement, hits, movement
from dpo_train.describe.statistics import Bools, Floats, clustered_mean, correlation, ranks

logger = logging.getLogger(__name__)
FOLDER = "confirm"
OTHERS = "all others"  # held-out pairs outside the slice: those that a fix should help
KEPT = ("pair_log.parquet", "pairs.parquet", "summary.json")  # of a retraining; its weights are not of interest
PREDICTORS = ("pushed", "reallocated", "size")
FEWEST_CELLS = 4  # held-out slices below which no rank correlation is shown


def confirm(version: Path, run: Path, axis: str, value: str, keep: float = 0.0, seeds: int = 2) -> Path:
    """Retrain with a share `keep` (by hash of the pair's id) of the slice `axis` = `value`; the path of the result.

    Trains 2 * seeds - 1 times (the run itself is the first seed with the slice); what is there already is not trained
    again. Raises `TrainError` where the run, the version or the slice does not allow it.
    """
    if not 0 <= keep < 1 or seeds < 1:
        raise TrainError(f"keep {keep}, seeds {seeds}: expected 0 <= keep < 1 and at least one seed.")
    config, last = _settings(run, version)
    place = run / FOLDER / slug(axis, value, keep)
    with tempfile.TemporaryDirectory(prefix="dpo-confirm-") as scratch:
        masked, counts = mask(version, Path(scratch), axis, value, keep)
        with_it, without = [], []
        for seed in range(config.seed, config.seed + seeds):
            one = config.model_copy(update={"seed": seed})
            full = run if seed == config.seed else _trained(one, version, run / FOLDER / f"seed-{seed}")
            with_it.append(_moved(full, last))
            without.append(_moved(_trained(one, masked, place / f"seed-{seed}"), last))
    found = {
        "axis": axis,
        "slice": value,
        "keep": keep,
        "seeds": list(range(config.seed, config.seed + seeds)),
        "step": last,
        **counts,
        "estimand": f"weight 0 for {counts['masked']} training pairs; same batches, rates and steps",
        "cells": compare(with_it, without, axis, value, _predicted(run, axis, value, keep, counts)),
    }
    path = place.with_suffix(".json")
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    partial.replace(path)
    return path


def slug(axis: str, value: str, keep: float) -> str:
    """A file name for a slice: readable, and different for different slices whatever characters they hold."""
    name = f"{axis}={value}"
    readable = re.sub(r"[^\w-]+", "_", name)[:60]
    return f"{readable}-{blake2b(name.encode(), digest_size=4).hexdigest()}-keep{round(100 * keep)}"


def mask(version: Path, scratch: Path, axis: str, value: str, keep: float) -> tuple[Path, dict[str, int]]:
    """A copy of a version in which the slice weighs nothing, and how many pairs that is; other splits are links.

    The store's cache (model, log-probabilities of the starting weights) is shared; tokens are made anew.
    """
    folder = scratch / "versions" / f"{version.name}-{slug(axis, value, keep)}"
    (folder / "pairs").mkdir(parents=True)
    (scratch / "cache").mkdir()
    for part in (version.parent.parent / "cache").glob("*") if version.parent.name == "versions" else ():
        if part.name not in ("shards", "tokens"):
            (scratch / "cache" / part.name).symlink_to(part.resolve())
    shards = {path: pq.read_table(path) for path in sorted((version / "pairs").glob("*.parquet"))}
    train = {path: table for path, table in shards.items() if path.name.startswith("train-")}
    for path in shards.keys() - train.keys():
        (folder / "pairs" / path.name).symlink_to(path.resolve())
    whole = pa.concat_tables(list(train.values()), promote_options="default")
    members = _members(whole, axis, value)
    hidden = members & np.array([_coin(name) >= keep for name in whole["pair_id"].to_pylist()])
    known = whole["weight"].to_numpy() if "weight" in whole.column_names else np.ones(whole.num_rows)
    weights = np.where(hidden, 0.0, known)
    start = 0
    for path, table in train.items():
        column = pa.array(weights[start : start + table.num_rows])
        start += table.num_rows
        at = table.column_names.index("weight") if "weight" in table.column_names else table.num_columns
        table = table.remove_column(at) if at < table.num_columns else table
        pq.write_table(table.add_column(at, "weight", column), folder / "pairs" / path.name)
    return folder, {"train_pairs": whole.num_rows, "in_slice": int(members.sum()), "masked": int(hidden.sum())}


def _members(train: pa.Table, axis: str, value: str) -> Bools:
    """Training pairs of the slice, by the report's own axes."""
    axes = label(columns_of(train))
    if axis not in axes:
        raise TrainError(f"no axis {axis!r} among the training pairs; there are {', '.join(axes) or 'none'}.")
    if value not in axes[axis].levels:
        raise TrainError(f"axis {axis} has no slice {value!r} in training; it has {', '.join(axes[axis].levels)}.")
    return np.asarray(axes[axis].codes == axes[axis].levels.index(value))


def _coin(name: str) -> float:
    """A number in [0, 1) that belongs to the pair."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"confirm").digest(), "big") / 2**64


def _settings(run: Path, version: Path) -> tuple[TrainConfig, int]:
    """The run's settings without what a retraining does not need, and the step at which runs are compared."""
    try:
        raw = json.loads((run / "config.json").read_text(encoding="utf-8"))
        last = int(json.loads((run / "summary.json").read_text(encoding="utf-8"))["steps"])
    except FileNotFoundError as error:
        raise TrainError(f"{error.filename} is missing: only a finished run can be confirmed.") from error
    if raw.pop("version", version.name) != version.name:
        raise TrainError(f"{run.name} was not trained on version {version.name}.")
    raw.pop("beta", None)
    quiet = {"account_by": None, "report_to": (), "stop_when_flat": False, "load_best_model_at_end": False}
    config = TrainConfig.model_validate(raw | quiet)
    if config.loss.shards != "pairs":
        raise TrainError(
            f"{run.name} was trained on single responses (loss_type {config.loss.loss_type}); only "
            "runs on pairs can be retrained without a slice."
        )
    return config, last


def _trained(config: TrainConfig, version: Path, folder: Path) -> Path:
    """The folder of a retraining, made or gone on with where it is not finished; its weights are removed."""
    if not (folder / "summary.json").exists():
        from dpo_train.train import train

        logger.info("retraining on %s, seed %d", version.name, config.seed)
        train(config, version, folder, resume=(folder / "checkpoints").is_dir())
    for part in folder.iterdir():
        if part.is_dir():
            shutil.rmtree(part)
        elif part.name not in KEPT:
            part.unlink()
    return folder


def _moved(run: Path, last: int) -> Movement:
    log = pq.read_table(run / "pair_log.parquet")
    return movement(log, pq.read_table(run / "pairs.parquet"), "validation", last=last)


def _predicted(run: Path, axis: str, value: str, keep: float, counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """What the masking should do by each predictor: held-out slice -> margin; empty where nothing was accounted."""
    gone = counts["masked"] / max(counts["in_slice"], 1)
    path = run / "attribution.parquet"
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    if not path.is_file() or config.get("account_by") != axis:
        return {}
    made = account(pq.read_table(path), pq.read_table(run / "pairs.parquet"), float(config["beta"]), axis)
    found: dict[str, dict[str, float]] = {name: {} for name in ("pushed", "reallocated")}
    for cell in made["cells"]:
        if cell["train"] == value:
            for name, values in found.items():
                values[cell["slice"]] = -gone * cell[name]
    if value in made["elsewhere"]:
        found["pushed"][OTHERS] = -gone * made["elsewhere"][value]["pushed"]
    return found


def compare(
    with_it: Sequence[Movement],
    without: Sequence[Movement],
    axis: str,
    value: str,
    predicted: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """One cell a held-out slice: change of margin and accuracy by the masking, mean over seeds, and the predictions.

    Intervals are over held-out prompts, given these seeds; `by_seed` shows how far seeds agree.
    """
    first = with_it[0]
    if any(not np.array_equal(first.pair_ids, one.pair_ids) for one in (*with_it, *without)):
        raise TrainError("the retrained runs did not watch the same held-out pairs; remove the confirm folder.")
    changes = np.array([b.margin - a.margin for a, b in zip(with_it, without, strict=True)])
    rights = np.array([hits(b.final) - hits(a.final) for a, b in zip(with_it, without, strict=True)])
    cells = []
    for name, members in _held_out(first, axis, value).items():
        margin = clustered_mean(changes[:, members].mean(axis=0), first.groups[members])
        right = clustered_mean(rights[:, members].mean(axis=0), first.groups[members])
        ledger = {each: _known(values.get(name)) for each, values in predicted.items()}
        cells.append(
            {
                "slice": name,
                "pairs": int(members.sum()),
                "prompts": len(np.unique(first.groups[members])),
                "change": margin.value,
                "change_low": _known(margin.low),
                "change_high": _known(margin.high),
                "by_seed": [float(one) for one in changes[:, members].mean(axis=1)],
                "right": right.value,
                "right_low": _known(right.low),
                "right_high": _known(right.high),
                "observed": float(np.mean([one.margin[members].mean() for one in with_it])),
                **ledger,
            }
        )
    return cells


def _held_out(moved: Movement, axis: str, value: str) -> dict[str, Bools]:
    """Everything, everything outside the slice, and the levels of its axis."""
    parts = {ALL: np.ones(len(moved.margin), dtype=bool)}
    found = label(moved.columns).get(axis)
    if found is not None:
        levels = {level: found.codes == code for code, level in enumerate(found.levels)}
        parts[OTHERS] = ~levels[value] if value in levels else parts[ALL]
        parts |= levels
    return {name: members for name, members in parts.items() if members.sum() >= FEWEST}


def _known(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def verdict(found: Mapping[str, Any]) -> str:
    """`confirmed`: the others gained without the slice, surely and in every one of at least two seeds.

    `not confirmed`: they did not; `one seed`: they gained, but how much a seed alone does is unknown.
    """
    cells = {cell["slice"]: cell for cell in found["cells"]}
    others = cells.get(OTHERS) or cells[ALL]
    gained = others["change_low"] is not None and others["change_low"] > 0 and min(others["by_seed"]) > 0
    if not gained:
        return "not confirmed"
    return "confirmed" if len(others["by_seed"]) > 1 else "one seed"


def read(run: Path) -> list[dict[str, Any]]:
    """Every confirmation of a run with its verdict, in the order of the file names."""
    paths = sorted((run / FOLDER).glob("[!.]*.json"))
    found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    return [{"file": name, **one, "verdict": verdict(one), "others": _others(one)} for name, one in found.items()]


def _others(found: Mapping[str, Any]) -> dict[str, Any]:
    cells = {cell["slice"]: cell for cell in found["cells"]}
    return dict(cells.get(OTHERS) or cells[ALL])


def foretold(confirmations: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How well each predictor ranked the truth over all cells (Spearman), beside the ceiling that seeds allow.

    Size predicts that a slice takes away its share of what was observed. The ceiling is the square root of the
    reliability of the mean over seeds (Spearman-Brown on the correlation between seeds).
    """
    cells = [
        {**cell, "size": -cell["observed"] * one["masked"] / one["train_pairs"], "of": one["slice"]}
        for one in confirmations
        for cell in one["cells"]
        if cell["slice"] not in (ALL, OTHERS)
    ]
    accounted = [cell for cell in cells if cell.get("pushed") is not None]
    cells = accounted or cells  # all predictors on the same cells
    if len(cells) < FEWEST_CELLS:
        return None
    truth = np.array([cell["change"] for cell in cells])
    found: dict[str, float | None] = {}
    for name in PREDICTORS:
        known = np.array([cell.get(name) is not None for cell in cells])
        values = np.array([cell[name] for cell, there in zip(cells, known, strict=True) if there])
        found[name] = _spearman(values, truth[known]) if known.sum() >= FEWEST_CELLS else None
    return {"cells": len(cells), "ceiling": _ceiling(cells), **found}


def _spearman(first: Floats, second: Floats) -> float | None:
    return _known(correlation(ranks(first), ranks(second)))


def _ceiling(cells: Sequence[Mapping[str, Any]]) -> float | None:
    seeds = min(len(cell["by_seed"]) for cell in cells)
    if seeds < 2:
        return None
    table = np.array([cell["by_seed"][:seeds] for cell in cells])
    between = [_spearman(table[:, i], table[:, j]) for i in range(seeds) for j in range(i)]
    mean = float(np.mean([one for one in between if one is not None] or [0.0]))
    return float(np.sqrt(max(seeds * mean / (1 + (seeds - 1) * mean), 0.0))) if mean > 0 else 0.0
