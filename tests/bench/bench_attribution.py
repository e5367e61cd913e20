"""What the update ledger costs and how well it closes: the same training with it off and on, weights compared.

    python tests/bench/bench_attribution.py                        a random model of half a million weights
    python tests/bench/bench_attribution.py VERSION COLUMN [MODEL]  a published version, slices of COLUMN

Prints what the account took of the loop, what it leaves of the weights' movement (parameters), the closure gap of every
held-out slice and the correlation by pair (margins), and whether the weights are those of a run without it. Last, on
the random model, how far the split among slices is from that with an edge at every step, which closure cannot see.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from helpers import tiny
from torch import Tensor

from dpo_train.attribution.path_integral import closure
from dpo_train.attribution.tables import account, cost, cost_in_words, read
from dpo_train.attribution.update_ledger import Interval, UpdateLedger
from dpo_train.config import TrainConfig
from dpo_train.statistics import correlation
from dpo_train.train import train

STEPS, CHORDS, PAIRS = 24, 4, 24  # four chords are the default
RATES = {"mild": 2e-4, "strong": 1e-3}
SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "weight_decay": 0.01,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": STEPS,
    "probe_pairs": 0,
    "max_eval_pairs": PAIRS,
    "stop_when_flat": False,
    "load_best_model_at_end": False,
    "report_to": (),
}


def seconds(
    version: Path,
    run: Path,
    model: str,
    column: str | None,
    rate: str = "mild",
    eval_steps: int = 2,
    **attribution: Any,
) -> float:
    """Of the training loop, attribution included."""
    attribution = {"by": column, "pairs": PAIRS, "intervals": CHORDS, **attribution}
    rates = {"learning_rate": RATES[rate], "eval_steps": eval_steps}
    settings = {**SETTINGS, **rates, "model": model, "attribution": attribution}
    config = TrainConfig.model_validate(settings)
    return float(train(config, version, run).speed["seconds"] or 0)


def listen(found: list[tuple[Tensor, Tensor]]) -> None:
    """Let every interval that a ledger closes note how the weights moved, and what of it is unexplained."""
    plain = UpdateLedger.close

    def close(self: UpdateLedger) -> Interval:
        interval = plain(self)
        unexplained = interval.pushed[len(self.buckets)] + interval.pushed[-1]  # unbooked, and rounding
        found.append((interval.after - interval.before, unexplained))
        return interval

    UpdateLedger.close = close  # type: ignore[method-assign]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if len(sys.argv) > 2:
            version, column = Path(sys.argv[1]), sys.argv[2]
            model = sys.argv[3] if len(sys.argv) > 3 else "smollm2-135m-instruct"
        else:
            sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "initializer_range": 0.1}
            model = str(tiny.model_folder(root / "model", **sizes))
            version, column = tiny.version(root, train=96, validation=PAIRS, test=2), "category"
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads; {model} on "
              f"{version.name}, {STEPS} steps of 8 pairs, {CHORDS} chords")  # fmt: skip
        seconds(version, root / "warm", model, None)
        intervals: list[tuple[Tensor, Tensor]] = []
        listen(intervals)
        off, on = (seconds(version, root / label, model, by) for label, by in (("off", None), ("mild", column)))
        print(f"loop without {off:.1f} s, with {on:.1f} s")
        closes(root / "mild", column, "mild", intervals)
        intervals.clear()
        seconds(version, root / "strong", model, column, "strong")
        closes(root / "strong", column, "strong", intervals)
        if len(sys.argv) < 2:
            for rate in RATES:
                splits(version, root, model, column, rate)
        files = [next((root / one).rglob("*model*.safetensors")) for one in ("off", "mild")]
        print("weights with and without:", "equal" if files[0].read_bytes() == files[1].read_bytes() else "DIFFERENT")


def closes(run: Path, column: str, rate: str, intervals: list[tuple[Tensor, Tensor]]) -> None:
    """Print how well the weights of a run and its margins close, held-out slice by held-out slice."""
    table = pq.read_table(run / "attribution.parquet")
    made = account(table, pq.read_table(run / "pairs.parquet"), 0.1, column)
    print(f"\nlearning rate {RATES[rate]:g}: {cost_in_words({**made, 'cost': cost(table, None)})}")
    moved, unexplained = (torch.stack(parts).sum(0) for parts in zip(*intervals, strict=True))
    print(f"weights: what is unexplained, of the movement: {float(unexplained.norm() / moved.norm()):.1e}")
    for head in made["columns"]:
        words = f"{head['pairs']} held-out pairs, moved {head['observed']:+.3f}"
        print(f"margins of {head['slice']}: {words}, closure gap {100 * head['closure']:.3f} %")
    found = read(table).found
    by_pair = correlation((found.chosen - found.rejected).sum(1), found.chosen_observed - found.rejected_observed)
    print(f"correlation of attributed and observed by pair: {by_pair:.7f}")


def splits(version: Path, root: Path, model: str, column: str, rate: str) -> None:
    """Print how far the split of a run is from the finest one, by pair and bucket."""
    finest = {"eval_steps": 1, "intervals": STEPS, "max_closure_error": 1e-9}
    ways = {"finest": finest, "4 chords": {"max_closure_error": 1e9}, "following": {}}
    found = {}
    for name, changes in ways.items():
        seconds(version, root / f"{rate}-{name}", model, column, rate, **changes)
        table = pq.read_table(root / f"{rate}-{name}" / "attribution.parquet")
        found[name] = read(table).found, cost(table, None)
    truth = found["finest"][0].chosen - found["finest"][0].rejected
    for name, (one, spent) in found.items():
        off = np.abs(one.chosen - one.rejected - truth).sum() / np.abs(truth).sum()
        gap = closure(one, np.ones(len(truth)))
        assert spent is not None
        way = f"{spent['chords']} chords, {spent['gradients']} gradients"
        print(f"{rate}, {name}: {way}; closure gap {100 * gap:.3f} %, split off by {100 * off:.2f} %")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
