"""What a Prefect run shows of a version: tables of counts and a link to the audit, never a text of the data.

Names in them are the recipe's own (sources, targets) or the program's (reasons, splits). Annotators and values of
slices come with the data, so they are counted here and named only in the audit.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpo_data.audit.wording import reason_query

Rows = list[dict[str, Any]]
Stats = Mapping[str, Any]


class Table(NamedTuple):
    """Rows under a key, which is what Prefect follows from run to run."""

    key: str
    description: str
    rows: Rows


def of(version: str, stats: Stats) -> list[Table]:
    """The tables of a version; one that would have no rows is left out."""
    tables = [
        Table("kept", f"What version {version} kept, by source", kept(stats)),
        Table("reasons", f"Why version {version} dropped comparisons, and the line that lists them", reasons(stats)),
        Table("length-bias", f"How often the chosen response is longer, version {version}", length_bias(stats)),
        Table("splits", f"Pairs and prompt groups of each split, version {version}", list(stats["splits"])),
        Table("annotators", f"Annotators of version {version}; the audit names them", [annotators(stats)]),
        Table("targets", f"Slices of version {version} against their targets", targets(stats)),
        Table("changes", f"What changed with version {version}", changes(stats)),
    ]
    return [table for table in tables if table.rows]


def kept(stats: Stats) -> Rows:
    """One row per source."""
    return _chosen(stats["sources"], "source", "comparisons", "kept", "votes")


def reasons(stats: Stats) -> Rows:
    """One row a reason; `sole_rows` have no other."""
    rows = _chosen(stats["reasons"], "reason", "rows", "of", "sole_rows")
    return [{**row, "listed by": reason_query(row["reason"])} for row in rows]


def length_bias(stats: Stats) -> Rows:
    """Shares with their interval and n, over all rows, before and after."""
    return [
        {"when": when, **row}
        for when in ("before", "after")
        for row in _chosen(stats["length_bias"][when][:1], "unequal", "p_longer", "p_low", "p_high", "unit")
    ]


def annotators(stats: Stats) -> dict[str, Any]:
    """How many there are, and how many are flagged."""
    return {name: stats["annotators"][name] for name in ("named", "flagged")}


def targets(stats: Stats) -> Rows:
    """One row a target."""
    return _chosen(stats["targets"], "slice", "value", "target", "kept", "short")


def changes(stats: Stats) -> Rows:
    """Counts against the version before; none in the first version of a store."""
    names = ("old", "new_comparisons", "entered", "left", "flipped", "re_split", "kept_before", "kept")
    return _chosen([stats["changes"]] if stats["changes"] else [], *names)


def _chosen(rows: Rows, *names: str) -> Rows:
    return [{name: row[name] for name in names} for row in rows]
