"""What a retraining without a slice should change, said in five ways, and how well each way ranked the truth.

Two ways come from the run's account (pushed, reallocated), three are baselines that an account must beat to be worth
its cost: TracIn (gradient dot products along the run), likeness (how alike the slice's texts are to the held-out
slice's) and size (the slice's share of what was observed). All are judged on the same cells, beside the ceiling that
seeds allow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dpo_train.ablation.effects import OTHERS
from dpo_train.attribution.tables import account
from dpo_train.data.axes import ALL
from dpo_train.statistics import Floats, correlation, ranks

ACCOUNTED = ("pushed", "reallocated", "tracin")
PREDICTORS = (*ACCOUNTED, "likeness", "size")
FEWEST_CELLS = 4  # held-out slices below which no rank correlation is shown


def from_account(run: Path, axis: str, value: str, counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """What masking `counts["masked"]` pairs of a slice should change by the run's account: predictor -> held-out slice
    -> margin. Empty where nothing was accounted along this axis. TracIn's sizes mean nothing, only their order.
    """
    path = run / "attribution.parquet"
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    if not path.is_file() or config.get("attribution", {}).get("by") != axis:
        return {}
    made = account(pq.read_table(path), pq.read_table(run / "pairs.parquet"), float(config["beta"]), axis)
    return of_account(made, value, counts["masked"] / max(counts["in_slice"], 1))


def of_account(made: Mapping[str, Any], value: str, gone: float) -> dict[str, dict[str, float]]:
    """The same from the tables of an account, for a share `gone` of the slice."""
    found: dict[str, dict[str, float]] = {
        name: {cell["slice"]: -gone * cell[name] for cell in made["cells"] if cell["train"] == value}
        for name in ACCOUNTED
    }
    if value in made["elsewhere"]:
        found["pushed"][OTHERS] = -gone * made["elsewhere"][value]["pushed"]
    return found


def from_likeness(likeness: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """The masked pairs' share of the training set times how alike (cosine) they are to each held-out slice."""
    return {name: -counts["masked"] / counts["train_pairs"] * alike for name, alike in likeness.items()}


def prediction_quality(confirmations: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How well each predictor ranked the truth over all cells (Spearman), beside the ceiling that seeds allow.

    Size predicts that a slice takes away its share of what was observed. The ceiling is the square root of the
    reliability of the mean over seeds (Spearman-Brown on the correlation between seeds). None under four cells.
    """
    cells = [
        {**cell, "size": -cell["observed"] * one["masked"] / one["train_pairs"], "of": one["slice"]}
        for one in confirmations
        for cell in one["cells"]
        if cell["slice"] not in (ALL, OTHERS)
    ]
    accounted = [cell for cell in cells if cell.get("pushed") is not None]
    cells = accounted if len(accounted) >= FEWEST_CELLS else cells  # all predictors on the same cells where that can be
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
    found = correlation(ranks(first), ranks(second))
    return None if found != found else found


def _ceiling(cells: Sequence[Mapping[str, Any]]) -> float | None:
    seeds = min(len(cell["by_seed"]) for cell in cells)
    if seeds < 2:
        return None
    table = np.array([cell["by_seed"][:seeds] for cell in cells])
    between = [_spearman(table[:, i], table[:, j]) for i in range(seeds) for j in range(i)]
    mean = float(np.mean([one for one in between if one is not None] or [0.0]))
    return float(np.sqrt(max(seeds * mean / (1 + (seeds - 1) * mean), 0.0))) if mean > 0 else 0.0
