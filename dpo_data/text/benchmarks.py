"""Benchmarks that must not leak: every string of every record of any file or folder is an item.

An item is named `file:record`. Its runs of words are what a comparison is searched for; its whole text is what a prompt
may say in other words.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from dpo_data.schema import DataError
from dpo_data.text import minhash
from dpo_data.text.token_hashes import tokens

_READABLE = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True)
class Benchmark:
    """Every run of `words` words of every item, sorted by hash, and the items themselves."""

    runs: pl.DataFrame  # run, item, start
    items: pl.DataFrame  # item, name, text, length (words)
    words: int
    digest: str


@cache
def load(paths: tuple[str, ...], words: int) -> Benchmark:
    """Read benchmark files; `DataError` for one that is missing or of an unknown kind."""
    named = [(f"{path.name}:{number}", text) for path in _files(paths) for number, text in _strings(path)]
    texts = pl.Series([text for _, text in named], dtype=pl.String)
    spoken = tokens(texts).words()
    runs = minhash.shingles(spoken, words)
    counts = np.diff(runs.offsets)
    item = np.repeat(np.arange(len(named), dtype=np.uint32), counts)
    start = (np.arange(len(runs.values)) - np.repeat(runs.offsets[:-1], counts)).astype(np.uint32)
    items = pl.DataFrame(
        {"name": [name for name, _ in named], "text": texts, "length": np.diff(spoken.offsets).astype(np.uint32)},
        schema={"name": pl.String, "text": pl.String, "length": pl.UInt32},
    ).with_row_index("item")
    digest = blake2b(runs.values.tobytes() + runs.offsets.tobytes() + bytes([words]), digest_size=8)
    digest.update("\x1e".join(part for pair in named for part in pair).encode("utf-8", "surrogatepass"))
    return Benchmark(
        pl.DataFrame({"run": runs.values, "item": item, "start": start}).sort("run", "item", "start"),
        items,
        words,
        digest.hexdigest(),
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
            table = pl.read_csv(path, separator="\t" if path.suffix == ".tsv" else ",", infer_schema=False, glob=False)
            yield from table.iter_rows(named=True)
        elif path.suffix == ".parquet":
            yield from pl.read_parquet(path, glob=False).iter_rows(named=True)
        elif path.suffix == ".json":
            read = json.loads(path.read_text(encoding="utf-8"))
            yield from read if isinstance(read, list) else [read]
        elif path.suffix in (".jsonl", ".ndjson"):
            yield from (orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip())
        elif path.suffix == ".txt":
            yield from path.read_text(encoding="utf-8").splitlines()
        else:
            raise DataError(f"contamination.benchmarks: {path} is of an unknown kind; expected {', '.join(_READABLE)}.")
    except (ValueError, RecursionError, pl.exceptions.PolarsError) as problem:
        if isinstance(problem, DataError):
            raise
        raise DataError(f"contamination.benchmarks: {path} cannot be read as {path.suffix}: {problem}") from problem


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:  # iterative: a record may be nested deeper than Python's stack
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict | list):
            waiting.extend(reversed(part.values() if isinstance(part, dict) else part))
