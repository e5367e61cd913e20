"""Verified pairs of near texts, remembered: what two texts share is a fact of the two, so it is worked out once, ever.

Signatures propose pairs at every refresh; only pairs never seen before are verified, and only their texts are read.
"""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from dpo_data.text import stamps

_ENDS = {"left": pl.String(), "right": pl.String()}


def recall(
    path: Path, proposed: pl.DataFrame, verify: Callable[[pl.DataFrame], pl.DataFrame], method: str
) -> pl.DataFrame:
    """The proposed pairs (`left`, `right`) with what `verify` adds to them, from `path` where they were seen before.

    Pairs that another `method` verified, or a file that cannot be read or has other columns, are verified again.
    """
    known = _read(path, method)
    if known is not None:
        fresh = proposed.join(known, on=["left", "right"], how="anti")
        if fresh.is_empty():
            return known.join(proposed, on=["left", "right"], how="semi").sort("left", "right")
        verified = verify(fresh)
        if verified.schema == known.schema:
            known = pl.concat([known, verified])
            stamps.write(known.sort("left", "right"), path, method)
            return known.join(proposed, on=["left", "right"], how="semi").sort("left", "right")
    verified = verify(proposed)
    stamps.write(verified.sort("left", "right"), path, method)
    return verified


def _read(path: Path, method: str) -> pl.DataFrame | None:
    """The remembered pairs; null where there are none that can be used."""
    if not stamps.made_by(path, method):
        return None
    try:
        known = pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    return known if {name: known.schema.get(name) for name in _ENDS} == _ENDS and known.width > len(_ENDS) else None
