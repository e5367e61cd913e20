"""From raw jsonl to published shards on generated comparisons of realistic length: seconds per stage, memory, growth.

    python tests/bench/bench_curation.py [comparisons ...] [--keep FOLDER] [--executor KIND]   (default 2000 10000)

Each size runs in a process of its own, so that its peak memory is its own. KIND is processes (default, one a core),
inline or ray. FOLDER keeps the raw files, and is where they are found again. Texts are drawn from a Zipf vocabulary: a
prompt of about 40 words and two responses of about 160, three votes a comparison, 2 % near copies, 1 % exact repeats
with sides swapped, 5 % short answers. Without embeddings and token counts, which are cached by text and timed apart.
"""

import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

from dpo_data.config import CurationConfig
from dpo_data.ingest.append import append_batch
from dpo_data.publish import publish_version

SEED = 20261121
VOCABULARY = 40_000
BAR_SECONDS, BAR_GIGABYTES, BAR_EXPONENT, BAR_DECIDE = 480, 6.0, 1.1, 3.0  # at a million comparisons


def generate(path: Path, count: int) -> None:
    """`count` records in PandaLM's shape, three annotators each."""
    rng = np.random.default_rng(SEED)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    names = ["".join(letters[rng.integers(0, 26, rng.integers(2, 11))]) for _ in range(VOCABULARY)]
    vocabulary = np.array(names, dtype=object)
    skill = np.array([0.9, 0.8, 0.7])

    def text(mean: float) -> list[str]:
        size = max(2, int(rng.lognormal(math.log(mean), 0.5)))
        ranks = np.minimum(rng.zipf(1.2, size) - 1, VOCABULARY - 1)
        chosen: list[str] = vocabulary[ranks].tolist()
        for at in range(9, size, 10):
            chosen[at] += ".\n\n" if at % 50 == 49 else ". "
        return chosen

    previous: dict[str, object] = {}
    with path.open("wb") as out:
        for _ in range(count):
            dice = rng.random()
            if previous and dice < 0.01:
                record = previous | {"response1": previous["response2"], "response2": previous["response1"]}
            elif previous and dice < 0.03:
                words = str(previous["response1"]).split(" ")
                words[len(words) // 2] = "indeed"
                record = previous | {"response1": " ".join(words)}
            else:
                short = dice > 0.95
                record = {
                    "instruction": " ".join(text(40)),
                    "input": "",
                    "response1": " ".join(text(4 if short else 160)),
                    "response2": " ".join(text(4 if short else 160)),
                }
            better = rng.integers(1, 3)
            votes = np.where(rng.random(3) < skill, better, 3 - better)
            record = record | {f"annotator{place + 1}": int(vote) for place, vote in enumerate(votes)}
            out.write(orjson.dumps(record) + b"\n")
            previous = {key: record[key] for key in ("instruction", "input", "response1", "response2")}


def run(count: int, folder: Path, kind: str) -> dict[str, float]:
    """Seconds per stage and peak memory of one size."""
    from dpo_data import curate
    from dpo_data.executor import ExecutorSettings, start
    from dpo_data.votes.agreement import AgreementLimits

    raw, store = folder / f"raw-{count}.jsonl", folder / f"store-{count}-{kind}"
    shutil.rmtree(store, ignore_errors=True)
    seconds: dict[str, float] = {}
    begun = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal begun
        seconds[stage] = time.perf_counter() - begun
        seconds[f"{stage} peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        begun = time.perf_counter()

    config = CurationConfig(tokenizer=None, embedding_model=None)
    with start(ExecutorSettings.model_validate({"kind": kind}), store) as workers:
        lap("start")
        append_batch(store, [raw], "generated", "pandalm", mapper=workers.map)
        lap("append")
        curate.measure_texts(store, config, workers)
        lap("measure texts")
        ledger = curate.measure(store, config, workers)
        lap("measure ledger")
    decided = curate.decide(ledger, config)
    lap("decide")
    curate.decide(ledger, config.model_copy(update={"agreement": AgreementLimits(min_agreement=0.7)}))
    lap("decide again")
    del ledger  # a refresh does not hold it either
    version = publish_version(store, decided, config)
    lap("publish")
    peaks = [resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    kept = float((decided["reasons"].list.len() == 0).sum())
    return seconds | {
        "cpu": sum(one.ru_utime + one.ru_stime for one in used),
        "peak": peaks[0],
        "peak of a worker": peaks[1],
        "comparisons": float(len(decided)),
        "kept": kept,
        "raw": raw.stat().st_size / 1e9,
        "audit": (version.path / "audit.html").stat().st_size / 1e6,
    }


def option(arguments: list[str], name: str) -> str | None:
    """Take a named option and its value out of the arguments."""
    if name not in arguments:
        return None
    place = arguments.index(name)
    value = arguments[place + 1]
    del arguments[place : place + 2]
    return value


def main() -> None:
    arguments = sys.argv[1:]
    kept, kind = option(arguments, "--keep"), option(arguments, "--executor") or "processes"
    folder = Path(kept or tempfile.mkdtemp(prefix="bench-curation-"))
    folder.mkdir(parents=True, exist_ok=True)
    if arguments[:1] == ["--one"]:
        print(json.dumps(run(int(arguments[1]), folder, kind)))
        return
    sizes = [int(argument) for argument in arguments] or [2_000, 10_000]
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    print(f"{time.strftime('%Y-%m-%d')}, {machine}, executor {kind}")
    totals = []
    for count in sizes:
        raw = folder / f"raw-{count}.jsonl"
        if not raw.exists():
            generate(raw.with_suffix(".partial"), count)
            raw.with_suffix(".partial").replace(raw)
        print(f"load average {os.getloadavg()[0]:.1f} before {count:,}", flush=True)
        command = [sys.executable, __file__, "--one", str(count), "--keep", str(folder), "--executor", kind]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        stages = ("start", "append", "measure texts", "measure ledger", "decide", "publish")
        totals.append(sum(found[stage] for stage in stages))
        print(
            f"{count:,} records ({found['raw']:.2f} GB): {found['comparisons']:,.0f} comparisons, {3 * count:,} votes, "
            f"{found['kept']:,.0f} kept"
        )
        print("  " + ", ".join(f"{stage} {found[stage]:.1f} s" for stage in (*stages, "decide again")))
        print(f"  in all {totals[-1]:.1f} s, of which processors {found['cpu']:.1f} s (decided twice)")
        print("  peak so far after " + ", ".join(f"{stage} {found[f'{stage} peak']:.2f} GB" for stage in stages))
        print(f"  peak memory {found['peak']:.2f} GB, of a worker {found['peak of a worker']:.2f} GB")
        print(f"  audit.html {found['audit']:.1f} MB", flush=True)
    for (small, one), (large, two) in zip(
        zip(sizes, totals, strict=True), list(zip(sizes, totals, strict=True))[1:], strict=False
    ):
        print(f"growth {small:,} to {large:,}: n^{math.log(two / one) / math.log(large / small):.2f}")
    print(f"bars at 1,000,000: {BAR_SECONDS} s, {BAR_GIGABYTES} GB, n^{BAR_EXPONENT}, deciding again {BAR_DECIDE} s")


if __name__ == "__main__":
    main()
