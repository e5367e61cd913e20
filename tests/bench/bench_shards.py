"""All weights of SmolLM2-135M learning on two CPU processes: whole on each, and in shards over both (training.fsdp).

    python tests/bench/bench_shards.py [--pairs 16] [--data FOLDER]

hh-rlhf-harmless pairs in random order, steps of 8, float32. Prints pairs a second, each process's peak memory (Python
and its libraries included; the first one puts the weights and moments of a checkpoint together in its own), and by
how much the margins of the two runs differ.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "bench")]
DATA = ROOT.parent / "shared" / "data" / "hh-rlhf-harmless"
SETTINGS = {
    "use_cpu": True,
    "use_peft": False,
    "learning_rate": 1e-5,
    "report_to": [],
    "per_device_train_batch_size": 4,
    "probe_pairs": 0,
}


def work(version: Path, run: Path, fsdp: bool) -> None:
    """One process of a launch."""
    from dpo_train.config import TrainConfig
    from dpo_train.policy.flops import peak_memory
    from dpo_train.train import train

    summary = train(TrainConfig.model_validate({**SETTINGS, "fsdp": fsdp}), version, run)
    print(f"RESULT {json.dumps([summary.speed['pairs_per_second'], peak_memory() / 2**30])}", flush=True)


def launched(version: Path, run: Path, fsdp: bool) -> list[list[float]]:
    """[pairs a second, peak in GB] of each process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__]
    command += ["--work", str(version), str(run), str(int(fsdp))]
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet})
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return [json.loads(line.partition(" ")[2]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]


def compare(pairs: int, data: Path) -> None:
    import pyarrow.parquet as pq
    from helpers import tiny
    from trainers import harmless

    rows = harmless(data, pairs + 4)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        version = tiny.write_version(folder / "versions" / "bench", {"train": rows[4:], "validation": rows[:4]})
        margins = []
        for name, fsdp in (("whole", False), ("shards", True)):
            found = launched(version, folder / name, fsdp)
            peaks = " and ".join(f"{peak:.2f}" for peak in sorted(peak for _, peak in found))
            print(f"{name}: {found[0][0]:.3f} pairs/s, peaks {peaks} GB")
            log = pq.read_table(folder / name / "pair_log.parquet").to_pandas()
            margins.append(log.sort_values(["step", "split", "pair_id"])["margin"].to_numpy())
        off, moved = abs(margins[0] - margins[1]).max(), abs(margins[0]).max()
        print(f"margins differ by at most {off:.2g}; they moved by up to {moved:.2g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", nargs=3, metavar=("VERSION", "RUN", "FSDP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        version, run, fsdp = options.work
        work(Path(version), Path(run), fsdp == "1")
    else:
        compare(options.pairs, options.data)


if __name__ == "__main__":
    main()
