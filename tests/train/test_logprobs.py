"""One forward pass for two responses: the numbers and gradients of the plain computation, to rounding."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny
from torch import Tensor, nn

from dpo_train.data.encoded_pair import EncodedPair
from dpo_train.policy.lm_head import token_collisions, token_logps
from dpo_train.policy.logprobs import Sums, sums
from dpo_train.policy.packed_attention import read_whole_pairs
from dpo_train.policy.packing import collate

ROUNDING = 1e-6  # of a gradient: Llama's norms work in float32 whatever the weights are
PAIRS = [
    EncodedPair([5, 6, 7], [8, 9, 10, 257], [8, 11, 257]),
    EncodedPair([256, 4], [3, 257], [30, 31, 32, 33, 34, 257]),
    EncodedPair([1], [2, 3, 4], [2, 3, 4, 5]),  # one response opens with the whole other
    EncodedPair([9, 9, 9, 9, 9, 9, 9, 9], [1, 257], [2, 257]),
]


@pytest.fixture
def double() -> Any:
    return tiny.network(dtype=torch.float64)


def scored(network: Any, pairs: Sequence[EncodedPair], way: str = "packed", needs: tuple[str, ...] = ()) -> Sums:
    """As the policy does it: our attention for pairs that share a row, the model's own otherwise."""
    if way == "packed":
        read_whole_pairs(network)
    else:
        network.set_attn_implementation("sdpa")
    return sums(network, collate(pairs, way == "packed"), needs, whole_logits=way == "full_logits")


def plain(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """Σ log p(token) of a response by the textbook: whole logits, log-softmax, one sequence at a time."""
    model.set_attn_implementation("sdpa")
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, :-1].log_softmax(-1)
    picked = logits.gather(1, torch.tensor([[*prompt, *response]])[0, 1:, None]).squeeze(1)
    return picked[len(prompt) - 1 :].sum()


def gradient(model: nn.Module, value: Tensor) -> Tensor:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(value, parameters, allow_unused=False)])


@pytest.mark.parametrize("way", ["packed", "separate", "full_logits"])
@pytest.mark.parametrize("together", [True, False])
def test_every_way_of_scoring_equals_the_textbook(double: Any, way: str, together: bool) -> None:
    chunks = [PAIRS] if together else [[pair] for pair in PAIRS]
    with torch.no_grad():
        parts = [scored(double, c, way) for c in chunks]
        chosen, rejected = (torch.cat([getattr(part, side) for part in parts]) for side in ("chosen", "rejected"))
        by_hand_chosen = torch.stack([plain(double, list(p.prompt), list(p.chosen)) for p in PAIRS])
        by_hand_rejected = torch.stack([plain(double, list(p.prompt), list(p.rejected)) for p in PAIRS])
    torch.testing.assert_close(chosen, by_hand_chosen, rtol=0, atol=1e-11)
    torch.testing.assert_close(rejected, by_hand_rejected, rtol=0, atol=1e-11)


def weighted(found: Sums) -> Tensor:
    scale = torch.arange(1, len(PAIRS) + 1, dtype=torch.float64)
    return (found.chosen * scale - found.rejected * scale.flip(0)).sum()


def test_a_frozen_head_gives_the_body_the_gradient_of_the_plain_path(double: Any) -> None:
    by_hand = gradient(double, weighted(scored(double, PAIRS, "full_logits")))
    trained = gradient(double, weighted(scored(double, PAIRS)))
    assert (trained - by_hand).norm() < ROUNDING * by_hand.norm()
    double.lm_head.requires_grad_(False)
    by_hand = gradient(double, weighted(scored(double, PAIRS, "full_logits")))
    frozen = gradient(double, weighted(scored(double, PAIRS)))
    assert (frozen - by_hand).norm() < ROUNDING * by_hand.norm()


SHAPED = [
    ("cohere", {"logit_scale": 0.5}),
    ("granite", {"logits_scaling": 4.0}),
    ("gemma3_text", {"final_logit_softcapping": 2.0, "head_dim": 16}),
    ("nanochat", {"final_logit_softcapping": 1.0}),
]


@pytest.mark.parametrize(("family", "shape"), SHAPED, ids=[family for family, _ in SHAPED])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_scaled_and_capped_logits_have_the_value_the_slope_and_the_collisions_of_the_models_own(
    family: str, shape: dict[str, Any], frozen: bool
) -> None:
    network = tiny.network(dtype=torch.float64, family=family, **shape)
    network.get_output_embeddings().requires_grad_(not frozen)
    needs = ("chosen_collision", "rejected_collision")
    own, found = (scored(network, PAIRS, way, needs) for way in ("full_logits", "packed"))
    for one, other in zip(found, own, strict=True):
        assert (one is None and other is None) or torch.allclose(one, other, rtol=0, atol=ROUNDING)
    by_hand, learned = gradient(network, weighted(own)), gradient(network, weighted(found))
    assert by_hand.norm() > 1 and (learned - by_hand).norm() < ROUNDING * by_hand.norm()


def test_chunks_of_the_vocabulary_head_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(37, 16, dtype=torch.float64), nn.Linear(16, 50, bias=True, dtype=torch.float64)
    head.requires_grad_(False)
    targets = torch.randint(0, 50, (37,))
    whole, pieces = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    expected = head(whole).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    monkeypatch.setattr("dpo_train.policy.lm_head.CHUNK", 50 * 5)
    found = token_logps(pieces, head, targets)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    (found * torch.arange(37)).sum().backward()
    (expected * torch.arange(37)).sum().backward()
    torch.testing.assert_close(pieces.grad, whole.grad, rtol=0, atol=1e-11)


def test_collisions_and_prefixes_are_what_losses_mean_by_them(double: Any) -> None:
    needs = ("chosen_prefix", "rejected_prefix", "chosen_collision", "rejected_collision")
    with torch.no_grad():
        found = scored(double, PAIRS, needs=needs)
        short = [EncodedPair(p.prompt, p.chosen[: len(p.rejected)], p.rejected[: len(p.chosen)]) for p in PAIRS]
        cut = scored(double, short, "full_logits")
        plain_way = scored(double, PAIRS, "full_logits", needs)
    assert found.chosen_prefix is not None
    torch.testing.assert_close(found.chosen_prefix, cut.chosen, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.rejected_prefix, cut.rejected, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.chosen_collision, plain_way.chosen_collision, rtol=0, atol=1e-11)


def test_a_uniform_head_says_minus_log_vocabulary_and_collides_as_often() -> None:
    head = nn.Linear(4, 8, bias=False)
    nn.init.zeros_(head.weight)
    hidden, target = torch.randn(3, 4), torch.tensor([0, 3, 7])
    expected = torch.full((3,), -torch.log(torch.tensor(8.0)).item())
    torch.testing.assert_close(token_logps(hidden, head.requires_grad_(False), target), expected)
    torch.testing.assert_close(token_collisions(hidden, head), expected)


def test_log_probabilities_of_a_bfloat16_head_are_normalised_in_float32() -> None:
    torch.manual_seed(0)
    head = nn.Linear(16, 5000, bias=False).to(torch.bfloat16).requires_grad_(False)
    hidden, target = torch.randn(4, 16).to(torch.bfloat16), torch.tensor([1, 2, 3, 4])
    found = token_logps(hidden, head, target)
    expected = F.linear(hidden, head.weight).float().log_softmax(-1).gather(1, target[:, None]).squeeze(1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
