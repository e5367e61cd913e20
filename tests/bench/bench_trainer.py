"""Our trainer against TRL 1.16: pairs a second, memory, share of the matmul rate, work ratio; what each part brings.

    python tests/bench/bench_trainer.py [--pairs 32] [--threads 2] [--rounds 3] [--trl-batches 1,2,4,8] [--ablation]
        [--defaults] [--shape smollm2|1b]

On a CPU: the packaged SmolLM2-135M-Instruct in float32; on a GPU: a network of a billion weights drawn at random, in
bfloat16. LoRA r=8 on q_proj and v_proj, hh-rlhf-harmless pairs in random order (--data), steps of 8 pairs. Each trainer
runs in a process of its own, alternating; TRL has its reference precomputed and no activation checkpointing, and after
the first round only the best of its batch sizes runs on. "Steady" is the time between the first and the last step,
without the reference; "epoch" all from opening the model to the saved adapter, both reference passes included. Wall
time and CPU time are both told: on a machine that is shared only CPU time compares. Memory is compared at 4 pairs a
forward pass on both sides.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
DATA = ROOT.parent / "shared" / "data" / "hh-rlhf-harmless"
BILLION = {  # as published models of 1.2 billion weights are cut
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
ABLATIONS = {
    "without prefix sharing": ["--apart"],
    "without oneDNN": ["--plain-matmul"],
    "one pair a pass": ["--budget", "1"],
    "logits of every position": ["--whole-logits"],
}


def measured(kind: str, options: argparse.Namespace, *extra: str) -> dict[str, Any]:
    """One trainer in a process of its own."""
    command = [
        sys.executable,
        str(ROOT / "tests" / "bench" / "trainers.py"),
        kind,
        "--model",
        options.model,
        "--pairs",
        str(options.pairs),
    ]
    command += ["--threads", str(options.threads), "--data", str(options.data), *extra]
    quiet = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet})
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    print(
        f"  {kind} {' '.join(extra)}: {found['pairs'] / found['wall']:.3f} pairs/s, "
        f"{found['pairs'] / found['cpu']:.3f} pairs per CPU second, peak {found['peak']:.2f} GB",
        flush=True,
    )
    return found


def compare(options: argparse.Namespace) -> None:
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        options.model = options.model or prepared(options.shape, Path(scratch))
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
        print(
            f"{device}, {os.cpu_count()} cores, {options.threads} threads, load {os.getloadavg()[0]:.1f}, "
            f"Python {platform.python_version()}, torch {torch.__version__}; {options.pairs} pairs"
        )
        rounds: dict[str, list[dict[str, Any]]] = {}

        def add(name: str, kind: str, *extra: str) -> None:
            rounds.setdefault(name, []).append(measured(kind, options, *extra))

        batches = [int(text) for text in options.trl_batches.split(",") if text]
        for number in range(options.rounds):
            add("ours", "ours")
            for batch in batches:
                add(f"TRL, batch {batch}", "trl", "--batch", str(batch))
            if number == 0:
                add("ours, 4 pairs a pass", "ours", "--per-step", "4", "--budget", "1000000")
                for name, extra in ABLATIONS.items() if options.ablation else ():
                    add(f"ours {name}", "ours", *extra)
                if options.defaults:
                    add("TRL as it comes", "trl", "--batch", "8", "--defaults")
                batches = [max(batches, key=lambda batch: median(rounds[f"TRL, batch {batch}"], "wall"))][:1]
    summary(rounds, options)


def median(found: list[dict[str, Any]], kind: str, pairs: str = "pairs") -> float:
    """Pairs a second, of the rounds."""
    return statistics.median(one[pairs] / one[kind] for one in found)


def summary(rounds: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    print(f"\nmedians of up to {options.rounds} rounds")
    print(f"{'':<32} {'steady':>9} {'':>10} {'epoch':>9} {'peak':>8}")
    for name, found in rounds.items():
        peak = statistics.median(one["peak"] for one in found)
        epoch = median(found, "epoch_wall", "epoch_pairs")
        print(
            f"{name:<32} {median(found, 'wall'):7.3f}/s {median(found, 'cpu'):6.3f}/CPU s {epoch:7.3f}/s {peak:5.2f} GB"
        )
    mine = rounds["ours"]
    peers = {name: found for name, found in rounds.items() if name.startswith("TRL, batch")}
    for label, kind, pairs in (
        ("steady, wall", "wall", "pairs"),
        ("steady, CPU", "cpu", "pairs"),
        ("epoch, wall", "epoch_wall", "epoch_pairs"),
        ("epoch, CPU", "epoch_cpu", "epoch_pairs"),
    ):
        best = max(peers, key=lambda name: median(peers[name], kind, pairs), default=None)
        for name in filter(None, (best, "TRL as it comes" if options.defaults else None)):
            print(f"ours / {name} ({label}): {median(mine, kind, pairs) / median(rounds[name], kind, pairs):.2f}")
    for library in mine[0]["rates"]:
        reached = statistics.median(one["needed"] / one["cpu"] / one["rates"][library] for one in mine)
        print(
            f"needed work at {reached:.0%} of the matmul rate of {library} "
            f"({statistics.median(one['rates'][library] for one in mine) / 1e9:.0f} GFLOP per CPU second)"
        )
    print(f"work ratio {mine[0]['done'] / mine[0]['needed']:.3f}")
    if "TRL, batch 4" in rounds:
        ratio = rounds["ours, 4 pairs a pass"][0]["peak"] / rounds["TRL, batch 4"][0]["peak"]
        print(f"peak memory at 4 pairs a pass, ours / TRL: {ratio:.2f}")


def prepared(shape: str | None, scratch: Path) -> str:
    """The folder of the model that both trainers open."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from dpo_train.config import PACKAGED_MODEL
    from dpo_train.policy.load import resolve

    packaged = resolve(PACKAGED_MODEL, scratch)[0]
    if (shape or ("1b" if torch.cuda.is_available() else "smollm2")) == "smollm2":
        return packaged
    tokenizer = AutoTokenizer.from_pretrained(packaged)
    folder = scratch / "billion"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=len(tokenizer), **BILLION), dtype=torch.bfloat16
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def processor() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trl-batches", default="1,2,4,8")
    parser.add_argument("--ablation", action="store_true", help="also ours without each of its parts")
    parser.add_argument("--defaults", action="store_true", help="also TRL as it comes: live reference, checkpointing")
    parser.add_argument("--shape", choices=["smollm2", "1b"])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", help="a folder that both open, in place of --shape")
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
