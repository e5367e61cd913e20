"""Store the method version in Parquet metadata, so that stale tables are recomputed.

A measure has a method version in its module (`METHOD`), which is raised when the same text would be measured
differently. Without it, a code change that keeps the columns would silently leave every table of a store unchanged.
"""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_data.store.atomic import replacing

_KEY = b"dpo_data.method"


def metadata(method: str) -> dict[bytes, bytes]:
    """What a Parquet schema carries of the method."""
    return {_KEY: method.encode()}


def write(frame: pl.DataFrame, path: Path, method: str) -> None:
    """Write a table with the method that made it; whole under its name, or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        frame.write_parquet(partial, metadata={_KEY.decode(): method})


def made_by(path: Path, method: str) -> bool:
    """Whether `path` is there and this method made it; a table without a stamp, or without an end, is another's."""
    if not path.is_file():
        return False
    try:
        return (pq.read_metadata(path).metadata or {}).get(_KEY) == method.encode()
    except (pa.ArrowException, OSError):  # cut short or damaged: it is made again, as if it were not there
        return False
