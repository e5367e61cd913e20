"""The slice table as a terminal shows it: one line a slice, one block a split, every number with its n."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpo_train.attribution.tables import cost_in_words
from dpo_train.data.axes import ALL, TOO_SMALL
from dpo_train.report.headline import headline
from dpo_train.report.wording import number, percent

_HEAD = (
    "slice",
    "prompts",
    "pairs",
    "movement  [95 %]",
    "right",
    "chosen",
    "rejected",
    "displaced",
    "share",
    "vs rest",
)


def _cells(row: dict[str, Any]) -> list[str]:
    name = "all pairs" if row["axis"] == ALL else f"{row['axis']} = {row['slice']}"
    counts = [name if len(name) <= 44 else name[:43] + "…", str(row["prompts"]), str(row["pairs"])]
    if row["status"] == TOO_SMALL:
        return [*counts, TOO_SMALL, *[""] * 6]
    bounds = "n/a" if row["movement_low"] is None else f"{number(row['movement_low'])}, {number(row['movement_high'])}"
    mark = "*" if row["p_adjusted"] is not None and row["p_adjusted"] <= 0.10 else " "
    return [
        *counts,
        f"{number(row['movement'])}  [{bounds}]",
        percent(row["accuracy"]),
        number(row["chosen_reward"]),
        number(row["rejected_reward"]),
        percent(row["displaced"]),
        percent(row["share"]),
        f"{number(row['contrast'])}{mark}" if row["contrast"] is not None else "",
    ]


def _block(rows: list[dict[str, Any]]) -> list[str]:
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(_HEAD))]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in cells
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def render(table: pa.Table, known: Mapping[str, Any] | None = None) -> str:
    """The table of `slices.describe` as text: one block of lines for each split, with its headline.

    `known` is the headline of the first split where more is known than the table holds (account, retrainings).
    """
    rows = table.to_pylist()
    lines: list[str] = []
    for split in dict.fromkeys(row["split"] for row in rows):
        here = [row for row in rows if row["split"] == split]
        said = known if known is not None and not lines else headline(here)
        lines += [f"Margins by slice, split {split}, step {here[0]['from_step']} to {here[0]['to_step']}", ""]
        words = [said["total"], said["fix"], *said["points"], said["sure"], said["also"]]
        lines += [sentence for sentence in words if sentence]
        lines += ["", *_block(here), ""]
    if not rows:
        return str(headline(())["total"])
    lines.append(
        "Movement: mean change of the margin (β · nats), interval clustered by prompt. right: margin > 0, ties half. "
        "displaced: chosen grew less likely though the margin grew. vs rest *: stands among all slices compared "
        "(Benjamini–Hochberg, q = .10)."
    )
    return "\n".join(lines)


def of_run(run: Path) -> str:
    """The table of a run whose report is written."""
    numbers = json.loads((run / "report.json").read_text(encoding="utf-8"))
    words = render(pq.read_table(run / "slices.parquet"), numbers["headline"])
    return f"{words}\nAccount: {cost_in_words(numbers['account'])}" if numbers.get("account") else words
