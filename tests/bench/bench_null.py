"""Nothing is there: how often slices are blamed whose names were shuffled, and how often the bands hold.

    python tests/bench/bench_null.py

Names are shuffled by prompt. Nominal: 5 % of single tests, at most 10 % of families with a discovery (Benjamini and
Hochberg, q = .10), 5 % of families with a max-t finding, 95 % of intervals and of bands over all slices at once.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from helpers import synthetic_run
from helpers.toy_policy import account, planted, train

from dpo_train.attribution.path_integral import cells
from dpo_train.data.axes import label
from dpo_train.slices.margin_change import Movement, movement
from dpo_train.slices.table import describe_split
from dpo_train.statistics import benjamini_hochberg, p_value

SHUFFLES, SETS, GROUPS = 800, 8, 8  # shuffles in all, over so many data sets: each has a rate of its own
LEVELS = {"source": 4, "category": 6}  # two axes, ten slices in one family


def share(found: int, of: int) -> str:
    """A share with the standard error of its own simulation."""
    rate = found / of
    return f"{100 * rate:.1f} % (of {of}, ± {100 * (rate * (1 - rate) / of) ** 0.5:.1f})"


def named(prompts: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """A level of each axis for every prompt."""
    return {
        axis: np.array([f"{axis} {k}" for k in range(levels)], dtype=object)[generator.integers(0, levels, prompts)]
        for axis, levels in LEVELS.items()
    }


def described() -> None:
    generator = np.random.default_rng(7)
    low = tests = any_bh = any_max = 0
    for turn in range(SHUFFLES):
        if turn % (SHUFFLES // SETS) == 0:
            moved = movement(*synthetic_run.tables(prompts=200, seed=turn), "validation")
        names = {axis: values[moved.groups] for axis, values in named(200, generator).items()}
        rows = [row for row in describe_split(moved, label(names), draws=300)[1:] if "p" in row]
        tests, low = tests + len(rows), low + sum(row["p"] < 0.05 for row in rows)
        any_bh += any(row["p_adjusted"] <= 0.10 for row in rows)
        any_max += any(row["p_family"] <= 0.05 for row in rows)
    print(f"described: under .05 {share(low, tests)}; families with a discovery {share(any_bh, SHUFFLES)}, "
          f"with a max-t finding {share(any_max, SHUFFLES)}")  # fmt: skip


def covered() -> None:
    """Slices with true means of their own, prompts with one to three pairs: do intervals and bands hold the truth?"""
    generator = np.random.default_rng(8)
    inside = slices = at_once = 0
    for _ in range(SHUFFLES):
        names = named(150, generator)
        groups = np.repeat(np.arange(150), generator.integers(1, 4, 150))
        shared = generator.standard_t(6, 150)  # all true means are 0, so that unequal mixtures are too
        values = shared[groups] + generator.normal(size=len(groups))
        none = np.zeros(len(groups))
        ids = np.arange(len(groups)).astype(str).astype(object)
        moved = Movement("validation", (0, 1), 1.0, ids, groups, values, none, none, values, none,
                         {axis: level[groups] for axis, level in names.items()})  # fmt: skip
        rows = [row for row in describe_split(moved, label(moved.columns), draws=300) if "movement_low" in row]
        slices, inside = (
            slices + len(rows),
            inside + sum(row["movement_low"] <= 0 <= row["movement_high"] for row in rows),
        )
        at_once += all(row["movement_all_low"] <= 0 <= row["movement_all_high"] for row in rows)
    print(
        f"intervals that hold the truth {share(inside, slices)}; bands that hold all at once {share(at_once, SHUFFLES)}"
    )


def accounted() -> None:
    """Every prompt its own bucket, a few trainings; buckets merge exactly, so names are shuffled afterwards."""
    generator = np.random.default_rng(9)
    low = tests = any_bh = 0
    for seed in range(SETS):
        done = train(planted(96, seed, ("any",)), [str(place) for place in range(96)], torch.arange(96), edges=(12,))
        alone = account(done, planted(20, 900 + seed, ("held out",)))
        for _ in range(SHUFFLES // SETS):
            merge = np.zeros((96, 3 * GROUPS))
            merge[generator.permutation(96), np.arange(96) % (3 * GROUPS)] = 1
            sides = (
                "chosen",
                "rejected",
                "chosen_reallocated",
                "rejected_reallocated",
                "chosen_tracin",
                "rejected_tracin",
            )
            shuffled = alone._replace(**{side: getattr(alone, side)[:, :96] @ merge for side in sides})
            found = cells(shuffled, 0.1, merge.sum(axis=0), np.ones(20, dtype=bool), GROUPS)
            p = np.array([p_value(cell.excess) for cell in found])
            tests, low = tests + len(p), low + int((p < 0.05).sum())
            any_bh += bool((benjamini_hochberg(p) <= 0.10).any())
    print(f"accounted: under .05 {share(low, tests)}; families with a discovery {share(any_bh, SHUFFLES)}")


def main() -> None:
    started = time.perf_counter()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {SHUFFLES} shuffles each")
    described()
    covered()
    accounted()
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
