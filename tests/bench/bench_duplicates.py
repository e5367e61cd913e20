"""Near duplicates on the real drafts: recall, precision and time, beside datasketch on the same documents in one run.

    python tests/bench/bench_duplicates.py [folder with docs.jsonl and truth_pairs.csv] [repeats]

Times go from texts in memory to candidate pairs; ours are also verified, which datasketch leaves to its user.
"""

import csv
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from dpo_data.text import minhash
from dpo_data.text.token_hashes import tokens

DRAFTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "neardup-drafts"
Pairs = set[tuple[int, int]]


def ours(texts: list[str]) -> tuple[Pairs, Pairs, float, float]:
    """Candidates, verified pairs at .7, seconds to candidates, seconds in all."""
    start = time.perf_counter()
    rows = minhash.shingles(tokens(pl.Series(texts)).words())
    left, right = minhash.candidates(minhash.sign(rows))
    proposed = time.perf_counter() - start
    index = minhash.jaccard(minhash.incidence(rows), left, right)
    seconds = time.perf_counter() - start
    both = list(zip(left.tolist(), right.tolist(), strict=True))
    return set(both), {pair for pair, value in zip(both, index, strict=True) if value >= 0.7}, proposed, seconds


def datasketch(texts: list[str], permutations: int = 128, threshold: float = 0.7) -> tuple[Pairs, float]:
    """Candidates and seconds of MinHashLSH with its defaults at the threshold."""
    from datasketch import MinHash, MinHashLSH

    start = time.perf_counter()
    index = MinHashLSH(threshold=threshold, num_perm=permutations)
    found: Pairs = set()
    for row, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        sketch = MinHash(num_perm=permutations)
        sketch.update_batch([" ".join(words[at : at + 3]).encode() for at in range(max(len(words) - 2, 1))])
        found.update((other, row) for other in index.query(sketch))
        index.insert(row, sketch)
    return found, time.perf_counter() - start


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DRAFTS
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    documents = [orjson.loads(line) for line in (folder / "docs.jsonl").read_bytes().splitlines()]
    place = {document["doc"]: row for row, document in enumerate(documents)}
    texts = [document["text"] for document in documents]
    with (folder / "truth_pairs.csv").open() as lines:
        truth = {
            (min(place[row["doc_a"]], place[row["doc_b"]]), max(place[row["doc_a"]], place[row["doc_b"]])): float(
                row["jaccard_w3"]
            )
            for row in csv.DictReader(lines)
        }
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} million characters, {repeats} repeats")
    minhash.sign(minhash.shingles(tokens(pl.Series(texts[:50])).words()))  # warm
    runs = [ours(texts) for _ in range(repeats)]
    peer = [datasketch(texts) for _ in range(max(repeats // 2, 1))]
    for limit in (0.7, 0.8):
        wanted = {pair for pair, value in truth.items() if value >= limit}
        print(
            f"J >= {limit}: {len(wanted)} pairs, recall ours {len(wanted & runs[0][0]) / len(wanted):.4f}, "
            f"datasketch {len(wanted & peer[0][0]) / len(wanted):.4f}"
        )
    right = {pair for pair, value in truth.items() if value >= 0.7}
    print(f"verified at .7: {len(runs[0][1])} pairs, precision {len(runs[0][1] & right) / len(runs[0][1]):.4f}")
    candidates, verified = (statistics.median(run[at] for run in runs) for at in (2, 3))
    theirs = statistics.median(seconds for _, seconds in peer)
    print(f"ours {candidates:.2f} s to {len(runs[0][0])} candidates, {verified:.2f} s verified (median)")
    print(f"datasketch {theirs:.2f} s to {len(peer[0][0])} candidates (median), not verified")
    print(f"ratio {theirs / candidates:.1f} to candidates, {theirs / verified:.1f} with verification included")
    assert np.isfinite(theirs)


if __name__ == "__main__":
    main()
