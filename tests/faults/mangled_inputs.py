"""Mangled raw files: fields, records and companions of every format, bytes of every kind of file, and size bombs."""

import gzip
import io
import json
import random
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from result import Result

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers import mangling

from dpo_data.formats import READERS

FIELD_TRIALS = 60  # for each format
BYTE_TRIALS = 200  # for each kind of file
RECORDS = [
    {
        "prompt": f"why {n} \u00e9",
        "response_a": 'a, "q" [x]' * (1 + n % 3),
        "response_b": "b\n{y}",
        "winner": "ab"[n % 2],
        "annotator": f"w{n % 4}",
        "at": datetime(2024, 1, 1 + n % 28).isoformat(),
    }
    for n in range(60)
]
LINES = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in RECORDS).encode()


def run(seed: int) -> Result:
    """Every trial is one file, which must be accounted for record by record, or be one `DataError`."""
    result = Result()
    rng = random.Random(seed)
    for name in READERS:
        for trial in range(FIELD_TRIALS):
            _try(result, f"{name}, seed {seed}, trial {trial}", lambda folder, name=name: _fields(folder, name, rng))
    for suffix in (".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".jsonl.zst", ".parquet"):
        for trial in range(BYTE_TRIALS):
            what = f"bytes of {suffix}, seed {seed}, trial {trial}"
            _try(result, what, lambda folder, suffix=suffix: _bytes(folder, suffix, rng))
    for suffix, packed in bombs().items():
        _try(result, f"bomb {suffix}", lambda folder, suffix=suffix, packed=packed: _bomb(folder, suffix, packed))
    return result


def _try(result: Result, what: str, trial: Callable[[Path], str | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            reason = trial(Path(folder))
        except Exception:
            reason = " | ".join(traceback.format_exc().splitlines()[-3:])[:600]
    result.record(None if reason is None else f"{what}: {reason}")


def _fields(folder: Path, name: str, rng: random.Random) -> str | None:
    path, files = mangling.sample(name, folder)
    for _ in range(rng.choice([1, 1, 1, 2])):
        mangling.mangled(rng.choice(files), rng.choice, rng.choice([1, 1, 2, 3]))
    return mangling.problem(path, name if rng.random() < 0.8 else None)


def _bytes(folder: Path, suffix: str, rng: random.Random) -> str | None:
    data = bytearray(_packed(folder, suffix))
    for _ in range(rng.choice([1, 1, 2, 5])):
        _damage(data, rng)
    path = folder / f"x{suffix}"
    path.write_bytes(data)
    return mangling.problem(path, rng.choice([None, "ab_table"]))


def _packed(folder: Path, suffix: str) -> bytes:
    if suffix == ".jsonl.gz":
        return gzip.compress(LINES)
    if suffix == ".jsonl.zst":
        sink = io.BytesIO()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(LINES)
            stream.flush()
            return sink.getvalue()
    if suffix == ".jsonl":
        return LINES
    if suffix == ".parquet":
        typed = [record | {"when": datetime(2024, 1, 1), "tags": [{"k": 1.5}], "raw": b"x"} for record in RECORDS]
        pq.write_table(pa.Table.from_pylist(typed), folder / "whole", row_group_size=20)
        return (folder / "whole").read_bytes()
    path = folder / f"whole{'.csv' if suffix == '.tsv' else suffix}"
    mangling.write(path, RECORDS)
    return path.read_bytes().replace(b",", b"\t") if suffix == ".tsv" else path.read_bytes()


def _damage(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(max(len(data), 1))
    length = rng.choice([1, 4, 30, 400])
    how = rng.choice(["flip", "flip", "cut", "remove", "insert", "repeat", "zero"])
    if how == "flip":
        for place in rng.choices(range(len(data)), k=rng.choice([1, 3, 8])) if data else ():
            data[place] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "remove":
        del data[at : at + length]
    elif how == "insert":
        data[at:at] = rng.randbytes(length)
    elif how == "repeat":
        data[at:at] = data[at : at + length]
    else:
        data[at : at + length] = bytes(len(data[at : at + length]))


def bombs() -> dict[str, bytes]:
    """Small files that unpack to very large ones."""
    line = json.dumps(RECORDS[0]).encode()
    return {
        ".jsonl.gz": _repeated(b"\n", 500 << 20),
        ".csv.gz": _repeated(b"\n", 300 << 20, b"prompt,response_a,response_b,winner\n"),
        ".json.gz": _repeated(b" ", 300 << 20),
        ".ndjson.gz": _repeated(b"x", 150 << 20, line + b"\n"),
    }


def _repeated(unit: bytes, size: int, before: bytes = b"") -> bytes:
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=9) as packed:
        packed.write(before)
        for _ in range(size >> 20):
            packed.write(unit * (1 << 20))
    return sink.getvalue()


def _bomb(folder: Path, suffix: str, packed: bytes) -> str | None:
    path = folder / f"x{suffix}"
    path.write_bytes(packed)
    return mangling.problem(path, "ab_table")
