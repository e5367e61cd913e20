"""What `dpo train --plan` foretells of a short run, beside what the run then took: time and memory.

    python tests/bench/bench_plan.py [--steps 4] [--threads 2]

Pairs are published ones (hh-rlhf harmless, the shorter half, in the order of the file), the model is SmolLM2-135M as it
is packaged. Each of the two runs in a process of its own, since memory is the most that a process ever held.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PUBLISHED = ROOT.parent / "shared" / "data" / "hh-rlhf-harmless" / "harmless-base-test.part.jsonl"


def make_version(folder: Path) -> Path:
    """48 pairs to train on and 16 to look at."""
    from helpers import tiny

    from dpo_data.formats import READERS

    rows: list[dict[str, Any]] = []
    for vote in READERS["hh_rlhf"].read(PUBLISHED):
        said = [[{"role": "assistant", "content": text}] for text in (vote.first, vote.second)]
        chosen, rejected = said if vote.choice == "first" else said[::-1]
        pair = {"pair_id": str(len(rows)), "prompt": vote.prompt, "chosen": chosen, "rejected": rejected}
        if len(json.dumps(pair)) < 1500:
            rows.append({**pair, "weight": 1.0})
        if len(rows) == 64:
            break
    return tiny.write_version(folder, {"train": rows[:48], "validation": rows[48:]})


def measure(what: str, version: Path, run: Path, steps: int) -> dict[str, float]:
    """Minutes and GB, foretold (`plan`) or taken (`train`)."""
    from dpo_train.config import TrainConfig
    from dpo_train.plan import estimate
    from dpo_train.train import train

    settings = {"max_steps": steps, "eval_steps": 2, "probe_pairs": 8, "report_to": (), "stop_when_flat": False}
    config = TrainConfig.model_validate({"use_cpu": True, **settings})
    began = time.perf_counter()
    if what == "plan":
        expected = estimate(config, version)
        return {"minutes": expected["minutes"], "memory_gb": expected["memory_gb"]}
    speed = train(config, version, run).speed
    taken = {"minutes": (time.perf_counter() - began) / 60, "memory_gb": speed["peak_memory_gb"]}
    parts = {"of them in the loop": speed["seconds"] / 60, "of them in steps": speed["step_seconds"] / 60}
    return taken | parts | {"share of the matmul rate in steps": speed["share_of_matmul_peak"]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=4)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # what, and the folder
    asked = arguments.parse_args()
    if asked.one:
        folder = Path(asked.one[1])
        print(json.dumps(measure(asked.one[0], folder / "versions" / "hh", folder / "run", asked.steps)))
        return
    with TemporaryDirectory() as scratch:
        make_version(Path(scratch) / "versions" / "hh")
        found = {}
        for what in ("plan", "train"):
            command = [sys.executable, __file__, "--one", what, scratch, "--steps", str(asked.steps)]
            threads = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
            done = subprocess.run(command, env=threads, check=True, stdout=subprocess.PIPE, text=True)
            found[what] = json.loads(done.stdout.splitlines()[-1])
        for name, taken in found["train"].items():
            expected = found["plan"].get(name)
            beside = f", foretold {expected:.2f} ({expected / taken:.2f} of it)" if expected is not None else ""
            print(f"{name}: {taken:.2f}{beside}")


if __name__ == "__main__":
    main()
