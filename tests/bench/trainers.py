"""The two trainers that bench_trainer.py compares, each run in a process of its own; prints one line of figures."""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PER_STEP = 8


def ours(folder: Path, options: argparse.Namespace) -> None:
    import accelerate  # noqa: F401  (imports are no part of an epoch, on neither side)
    import peft  # noqa: F401
    import torch
    from helpers import tiny
    from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: F401

    from dpo_train import setup
    from dpo_train.config import TrainConfig
    from dpo_train.policy import cpu_matmul, load
    from dpo_train.policy.flops import least
    from dpo_train.train import train

    torch.set_num_threads(options.threads)
    rows = harmless(options.data, options.pairs)
    version = tiny.write_version(folder / "versions" / "bench", {"train": rows})
    config = TrainConfig(
        model=options.model,
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=options.per_step,
        probe_pairs=0,
        report_to=(),
        max_length=1024,
        token_budget=options.budget,
        prefix_sharing=not options.apart,
    )
    if options.plain_matmul:
        load.speed_up = lambda *_: None
    if options.whole_logits:
        setup.choose_scoring_mode = lambda policy, *_: setattr(policy, "way", "full_logits")
    seen: list[tuple[int, float, float]] = []
    policies: list[Any] = []
    open_policy = setup.open_policy

    def opened(*given: Any) -> Any:
        policies.append(open_policy(*given))
        return policies[-1]

    def mark(pairs: Any, indices: Any) -> None:
        seen.append((seen[-1][0] + len(indices) if seen else 0, *clock()))
        if len(seen) == 1:
            spent[0] = policies[0].counter.done
        timed.append((pairs, indices))

    setup.open_policy = opened
    spent, timed = [0.0], []
    began = clock()
    train(config, version, folder / "run", observe=mark)
    counter = policies[0].counter
    needed = sum(least(counter.shape, pairs.encoded(indices), False) for pairs, indices in timed[1:])
    rates = {name: rate(way, policies[0].network) for name, way in ways(cpu_matmul).items()}
    result(seen, began, options.pairs, needed=needed, done=counter.done - spent[0], rates=rates)


def theirs(folder: Path, options: argparse.Namespace) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(options.threads)
    gpu = torch.cuda.is_available()
    seen: list[tuple[int, float, float]] = []

    class Mark(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if gpu:
                torch.cuda.synchronize()
            seen.append((len(seen) * PER_STEP, *clock()))

    settings = DPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=options.batch,
        use_cpu=not gpu,
        bf16=gpu,
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
    rows = harmless(options.data, options.pairs)
    began = clock()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16 if gpu else torch.float32),
        args=settings,
        processing_class=AutoTokenizer.from_pretrained(options.model),
        train_dataset=Dataset.from_list([{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in rows]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
        callbacks=[Mark()],
    )
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    result(seen, began, options.pairs)


def harmless(data: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random pairs of the published set as message lists."""
    files = sorted(data.glob("*.jsonl"))
    if not files:
        raise SystemExit(f"{data} holds no .jsonl: give the folder of Anthropic's hh-rlhf harmless-base with --data.")
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


def result(seen: list[tuple[int, float, float]], began: tuple[float, float], pairs: int, **more: Any) -> None:
    """Print the steady time between the first and the last mark (pairs so far, wall, CPU), and that of all."""
    import torch

    steady, wall, cpu = (last - first for first, last in zip(seen[0], seen[-1], strict=True))
    ended = clock()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    epoch = {"epoch_pairs": pairs, "epoch_wall": ended[0] - began[0], "epoch_cpu": ended[1] - began[1]}
    print("RESULT " + json.dumps({"pairs": steady, "wall": wall, "cpu": cpu, "peak": peak / 2**30, **epoch, **more}))


def ways(cpu_matmul: Any) -> dict[str, Any]:
    """How this device may multiply matrices."""
    import torch

    found = {"torch.nn.functional.linear": torch.nn.functional.linear}
    if not torch.cuda.is_available() and cpu_matmul.usable(torch.float32, torch.device("cpu")):
        found["oneDNN"] = cpu_matmul.matmul
    return found


def rate(way: Any, network: Any) -> float:
    """Operations a CPU second (on a GPU a second) of the network's largest layer on 512 tokens; the best of five."""
    import torch

    weight = network.get_input_embeddings().weight
    shape = network.config.get_text_config()
    left, right = (
        torch.randn(rows, shape.hidden_size, dtype=weight.dtype, device=weight.device)
        for rows in (512, shape.intermediate_size)
    )
    best = 0.0
    for _ in range(5):
        start = clock()
        for _ in range(60):
            way(left, right)
        if weight.is_cuda:
            torch.cuda.synchronize()
        spent = clock()[0 if weight.is_cuda else 1] - start[0 if weight.is_cuda else 1]
        best = max(best, 60 * 2 * left.numel() * right.shape[0] / spent)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trainer", choices=["ours", "trl"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1, help="of TRL: pairs a forward pass")
    parser.add_argument("--defaults", action="store_true", help="of TRL: live reference and activation checkpointing")
    parser.add_argument("--per-step", type=int, default=PER_STEP, help="of ours, as all that follow: pairs a step")
    parser.add_argument("--budget", type=int, help="tokens a forward pass")
    parser.add_argument("--apart", action="store_true", help="without prefix sharing")
    parser.add_argument("--plain-matmul", action="store_true", help="without oneDNN")
    parser.add_argument("--whole-logits", action="store_true", help="the head on every position")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (ours if options.trainer == "ours" else theirs)(Path(folder), options)


if __name__ == "__main__":
    main()
