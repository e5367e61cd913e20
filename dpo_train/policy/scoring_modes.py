"""The ways to score pairs with a model, fast to slow, and which of them holds for it, tried before the first step.

"packed" lays whole pairs in one row, "separate" gives each response a row of its own, and both put the head on scored
positions only; "full_logits" is the model's own forward pass with the attention it was opened with, and right by
definition. What a few short pairs cannot show is asked otherwise: leaks between responses, by rewriting
one and looking at the others, and windows of attention, of the configuration. Where there is one, pairs that end within
it share a row, and those that outgrow it are laid apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dpo_train.config import TrainError
from dpo_train.data.encoded_pair import EncodedPair, end, opening
from dpo_train.policy.architecture import attribute
from dpo_train.policy.logprobs import Sums
from dpo_train.policy.policy import Policy, ScoringMode
from dpo_train.statistics import Indices

SIZES = (16, 8, 24)  # tokens of a checked pair: of the prompt, of what both responses open with, of the rest
WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}


def check_causal(policy: Policy, pair: EncodedPair) -> None:
    """Raises `TrainError` for a model that is not causal: earlier logits move with later tokens.

    Encoders (BERT, ELECTRA) and prefix language models open as causal ones and would be scored wrongly without notice.
    """
    ids = [*pair.prompt, *pair.chosen, *pair.rejected][-sum(SIZES) :]
    if len(ids) < 3:
        return
    # log p(both halves | prompt) = log p(first | prompt) + log p(second | prompt, first), unless the first half sees
    # the second. Scored by `Policy.score`, the one forward pass that works on weights in shards too.
    start = max(1, len(ids) // 3)
    middle = (start + len(ids)) // 2
    prompt, first, second = ids[:start], ids[start:middle], ids[middle:]
    with torch.no_grad():
        both = [EncodedPair(prompt, [*first, *second], first), EncodedPair([*prompt, *first], second, second)]
        whole = policy.score(both, "full_logits")
    moved = float((whole.chosen[0] - whole.rejected[0] - whole.chosen[1]).abs())
    if moved > tolerance(_precision(policy), len(ids)):  # NaN is for the reference to report
        raise TrainError(
            f"{policy.base['model']} is no causal language model: later tokens move the log-probabilities of earlier "
            f"ones by {moved:.2g} nats. Expected a decoder; encoders (BERT, ELECTRA) and prefix language models cannot "
            "be trained with DPO here."
        )


def _precision(policy: Policy) -> torch.dtype:
    """The type that a forward pass computes in."""
    return torch.bfloat16 if policy.autocast else policy.dtype


def choose_scoring_mode(policy: Policy, pairs: Sequence[EncodedPair], ends: Indices) -> str | None:
    """Check the fast ways of scoring against the model's own logits on a few pairs and keep the first that holds.

    The pairs are cut short first: any tokens show it, and long rows would only cost time. `ends` are the input tokens,
    prompt and longer response, of every pair that will be scored. Returns None, or a sentence saying what was given up
    and why.
    """
    pairs = sorted(map(_around_the_fork, pairs), key=lambda pair: -len(pair.chosen))  # the first one is rewritten
    ways: list[ScoringMode] = ["packed", "separate"] if policy.way == "packed" else ["separate"]
    given_up: list[str] = []
    with torch.no_grad():
        right = policy.score(pairs, "full_logits")
        for way in ways:
            fault = _fault(policy, way, pairs, right)
            if fault is None:
                policy.way = way
                break
            given_up.append(f"{way}: {fault}")
        else:
            policy.way = "full_logits"
    if not given_up:
        return _apart_alone(policy, ends)
    return f"Scoring falls back to '{policy.way}', which is slower: {'; '.join(given_up)}."


def _apart_alone(policy: Policy, ends: Indices) -> str | None:
    """Set the window within which rows are shared, and say how many pairs outgrow it; None where none does."""
    if policy.way != "packed":
        return None
    policy.window = window_of(policy.network)
    outgrown = int(policy.beyond(ends).sum())
    if not outgrown:
        return None
    return (
        f"{outgrown} of {len(ends)} pairs end beyond token {policy.window}, from where the model attends otherwise (a "
        "window, or positions that depend on length): their responses are scored apart, which is slower."
    )


def _fault(policy: Policy, way: ScoringMode, pairs: Sequence[EncodedPair], right: Sums) -> str | None:
    """What is wrong with a way of scoring, or None."""
    limit = tolerance(_precision(policy), max(len(response) for pair in pairs for response in pair[1:]))
    if way == "packed" and (unlike := unlike_whole_pairs(policy.network, max(map(end, pairs)))):
        return unlike
    try:
        found = policy.score(pairs, way)
        off = float(widest_difference(found, right))
        moved = _moved_by_rival(policy, pairs, found) if way == "packed" else 0.0
    except (TypeError, AttributeError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    if not off <= limit:
        return f"log-probabilities differ by {off:.2g} nats, at most {limit:.2g} is rounding"
    if not moved <= limit / 10:
        return f"a response moved by {moved:.2g} nats when another one in its row was rewritten"
    return None


def _around_the_fork(pair: EncodedPair) -> EncodedPair:
    """The pair cut to `SIZES`: the beginning of its prompt, and its responses around the place where they part."""
    prompt, before, after = SIZES
    part = opening(pair)
    kept = slice(max(0, part - before), part + after)
    return EncodedPair(pair.prompt[:prompt], pair.chosen[kept], pair.rejected[kept])


def _moved_by_rival(policy: Policy, pairs: Sequence[EncodedPair], before: Sums) -> float:
    """By how many nats others move when the first chosen response is rewritten in place; rounding stays as it was."""
    first, *others = pairs
    stays = opening(first) + 1
    rewritten = [*first.chosen[:stays], *(first.chosen[stays - 1] for _ in first.chosen[stays:])]
    after = policy.score([first._replace(chosen=rewritten), *others], "packed")
    moved = torch.cat([before.rejected - after.rejected, before.chosen[1:] - after.chosen[1:]])
    return float(moved.abs().max())


def unlike_whole_pairs(network: Any, longest: int) -> str | None:
    """Why plain attention of every token to its whole past is not what the model does within `longest`; or None.

    A window that holds so many tokens is none. Layers that keep a state instead of attending would carry it from one
    response to the next. Caps and sinks come to an attention as keyword arguments, which few honour.
    """
    config = network.config.get_text_config()
    if cap := attribute(config, "attn_logit_softcapping"):
        return f"its attention caps scores (attn_logit_softcapping {cap})"
    if any(name.endswith(".sinks") for name, _ in network.named_parameters()):
        return "its attention has sinks"
    strange = set(attribute(config, "layer_types") or []) - {"full_attention"} - WINDOWS.keys()
    if strange:
        return f"the model has layers of type {', '.join(sorted(strange))}"
    window = window_of(network)
    if window is not None and window < longest:
        return f"it attends otherwise beyond token {window} (a window), and the pairs tried end at {longest}"
    return None


def window_of(network: Any) -> int | None:
    """The last token up to which the model attends to the whole past alike, 0 where that is not said; None: all are.

    Beyond it lies a window, or positions that depend on the longest row of a pass (Phi-3's long factors).
    """
    config = network.config.get_text_config()
    kinds = set(attribute(config, "layer_types") or [])
    found = []
    for kind, name in WINDOWS.items():
        width = attribute(config, name)
        if kind in kinds or (width is not None and not kinds):  # Mistral names no types: every layer has it
            found.append(int(width or 0))
    positions = attribute(config, "rope_parameters") or {}
    if positions.get("rope_type") in ("dynamic", "longrope"):
        found.append(int(positions.get("original_max_position_embeddings") or config.max_position_embeddings))
    return min(found, default=None)


def widest_difference(left: Sums, right: Sums) -> Tensor:
    """The largest difference between two scorings of the same pairs, in nats."""
    return torch.stack([(left.chosen - right.chosen).abs().max(), (left.rejected - right.rejected).abs().max()]).max()


def tolerance(dtype: torch.dtype, tokens: int) -> float:
    """Nats by which two equal computations of a sum over `tokens` may differ by rounding alone.

    Rounding errors add like a random walk; the factors are ten times what was seen on Llama-type models.
    """
    per_token = {torch.float64: 1e-9, torch.float32: 2e-4}.get(dtype, 0.1)
    return float(per_token * max(1, tokens) ** 0.5)
