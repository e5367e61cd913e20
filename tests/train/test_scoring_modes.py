"""Models of many families, of a few thousand random weights: exact in whole pairs, or a slower way is taken aloud."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny

from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoded_pair import EncodedPair, end, row_length
from dpo_train.data.encoding import Encoder
from dpo_train.data.pairs import open_pairs
from dpo_train.gradients import add_gradient
from dpo_train.losses import Sigmoid
from dpo_train.policy.load import wrap
from dpo_train.policy.logprobs import Sums
from dpo_train.policy.packed_attention import span
from dpo_train.policy.packing import cut
from dpo_train.policy.policy import Policy
from dpo_train.policy.scoring_modes import check_causal, choose_scoring_mode, widest_difference
from dpo_train.reference import reference, scored
from dpo_train.scoring import ReferencedPairs, Scoring

HEADS = {"head_dim": 16}
WINDOW = {"sliding_window": 16}
LONG_ROPE = {  # the long factors turn all rows of a pass, once one of them outgrows the original length
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 16.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 16,
}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
# family, its own sizes, the way that holds, what is said of the ways that do not
FAMILIES: list[tuple[str, dict[str, Any], str, str]] = [
    ("llama", {}, "packed", ""),
    ("qwen2", {}, "packed", ""),
    ("qwen3", HEADS, "packed", ""),
    ("gpt2", OLD, "packed", ""),
    ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}, "packed", ""),
    ("phi", {}, "packed", ""),
    ("gemma", HEADS, "packed", ""),
    ("gpt_neox", {}, "packed", ""),
    ("mixtral", {"num_local_experts": 4, "sliding_window": None}, "packed", ""),
    ("mistral", {"sliding_window": None}, "packed", ""),
    ("mistral", {"sliding_window": 54}, "packed", ""),
    ("mistral", {"sliding_window": 53}, "packed", "1 of 3 pairs end beyond token 53"),
    ("mistral", {"sliding_window": 8}, "separate", "beyond token 8 (a window), and the pairs tried end at 9"),
    ("phi3", WINDOW, "packed", "1 of 3"),
    ("phi3", {"rope_parameters": LONG_ROPE, "original_max_position_embeddings": 16}, "packed", "1 of 3"),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, **WINDOW}, "packed", "1 of 3"),
    ("gemma3_text", {"query_pre_attn_scalar": 16, **HEADS, **WINDOW}, "packed", "1 of 3"),
    ("llama4_text", {"attention_chunk_size": 16, "intermediate_size_mlp": 64, "num_local_experts": 2, **HEADS},
     "packed", "1 of 3"),
    ("gemma2", {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 2.0, **HEADS},
     "separate", "caps scores"),
    ("gemma3_text", {"query_pre_attn_scalar": 16, "final_logit_softcapping": 2.0, "sliding_window": 64, **HEADS},
     "packed", ""),
    ("gpt_oss", {"num_local_experts": 2, "num_experts_per_tok": 1, **HEADS, "sliding_window": 64}, "separate", "sinks"),
    ("cohere", {"logit_scale": 0.5}, "packed", ""),
    ("granite", {"logits_scaling": 4.0}, "packed", ""),
    ("hyperclovax", {"logits_scaling": 0.3}, "packed", ""),
    ("llama", {"logit_scale": 0.5}, "full_logits", "nats"),  # which it does not do, whatever its configuration says
    ("stablelm", {}, "separate", "spans"),  # does not hand keyword arguments down to its attention
    ("bloom", {"n_layer": 2, "n_head": 2}, "separate", "computes its attention by itself"),
    ("falcon", {"alibi": True}, "separate", "computes its attention by itself"),
    ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 2}, "separate", "computes its attention by itself"),
    ("mamba", {"state_size": 8}, "separate", "linear_attention"),
    ("jamba", {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 8}, "separate",
     "linear_attention"),
]  # fmt: skip


def some(seed: int, count: int) -> list[int]:
    return torch.randint(3, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


SHORT = [
    EncodedPair(some(0, 3), [*some(1, 4), 257], [*some(2, 6), 257]),
    EncodedPair(some(3, 4), [7, *some(4, 3), 257], [7, *some(5, 2), 257]),
]
LONG = [EncodedPair(some(6, 29), [*some(7, 20), 257], [*some(8, 25), 257]), SHORT[1], EncodedPair([5], [6, 257], [8])]
ENDS = np.array([29 + 26 - 1, 4 + 5 - 1, 1 + 2 - 1])


def policy(family: str, sizes: dict[str, Any], dtype: torch.dtype = torch.float32) -> Policy:
    network = tiny.network(0, dtype, family, **{"max_position_embeddings": 256, "initializer_range": 0.3, **sizes})
    config = TrainConfig(use_cpu=True, use_peft=False)
    return wrap(config, network, tiny.tokenizer(), {"model": family}, torch.device("cpu"))


def textbook(network: Any, pairs: list[EncodedPair]) -> Sums:
    """Σ log p(token) by the model's own forward, one unpadded sequence at a time."""

    def one(prompt: Any, response: Any) -> torch.Tensor:
        ids = torch.tensor([[*prompt, *response]])
        logps = network(ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
        return logps.gather(1, ids[0, 1:, None])[len(prompt) - 1 :].sum()

    return Sums(*(torch.stack([one(pair.prompt, pair[side]) for pair in pairs]) for side in (1, 2)))


def in_passes(scorer: Policy, pairs: list[EncodedPair]) -> Sums:
    """As a run cuts them: pairs that outgrow the model's window in a pass of their own."""
    sizes, ends = (np.array([measure(pair) for pair in pairs]) for measure in (row_length, end))
    groups = cut(sizes, 9999, scorer.beyond(ends))
    parts = [scorer.score([pairs[place] for place in group]) for group in groups]
    order = np.argsort(np.concatenate(groups))
    return Sums(
        *(torch.cat(side)[order] for side in zip(*((part.chosen, part.rejected) for part in parts), strict=True))
    )


@pytest.mark.parametrize(("family", "sizes", "way", "said"), FAMILIES, ids=lambda value: str(value)[:24])
def test_a_family_is_scored_exactly_and_aloud_where_slower(
    family: str, sizes: dict[str, Any], way: str, said: str
) -> None:
    scorer = policy(family, sizes)
    with torch.no_grad():
        expected = textbook(scorer.network, LONG)  # as transformers opened it, before anything was set
        told = choose_scoring_mode(scorer, SHORT, ENDS)
        found = in_passes(scorer, LONG)
    assert (scorer.way, told is None) == (way, not said)
    assert told is None or (said in told and (way == "packed" or f"falls back to '{way}'" in told))
    assert float(widest_difference(found, expected)) < 5e-4
    assert expected.chosen[0] < -20  # nothing here is trivially equal


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_in_which_responses_see_each_other_is_found_in_any_precision(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    sound, leaky = (
        policy("llama", {"initializer_range": 0.02}, dtype),
        policy("llama", {"initializer_range": 0.02}, dtype),
    )
    assert choose_scoring_mode(sound, LONG, ENDS) is None and sound.way == "packed"
    monkeypatch.setattr(
        "dpo_train.policy.packing.span", lambda *parts: span(*parts)._replace(main=sum(parts[:3]), rejected=0)
    )
    told = choose_scoring_mode(leaky, LONG, ENDS)
    assert leaky.way != "packed" and told is not None and told.count("nats") == 1


def test_only_pairs_that_outgrow_the_window_leave_the_shared_row(tmp_path: Path) -> None:
    pairs = open_pairs(tiny.version(tmp_path), "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "cache")
    every, window = np.arange(len(pairs)), int(np.median(pairs.ends))
    mixed, apart = (policy("mistral", {"sliding_window": window, "max_position_embeddings": 512}) for _ in range(2))
    apart.way = "separate"
    with torch.no_grad():
        right = textbook(mixed.network, pairs.encoded(every))
    assert choose_scoring_mode(mixed, SHORT, pairs.ends) is not None and mixed.way == "packed"
    found = reference(mixed, pairs, every, tmp_path, 2000, tiny.ALONE)
    np.testing.assert_allclose(found.chosen, right.chosen.numpy(), atol=5e-4)
    np.testing.assert_allclose(found.rejected, right.rejected.numpy(), atol=5e-4)
    places = [group for group, _ in scored(mixed, pairs, every, 2000)]
    assert {len(set(pairs.ends[group] > window)) for group in places} == {1} and len(places) < len(pairs)
    gradients = []
    for scorer in (mixed, apart):
        add_gradient(Scoring(Sigmoid(), scorer, 2000, tiny.ALONE), ReferencedPairs(pairs, found), every)
        gradients.append(
            torch.cat([part.grad.flatten() for part in scorer.trainable().values() if part.grad is not None])
        )
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_without_sharing_no_pair_shares_a_row() -> None:
    scorer = policy("llama", {})
    scorer.way = "separate"
    assert choose_scoring_mode(scorer, SHORT, ENDS) is None
    assert scorer.way == "separate"


def test_an_adapter_that_fits_no_layer_is_told_the_names_of_those_there_are() -> None:
    network = tiny.network(family="gpt2", **OLD)
    with pytest.raises(TrainError, match=r"'q_proj'.*linear layers are called c_attn, c_fc, c_proj\.$"):
        wrap(TrainConfig(use_cpu=True), network, tiny.tokenizer(), {"model": "gpt2"}, torch.device("cpu"))


@pytest.mark.parametrize(("family", "sizes"), [entry[:2] for entry in FAMILIES], ids=lambda value: str(value)[:24])
def test_no_decoder_is_taken_for_a_model_that_is_not_causal(family: str, sizes: dict[str, Any]) -> None:
    for pair in (LONG[0], SHORT[0], EncodedPair([5], [6], []), EncodedPair([5], [], [6, 7])):
        check_causal(policy(family, sizes), pair)


@pytest.mark.parametrize("family", ["bert", "electra", "megatron-bert"])
def test_an_encoder_is_refused_whichever_side_has_the_response(family: str) -> None:
    for pair in (LONG[0], EncodedPair(LONG[0].prompt, (), LONG[0].rejected)):
        with pytest.raises(TrainError, match="is no causal language model"):
            check_causal(policy(family, {}), pair)
