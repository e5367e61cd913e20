"""A table beside a batch, made block by block of its comparisons, wherever the executor has workers.

Each block is a file of its own until all are there, so a run that was killed goes on with the blocks it lacks, a
table of any size is put together in the memory of one block, and workers talk through files alone. The table is the
same for any executor and any number of workers, since a block knows nothing of the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_data.executor import Executor, Inline
from dpo_data.schema import DataError, check
from dpo_data.store.atomic import discard, replacing
from dpo_data.text import stamps

ROWS = 4096  # a block: about 10 MB of text
SOURCE = "comparisons.parquet"
Measure = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Block:
    """`rows` comparisons from row `start` of the file `source`, whose measures go to `part`."""

    source: Path
    start: int
    rows: int
    part: Path


def write(
    target: Path, measure: Measure, schema: pl.Schema, method: str, executor: Executor | None = None, rows: int = ROWS
) -> int:
    """Write `target`, beside its batch's comparisons, from `measure` of every block; the rows, 0 where it exists.

    A file with other columns or by another `method` is measured again. `measure` is a picklable function of a block of
    COMPARISONS that returns `schema`, same rows, same order.
    """
    if stamps.made_by(target, method) and pl.scan_parquet(target, glob=False).collect_schema() == schema:
        return 0
    source = target.with_name(SOURCE)
    if not source.exists():
        raise DataError(f"{target.parent} holds no {SOURCE}: expected a batch written by `dpo refresh`.")
    count = int(pq.read_metadata(source).num_rows)
    parts = target.with_name(f".{target.stem}-{blake2b(method.encode(), digest_size=8).hexdigest()}-{rows}")
    parts.mkdir(exist_ok=True)
    blocks = (
        Block(source.absolute(), start, rows, parts.absolute() / f"{start:012d}.parquet")
        for start in range(0, count, rows)
    )
    made = (executor or Inline()).map(partial(_make, measure, schema), blocks)
    plain = schema.to_frame().to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    stamped = plain.with_metadata(stamps.metadata(method))
    with (
        replacing(target) as partial_file,
        pq.ParquetWriter(partial_file, stamped, compression="zstd", write_statistics=False) as writer,
    ):
        for part in made:
            writer.write_table(pa.Table.from_batches(pq.read_table(part).to_batches()).cast(stamped))
    discard(parts)
    return count


def _make(measure: Measure, schema: pl.Schema, block: Block) -> Path:
    """Runs anywhere: it needs the block alone. A part that is there already is whole, and stays."""
    if not block.part.exists():
        rows = pl.scan_parquet(block.source, glob=False).slice(block.start, block.rows).collect()
        measured = check(measure(rows), schema, str(block.part))
        with replacing(block.part) as partial_file:  # Ray may try a job twice at once
            measured.write_parquet(partial_file, compression="lz4", statistics=False)
    return block.part
