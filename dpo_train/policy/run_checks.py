"""What a run refuses before it starts, and what it says aloud about its data and settings.

A note is None where there is nothing to say. Accelerate passes over a tracker that is not installed
without a word, so it is asked for here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.dates import writes_date
from dpo_train.data.pairs import PairSet
from dpo_train.policy.architecture import attribute
from dpo_train.policy.policy import Policy


def check_surroundings(config: TrainConfig) -> None:
    """Raises `TrainError` where the launcher or a missing package would make another run of this one."""
    _check_launcher()
    _check_trackers(config.report_to)


def notes(config: TrainConfig, training: PairSet, validation: PairSet) -> list[str]:
    """What a person should know before the first step."""
    found = [
        _without_validation(validation),
        _hard_labels(config, training),
        _what_a_margin_is(config),
        _imbalance(config, training),
    ]
    return [note for note in found if note is not None]


def of_model(network: Any, sets: Mapping[str, PairSet]) -> list[str]:
    """What of this model's training differs from what its configuration promises."""
    config = network.config.get_text_config()
    found = []
    longest = max((int(pairs.ends.max(initial=0)) for pairs in sets.values()), default=0)
    promised = attribute(config, "max_position_embeddings")
    if isinstance(promised, int) and 0 < promised < longest:
        count = sum(int((pairs.ends > promised).sum()) for pairs in sets.values())
        found.append(
            f"{count} pairs are longer than the {promised} tokens that the model was made for "
            f"(max_position_embeddings; the longest has {longest}): it was not trained to attend so far. Lower "
            "max_length to leave them out."
        )
    coefficient = attribute(config, "router_aux_loss_coef")
    if getattr(config, "output_router_logits", False) and coefficient:
        found.append(
            f"The model asks for a load-balancing loss of its router (router_aux_loss_coef {coefficient:g}), which is "
            "not added: with adapters the router does not learn; where all weights do, watch that experts stay in use."
        )
    return found


def check_vocabulary(policy: Policy, sets: Mapping[str, PairSet]) -> list[str]:
    """A note where the tokenizer has tokens that the model has no row for; raises `TrainError` where a pair has one."""
    rows, tokens = policy.rows, 1 + max(policy.tokenizer.get_vocab().values(), default=0)
    if tokens <= rows:
        return []
    for split, pairs in sets.items():
        place = pairs.first_beyond(rows)
        if place is not None:
            [pair] = pairs.encoded([place])
            token = next(token for part in pair for token in part if token >= rows)
            raise TrainError(
                f"{split}: pair {pairs.pair_ids[place]} has token {token} "
                f"({policy.tokenizer.convert_ids_to_tokens(token)!r}), and the model has embeddings of tokens 0 to "
                f"{rows - 1} only. Give the model rows for the tokens that were added (resize_token_embeddings, then "
                "train them), or use the tokenizer that it was made with."
            )
    return [
        f"The tokenizer has {tokens} tokens and the model rows for {rows}; no pair has one of the others. An adapter "
        "is saved without the tokenizer, since peft would add rows to the model on opening both: take the base's."
    ]


def date_in_prompts(config: TrainConfig, policy: Policy) -> list[str]:
    """A note where the chat template writes today's date."""
    if not writes_date(policy.tokenizer):
        return []
    return [
        f"The chat template writes today's date into prompts. Here it is {config.template_date} on any day "
        "(template_date), so that the same run has the same tokens."
    ]


def _check_launcher() -> None:
    """Raises `TrainError` for what a launcher asks and this trainer does not do.

    Precision is ours to set (`dtype`), and float16 overflows on sums of log-probabilities.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise TrainError(
            "the launcher asks for DeepSpeed, which this trainer does not use: launch with torchrun or `accelerate "
            "launch --multi_gpu`, and set fsdp to true where the weights do not fit on one device."
        )
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", "bf16"):
        raise TrainError(
            f"the launcher asks for mixed precision {asked}, which this trainer does not do: launch with "
            "--mixed_precision no, and set dtype to float32 or bfloat16."
        )


def _check_trackers(wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise TrainError(
            f"report_to names {', '.join(missing)}, which is not installed: run `pip install {' '.join(missing)}`, or "
            "set report_to to [tensorboard], or to [] for metrics.jsonl alone."
        )


def _hard_labels(config: TrainConfig, training: PairSet) -> str | None:
    """Pairs that soft labels say nothing about."""
    unknown = training.unknown("confidence") if "confidence" in config.loss.needs else 0
    if not unknown:
        return None
    return (
        f"{unknown} of {len(training)} training pairs have no confidence: soft_labels treats their labels as certain."
    )


def _what_a_margin_is(config: TrainConfig) -> str | None:
    """What the words of pairs mean where a row is a single response."""
    if config.loss.shards == "pairs":
        return None
    return (
        "Rows are single responses: a row's margin is its reward in the direction of its label (β log π/π_ref where it "
        "is desirable, minus that where not), its accuracy whether that is above 0. The axis label holds the two apart."
    )


def _imbalance(config: TrainConfig, training: PairSet) -> str | None:
    """KTO's advice about the weights of the two kinds of rows (arXiv:2402.01306, Eq. 9: between 1 and 4/3)."""
    if config.loss.shards == "pairs":
        return None
    good, bad = int((training.tokens_of("chosen") > 0).sum()), int((training.tokens_of("rejected") > 0).sum())
    wanted, unwanted = (float(getattr(config.loss, f"{kind}_weight")) for kind in ("desirable", "undesirable"))
    if good and bad and 1 <= wanted * good / max(unwanted * bad, 1e-12) <= 4 / 3:
        return None
    advice = (
        ""
        if not good or not bad
        else (f" Set undesirable_weight between {wanted * good / (4 / 3) / bad:.3g} and {wanted * good / bad:.3g}.")
    )
    return (
        f"{good} desirable rows of weight {wanted:g} and {bad} undesirable of weight {unwanted:g}: the KTO paper wants "
        f"the first to weigh 1 to 4/3 times the second.{advice}"
    )


def single_prompts(config: TrainConfig, sets: Mapping[str, PairSet]) -> list[str]:
    """Held-out splits of one prompt, on which kto has no estimate of the drift (`scoring.without_estimate`)."""
    if config.loss.neutral != "kl":
        return []
    named = [split for split, pairs in sets.items() if split != "train" and len(set(pairs.prompts)) == 1]
    return [
        f"The {split} split has one prompt, so kto cannot estimate the policy's drift there and measures its rewards "
        "from 0. Read more prompts, or use apo_zero_unpaired, which needs no estimate."
        for split in named
    ]


def _without_validation(pairs: PairSet) -> str | None:
    if len(pairs):
        return None
    return "The version has no validation pairs: nothing can stop the run early, and the last weights are kept."
