"""Which method made a table: written into the Parquet file itself, so that another method's table is made anew.

A measure has a method version beside its code (`METHOD`), raised whenever the same text would be measured otherwise.
Without it a change of code that keeps the columns would leave every table of the store as it was, silently.
"""

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

_KEY = b"dpo_data.method"


def metadata(method: str) -> dict[bytes, bytes]:
    """What a Parquet schema carries of the method."""
    return {_KEY: method.encode()}


def write(frame: pl.DataFrame, path: Path, method: str) -> None:
    """Write a table with the method that made it; whole under its name, or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    frame.write_parquet(partial, metadata={_KEY.decode(): method})
    partial.replace(path)


def made_by(path: Path, method: str) -> bool:
    """Whether `path` is there and this method made it; a table without a stamp is another method's."""
    if not path.exists():
        return False
    return (pq.read_metadata(path).metadata or {}).get(_KEY) == method.encode()
