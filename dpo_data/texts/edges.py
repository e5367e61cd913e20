"""Verified pairs of near texts, remembered: what two texts share is a fact of the two, so it is worked out once, ever.

Signatures propose pairs at every refresh; only pairs never seen before are verified, and only their texts are read.
"""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from dpo_data.texts import stamps


def recall(
    path: Path, proposed: pl.DataFrame, verify: Callable[[pl.DataFrame], pl.DataFrame], method: str
) -> pl.DataFrame:
    """The proposed pairs (`left`, `right`) with what `verify` adds to them, from `path` where they were seen before.

    Pairs that another `method` verified are verified anew.
    """
    if not stamps.made_by(path, method):
        found = verify(proposed)
        stamps.write(found.sort("left", "right"), path, method)
        return found
    known = pl.read_parquet(path)
    fresh = proposed.join(known, on=["left", "right"], how="anti")
    if len(fresh):
        known = pl.concat([known, verify(fresh).select(known.columns)])
        stamps.write(known.sort("left", "right"), path, method)
    return known.join(proposed, on=["left", "right"], how="semi").sort("left", "right")
