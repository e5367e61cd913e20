"""Small vote tables for tests, written as one vote a line."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from dpo_data.schema import VOTES


def votes(rows: Iterable[tuple[str, str | None, str]], **columns: Any) -> pl.DataFrame:
    """Votes from (comparison, annotator, choice); `columns` set a whole column to one value or a list of values."""
    text = dict.fromkeys(("comparison_id", "annotator", "choice"), pl.String)
    frame = pl.DataFrame(list(rows), text, orient="row")
    values = {"source": "here", "annotator_kind": "human", "origin": "file:1"} | columns
    given = [pl.Series(k, v) if isinstance(v, list) else pl.lit(v).alias(k) for k, v in values.items()]
    frame = frame.with_columns(given)
    empty = [pl.lit(None, kind).alias(name) for name, kind in VOTES.items() if name not in frame.columns]
    extra = [name for name in frame.columns if name not in VOTES]
    return frame.with_columns(empty).select(*(pl.col(n).cast(k) for n, k in VOTES.items()), *extra)


def swapped(frame: pl.DataFrame) -> pl.DataFrame:
    """The same votes with the sides a and b exchanged everywhere."""
    other = {"a": "b", "b": "a", "tie": "tie"}
    return frame.with_columns(pl.col("choice", "shown_first").replace(other))
