"""How many held-out pairs must the account look at, and does it help to draw as many of each slice?

    python tests/bench/bench_drawing.py

A toy policy on eight kinds of pairs, 200 held out, of unequal numbers a kind; all are accounted for once, then draws of
several sizes are set against that whole and against retrainings without each kind (two seeds). Before: pairs drawn
without a look at the slices, as in proportion; now: as many of each (drawing.py).
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow as pa
import torch
from bench_confirm import MANY, MILD, SIZES, cut
from helpers.toy_confirm import AXIS, BETA, EDGES, GROUPS, moved, without
from helpers.toy_policy import Pairs, account, kinds, train

from dpo_train.attribution import tables as accounts
from dpo_train.attribution.path_integral import Attributed, bucket_names
from dpo_train.attribution.stratified_sample import Drawn, draw
from dpo_train.data.axes import ALL
from dpo_train.statistics import Floats, correlation, ranks

HELD_OUT = {"a": 36, "b": 24, "c": 36, "d": 12, "e": 24, "f": 24, "g": 8, "h": 36}
NAMES, BUDGETS, SEEDS, DRAWS = sorted(MANY), (16, 24, 48, 96), 5, 20


def whole(seed: int) -> tuple[Attributed, np.ndarray, Pairs]:
    """The account of all held-out pairs, the training pairs of each bucket, and the held-out pairs."""
    pairs, watched = cut(kinds(36, seed, MANY), SIZES), cut(kinds(36, 1000 + seed, MANY), HELD_OUT)
    turn = {name: iter(range(len(pairs))) for name in NAMES}
    codes = [NAMES.index(name) * GROUPS + next(turn[name]) % GROUPS for name in pairs.slices]
    done = train(pairs, bucket_names(NAMES, GROUPS), torch.tensor(codes), edges=EDGES, **MILD)
    return account(done, watched), np.bincount(codes, minlength=len(NAMES) * GROUPS), watched


def truth(seed: int, watched: Pairs) -> dict[tuple[str, str], float]:
    """What a retraining without a kind changed in each held-out kind, mean of two seeds."""
    pairs, here = cut(kinds(36, seed, MANY), SIZES), np.array(watched.slices)
    full = [moved(train(pairs, seed=turn, **MILD).network, watched).margin for turn in range(2)]
    found = {}
    for gone in NAMES:
        left = without(pairs, [gone])
        changes = [moved(train(left, seed=turn, **MILD).network, watched).margin - full[turn] for turn in range(2)]
        found |= {(gone, name): float(np.mean(changes, axis=0)[here == name].mean()) for name in NAMES}
    return found


def tables(found: Attributed, sizes: np.ndarray, watched: Pairs, drawn: Drawn) -> dict[str, Any]:
    """The account's tables from some of the pairs."""
    ids = [f"{place:04d}" for place in range(len(watched))]
    some = Attributed(*(part[drawn.places] for part in found))
    table = accounts.tabulate(some, NAMES, GROUPS, sizes, [ids[k] for k in drawn.places], drawn.stands_for)
    return accounts.account(table, pa.table({"pair_id": ids, AXIS: watched.slices}), BETA, AXIS)


def blind(count: int, watched: Pairs, names: Sequence[str]) -> Drawn:
    """By hash alone, all alike."""
    return draw([""] * len(watched), names, count)


def pushed(made: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(cell["train"], cell["slice"]): cell["pushed"] for cell in made["cells"]}


def off(some: dict[tuple[str, str], float], all_: dict[tuple[str, str], float], columns: Sequence[str]) -> float:
    """Distance from the account of all pairs, of its size, over the columns that there are."""
    keys = [key for key in some if key[1] in columns]
    return sum(abs(some[key] - all_[key]) for key in keys) / sum(abs(all_[key]) for key in keys)


def spearman(some: dict[tuple[str, str], float], real: dict[tuple[str, str], float]) -> float:
    keys = [key for key in some if key[1] != ALL]
    told, known = (np.array([values[key] for key in keys]) for values in (some, real))
    return correlation(ranks(-told), ranks(known))


def main() -> None:
    started = time.perf_counter()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {SEEDS} trainings, {DRAWS} draws each")
    rows: dict[tuple[int, str], list[Floats]] = {}
    best, needed = [], []
    for seed in range(SEEDS):
        found, sizes, watched = whole(seed)
        everyone = np.arange(len(watched))
        all_, real = (
            pushed(tables(found, sizes, watched, Drawn(everyone, np.ones(len(everyone))))),
            truth(seed, watched),
        )
        best.append(spearman(all_, real))
        for count in BUDGETS:
            for turn in range(DRAWS):
                ids = [f"{turn}-{place}" for place in everyone]
                for way, drawn in (("before", blind(count, watched, ids)), ("now", draw(watched.slices, ids, count))):
                    made = tables(found, sizes, watched, drawn)
                    some = pushed(made)
                    shown = {name for _, name in some} - {ALL}
                    values = [len(shown), off(some, all_, [ALL]), off(some, all_, sorted(shown)), spearman(some, real)]
                    rows.setdefault((count, way), []).append(np.array(values))
                if made["order"]["needed"] is not None:
                    needed.append((count, made["order"]["agreement"], made["order"]["needed"]))
    for (count, way), values in rows.items():
        shown, total, cells, order = np.mean(values, axis=0)
        print(f"{count:3d} of {len(watched)} pairs, {way:6s}: {shown:.1f} of 8 columns; off by {total:.0%} over all, "
              f"{cells:.0%} in the columns shown; Spearman with retrainings {order:.2f} there")  # fmt: skip
    print(f"all {len(watched)} pairs: Spearman {np.mean(best):.2f}")
    for count in BUDGETS:
        agreement, pairs = np.mean([one[1:] for one in needed if one[0] == count], axis=0)
        print(f"{count:3d} pairs foretell an agreement of {agreement:.2f}, and that {pairs:.0f} would bring .80")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
