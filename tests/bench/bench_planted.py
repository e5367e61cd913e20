"""Is a flipped slice found from its own gradients? Twenty seeds of a toy policy, and a dose from none to all flipped.

    python tests/bench/bench_planted.py

Found: the slice's push on held-out pairs is below the others' for its size (p <= .05, Bonferroni over slices).
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from helpers.toy_policy import Pairs, account, planted, train

from dpo_train.attribution.path_integral import bucket_names, cells
from dpo_train.statistics import correlation, p_value, ranks

NAMES, GROUPS, SEEDS = ["a", "b", "flipped"], 8, 20


def dosed(seed: int, dose: float) -> Pairs:
    """`planted`, with only a share `dose` of the slice "flipped" truly flipped."""
    pairs = planted(144, seed)
    inside = [place for place, name in enumerate(pairs.slices) if name == "flipped"]
    for place in inside[round(dose * len(inside)) :]:
        kept = pairs.chosen[place].clone()
        pairs.chosen[place], pairs.rejected[place] = pairs.rejected[place], kept
    return pairs


def excess(seed: int, dose: float) -> tuple[float, bool]:
    pairs = dosed(seed, dose)
    codes = [NAMES.index(name) * GROUPS + place // 3 % GROUPS for place, name in enumerate(pairs.slices)]
    done = train(pairs, bucket_names(NAMES, GROUPS), torch.tensor(codes), steps=24, edges=(4, 8, 16))
    held_out = planted(12, seed=1000 + seed, slices=("held out",))
    sizes = np.bincount(codes, minlength=len(NAMES) * GROUPS).astype(float)
    cell = cells(account(done, held_out), 0.1, sizes, np.ones(12, dtype=bool), GROUPS)[2].excess
    return cell.value, cell.value < 0 and p_value(cell) * len(NAMES) <= 0.05


def main() -> None:
    started = time.perf_counter()
    full = [excess(seed, 1.0) for seed in range(SEEDS)]
    print(f"{os.cpu_count()} cores; flipped slice found in {sum(found for _, found in full)} of {SEEDS} seeds")
    doses = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    table = np.array([[excess(seed, dose)[0] for dose in doses] for seed in range(5)])
    for dose, values in zip(doses, table.T, strict=True):
        print(f"dose {dose:4.0%}: excess push per training pair, median of 5 seeds {np.median(values):+.5f}")
    spearman = correlation(ranks(np.tile(doses, 5)), ranks(table.ravel()))
    print(f"Spearman of dose and excess, pooled: {spearman:.3f}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
