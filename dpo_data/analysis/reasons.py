"""The reasons of a decided ledger, counted: alone, together, in order, with rows to look at.

A comparison carries all its reasons, so counts overlap; `funnel` and `reason_sets` add up to the dropped rows.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from dpo_data.ids import coin

Table = list[dict[str, Any]]
EXAMPLES = 20
"""Ids listed per reason, cluster or limit: enough to read in a sitting."""


def reasons(ledger: pl.DataFrame) -> Table:
    """One row a reason, most frequent first: rows, share of all comparisons, rows with no other reason, examples."""
    long = ledger.select("comparison_id", "reasons", alone=pl.col("reasons").list.len() == 1).explode("reasons")
    long = long.drop_nulls("reasons")
    counted = long.group_by(reason="reasons").agg(
        rows=pl.len(), sole_rows=pl.col("alone").sum(), ids=pl.col("comparison_id").sort()
    )
    table = []
    for row in counted.sort("rows", "reason", descending=[True, False]).to_dicts():
        ids = row.pop("ids")
        table.append({**row, "share": row["rows"] / ledger.height, "of": ledger.height, "examples": sample(ids)})
    return table


def reason_pairs(ledger: pl.DataFrame) -> Table:
    """How many rows carry both of two reasons (each pair of reasons once)."""
    many = ledger.filter(pl.col("reasons").list.len() > 1).select("comparison_id", reason="reasons").explode("reason")
    both = many.join(many.rename({"reason": "with"}), on="comparison_id").filter(pl.col("reason") < pl.col("with"))
    return (
        both.group_by("reason", "with")
        .agg(rows=pl.len())
        .sort("rows", "reason", "with", descending=[True, False, False])
        .to_dicts()
    )


def reason_sets(ledger: pl.DataFrame) -> Table:
    """How many rows carry exactly this set of reasons, most first, the first 50: from it follows any order of rules."""
    joined = ledger.filter(pl.col("reasons").list.len() > 0).select(pl.col("reasons").list.sort().list.join(" "))
    counted = joined.group_by("reasons").agg(rows=pl.len()).sort("rows", "reasons", descending=[True, False]).head(50)
    return counted.with_columns(pl.col("reasons").str.split(" ")).to_dicts()


def funnel(ledger: pl.DataFrame) -> Table:
    """The reasons in order of rows, each with the rows that it is the first to drop; closes on the kept rows."""
    remaining = ledger.select("reasons", "kept")
    table: Table = []
    order = [row["reason"] for row in reasons(ledger)]
    for reason in order:
        hit = pl.col("reasons").list.contains(reason)
        stays = remaining.filter(~hit)
        table.append({"reason": reason, "drops": remaining.height - stays.height, "left": stays.height})
        remaining = stays
    undecided = remaining.height - int(remaining["kept"].sum())
    if undecided:
        table.append({"reason": "nothing preferred", "drops": undecided, "left": remaining.height - undecided})
    return table


def sample(ids: Sequence[str]) -> list[str]:
    """At most EXAMPLES ids, chosen by their own coin, so that the same rows are shown from refresh to refresh."""
    return sorted(ids, key=lambda name: coin(name, "example"))[:EXAMPLES]
