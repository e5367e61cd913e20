"""What a run will cost, before anything is spent: tokens, steps, time and memory.

Tokens and steps are counted exactly, from the encoded pairs. Time comes from the machine's matmul rate, measured for a
second on the model's own shapes, and the floating-point work of a step; memory from weights, moments and the largest
forward pass. Nothing is trained or scored, but the model is loaded, since its shape is the estimate.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoded_pair import row_length
from dpo_train.data.pairs import SPLITS, PairSet, open_pairs
from dpo_train.policy.architecture import attribute, layer_configs
from dpo_train.policy.flops import least, least_forward, matmul_rate
from dpo_train.policy.load import open_policy
from dpo_train.policy.packing import cut
from dpo_train.policy.policy import Policy
from dpo_train.setup import BUDGETS, cache_of, encoder_of, reference_pairs, steps_of, watched_pairs

SHARE_OF_PEAK = 0.6  # of the measured matmul rate that steps reach: .54 to .61 seen on 2 CPU cores (bench_plan.py)


def estimate(config: TrainConfig, version: Path) -> dict[str, Any]:
    """Plain numbers about a run that was not made; raises `TrainError` as the run would."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        cache = cache_of(version, Path(scratch))
        device = torch.device("cuda" if torch.cuda.is_available() and not config.use_cpu else "cpu")
        policy = open_policy(config, cache, device)
        encoder = encoder_of(policy, config)
        sets = {split: open_pairs(version, split, encoder, cache, config.loss.shards) for split in SPLITS}
        opening = (time.perf_counter() - began) / 60
        return _estimate(config, policy, sets, opening)


def _estimate(config: TrainConfig, policy: Policy, sets: Mapping[str, PairSet], opening: float) -> dict[str, Any]:
    training = sets["train"]
    if not len(training):
        raise TrainError("no training pair can be used: raise max_length, or look at the pre-flight counts.")
    schedule, total, every = steps_of(config, len(training), 1)
    budget = config.token_budget or BUDGETS.get(policy.device.type, BUDGETS["cuda"])
    row_tokens = sum(int(training.lengths[schedule.window(step)].sum()) for step in range(total))
    watched = watched_pairs(config, sets)
    watched_tokens = {name: int(sets[split].lengths[places].sum()) for name, (split, places) in watched.items()}
    evaluations = math.ceil(total / every)
    evaluation_tokens = evaluations * (watched_tokens["validation"] + watched_tokens["train_probe"])
    evaluation_tokens += watched_tokens["test"]  # once, under the weights that are kept
    referred = reference_pairs(config, watched, schedule, total)
    reference_tokens = sum(int(sets[split].lengths[places].sum()) for split, places in referred.items())
    # the share of tokens that are scored, and the keys a query meets, of a sample of the pairs
    sample = training.encoded(np.arange(len(training))[:: max(1, len(training) // 256)])
    shape, all_weights = policy.counter.shape, not config.use_peft
    tokens = sum(row_length(pair) for pair in sample)
    learning = least(shape, sample, all_weights) / tokens
    looking = least_forward(shape, sample) / tokens
    looks = evaluation_tokens + reference_tokens
    if config.loss.neutral == "kl":  # every row once more with another response, in steps and looks alike
        looks = 2 * looks + row_tokens
    recomputed = looking if config.gradient_checkpointing else 0.0
    accounted = _account_tokens(config, sets["validation"])
    work = row_tokens * (learning + recomputed) + looks * looking + accounted * (2 * learning - looking)
    rate = matmul_rate(policy.network)
    return {
        "pairs": len(training),
        "dropped": int((training.reasons != "").sum()),
        "steps": total,
        "pairs_per_step": config.pairs_per_step,
        "evaluations": evaluations,
        "training_tokens": row_tokens,
        "reference_tokens": reference_tokens,
        "evaluation_tokens": evaluation_tokens,
        "account_tokens": accounted,
        "trained_parameters": sum(value.numel() for value in policy.trainable().values()),
        "device": str(policy.device),
        "matmul_gflops": round(rate / 1e9, 1),
        "minutes_opening": round(opening, 2),  # as long as opening took just now
        "minutes": round(opening + work / (rate * SHARE_OF_PEAK) / 60, 2),
        "memory_gb": round(_memory(config, policy, training, budget) / 2**30, 2),
        "not_counted": _not_counted(config, policy),
    }


def _account_tokens(config: TrainConfig, validation: PairSet) -> int:
    """Tokens of the held-out pairs whose margins are split among slices: a forward and two backward passes a chord.

    The chords are those of a run whose margins move little; `_not_counted` says what more there can be.
    """
    if config.attribution.by is None or not len(validation):
        return 0
    pairs = min(config.attribution.pairs, len(validation))
    return round(config.attribution.intervals * pairs * float(validation.lengths.mean()))


def _not_counted(config: TrainConfig, policy: Policy) -> list[str]:
    """What the estimate leaves out or assumes, in words."""
    said = [
        f"one process; steps are taken to reach {SHARE_OF_PEAK:.0%} of the matmul rate that was measured just now, so "
        "other programs on this machine make it slower",
        "references that the cache knows and an early stop would save time; a model file to download would cost some",
    ]
    if policy.device.type == "cpu":
        said.append("memory is that of weights, moments and activations; Python and its libraries took .3 to 1 GB more")
    else:
        said.append(f"that share was seen on CPUs only: on {policy.device.type} it is a guess, and so is the memory")
    if config.attribution.by is not None:
        said.append(
            f"attribution is counted with {config.attribution.intervals} intervals of one gradient each; where margins "
            "move more, it takes up to one interval per evaluation and three gradients per interval "
            "(attribution.max_closure_error)"
        )
    if config.load_in_4bit:
        said.append("4-bit weights are unpacked for every product: slower than counted, by how much is not known here")
    if config.fsdp:
        said.append("shards: the plan is of one process that holds all weights, and counts no gathering")
    if config.lora_dropout or config.use_dora:
        said.append("adapter dropout and DoRA cost more than counted")
    return said


def _memory(config: TrainConfig, policy: Policy, training: PairSet, budget: int) -> float:
    """Bytes: weights, gradients and two moments of what is trained, and what the largest forward pass keeps."""
    size = policy.dtype.itemsize
    weights = sum(value.numel() * value.element_size() for value in policy.network.parameters())
    trained = sum(value.numel() for value in policy.trainable().values()) * 4 * 3
    shape = policy.network.config.get_text_config()
    longest = np.sort(training.lengths)[-config.pairs_per_step :]
    tokens = max(int(longest[group].sum()) for group in cut(longest, budget))
    wide = max(map(_widest, layer_configs(shape)))
    kept = 2 * shape.hidden_size if config.gradient_checkpointing else 14 * shape.hidden_size + 4 * wide
    activations = tokens * shape.num_hidden_layers * kept * size
    return float(weights + trained + activations + 2 * 2**25 * 4)


def _widest(config: Any) -> int:
    """The largest intermediate size of a layer, or of all layers where one configuration lists them (Gemma 3n)."""
    size = attribute(config, "intermediate_size") or 4 * config.hidden_size
    return int(size) if isinstance(size, int) else max(map(int, size))
