"""Comparisons that hold a benchmark's own items, found by shared runs of eight words.

As Tulu 3 (2411.15124, 3.3) and Olmo 3 do it: an item is leaked when at least half of its words lie in 8-grams that one
comparison (prompt and responses) also has. Any file or folder serves as a benchmark: every string of every record is an
item. The surprise: an item shorter than eight words counts only where it is a whole prompt or response.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from pydantic import Field

from dpo_data.executor import Executor
from dpo_data.schema import DataError
from dpo_data.settings import Settings
from dpo_data.texts import blocks, near
from dpo_data.texts.words import tokens

COLUMNS = pl.Schema({"comparison_id": pl.String(), "benchmark_overlap": pl.Float64(), "benchmark_item": pl.String()})
_READABLE = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")


class ContaminationLimits(Settings):
    """Which benchmarks must not leak, and how much of an item is a leak."""

    benchmarks: tuple[str, ...] = ()  # files or folders
    words: int = Field(default=8, ge=3)
    min_share: float = Field(default=0.5, gt=0, le=1)


@dataclass(frozen=True)
class Benchmark:
    """Every run of `words` words of every item: `runs` (hash, item, start), sorted by hash, and each item's length."""

    runs: pl.DataFrame
    items: pl.DataFrame  # item, name, length
    words: int
    digest: str


@cache
def load(paths: tuple[str, ...], words: int) -> Benchmark:
    """Read benchmark files; `DataError` for one that is missing or of an unknown kind."""
    named = [(f"{path.name}:{number}", text) for path in _files(paths) for number, text in _strings(path)]
    texts = pl.Series([text for _, text in named], dtype=pl.String)
    spoken = tokens(texts).words()
    runs = near.shingles(spoken, words)
    counts = np.diff(runs.offsets)
    item = np.repeat(np.arange(len(named), dtype=np.uint32), counts)
    start = (np.arange(len(runs.values)) - np.repeat(runs.offsets[:-1], counts)).astype(np.uint32)
    digest = blake2b(runs.values.tobytes() + runs.offsets.tobytes() + bytes([words]), digest_size=8).hexdigest()
    return Benchmark(
        pl.DataFrame({"run": runs.values, "item": item, "start": start}).sort("run", "item", "start"),
        pl.DataFrame(
            {"name": [name for name, _ in named], "length": np.diff(spoken.offsets).astype(np.uint32)},
            schema={"name": pl.String, "length": pl.UInt32},
        ).with_row_index("item"),
        words,
        digest,
    )


def _files(paths: tuple[str, ...]) -> Iterator[Path]:
    for name in paths:
        path = Path(name)
        found = sorted(file for file in path.rglob("*") if file.suffix in _READABLE) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise DataError(f"contamination.benchmarks: {path} is no file, and no folder with {', '.join(_READABLE)}.")
        yield from found


def _strings(path: Path) -> Iterator[tuple[int, str]]:
    """(record number, text) of every string in every record."""
    for number, record in enumerate(_records(path), start=1):
        for text in _texts(record):
            yield number, text


def _records(path: Path) -> Iterator[Any]:
    try:
        if path.suffix in (".csv", ".tsv"):
            table = pl.read_csv(path, separator="\t" if path.suffix == ".tsv" else ",", infer_schema=False)
            yield from table.iter_rows(named=True)
        elif path.suffix == ".parquet":
            yield from pl.read_parquet(path).iter_rows(named=True)
        elif path.suffix == ".json":
            read = json.loads(path.read_text(encoding="utf-8"))
            yield from read if isinstance(read, list) else [read]
        elif path.suffix in (".jsonl", ".ndjson"):
            yield from (orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip())
        elif path.suffix == ".txt":
            yield from path.read_text(encoding="utf-8").splitlines()
        else:
            raise DataError(f"contamination.benchmarks: {path} is of an unknown kind; expected {', '.join(_READABLE)}.")
    except (ValueError, pl.exceptions.PolarsError) as problem:
        if isinstance(problem, DataError):
            raise
        raise DataError(f"contamination.benchmarks: {path} cannot be read as {path.suffix}: {problem}") from problem


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def measure(texts: pl.DataFrame, benchmark: Benchmark) -> pl.DataFrame:
    """`comparison_id, benchmark_overlap, benchmark_item` of a block: the item most of whose words the comparison holds.

    `texts`: comparison_id, prompt (as one text), response_a, response_b. No shared run is an overlap of 0.
    """
    parts = [near.shingles(tokens(texts[name]).words(), benchmark.words) for name in texts.columns[1:]]
    runs = near.join(*parts)
    row = np.repeat(np.arange(len(texts), dtype=np.uint32), np.diff(runs.offsets))
    known = benchmark.runs["run"].to_numpy()
    place = np.searchsorted(known, runs.values) if len(known) else np.zeros(len(row), np.int64)
    hit = (place < len(known)) & (known[np.minimum(place, len(known) - 1)] == runs.values) if len(known) else row < 0
    covered = (
        pl.DataFrame({"row": row[hit], "run": runs.values[hit]})
        .unique()
        .join(benchmark.runs, on="run")
        .with_columns(word=pl.int_ranges(pl.col("start"), pl.col("start") + benchmark.words, dtype=pl.UInt32))
        .explode("word")
        .join(benchmark.items, on="item")
        .filter(pl.col("word") < pl.col("length"))
        .group_by("row", "item", "name", "length")
        .agg(pl.col("word").n_unique())
        .with_columns(benchmark_overlap=pl.col("word") / pl.col("length"))
        .sort("row", "benchmark_overlap", "item", descending=[False, True, False])
        .unique("row", keep="first", maintain_order=True)
        .select("row", "benchmark_overlap", benchmark_item="name")
    )
    return (
        texts.select("comparison_id")
        .with_row_index("row")
        .join(covered, on="row", how="left", maintain_order="left")
        .select("comparison_id", pl.col("benchmark_overlap").fill_null(0.0), "benchmark_item")
    )


def batch_file(folder: Path, limits: ContaminationLimits) -> Path:
    """Where a batch keeps its overlaps with these benchmarks."""
    return folder / f"benchmarks-{load(limits.benchmarks, limits.words).digest}.parquet"


def measure_batch(folder: Path, limits: ContaminationLimits, prompt: pl.Expr, executor: Executor | None = None) -> None:
    """Write the overlaps of a batch beside it, once for each set of benchmarks; `prompt` makes one text of messages."""
    blocks.write(batch_file(folder, limits), partial(_measure_block, limits, prompt), COLUMNS, executor)


def _measure_block(limits: ContaminationLimits, prompt: pl.Expr, comparisons: pl.DataFrame) -> pl.DataFrame:
    texts = comparisons.select("comparison_id", "response_a", "response_b", prompt=prompt)
    return measure(texts, load(limits.benchmarks, limits.words))


def rules(limits: ContaminationLimits) -> dict[str, pl.Expr]:
    """A comparison that holds at least `min_share` of a benchmark item."""
    return {"contaminated": pl.col("benchmark_overlap") >= limits.min_share}
