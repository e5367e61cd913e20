"""Verified pairs of near texts, remembered: what two texts share is a fact of the two, so it is worked out once, ever.

Signatures propose pairs at every refresh; only pairs never seen before are verified, and only their texts are read.
"""

from collections.abc import Callable
from pathlib import Path

import polars as pl


def recall(path: Path, proposed: pl.DataFrame, verify: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """The proposed pairs (`left`, `right`) with what `verify` adds to them, from `path` where they were seen before."""
    if not path.exists():
        found = verify(proposed)
        _write(path, found)
        return found
    known = pl.read_parquet(path)
    fresh = proposed.join(known, on=["left", "right"], how="anti")
    if len(fresh):
        known = pl.concat([known, verify(fresh).select(known.columns)])
        _write(path, known)
    return known.join(proposed, on=["left", "right"], how="semi").sort("left", "right")


def _write(path: Path, edges: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    edges.sort("left", "right").write_parquet(partial)
    partial.replace(path)
