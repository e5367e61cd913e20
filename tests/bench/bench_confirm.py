"""What an account is worth when slices are truly taken away: foretelling retrainings, twins, and the value of a drop.

    python tests/bench/bench_confirm.py

A toy policy, so that hundreds of retrainings take a minute. Fixed beforehand: data seeds 0 to 9 (foretelling and twins)
and 0 to 19 (the drop), two training seeds, the kinds below; nothing is left out of what is printed.
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

import torch
from helpers.toy_confirm import accounted, confirm, moved, without
from helpers.toy_policy import Pairs, kinds, train

from dpo_train.ablation.predictions import PREDICTORS, prediction_quality
from dpo_train.attribution.tables import redundant
from dpo_train.data.axes import ALL
from dpo_train.slices.margin_change import hits
from dpo_train.statistics import Floats, t_quantile

# (how the better answer is told, share of votes turned round), and how many of 36 training pairs there are
MANY = {"a": (0, 0.0), "b": (0, 0.25), "c": (1, 0.0), "d": (1, 1.0), "e": (2, 0.0), "f": (2, 0.5), "g": (3, 0.0),
        "h": (3, 0.1)}  # fmt: skip
SIZES = {"a": 36, "b": 24, "c": 36, "d": 18, "e": 24, "f": 24, "g": 12, "h": 36}
TWINS = {"first": (0, 0.0), "twin": (0, 0.0), "other": (1, 0.0), "third": (2, 0.0)}
HARMED = {"a": (0, 0.0), "b": (1, 0.0), "c": (2, 0.0), "flipped": (0, 1.0)}
MILD, STRONG = {"steps": 24, "rate": 5e-3}, {"steps": 48, "rate": 2e-2}


def cut(pairs: Pairs, sizes: dict[str, int]) -> Pairs:
    """The first pairs of every kind."""
    seen = dict.fromkeys(sizes, 0)
    kept = []
    for place, name in enumerate(pairs.slices):
        seen[name] += 1
        kept += [place] * (seen[name] <= sizes[name])
    return Pairs(pairs.chosen[kept], pairs.rejected[kept], pairs.weights[kept], [pairs.slices[i] for i in kept])


def interval(values: Floats, side: float = 0.975) -> str:
    """Mean over seeds and Student's interval."""
    reach = t_quantile(side, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.3f} (95 % {values.mean() - reach:+.3f} to {values.mean() + reach:+.3f})"


def foretelling(settings: dict[str, Any]) -> None:
    told: dict[str, list[float]] = {name: [] for name in (*PREDICTORS, "ceiling")}
    scales: list[float] = []
    for seed in range(10):
        pairs, watched = cut(kinds(36, seed, MANY), SIZES), kinds(12, 1000 + seed, MANY)
        _, made = accounted(pairs, watched, **settings)
        done = [confirm(pairs, watched, [name], made, **settings) for name in MANY]
        found = prediction_quality(done)
        assert found is not None
        for name, values in told.items():
            values.append(found[name])
        cells = [cell for one in done for cell in one["cells"] if cell["slice"] in MANY]
        pushed, truth = (np.array([cell[name] for cell in cells]) for name in ("pushed", "change"))
        scales.append(float(pushed @ truth / (pushed @ pushed)))
    print(f"\nSpearman with the truth, {found['cells']} cells (slice taken away x held-out slice), 10 data seeds; "
          f"{settings['steps']} steps, rate {settings['rate']:g}")  # fmt: skip
    for name, values in told.items():
        print(f"  {name:<12} {interval(np.array(values))}")
    print(f"  slope of the truth on what was pushed: {interval(np.array(scales))}")


def twins() -> None:
    marks = dict.fromkeys(TWINS, 0)
    gaps, extra = [], []
    for seed in range(10):
        pairs, watched = kinds(36, seed, TWINS), kinds(12, 1000 + seed, TWINS)
        _, made = accounted(pairs, watched, **STRONG)
        done = [confirm(pairs, watched, [name], made, **STRONG) for name in TWINS]
        for one in redundant(made, done):
            marks[one["slice"]] += 1
        pushed = {cell["train"]: cell["pushed"] for cell in made["cells"] if cell["slice"] == ALL}
        gaps.append((pushed["first"] - pushed["twin"]) / (abs(pushed["first"]) + abs(pushed["twin"])))
        both = confirm(pairs, watched, ["first", "twin"], made, **STRONG)
        lost = [next(cell["change"] for cell in one["cells"] if cell["slice"] == "first") for one in (*done[:2], both)]
        extra.append(lost[0] + lost[1] - lost[2])
    print(f"\ntwins, {STRONG['steps']} steps, rate {STRONG['rate']:g}, 10 seeds")
    print(f"  marked redundant: {', '.join(f'{name} {count}' for name, count in marks.items())} of 10 each")
    print(f"  push of one against the other, of their sum: {interval(np.array(gaps))}")
    print(f"  both gone takes away more than each alone added up, by {interval(np.array(extra))} of margin")


def right(pairs: Pairs, watched: Pairs) -> Floats:
    """Accuracy and mean margin on held-out pairs whose labels are all as they should be."""
    seen = moved(train(pairs, **MILD).network, watched)
    return np.array([100 * hits(seen.margin).mean(), seen.margin.mean()])


def thrown(pairs: Pairs, count: int, seed: int) -> Pairs:
    """As many pairs at weight 0 as the flagged slice has, drawn at random from all."""
    weights = pairs.weights.clone()
    weights[torch.from_numpy(np.random.default_rng(seed).permutation(len(pairs))[:count])] = 0
    return Pairs(pairs.chosen, pairs.rejected, weights, pairs.slices)


def flagged(made: dict[str, Any]) -> Sequence[str]:
    """The slice that pushed others least for its size, where that stands (Bonferroni, 5 %)."""
    sure = [
        (cell["excess"], name)
        for name, cell in made["elsewhere"].items()
        if cell["p"] is not None and cell["p"] * len(made["train"]) <= 0.05 and cell["excess"] < 0 > cell["pushed"]
    ]
    return [min(sure)[1]] if sure else []


def drop() -> None:
    gains = []
    names = []
    for seed in range(20):
        pairs, watched = kinds(36, seed, HARMED), kinds(12, 1000 + seed, {**HARMED, "flipped": (0, 0.0)})
        _, made = accounted(pairs, watched, **MILD)
        named = flagged(made)
        names.append(named[0] if named else "none")
        count = sum(name in named for name in pairs.slices)
        gains.append(right(without(pairs, named), watched) - right(thrown(pairs, count, seed), watched))
    table = np.array(gains)
    low = table.mean(0) - t_quantile(0.95, 19) * table.std(0, ddof=1) / 20**0.5
    print("\ndropping the flagged slice against dropping as many pairs at random, 20 seeds")
    print(f"  ranked right, points: {interval(table[:, 0])}, one-sided 95 % bound {low[0]:+.1f}")
    print(f"  margin:               {interval(table[:, 1])}, one-sided 95 % bound {low[1]:+.3f}")
    for name in sorted(set(names)):
        inside = np.array(names) == name
        print(f"  flagged {name} in {inside.sum()} seeds: {table[inside, 0].mean():+.1f} points on average")


def main() -> None:
    started = time.perf_counter()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    foretelling(MILD)
    foretelling(STRONG)
    twins()
    drop()
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
