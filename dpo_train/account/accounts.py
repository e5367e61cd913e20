"""attribution.parquet, and from it the tables "pushed" and "reallocated": training slice by held-out slice.

A column of "pushed" adds up to the movement observed in that held-out slice, up to the closure gap printed under it;
a column of "reallocated" adds up to about zero, since slices compete for the same steps. Neither says what a training
without the slice would give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpo_train.account.attribution import Attributed, cells, closure
from dpo_train.account.updates import EXTRA
from dpo_train.config import TrainError
from dpo_train.describe.axes import ALL, label
from dpo_train.describe.movement import metadata_of
from dpo_train.describe.statistics import benjamini_hochberg, p_value

OBSERVED = "observed"
FEWEST = 2  # accounted held-out pairs of a slice that gets a column; their number stands under it
TWIN = 0.5  # of a slice's own push on its held-out pairs: what another must reach to count as its twin
BOOKED = ("reallocated", "tracin")  # accounts that only training slices have
SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("account", pa.string()),  # a training slice, one of updates.EXTRA, or "observed"
        ("group", pa.int64()),  # hash group of the training prompts; -1 where there is none
        ("train_pairs", pa.int64()),  # of slice and group
        ("chosen", pa.float64()),  # change of the chosen log-probability, nats
        ("rejected", pa.float64()),
        *((f"{side}_{name}", pa.float64()) for name in BOOKED for side in ("chosen", "rejected")),
    ]
)


def tabulate(
    found: Attributed | None, names: Sequence[str], groups: int, sizes: np.ndarray, ids: Sequence[str]
) -> pa.Table:
    """Rows of `SCHEMA`, one a held-out pair and account; none where nothing was attributed.

    `sizes` (buckets,) counts the training pairs of each slice and hash group, slice by slice; `ids` (pairs,).
    """
    if found is None:
        return SCHEMA.empty_table()
    accounts = [(name, group, True) for name in names for group in range(groups)]
    accounts += [(extra, -1, False) for extra in EXTRA]
    rows = []
    for place, identity in enumerate(ids):
        for code, (name, group, booked) in enumerate(accounts):
            columns = ["chosen", "rejected"] + [field.name for field in list(SCHEMA)[6:]] * booked
            row: dict[str, Any] = {column: float(getattr(found, column)[place, code]) for column in columns}
            pairs = int(sizes[code]) if booked else 0
            rows.append({"pair_id": identity, "account": name, "group": group, "train_pairs": pairs, **row})
        observed = {"chosen": found.chosen_observed[place], "rejected": found.rejected_observed[place]}
        rows.append({"pair_id": identity, "account": OBSERVED, "group": -1, "train_pairs": 0, **observed})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def read(table: pa.Table) -> tuple[Attributed, list[str], int, np.ndarray, np.ndarray]:
    """(attributed, training slices, hash groups, sizes (buckets,), pair ids) of an attribution.parquet."""
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
    return found, names, groups, np.array([row["train_pairs"] for row in booked], dtype=float), ids


def account(table: pa.Table, pairs: pa.Table, beta: float, axis: str) -> dict[str, Any]:
    """Cells and columns for all held-out pairs and for the slices of `axis`, as plain JSON types.

    `columns`: slice, pairs, observed movement, closure gap, and what decay, rounding and unbooked gradients moved.
    `elsewhere`: what each training slice pushed the held-out pairs outside itself, with interval and p.
    `cells`: train, slice, pushed with interval, chosen and rejected part, reallocated, tracin, excess with adjusted p.
    """
    found, names, groups, sizes, ids = read(table)
    columns = metadata_of(pairs, ids)
    parts = {ALL: np.ones(len(ids), dtype=bool)}
    held_out = label(columns).get(axis)
    if held_out is not None:
        parts |= {level: held_out.codes == code for code, level in enumerate(held_out.levels)}
    parts = {name: members for name, members in parts.items() if members.sum() >= FEWEST}
    made: list[dict[str, Any]] = []
    heads: list[dict[str, Any]] = []
    for name, members in parts.items():
        rest = beta * (found.chosen - found.rejected)[members][:, len(sizes) :].mean(axis=0)
        observed = beta * (found.chosen_observed - found.rejected_observed)[members].mean()
        heads.append(
            {
                "slice": name,
                "pairs": int(members.sum()),
                "observed": float(observed),
                "closure": closure(found, members),
                "rest": float(rest.sum()),
            }
        )
        for train, cell in zip(names, cells(found, beta, sizes, members, groups), strict=True):
            made.append(
                {
                    "train": train,
                    "train_pairs": cell.pushed.pairs,
                    "slice": name,
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
            )
    adjusted = benjamini_hochberg(np.array([np.nan if one["p"] is None else one["p"] for one in made]))
    for one, value in zip(made, adjusted, strict=True):
        one["p_adjusted"] = _known(float(value))
    elsewhere = {}
    for k, name in enumerate(names):
        outside = np.ones(len(ids), dtype=bool)
        if held_out is not None and name in held_out.levels:
            outside = held_out.codes != held_out.levels.index(name)
        if outside.sum() >= FEWEST:
            cell = cells(found, beta, sizes, outside, groups)[k]
            elsewhere[name] = {
                "pushed": cell.pushed.value,
                "pushed_low": _known(cell.pushed.low),
                "pushed_high": _known(cell.pushed.high),
                "pairs": int(outside.sum()),
                "excess": cell.excess.value,
                "p": _known(p_value(cell.excess)),
            }
    return {
        "axis": axis,
        "train": names,
        "groups": groups,
        "columns": heads,
        "cells": made,
        "elsewhere": elsewhere,
    }


def cost(table: pa.Table, loop: float | None) -> dict[str, float] | None:
    """What the account took, in seconds by part, and its `share` of the training loop (seconds) without it."""
    known = (table.schema.metadata or {}).get(b"seconds")
    if known is None:
        return None
    parts: dict[str, float] = json.loads(known)
    total = sum(parts.values())
    rest = {} if loop is None or loop <= total else {"share": total / (loop - total)}
    return {**parts, "seconds": total, **rest}


def cost_in_words(made: Mapping[str, Any]) -> str:
    """One sentence for a person: what was accounted for, how well it closes, and what that cost."""
    head, spent = made["columns"][0], made["cost"]
    words = f"{head['pairs']} held-out pairs by {made['axis']}, closure gap {100 * head['closure']:.2f} %"
    if spent is None:
        return f"{words}; what it cost was not measured."
    share = f", {100 * spent['share']:.0f} % on top of the training loop without it" if "share" in spent else ""
    return (
        f"{words}; it took {spent['seconds']:.0f} s{share} (attributing {spent['attributing']:.0f} s, splitting steps "
        f"{spent['splitting']:.0f} s, booking gradients {spent['booking']:.0f} s)."
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
