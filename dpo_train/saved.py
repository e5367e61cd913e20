"""What is saved is what was measured: a saved model, opened afresh, must score held-out pairs as the run did.

A run keeps the tokens of a few held-out pairs with its own log-probabilities (`probe.json`). A model folder appears
under its name only after it gave the same numbers through transformers alone: no adapter, no packing, no shared prompt.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpo_train.atomic import sync, sync_tree, write_json
from dpo_train.batches import Indices
from dpo_train.config import TrainError
from dpo_train.model import Policy
from dpo_train.pairs import PairSet
from dpo_train.terminal import quiet_bars
from dpo_train.ways import tolerance

logger = logging.getLogger(__name__)
NAME = "probe.json"
PAIRS = 4
LIMIT = 1e-3  # nats of a response; what rounding in float32 explains is 50 times less on responses of 900 tokens
SIDES = ("chosen", "rejected")


def measure(policy: Policy, pairs: PairSet, indices: Indices | Sequence[int]) -> dict[str, Any]:
    """A few of the pairs at `indices`, from the shortest to the median, with their log-probabilities (nats) now.

    Every process calls it: weights in shards are gathered for the pass.
    """
    ordered = np.asarray(indices)[np.argsort(pairs.lengths[np.asarray(indices)], kind="stable")]
    places = ordered[np.unique(np.linspace(0, len(ordered) // 2, PAIRS).astype(int).clip(max=len(ordered) - 1))]
    encoded = pairs.encoded(places)
    with torch.no_grad():
        scores = [policy.score([pair]) for pair in encoded]
    return {
        "precision": "bfloat16" if policy.autocast else str(policy.dtype).removeprefix("torch."),
        "packed": bool(getattr(policy.network, "is_loaded_in_4bit", False)),
        "pairs": [
            {
                "pair_id": pairs.pair_ids[int(place)],
                "tokens": [list(map(int, part)) for part in pair],
                **{side: float(getattr(sums, side)) for side in SIDES},
            }
            for place, pair, sums in zip(places, encoded, scores, strict=True)
        ],
    }


def write(run: Path, probe: Mapping[str, Any]) -> None:
    """Keep what `measure` gave in a run folder."""
    write_json(run / NAME, probe)


@contextmanager
def checked(run: Path, name: str) -> Iterator[Path]:
    """A hidden folder to write a model or adapter to, which becomes `run`/`name` if it scores as the run did.

    An adapter is not opened: its tensors are those of the run. Raises `TrainError` where a model scores otherwise.
    """
    partial, target = run / f".{name}.{os.getpid()}", run / name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if (partial / "config.json").is_file():
            _check(partial, run, name)
        sync_tree(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)  # of a run that died between its model and its summary
    partial.rename(target)
    sync(run)


def _check(folder: Path, run: Path, name: str) -> None:
    try:
        probe = json.loads((run / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:  # a run of an older release
        logger.warning("%s has no %s, so %s was not compared with the run", run, NAME, name)
        return
    side, pair, found, excess = _worst(folder, probe)
    if excess <= 0:
        return
    if probe["packed"]:
        logger.warning(
            "%s: merged into the weights before they were packed into 4 bit, pair %s has %.6g nats (%s) where the run "
            "measured %.6g; its held-out numbers do not carry over exactly",
            run / name,
            pair["pair_id"],
            found,
            side,
            pair[side],
        )
        return
    raise TrainError(
        f"{run / name}: the saved model is not the one that was measured, and was removed. Opened afresh it gives the "
        f"{side} response of pair {pair['pair_id']} {found:.6f} nats, where the run measured {pair[side]:.6f}. Is the "
        f"base model the one that the run started from? Then adapt other layers (lora_target_modules)"
        + (", or open adapter/ with peft." if name == "model" and (run / "adapter").is_dir() else ".")
    )


@quiet_bars()
def _worst(folder: Path, probe: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], float, float]:
    """The response whose log-probability is furthest off: side, pair, what was found, and nats beyond the limit."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    exact = probe["precision"] in ("float32", "float64")
    worst: tuple[str, Mapping[str, Any], float, float] | None = None
    for pair in probe["pairs"]:
        prompt, *responses = pair["tokens"]
        for side, response in zip(SIDES, responses, strict=True):
            if not response:
                continue
            found = _logp(network, prompt, response)
            limit = LIMIT if exact else tolerance(torch.bfloat16, len(response))
            difference = abs(found - pair[side])
            excess = difference - limit if np.isfinite(difference) else np.inf
            if worst is None or excess > worst[3]:
                worst = side, pair, found, float(excess)
    assert worst is not None  # a pair that trains has a response
    return worst


def _logp(network: Any, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Sum over the response of its tokens' log-probabilities, nats, by the model's own forward pass."""
    tokens = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        logits = network(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    scores = logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    return float(scores.gather(1, tokens[0, len(prompt) :, None]).sum())
