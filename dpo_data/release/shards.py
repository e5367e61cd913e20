"""The Parquet files of a version: ledger, pairs and unpaired rows, in plain Arrow types.

Text is joined range by range of comparison ids, so that a million pairs never lie in memory at once; the
decision alone is held whole. Files are written by pyarrow with 32-bit lists and strings, because that is what
`datasets`, TRL and DuckDB read without a cast. Ids are hashes, so a sorted shard is also a
random sample of the set.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from dpo_data import schema
from dpo_data.release.unpaired import unpair
from dpo_data.schema import SLICE_COLUMNS, SPLITS, DataError
from dpo_data.settings import Settings

_CONVERTED = 10_000  # rows turned into Arrow at a time: 32-bit offsets hold 2 GB, so 200 kB a text on average
_SCANNED = 100_000  # rows of a row group in tables that are read by column; DuckDB and polars like them of this size

KEPT = (pl.col("reasons").list.len() == 0) & pl.col("preferred").is_not_null()
"""What is published as a pair: no reason against it, and a side is preferred."""


class ShardSettings(Settings):
    """How the files are cut. All of it is part of the version's id, since it changes the bytes."""

    rows_per_shard: int = Field(default=100_000, ge=1)
    """About 400 MB of text at 2 kB a response: under the 500 MB at which the Hub's own writer cuts a shard."""
    row_group_rows: int = Field(default=1_000, ge=1)
    """The writer batch of `datasets`: small enough for random access, the price is some compression."""
    compression_level: int = Field(default=3, ge=1, le=22)
    """zstd's own default."""
    unpaired: bool = True
    """Write the KTO shards too; they hold every kept response once more."""


def write_table(frame: pl.DataFrame, path: Path, settings: ShardSettings) -> None:
    """Write one table in plain types, in row groups wide enough for scans of single columns."""
    schema_of = _plain(frame.clear()).schema
    level = settings.compression_level
    with pq.ParquetWriter(path, schema_of, compression="zstd", compression_level=level) as writer:
        for part in frame.iter_slices(_SCANNED):
            writer.write_table(_plain(part).combine_chunks())  # one chunk, as in ShardWriter


def write_pairs(
    ledger: pl.DataFrame,
    comparisons: pl.LazyFrame,
    folder: Path,
    slices: tuple[str, ...],
    settings: ShardSettings,
    thumbs: pl.DataFrame | None = None,
) -> None:
    """Write pairs/ and unpaired/ for the kept rows of `ledger`; rows of `thumbs` follow the pairs' in unpaired/.

    `comparisons` has the columns of `schema.COMPARISONS`, `thumbs` those of `schema.UNPAIRED`. Raises `DataError`
    when a kept row has no text there.
    """
    rows = ledger.filter(KEPT).sort("comparison_id")
    thumbs = schema.empty(schema.UNPAIRED) if thumbs is None else thumbs
    counts, lone = (
        {split: table.filter(pl.col("split") == split).height for split in SPLITS} for table in (rows, thumbs)
    )
    unknown = rows.filter(~pl.col("split").is_in(SPLITS) | pl.col("split").is_null())
    if unknown.height:
        raise DataError(
            f"{unknown.height} kept rows have no split of {', '.join(SPLITS)} "
            f"(first: {unknown['comparison_id'][0]}). Assign splits before publishing."
        )
    pairs = {split: ShardWriter(folder / "pairs", split, n, settings) for split, n in counts.items()}
    halves = {
        split: ShardWriter(folder / "unpaired", split, 2 * n + lone[split], settings)
        for split, n in counts.items()
        if settings.unpaired
    }
    for frame in _with_text(rows, comparisons, slices, settings.rows_per_shard):
        for split in SPLITS:
            part = frame.filter(pl.col("split") == split)
            pairs[split].add(part)
            if halves:
                halves[split].add(unpair(part))
    for split, writer in halves.items():
        writer.add(thumbs.filter(pl.col("split") == split))
    for writer in (*pairs.values(), *halves.values()):
        writer.close()


def pair_columns(rows: pl.DataFrame, slices: tuple[str, ...]) -> pl.DataFrame:
    """Ledger rows joined with their text -> the wire format and its slice columns, one row per pair."""
    chosen_a = pl.col("preferred") == "a"

    def chosen(name: str) -> pl.Expr:
        return pl.when(chosen_a).then(pl.col(f"{name}_a")).otherwise(pl.col(f"{name}_b"))

    def rejected(name: str) -> pl.Expr:
        return pl.when(chosen_a).then(pl.col(f"{name}_b")).otherwise(pl.col(f"{name}_a"))

    def gap(name: str) -> pl.Expr:
        return chosen(name).cast(pl.Int64) - rejected(name).cast(pl.Int64)

    return rows.select(
        pl.col("comparison_id").alias("pair_id"),
        "prompt",
        _answer(chosen("response")).alias("chosen"),
        _answer(rejected("response")).alias("rejected"),
        "weight",
        "confidence",
        "p_equal",
        chosen("votes").alias("votes_chosen"),
        rejected("votes").alias("votes_rejected"),
        "source",
        "split",
        "agreement",
        "similarity",
        "edit_ratio",
        gap("tokens").alias("length_gap_tokens"),
        gap("chars").alias("length_gap_chars"),
        chosen("tokens").alias("tokens_chosen"),
        rejected("tokens").alias("tokens_rejected"),
        "turns",
        "language",
        "prompt_group",
        "annotators",
        "votes",
        "in_cycle",
        "x",
        "y",
        *slices,
    )


class ShardWriter:
    """Writes the rows of one split, in the order given, to `<split>-0000i-of-0000N.parquet`.

    N has to be known before the first row, hence `total`. A split without rows writes no file.
    """

    def __init__(self, folder: Path, split: str, total: int, settings: ShardSettings) -> None:
        self.folder, self.split, self.total, self.settings = folder, split, total, settings
        self.shards = -(-total // settings.rows_per_shard)
        self.written = 0
        self.open: pq.ParquetWriter | None = None
        self.waiting: list[pa.Table] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Take further rows; whole row groups are written at once, the rest waits for more."""
        for part in rows.iter_slices(_CONVERTED):
            self.waiting.append(_plain(part))
            self._write(last=False)

    def close(self) -> None:
        """Write what waits. Raises `DataError` if another number of rows came than was announced."""
        self._write(last=True)
        if self.open is not None:
            self.open.close()
        if self.written != self.total:
            raise DataError(f"{self.folder.name}/{self.split}: {self.written} rows written, {self.total} expected.")

    def _write(self, last: bool) -> None:
        if not self.waiting:
            return
        table = pa.concat_tables(self.waiting)
        while table.num_rows >= (size := self._next_group()) or (last and table.num_rows):
            self._write_group(table.slice(0, size))
            table = table.slice(size)
        self.waiting = [table] if table.num_rows else []

    def _next_group(self) -> int:
        room = self.settings.rows_per_shard - self.written % self.settings.rows_per_shard
        return min(self.settings.row_group_rows, room)

    def _write_group(self, group: pa.Table) -> None:
        if self.open is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{self.split}-{self.written // self.settings.rows_per_shard:05d}-of-{self.shards:05d}.parquet"
            self.open = pq.ParquetWriter(
                self.folder / name,
                group.schema,
                compression="zstd",
                compression_level=self.settings.compression_level,
            )
        # In one chunk: the writer cuts pages where chunks end, and how polars chunks rows differs from run to run.
        self.open.write_table(group.combine_chunks(), row_group_size=group.num_rows)
        self.written += group.num_rows
        if self.written % self.settings.rows_per_shard == 0:
            self.open.close()
            self.open = None


def _with_text(
    rows: pl.DataFrame, comparisons: pl.LazyFrame, slices: tuple[str, ...], size: int
) -> Iterator[pl.DataFrame]:
    """Sorted kept rows joined with their text, `size` rows at a time."""
    texts = comparisons.select("comparison_id", "prompt", "response_a", "response_b")
    for start in range(0, rows.height, size):
        part = rows.slice(start, size)
        first, last = part["comparison_id"][0], part["comparison_id"][-1]
        near = texts.filter(pl.col("comparison_id").is_between(pl.lit(first), pl.lit(last)))
        joined = near.join(part.lazy(), on="comparison_id", how="inner").sort("comparison_id").collect()
        if joined.height != part.height:
            lost = part.join(joined.select("comparison_id"), on="comparison_id", how="anti")
            raise DataError(
                f"{part.height - joined.height} kept rows of the ledger do not match one text each in the store's "
                f"batches (first without text: {lost['comparison_id'].head(1).to_list()}). "
                "Measure the store again before publishing."
            )
        frame = pair_columns(joined, slices)
        yield schema.check(frame, pl.Schema({**schema.PAIRS, **SLICE_COLUMNS}), "pairs")


def _answer(text: pl.Expr) -> pl.Expr:
    return pl.concat_list(pl.struct(pl.lit("assistant").alias("role"), text.alias("content")))


def _plain(frame: pl.DataFrame) -> pa.Table:
    """The frame as an Arrow table with 32-bit lists and strings."""
    table: pa.Table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.cast(pa.schema([pa.field(field.name, _plain_type(field.type)) for field in table.schema]))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    simple: Mapping[pa.DataType, pa.DataType] = {
        pa.large_string(): pa.string(),
        pa.large_binary(): pa.binary(),
    }
    if pa.types.is_large_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain_type(field.type)) for field in kind])
    return simple.get(kind, kind)
