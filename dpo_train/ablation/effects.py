"""What the retrainings changed, held-out slice by held-out slice, and what that makes of a suspicion."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpo_train.attribution.tables import FEWEST
from dpo_train.config import TrainError
from dpo_train.data.axes import ALL, label
from dpo_train.slices.margin_change import Movement, hits
from dpo_train.statistics import Bools, clustered_mean

FOLDER = "confirm"
OTHERS = "all others"  # held-out pairs outside the slice: those that a fix should help


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
    for name, members in held_out(first, axis, value).items():
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


def held_out(moved: Movement, axis: str, value: str) -> dict[str, Bools]:
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
