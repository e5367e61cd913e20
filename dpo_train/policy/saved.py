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
from typing import Any, NamedTuple

import numpy as np
import torch

from dpo_train.atomic import sync, sync_tree, write_json
from dpo_train.config import TrainError
from dpo_train.data.pairs import PairSet
from dpo_train.policy.policy import Policy
from dpo_train.policy.scoring_modes import tolerance
from dpo_train.progress import quiet_bars
from dpo_train.statistics import Indices

logger = logging.getLogger(__name__)
NAME = "probe.json"
PAIRS = 4
LIMIT = 1e-3  # nats of a response; what rounding in float32 explains is 50 times less on responses of 900 tokens
ROUGH = 10.0  # times the rounding in bfloat16: experts that are routed otherwise differ by more than rounding
SIDES = ("chosen", "rejected")


def measure(policy: Policy, pairs: PairSet, indices: Indices | Sequence[int]) -> dict[str, Any]:
    """A few of the pairs at `indices`, from the shortest to the median, with their log-probabilities (nats) now.

    In the precision of the weights. Every process calls it: weights in shards are gathered for the pass.
    """
    ordered = np.asarray(indices)[np.argsort(pairs.lengths[np.asarray(indices)], kind="stable")]
    places = ordered[np.unique(np.linspace(0, len(ordered) // 2, PAIRS).astype(int).clip(max=len(ordered) - 1))]
    encoded = pairs.encoded(places)
    autocast, policy.autocast = policy.autocast, False
    try:
        with torch.no_grad():
            scores = [policy.score([pair]) for pair in encoded]
    finally:
        policy.autocast = autocast
    return {
        "exact": policy.dtype in (torch.float32, torch.float64),
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


def read(run: Path) -> dict[str, Any] | None:
    """What `write` kept; None, with a warning, in a run of an older release."""
    try:
        probe: dict[str, Any] = json.loads((run / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        logger.warning("%s has no %s, so what is merged is not compared with the run", run, NAME)
        return None
    return probe


def exactly(network: Any, run: Path, probe: Mapping[str, Any]) -> dict[str, Any]:
    """The probe of a run in bfloat16 or 4 bit, measured in float32 by its adapter, opened unmerged.

    Raises `TrainError` where that is further from the run than such rounding can be. A run in 4 bit measured other base
    weights: how far they are off is a warning.
    """
    worst = _worst(network, probe, rough=True)
    if probe["packed"]:
        logger.warning(
            "%s: merged into the weights before they were packed into 4 bit. Pair %s has %.6g nats there (%s) and %.6g "
            "in the run: its held-out numbers do not carry over exactly",
            run,
            worst.pair["pair_id"],
            worst.found,
            worst.side,
            worst.pair[worst.side],
        )
    elif worst.excess > 0:
        raise _differs(run / "adapter", worst)
    pairs = [
        {
            **pair,
            **{side: _logp(network, pair["tokens"][0], pair["tokens"][k]) for k, side in enumerate(SIDES, start=1)},
        }
        for pair in probe["pairs"]
    ]
    return {"exact": True, "packed": False, "pairs": pairs}


@contextmanager
def checked(run: Path, name: str, probe: Mapping[str, Any] | None) -> Iterator[Path]:
    """A hidden folder to write a model or adapter to, which becomes `run`/`name` if it scores as `probe` has it.

    An adapter is not opened: its tensors are those of the run. Raises `TrainError` where a model scores otherwise.
    """
    partial, target = run / f".{name}.{os.getpid()}", run / name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if probe is not None and (partial / "config.json").is_file():
            worst = _worst(_open(partial), probe)
            if worst.excess > 0:
                raise _differs(target, worst)
        sync_tree(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)  # of a run that died between its model and its summary
    partial.rename(target)
    sync(run)


class _Worst(NamedTuple):
    """The response whose log-probability (nats) is furthest off, and by how much more than the limit."""

    side: str
    pair: Mapping[str, Any]
    found: float
    excess: float


def _differs(path: Path, worst: _Worst) -> TrainError:
    return TrainError(
        f"{path}: opened afresh this is not what the run measured. The {worst.side} response of pair "
        f"{worst.pair['pair_id']} has {worst.found:.6f} nats, where the run measured {worst.pair[worst.side]:.6f}; no "
        "model was written. If the base model is another one than at the start of the run, put it back. Else this "
        "model's layers cannot be saved so: adapt other ones (lora_target_modules), or open adapter/ with peft."
    )


@quiet_bars()
def _open(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def _worst(network: Any, probe: Mapping[str, Any], rough: bool = False) -> _Worst:
    """Against `LIMIT`, or where the run itself measured roughly against `ROUGH` times the rounding of bfloat16."""
    found = []
    for pair in probe["pairs"]:
        prompt, *responses = pair["tokens"]
        for side, response in zip(SIDES, responses, strict=True):
            logp = _logp(network, prompt, response)
            most = ROUGH * tolerance(torch.bfloat16, len(response)) if rough else LIMIT
            difference = abs(logp - pair[side])
            found.append(_Worst(side, pair, logp, difference - most if np.isfinite(difference) else np.inf))
    return max(found, key=lambda worst: worst.excess)


def _logp(network: Any, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Sum over the response of its tokens' log-probabilities, nats, by the model's own forward pass."""
    if not response:  # of a single response
        return 0.0
    tokens = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        logits = network(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    scores = logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    return float(scores.gather(1, tokens[0, len(prompt) :, None]).sum())
