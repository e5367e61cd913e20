"""Publish, compare and ask on generated comparisons: seconds, peak memory, bytes, and how cost grows with rows.

    python tests/bench/bench_publish.py [rows ...]      (default: 10000 100000)

Texts are drawn from a word list with realistic lengths (about 1.8 kB a comparison). Each size runs in a process of its
own, so that peak memory is its own. Reading and measuring are not part of it; deciding again is.
"""

import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from dpo_data.analysis.what_if import decide_again
from dpo_data.publish import publish_version

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
    "from",
    "or",
    "had",
]


def text(luck: random.Random, words: float) -> str:
    return " ".join(luck.choices(WORDS, k=max(1, int(luck.lognormvariate(words, 0.6)))))


def plant(store: Path, rows: int) -> pl.DataFrame:
    """A store of one batch and its undecided ledger, written in slices so that it needs little memory itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from helpers.planted_version import Planted, comparisons_of, ledger_of, votes_of

    from dpo_data import schema

    folder = store / "batches" / "0001-bench"
    folder.mkdir(parents=True)
    luck = random.Random(7)
    writers: dict[str, pq.ParquetWriter] = {}
    ledgers = []
    for start in range(0, rows, 20_000):
        part = [
            Planted(
                f"{i} {text(luck, 3.5)}",
                text(luck, 4.6),
                text(luck, 4.5),
                votes=luck.choice((2, 3)),
                against=luck.choice((0, 0, 1)),
                source=f"source {i % 5}",
                category=f"category {i % 8}",
            )
            for i in range(start, min(rows, start + 20_000))
        ]
        for name, frame in (("comparisons", comparisons_of(part)), ("votes", votes_of(part))):
            table: pa.Table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            if name not in writers:
                writers[name] = pq.ParquetWriter(folder / f"{name}.parquet", table.schema, compression="zstd")
            writers[name].write_table(table)
        ledgers.append(ledger_of(part))
    for writer in writers.values():
        writer.close()
    schema.empty(schema.THUMBS).write_parquet(folder / "thumbs.parquet")
    schema.empty(schema.REJECTS).write_parquet(folder / "rejects.parquet")
    (folder / "manifest.json").write_text(json.dumps({"source": "bench", "digest": str(rows), "files": []}))
    return pl.concat(ledgers)


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def measure(rows: int, store: Path) -> dict[str, float]:
    from helpers.planted_version import FACTS, config

    from dpo_data import curate
    from dpo_data.analysis import explain, sql

    facts = pl.read_parquet(store / "facts.parquet")
    settings = config()
    timed: dict[str, float] = {"rows": rows}

    def timing(name: str, start: tuple[float, float]) -> None:
        """Wall and CPU seconds; on a busy machine the second says more."""
        wall, cpu = clock()
        timed[f"{name}_s"], timed[f"{name}_cpu_s"] = wall - start[0], cpu - start[1]

    start = clock()
    decided = curate.decide(facts.drop("split", "weight", "reasons", "duplicate_of").with_columns(FACTS), settings)
    timing("decide", start)
    start = clock()
    version = publish_version(store, decided, settings)
    timing("publish", start)
    timed["publish_peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = clock()
    again = publish_version(store, decided, settings)
    timing("publish_again", start)
    assert not again.created
    start = clock()
    found = decide_again(store, "current", {"agreement.min_agreement": 0.7})
    timing("what_if", start)
    timed["what_if_left"] = found["left"]
    start = clock()
    sql.query(store, "SELECT source, count(*) FROM ledger WHERE kept GROUP BY source")
    timing("sql", start)
    start = clock()
    explain.explain(store, decided["comparison_id"][rows // 2])
    timing("explain", start)
    timed["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    timed["version_mb"] = sum(path.stat().st_size for path in version.path.rglob("*") if path.is_file()) / 2**20
    timed["stats_kb"] = (version.path / "stats.json").stat().st_size / 1024
    timed["audit_kb"] = (version.path / "audit.html").stat().st_size / 1024
    return timed


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]), Path(sys.argv[3]))))
        return
    sizes = [int(argument) for argument in sys.argv[1:]] or [10_000, 100_000]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder)
            plant(store, rows).write_parquet(store / "facts.parquet")
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(rows), folder], capture_output=True, text=True, check=True
            )
            figures = json.loads(done.stdout.splitlines()[-1])
            print("  ".join(f"{name} {value:,.2f}".removesuffix(".00") for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
