"""attribution.parquet, and from it the tables "pushed" and "reallocated": training slice by held-out slice.

A column of "pushed" adds up to the movement observed in that held-out slice, up to the closure gap printed under it;
a column of "reallocated" adds up to about zero, since slices compete for the same steps. Neither says what a training
without the slice would give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dpo_train.attribution.path_integral import Attributed, Cell, cells, closure
from dpo_train.attribution.sampling_error import order, with_sampling
from dpo_train.attribution.update_ledger import EXTRA
from dpo_train.config import TrainError
from dpo_train.data.axes import ALL, label
from dpo_train.slices.margin_change import metadata_of
from dpo_train.statistics import Floats, benjamini_hochberg, p_value

OBSERVED = "observed"
FEWEST = 2  # accounted held-out pairs of a slice that gets a column; their number stands under it
TWIN = 0.5  # of a slice's own push on its held-out pairs: what another must reach to count as its twin
BOOKED = ("reallocated", "tracin")  # accounts that only training slices have
SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("stands_for", pa.float64()),  # held-out pairs: only some of each slice are looked at
        ("account", pa.string()),  # a training slice, one of updates.EXTRA, or "observed"
        ("group", pa.int64()),  # hash group of the training prompts; -1 where there is none
        ("train_pairs", pa.int64()),  # of slice and group
        ("chosen", pa.float64()),  # change of the chosen log-probability, nats
        ("rejected", pa.float64()),
        *((f"{side}_{name}", pa.float64()) for name in BOOKED for side in ("chosen", "rejected")),
    ]
)


def tabulate(
    found: Attributed | None,
    names: Sequence[str],
    groups: int,
    sizes: np.ndarray,
    ids: Sequence[str],
    stands_for: Sequence[float] | Floats,
) -> pa.Table:
    """Rows of `SCHEMA`, one a held-out pair and account; none where nothing was attributed.

    `sizes` (buckets,) counts the training pairs of each slice and hash group, slice by slice; `ids` and `stands_for`
    (pairs,) are of the held-out pairs looked at.
    """
    if found is None:
        return SCHEMA.empty_table()
    accounts = [(name, group, True) for name in names for group in range(groups)]
    accounts += [(extra, -1, False) for extra in EXTRA]
    rows = []
    for place, (identity, weight) in enumerate(zip(ids, stands_for, strict=True)):
        pair = {"pair_id": identity, "stands_for": float(weight)}
        for code, (name, group, booked) in enumerate(accounts):
            columns = ["chosen", "rejected"] + [field.name for field in list(SCHEMA)[7:]] * booked
            row: dict[str, Any] = {column: float(getattr(found, column)[place, code]) for column in columns}
            pairs = int(sizes[code]) if booked else 0
            rows.append({**pair, "account": name, "group": group, "train_pairs": pairs, **row})
        observed = {"chosen": found.chosen_observed[place], "rejected": found.rejected_observed[place]}
        rows.append({**pair, "account": OBSERVED, "group": -1, "train_pairs": 0, **observed})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


class Read(NamedTuple):
    """What an attribution.parquet holds; the arguments of `tabulate`."""

    found: Attributed
    names: list[str]
    groups: int
    sizes: Floats
    ids: np.ndarray
    stands_for: Floats


def read(table: pa.Table) -> Read:
    """The account of an attribution.parquet with rows; raises `TrainError` where an older version wrote it."""
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise TrainError(
            f"attribution.parquet lacks {', '.join(missing)}: an older version of this program wrote it. Remove the "
            "file to report the run without an account, or train again."
        )
    rows = table.to_pylist()
    ids = np.array(list(dict.fromkeys(row["pair_id"] for row in rows)), dtype=object)
    first = [row for row in rows if row["pair_id"] == ids[0] and row["account"] != OBSERVED]
    booked = [row for row in first if row["group"] >= 0]
    names = list(dict.fromkeys(row["account"] for row in booked))
    groups = len(booked) // len(names)

    def matrix(column: str, only_booked: bool) -> np.ndarray:
        width = len(booked) if only_booked else len(first)
        values = [row[column] for row in rows if row["account"] != OBSERVED and (row["group"] >= 0 or not only_booked)]
        return np.array(values, dtype=float).reshape(len(ids), width)

    observed = [row for row in rows if row["account"] == OBSERVED]
    found = Attributed(
        matrix("chosen", False),
        matrix("rejected", False),
        matrix("chosen_reallocated", True),
        matrix("rejected_reallocated", True),
        matrix("chosen_tracin", True),
        matrix("rejected_tracin", True),
        np.array([row["chosen"] for row in observed]),
        np.array([row["rejected"] for row in observed]),
    )
    sizes, stands_for = (
        np.array([row[name] for row in of], dtype=float)
        for name, of in (("train_pairs", booked), ("stands_for", observed))
    )
    return Read(found, names, groups, sizes, ids, stands_for)


def account(table: pa.Table, pairs: pa.Table, beta: float, axis: str) -> dict[str, Any]:
    """Cells and columns for all held-out pairs and for the slices of `axis`, as plain JSON types.

    `columns`: slice, pairs looked at and how many they stand for, observed movement, closure gap, and what decay,
    rounding and unbooked gradients moved.
    `elsewhere`: what each training slice pushed the held-out pairs outside itself, with interval, p, and `direction`
    (what the interval says of its sign, if anything).
    `cells`: train, slice, pushed with interval, chosen and rejected part, reallocated, tracin, excess with adjusted p.
    `order`: how well the order of the columns is known (sampling.order).
    Means are over the run's held-out pairs, of which those looked at are a sample; intervals hold that and the training
    side's hash groups; p is of the training side, given the pairs looked at.
    """
    known = read(table)
    found, slices = known.found, len(known.names)
    held_out = label(metadata_of(pairs, known.ids)).get(axis)
    strata = held_out.codes if held_out is not None else np.zeros(len(known.ids), dtype=np.intp)
    by_slice = beta * (found.chosen - found.rejected)[:, : len(known.sizes)]
    by_slice = by_slice.reshape(len(known.ids), slices, known.groups).sum(axis=2)

    def column(weights: Floats) -> list[Cell]:
        """One cell a training slice; the intervals of pushes with the error of the draw."""
        made = cells(found, beta, known.sizes, weights, known.groups)
        return [
            cell._replace(pushed=with_sampling(cell.pushed, values, weights, strata))
            for cell, values in zip(made, by_slice.T, strict=True)
        ]

    parts = {ALL: known.stands_for}
    if held_out is not None:
        parts |= {level: known.stands_for * (strata == code) for code, level in enumerate(held_out.levels)}
    parts = {name: weights for name, weights in parts.items() if (weights > 0).sum() >= FEWEST}
    made = [
        {"train": train, "train_pairs": cell.pushed.pairs, "slice": name, **_numbers(cell)}
        for name, weights in parts.items()
        for train, cell in zip(known.names, column(weights), strict=True)
    ]
    adjusted = benjamini_hochberg(np.array([np.nan if one["p"] is None else one["p"] for one in made]))
    for one, value in zip(made, adjusted, strict=True):
        one["p_adjusted"] = _known(float(value))
    elsewhere = {}
    for k, name in enumerate(known.names):
        outside = known.stands_for.copy()
        if held_out is not None and name in held_out.levels:
            outside[strata == held_out.levels.index(name)] = 0
        if (outside > 0).sum() >= FEWEST:
            numbers = _numbers(column(outside)[k])
            p_adjusted = None if numbers["p"] is None else min(numbers["p"] * slices, 1.0)  # Bonferroni
            told = {"direction": direction(numbers), "p_adjusted": p_adjusted}
            elsewhere[name] = {**numbers, **_counted(outside), **told}
    return {
        "axis": axis,
        "train": known.names,
        "groups": known.groups,
        "columns": [
            {"slice": name, **_counted(weights), **_sums(known, beta, weights)} for name, weights in parts.items()
        ],
        "cells": made,
        "elsewhere": elsewhere,
        "order": order(by_slice, known.stands_for, strata),
    }


def direction(cell: Mapping[str, Any]) -> str | None:
    """Whether a push went "up" or "down" where its interval tells; None where that covers 0 or is not known."""
    if cell["pushed_low"] is None:
        return None
    return "up" if cell["pushed_low"] > 0 else "down" if cell["pushed_high"] < 0 else None


def _numbers(cell: Cell) -> dict[str, Any]:
    return {
        "pushed": cell.pushed.value,
        "pushed_low": _known(cell.pushed.low),
        "pushed_high": _known(cell.pushed.high),
        "chosen": cell.chosen,
        "rejected": cell.rejected,
        "reallocated": cell.reallocated.value,
        "tracin": cell.tracin,
        "excess": cell.excess.value,
        "p": _known(p_value(cell.excess)),
    }


def _counted(weights: Floats) -> dict[str, int]:
    """How many held-out pairs were looked at, and how many they stand for."""
    return {"pairs": int((weights > 0).sum()), "of": round(float(weights.sum()))}


def _sums(known: Read, beta: float, weights: Floats) -> dict[str, float]:
    """What stands under a column."""
    found, shares = known.found, beta * weights / weights.sum()
    return {
        "observed": float(shares @ (found.chosen_observed - found.rejected_observed)),
        "closure": closure(found, weights),
        "rest": float((shares @ (found.chosen - found.rejected))[len(known.sizes) :].sum()),
    }


def cost(table: pa.Table, loop: float | None) -> dict[str, float] | None:
    """What the account took: `chords` and `gradients` (points on them at which every pair looked at was taken a
    gradient of), seconds by part, and its `share` of the training loop (seconds) without it.
    """
    known = {name.decode(): json.loads(value) for name, value in (table.schema.metadata or {}).items()}
    if "seconds" not in known:
        return None
    parts: dict[str, float] = known["seconds"]
    total = sum(parts.values())
    rest = {} if loop is None or loop <= total else {"share": total / (loop - total)}
    return {**parts, "seconds": total, "chords": known["chords"], "gradients": known["gradients"], **rest}


def cost_in_words(made: Mapping[str, Any]) -> str:
    """One sentence for a person: what was accounted for, how well it closes, and what that cost."""
    head, spent = made["columns"][0], made["cost"]
    looked = f"{head['pairs']} of {head['of']} held-out pairs by {made['axis']}"
    words = f"{looked}, closure gap {100 * head['closure']:.2f} %"
    if spent is None:
        return f"{words}; what it cost was not measured."
    share = f", {100 * spent['share']:.0f} % on top of the training loop without it" if "share" in spent else ""
    way = f"{spent['chords']} chord{'s' if spent['chords'] != 1 else ''}, {spent['gradients']} gradients a pair"
    return (
        f"{words}, {way}; it took {spent['seconds']:.0f} s{share} (attributing {spent['attributing']:.0f} s, splitting "
        f"steps {spent['splitting']:.0f} s, booking gradients {spent['booking']:.0f} s)."
    )


def redundant(made: dict[str, Any] | None, confirmations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Slices that another could stand in for: it pushes their own held-out pairs as they do, and they are not missed.

    Two things must hold on the held-out pairs of the slice itself. Its twin, pair for pair of training, pushed them at
    least half as much as the slice did; and a retraining without the slice took away less, with its interval, than the
    push had said. The second alone means little, since pushes are larger than what retrainings take away.
    """
    if made is None:
        return []
    pushed = {(cell["train"], cell["slice"]): cell for cell in made["cells"]}
    found = []
    for one in confirmations:
        name = one["slice"]
        cell = next((cell for cell in one["cells"] if cell["slice"] == name), None)
        own = pushed.get((name, name))
        if one["axis"] != made["axis"] or one["keep"] or cell is None or own is None or cell["change_low"] is None:
            continue
        rates = {
            other: pushed[other, name]["pushed"] / max(pushed[other, name]["train_pairs"], 1) for other in made["train"]
        }
        mine = rates.pop(name)
        twin = max(rates, key=lambda other: (rates[other], other), default=None)
        if twin is not None and mine > 0 and rates[twin] >= TWIN * mine and cell["change_low"] > -own["pushed"]:
            found.append({"slice": name, "said": -own["pushed"], "missed": cell["change"], "twin": twin})
    return found


def _known(value: float) -> float | None:
    return None if value != value else value
