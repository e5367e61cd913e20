"""What the update ledger costs and how well it closes: the same training with it off and on, weights compared.

    python tests/bench/bench_attribution.py                        a random model of half a million weights
    python tests/bench/bench_attribution.py VERSION COLUMN [MODEL]  a published version, slices of COLUMN

Prints seconds, their ratio, what the attribution of held-out pairs took, the closure gap and whether weights agree.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tiny
import torch

from dpo_train.account.accounting import Account
from dpo_train.account.accounts import read
from dpo_train.account.attribution import closure
from dpo_train.config import TrainConfig
from dpo_train.describe.statistics import correlation
from dpo_train.train import train

STEPS, CHORDS, PAIRS = 8, 3, 12


def timed(version: Path, run: Path, model: str, column: str | None) -> tuple[float, float]:
    """Seconds of the training loop, and of them spent attributing."""
    spent = 0.0
    plain = Account.look

    def look(self: Account, step: int, last: bool) -> None:
        nonlocal spent
        started = time.perf_counter()
        plain(self, step, last)
        spent += time.perf_counter() - started

    Account.look = look  # type: ignore[method-assign]
    settings = {
        "model": model,
        "use_cpu": True,
        "learning_rate": 2e-4,
        "max_steps": STEPS,
        "eval_steps": 4,
        "probe_pairs": 0,
        "max_eval_pairs": PAIRS,
        "account_by": column,
        "account_pairs": PAIRS,
        "account_chords": CHORDS,
        "stop_when_flat": False,
        "load_best_model_at_end": False,
        "report_to": (),
    }
    try:
        summary = train(TrainConfig.model_validate(settings), version, run)
    finally:
        Account.look = plain  # type: ignore[method-assign]
    return float(summary.speed["seconds"] or 0), spent


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if len(sys.argv) > 2:
            version, column = Path(sys.argv[1]), sys.argv[2]
            model = sys.argv[3] if len(sys.argv) > 3 else "smollm2-135m-instruct"
        else:
            sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "initializer_range": 0.1}
            model = str(tiny.model_folder(root / "model", **sizes))
            version, column = tiny.version(root, train=64, validation=PAIRS, test=2), "category"
        print(
            f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; {model} on {version.name}, {STEPS} steps of 8"
        )
        warm = timed(version, root / "warm", model, None)[0]
        off, _ = timed(version, root / "off", model, None)
        on, attributing = timed(version, root / "on", model, column)
        booking = on - attributing - off
        print(f"off {off:.1f} s (warm-up run {warm:.1f} s), on {on:.1f} s, ratio {on / off:.2f}")
        print(f"booking {booking:+.1f} s ({100 * booking / off:+.0f} %), {booking / STEPS * 1000:.0f} ms a step")
        print(f"attribution {attributing:.1f} s: {attributing / (PAIRS * CHORDS):.2f} s a held-out pair and chord")
        found, names, groups, _, ids = read(pq.read_table(root / "on" / "attribution.parquet"))
        everyone = np.ones(len(ids), dtype=bool)
        predicted = (found.chosen - found.rejected).sum(axis=1)
        observed = found.chosen_observed - found.rejected_observed
        print(f"slices {', '.join(names)} x {groups} groups; {len(ids)} pairs, {CHORDS} chords")
        print(f"closure gap {100 * closure(found, everyone):.3f} %, correlation by pair "
              f"{correlation(predicted, observed):.6f}")  # fmt: skip
        files = [next((root / one).rglob("*model*.safetensors")) for one in ("off", "on")]
        print("weights with and without:", "equal" if files[0].read_bytes() == files[1].read_bytes() else "DIFFERENT")


if __name__ == "__main__":
    main()
