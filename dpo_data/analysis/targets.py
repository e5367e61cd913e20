"""Slices against their targets: how many pairs each should have, how many are kept, and what stands in the way.

Targets are wishes, not rules: nothing is dropped or kept for them. A value that a target names and that
no comparison has is a row too, with nothing kept.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

Table = list[dict[str, Any]]
_REASONS = 3
"""Reasons named per slice: the first ones cost most."""


def against(ledger: pl.DataFrame, targets: Mapping[str, Mapping[str, int]]) -> Table:
    """One row a target, the shortest first; `ledger` is decided and has `kept`.

    `slice`, `value`, `target` (kept pairs wanted), `kept`, `comparisons`, `short` (0: reached) and `dropped_for`, the
    commonest reasons of what the slice lost, as reason and rows.
    """
    table = []
    for name, wanted in targets.items():
        for value, target in wanted.items():
            inside = ledger.filter(pl.col(name).cast(pl.String) == value)
            kept = int(inside["kept"].sum())
            table.append(
                {
                    "slice": name,
                    "value": value,
                    "target": target,
                    "kept": kept,
                    "comparisons": inside.height,
                    "short": max(0, target - kept),
                    "dropped_for": _reasons(inside),
                }
            )
    return sorted(table, key=lambda row: (-row["short"], row["slice"], row["value"]))


def _reasons(inside: pl.DataFrame) -> Table:
    counted = inside.select(reason="reasons").explode("reason").drop_nulls().group_by("reason").agg(rows=pl.len())
    return counted.sort("rows", "reason", descending=[True, False]).head(_REASONS).to_dicts()
