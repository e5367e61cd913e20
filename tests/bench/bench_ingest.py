"""How fast raw JSON lines become a batch, and in how much memory: 1 million comparisons with 3 votes each by default.

    python tests/bench/bench_ingest.py [comparisons] [processes]

The records are generated from a fixed seed, with prompts and responses of realistic length (about 60 and 2 x 160
words). One record is one vote, in random side order, so that every comparison is read three times.
"""

import multiprocessing
import platform
import random
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import orjson

from dpo_data.ingest.append import append_batch
from dpo_data.store.batches import open_batches

WORDS = [
    f"{a}{b}{c}" for a in ("ba", "do", "ki", "lu", "me", "ro", "su") for b in "nrstlm" for c in ("a", "ek", "io", "un")
]
VOTES = 3


def text(chance: random.Random, mean: int) -> str:
    """Words of a made-up language, in lines."""
    count = max(3, int(chance.lognormvariate(0, 0.6) * mean))
    words = chance.choices(WORDS, k=count)
    return "\n".join(" ".join(words[start : start + 14]) for start in range(0, count, 14))


def generate(path: Path, comparisons: int) -> None:
    """Write `comparisons` x 3 votes; the votes of one comparison stand up to a few thousand lines apart."""
    chance = random.Random(20261121)
    waiting: list[bytes] = []
    with path.open("wb", buffering=1 << 20) as file:
        for number in range(comparisons):
            prompt, one, two = f"{number}: {text(chance, 60)}", text(chance, 160), text(chance, 160)
            for _ in range(VOTES):
                swapped = chance.random() < 0.5
                record = {
                    "prompt": prompt,
                    "response_a": two if swapped else one,
                    "response_b": one if swapped else two,
                    "winner": chance.choice(("a", "b", "tie")),
                    "annotator": f"w{chance.randrange(5000)}",
                    "at": 1_760_000_000 + number,
                    "category": f"c{number % 7}",
                }
                waiting.append(orjson.dumps(record) + b"\n")
            if len(waiting) >= 6000:
                chance.shuffle(waiting)
                file.writelines(waiting[:3000])
                del waiting[:3000]
        file.writelines(waiting)


def peak_mib() -> float:
    """Peak resident memory of this process and of its largest child, added up."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(one).ru_maxrss for one in who) / 1024


def cpu_seconds() -> float:
    """Processor time of this process and of those it waited for: what a loaded machine cannot stretch much."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    comparisons = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else multiprocessing.cpu_count()
    folder = Path(tempfile.mkdtemp(prefix="bench-ingest-"))
    try:
        raw = folder / "votes.jsonl"
        generate(raw, comparisons)
        print(f"machine: {multiprocessing.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
        print(f"raw: {raw.stat().st_size / 2**30:.2f} GiB, {comparisons:,} comparisons, {comparisons * VOTES:,} votes")
        started, spent = time.perf_counter(), cpu_seconds()
        if processes > 1:
            with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
                found = append_batch(folder / "store", [raw], "bench", mapper=pool.map)
        else:
            found = append_batch(folder / "store", [raw], "bench")
        seconds = time.perf_counter() - started
        assert (found.comparisons, found.votes) == (comparisons, comparisons * VOTES)
        size = sum(path.stat().st_size for path in (folder / "store").rglob("*.parquet"))
        speed = f"{found.votes / seconds:,.0f} votes/s, {cpu_seconds() - spent:.1f} CPU s"
        print(f"append, {processes} processes: {seconds:.1f} s, {speed}")
        print(f"peak memory {peak_mib():,.0f} MiB (this process + the largest child), batch {size / 2**30:.2f} GiB")
        started = time.perf_counter()
        assert append_batch(folder / "store", [raw], "bench").batch is None
        print(f"the same file again, a no-op: {time.perf_counter() - started:.1f} s")
        print(f"store digest {open_batches(folder / 'store').digest}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
