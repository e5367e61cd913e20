"""Opposite thumbs on one prompt are a comparison: every thumb up with every thumb down, one vote each.

Thumbs are paired over the whole batch, wherever they stood. A prompt that very many people rated
would give the product of its thumbs, so beyond `MAX_PAIRS` every thumb up meets its share of the thumbs down, in an
order that depends on the texts alone; what meets nothing stays a thumb.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.reading.records import Vote

MAX_PAIRS = 10_000  # comparisons of one prompt, as many as 100 thumbs up and 100 down give
Row = dict[str, Any]


def pairs(paths: Sequence[Path]) -> Iterator[tuple[Row, Row]]:
    """(up, down) rows of the part files in `paths` that stand on one prompt and differ in their completion."""
    if not paths:
        return
    keys = pl.concat([pl.read_parquet(path, glob=False, columns=["prompt_hash", "label"]) for path in paths])
    both = keys.group_by("prompt_hash").agg(pl.col("label").n_unique()).filter(pl.col("label") == 2)
    frames = [pl.read_parquet(path, glob=False).join(both, on="prompt_hash", how="semi") for path in paths]
    rated = pl.concat(frames).sort("prompt_hash", "completion_hash", "file", "record")
    for _, group in rated.group_by("prompt_hash", maintain_order=True):
        rows = group.to_dicts()
        ups, downs = [row for row in rows if row["label"]], [row for row in rows if not row["label"]]
        for up, down in _meetings(ups, downs):
            if up["completion_hash"] != down["completion_hash"]:
                yield up, down


def _meetings(ups: list[Row], downs: list[Row]) -> Iterable[tuple[Row, Row]]:
    if len(ups) * len(downs) <= MAX_PAIRS:
        return product(ups, downs)
    share = max(1, MAX_PAIRS // len(ups))
    return ((up, downs[(index + step) % len(downs)]) for index, up in enumerate(ups) for step in range(share))


def judgement(up: Row, down: Row) -> Vote:
    """The vote of one pair: the completion with the thumb up wins.

    The annotator is named where one person gave both thumbs; the time is the later one's.
    """
    facts = [json.loads(row["attributes"]) for row in (up, down)]
    shared = {key: value for key, value in facts[0].items() if facts[1].get(key) == value}
    own = [{key: value for key, value in one.items() if key not in shared} for one in facts]
    times = [row["at"] for row in (up, down) if row["at"] is not None]
    same_kind = up["annotator_kind"] == down["annotator_kind"]
    return Vote(
        up["prompt"],
        up["completion"],
        down["completion"],
        "first",
        annotator=up["annotator"] if up["annotator"] == down["annotator"] else None,
        annotator_kind=up["annotator_kind"] if same_kind else "unknown",
        at=max(times, default=None),
        attributes=shared,
        of_first=own[0],
        of_second=own[1],
        records=(up["record"], down["record"]),
    )


def origin(up: Row, down: Row) -> str:
    """file:record,record, or both origins where the thumbs stood in different files."""
    if up["file"] == down["file"]:
        return f"{up['origin']},{down['record']}"
    return f"{up['origin']};{down['origin']}"
