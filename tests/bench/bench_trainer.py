"""Our trainer against TRL 1.16: pairs a second, memory, share of the matmul peak, work ratio.

    python tests/bench/bench_trainer.py [--pairs 32] [--threads 2] [--rounds 3] [--trl-batches 1,2,4,8]

The packaged SmolLM2-135M-Instruct in float32, LoRA r=8 on q_proj and v_proj, hh-rlhf-harmless pairs in random order,
steps of 8 pairs. Each trainer runs in a process of its own, alternating; TRL has its reference precomputed and no
activation checkpointing. Timed is the steady state (after the first forward and backward pass of ours, the first step
of TRL's), as wall time and as CPU time: on a machine that is shared, only CPU time with one thread compares.
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
DATA = ROOT.parent / "shared" / "data" / "hh-rlhf-harmless"
PER_STEP = 8


def harmless(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random pairs of the published set as message lists."""
    files = sorted(DATA.glob("*.jsonl"))
    made = []
    for number, line in enumerate(files[0].read_text(encoding="utf-8").splitlines()):
        record = json.loads(line)
        chosen, rejected = messages(record["chosen"]), messages(record["rejected"])
        if chosen[:-1] == rejected[:-1] and all(
            side[-1]["role"] == "assistant" and side[-1]["content"] for side in (chosen, rejected)
        ):
            made.append(
                {"pair_id": f"hh-{number}", "prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}
            )
    random.Random(seed).shuffle(made)
    return made[:count]


def messages(transcript: str) -> list[dict[str, str]]:
    found = []
    for turn in transcript.split("\n\nHuman: ")[1:]:
        human, *answers = turn.split("\n\nAssistant:")
        found.append({"role": "user", "content": human.strip()})
        found += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return found


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def result(seen: list[tuple[int, float, float]], **more: Any) -> None:
    """Print the rates between the first and the last mark (pairs so far, wall, CPU)."""
    pairs, wall, cpu = (last - first for first, last in zip(seen[0], seen[-1], strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("RESULT " + json.dumps({"pairs": pairs, "wall": wall, "cpu": cpu, "peak_gb": peak, **more}))


def ours(folder: Path, model: str, options: argparse.Namespace) -> None:
    import tiny
    import torch

    from dpo_train.config import TrainConfig
    from dpo_train.train import train

    torch.set_num_threads(options.threads)
    version = tiny.write_version(folder / "versions" / "bench", {"train": harmless(options.pairs)})
    config = TrainConfig(
        model=model,
        use_cpu=True,
        per_device_train_batch_size=PER_STEP,
        probe_pairs=0,
        report_to=(),
        max_length=1024,
        token_budget=options.budget,
        prefix_sharing=not options.apart,
    )
    seen: list[tuple[int, float, float]] = []
    groups: list[Any] = []

    def mark(pairs: Any, indices: Any) -> None:
        groups.append((pairs, indices))
        seen.append((seen[-1][0] + len(indices) if seen else 0, *clock()))

    train(config, version, folder / "run", observe=mark)
    work = floating_point_work(groups[1:], model)
    result(seen, matmul=matmul_rate(options.threads), **work)


def floating_point_work(groups: list[Any], model: str) -> dict[str, float]:
    """Useful and executed floating-point operations of the timed forward and backward passes (4 a weight a token)."""
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(model)
    width, layers = shape.hidden_size, shape.num_hidden_layers
    head = shape.vocab_size * width
    keys = width * shape.num_key_value_heads // shape.num_attention_heads
    body = layers * (2 * width * width + 2 * width * keys + 3 * width * shape.intermediate_size)
    useful = executed = 0.0
    for pairs, indices in groups:
        encoded, lengths = pairs.encoded(indices), pairs.lengths[indices]
        scored = sum(len(pair.chosen) + len(pair.rejected) for pair in encoded)
        longest = int(lengths.max())
        attention = 12 * layers * width  # forward and backward, a query-key pair
        useful += 4 * (body * int(lengths.sum()) + head * scored) + attention * float((lengths**2).sum()) / 2
        executed += 4 * (body * longest * len(indices) + head * scored) + attention * float(longest**2 * len(indices))
    return {"useful": useful, "executed": executed}


def matmul_rate(threads: int) -> float:
    """Operations a second of CPU time of a product of the model's shape, the best of five tries."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.randn(512, 576), torch.randn(576, 1536)
    best = 0.0
    for _ in range(5):
        start = clock()
        for _ in range(60):
            left @ right
        best = max(best, 60 * 2 * 512 * 576 * 1536 / ((clock()[1] - start[1]) / threads))
    return best


def theirs(folder: Path, model: str, options: argparse.Namespace) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(options.threads)
    seen: list[tuple[int, float, float]] = []

    class Mark(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen.append((len(seen) * PER_STEP, *clock()))

    settings = DPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=options.batch,
        use_cpu=True,
        bf16=False,
        gradient_accumulation_steps=PER_STEP // options.batch,
        gradient_checkpointing=options.defaults,
        num_train_epochs=1,
        precompute_ref_log_probs=not options.defaults,
        max_length=1024,
        report_to=[],
        save_strategy="no",
        logging_steps=1000,
        learning_rate=1e-4,
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=settings,
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=Dataset.from_list(
            [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in harmless(options.pairs)]
        ),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
        callbacks=[Mark()],
    )
    trainer.train()
    result(seen)


def measured(kind: str, options: argparse.Namespace, model: str, *extra: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", kind, "--model", model, "--pairs", str(options.pairs)]
    command += ["--threads", str(options.threads), *extra]
    quiet = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet})
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, float] = json.loads(lines[0].removeprefix("RESULT "))
    print(
        f"  {kind} {' '.join(extra)}: {found['pairs'] / found['wall']:.3f} pairs/s wall, "
        f"{found['pairs'] / found['cpu']:.3f} pairs per CPU second, peak {found['peak_gb']:.2f} GB",
        flush=True,
    )
    return found


def compare(options: argparse.Namespace) -> None:
    from dpo_train.config import PACKAGED_MODEL
    from dpo_train.model import resolve

    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or resolve(PACKAGED_MODEL, Path(scratch))[0]
        batches = [int(text) for text in options.trl_batches.split(",") if text]
        print(
            f"{processor()}, {os.cpu_count()} cores, {options.threads} threads, load {os.getloadavg()[0]:.1f}, "
            f"Python {platform.python_version()}; {options.pairs} pairs"
        )
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            rounds.setdefault("ours", []).append(measured("ours", options, model))
            if options.ablation:
                rounds.setdefault("ours, apart", []).append(measured("ours", options, model, "--apart"))
                rounds.setdefault("ours, one pair a pass", []).append(measured("ours", options, model, "--budget", "1"))
            for batch in batches:
                rounds.setdefault(f"TRL {batch}", []).append(measured("trl", options, model, "--batch", str(batch)))
            if options.defaults:
                rounds.setdefault("TRL defaults", []).append(
                    measured("trl", options, model, "--batch", "8", "--defaults")
                )
    summary(rounds, options)


def summary(rounds: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    rate = {
        (name, kind): statistics.median(one["pairs"] / one[kind] for one in found)
        for name, found in rounds.items()
        for kind in ("wall", "cpu")
    }
    print(f"\nmedian of {options.rounds} rounds")
    for name, found in rounds.items():
        peak = statistics.median(one["peak_gb"] for one in found)
        print(f"{name:<22} {rate[name, 'wall']:8.3f} pairs/s  {rate[name, 'cpu']:8.3f} pairs/CPU s  {peak:6.2f} GB")
    for kind in ("wall", "cpu"):
        peers = {
            name: value
            for (name, unit), value in rate.items()
            if unit == kind and name[:3] == "TRL" and name[-1] != "s"
        }
        if peers:
            best = max(peers, key=lambda name: peers[name])
            print(f"ours / {best} ({kind}): {rate['ours', kind] / peers[best]:.2f}")
    mine = rounds["ours"]
    share = statistics.median(one["useful"] / (one["cpu"] / options.threads) / one["matmul"] for one in mine)
    print(
        f"work ratio {mine[0]['executed'] / mine[0]['useful']:.3f}; useful work at {share:.0%} of measured matmul peak"
    )
    if "TRL 4" in rounds:
        peaks = {name: statistics.median(one["peak_gb"] for one in rounds[name]) for name in ("ours", "TRL 4")}
        print(f"peak memory ours / TRL 4: {peaks['ours'] / peaks['TRL 4']:.2f}")


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
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--apart", action="store_true", help="without prefix sharing")
    parser.add_argument("--defaults", action="store_true", help="also TRL as it comes: live reference, checkpointing")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--child", choices=["ours", "trl"])
    options = parser.parse_args()
    if options.child is None:
        compare(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        (ours if options.child == "ours" else theirs)(Path(folder), options.model, options)


if __name__ == "__main__":
    main()
