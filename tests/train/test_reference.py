"""The starting weights: the same numbers live or cached, kept by content, and never mistaken for others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny

from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoded_pair import EncodedPair
from dpo_train.data.encoding import Encoder
from dpo_train.data.pairs import PairSet, open_pairs
from dpo_train.evaluation import evaluate
from dpo_train.gradients import add_gradient
from dpo_train.losses import Sigmoid
from dpo_train.policy.load import wrap
from dpo_train.policy.policy import Policy, fingerprint_of
from dpo_train.reference import Reference, check_start, reference
from dpo_train.scoring import ReferencedPairs, Scoring

BUDGET = 2000


def policy(seed: int = 0, **changes: Any) -> Policy:
    config = TrainConfig.model_validate({"use_cpu": True, **changes})
    made = wrap(config, tiny.network(seed), tiny.tokenizer(), {"model": "tiny"}, torch.device("cpu"))
    return made


def moved(policy: Policy, seed: int = 1) -> Policy:
    """The adapter away from its start, as training leaves it."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return policy


@pytest.fixture
def pairs(tmp_path: Path) -> PairSet:
    return open_pairs(tiny.version(tmp_path), "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "cache")


def everything(pairs: PairSet) -> Any:
    return np.arange(len(pairs), dtype=np.int64)


def refer(policy: Policy, pairs: PairSet, cache: Path, budget: int = BUDGET) -> Reference:
    return reference(policy, pairs, everything(pairs), cache, budget, tiny.ALONE)


def test_the_reference_of_a_trained_adapter_is_the_base_model(pairs: PairSet, tmp_path: Path) -> None:
    base = tiny.network()
    found = refer(moved(policy()), pairs, tmp_path / "a")
    whole = Policy(base, tiny.tokenizer(), {"model": "tiny"}, torch.device("cpu"))
    with torch.inference_mode():
        expected = whole.score(pairs.encoded(everything(pairs)), "full_logits")
    np.testing.assert_allclose(found.chosen, expected.chosen.numpy(), atol=2e-4)


def test_a_cached_reference_is_the_live_one_bit_for_bit_and_costs_no_forward_pass(
    pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = refer(policy(), pairs, tmp_path / "a")
    again = policy()
    monkeypatch.setattr(again, "score", lambda *_: pytest.fail("scored again"))
    cached = refer(again, pairs, tmp_path / "a")
    for one, other in zip(live, cached, strict=True):
        np.testing.assert_array_equal(one, other)


def test_new_pairs_of_a_later_version_are_all_that_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(tiny.tokenizer(), 400, "drop")
    old = open_pairs(tiny.version(tmp_path, train=20, name="old"), "train", encoder, tmp_path / "c")
    new = open_pairs(tiny.version(tmp_path, train=24, name="new"), "train", encoder, tmp_path / "c")
    scorer = policy()
    refer(scorer, old, tmp_path / "c")
    counted: list[int] = []
    score = scorer.score
    monkeypatch.setattr(scorer, "score", lambda some: counted.append(len(some)) or score(some))
    refer(scorer, new, tmp_path / "c")
    assert sum(counted) == 4


def test_other_weights_never_share_a_cached_reference(pairs: PairSet, tmp_path: Path) -> None:
    one, other = refer(policy(0), pairs, tmp_path / "a"), refer(policy(1), pairs, tmp_path / "a")
    assert np.abs(one.chosen - other.chosen).min() > 1e-3


def test_the_fingerprint_changes_with_one_weight_and_not_with_the_adapter() -> None:
    network = tiny.network()
    before = fingerprint_of(network)
    assert policy().weights == before
    with torch.no_grad():
        network.model.norm.weight[3] += 1e-6
    assert fingerprint_of(network) != before


def test_the_start_is_checked_live(pairs: PairSet, tmp_path: Path) -> None:
    fresh = policy()
    found = refer(fresh, pairs, tmp_path / "a")
    assert check_start(Sigmoid(), fresh, pairs, found, np.arange(4)) < 1e-3
    with pytest.raises(TrainError, match=r"must equal its reference.*expected 0\.693147"):
        check_start(Sigmoid(), moved(fresh), pairs, found, np.arange(4))


def test_a_model_with_dropout_starts_at_its_reference_all_the_same(pairs: PairSet, tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"use_cpu": True, "lora_dropout": 0.5})
    network = tiny.network(attention_dropout=0.5).train()
    made = wrap(config, network, tiny.tokenizer(), {"model": "tiny"}, torch.device("cpu"))
    assert check_start(Sigmoid(), made, pairs, refer(made, pairs, tmp_path / "a"), np.arange(4)) < 1e-3


def test_adapter_dropout_is_live_in_training_steps_only() -> None:
    made = moved(policy(lora_dropout=0.5))
    pair = [EncodedPair([1, 2, 3], [4, 257], [5, 6, 257])]
    with torch.no_grad():
        still = [made.score(pair).chosen.item() for _ in range(2)]
        with made.learning():
            torch.manual_seed(0)
            noisy = [made.score(pair).chosen.item() for _ in range(2)]
        after = made.score(pair).chosen.item()
    assert still[0] == still[1] == after
    assert noisy[0] != noisy[1]


def test_metrics_are_the_same_whatever_the_forward_passes_hold(pairs: PairSet, tmp_path: Path) -> None:
    found = refer(policy(), pairs, tmp_path / "a")
    scorer, asked = moved(policy()), np.array([7, 3, 11, 0, 20])
    one, few, all_ = (
        evaluate(Scoring(Sigmoid(), scorer, budget, tiny.ALONE), ReferencedPairs(pairs, found), asked)
        for budget in (1, 300, 9999)
    )
    assert np.abs(one.margin).min() > 1e-3
    for other in (few, all_):
        np.testing.assert_allclose(other.margin, one.margin, atol=2e-5)
        np.testing.assert_allclose(other.tokens_chosen, one.tokens_chosen)


def gradient(policy: Policy, pairs: PairSet, found: Reference, windows: list[list[int]], budget: int) -> torch.Tensor:
    """The gradient of the windows together, as one window of all their pairs."""
    total = sum(map(len, windows))
    for window in windows:
        add_gradient(Scoring(Sigmoid(), policy, budget, tiny.ALONE), ReferencedPairs(pairs, found), np.array(window))
        for parameter in policy.trainable().values():
            assert parameter.grad is not None
            parameter.grad *= len(window)
    grads = [parameter.grad for parameter in policy.trainable().values() if parameter.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads]) / total
    for parameter in policy.trainable().values():
        parameter.grad = None
    return flat


def test_the_gradient_does_not_know_how_its_window_was_cut(pairs: PairSet, tmp_path: Path) -> None:
    scorer = moved(policy())
    found = refer(scorer, pairs, tmp_path / "a")
    whole = gradient(scorer, pairs, found, [[0, 1, 2, 3, 4]], 9999)
    cut = gradient(scorer, pairs, found, [[0, 1, 2, 3, 4]], 1)
    assert (cut - whole).norm() < 1e-5 * whole.norm()
    four, one = (gradient(scorer, pairs, found, [window], 9999) for window in ([0, 1, 2, 3], [4]))
    assert ((4 * four + one) / 5 - whole).norm() < 1e-5 * whole.norm()


def test_weights_count_in_the_gradient_and_weight_zero_counts_for_nothing(tmp_path: Path) -> None:
    rows = [tiny.row(0, weight=0.0), tiny.row(1, weight=2.0)]
    version = tiny.write_version(tmp_path / "v", {"train": rows})
    pairs = open_pairs(version, "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "c")
    scorer = moved(policy())
    found = refer(scorer, pairs, tmp_path / "a")
    assert gradient(scorer, pairs, found, [[0]], 9999).abs().max() == 0
    both, second = (gradient(scorer, pairs, found, [window], 9999) for window in ([0, 1], [1]))
    assert (both * 2 - second).norm() < 1e-5 * second.norm()
    pairs.weights[1] = 1.0
    assert (gradient(scorer, pairs, found, [[1]], 9999) * 2 - second).norm() < 1e-5 * second.norm()


def test_equal_answers_pull_on_nothing_exactly() -> None:
    scorer = moved(policy())
    found = scorer.score([EncodedPair([1, 2], [3, 4, 257], [3, 4, 257])])
    (-torch.nn.functional.logsigmoid(found.chosen - found.rejected)).sum().backward()
    grads = [parameter.grad for parameter in scorer.trainable().values() if parameter.grad is not None]
    assert grads and max(grad.abs().max() for grad in grads) == 0


def test_swapping_the_answers_negates_the_margin() -> None:
    scorer = moved(policy())
    pair = EncodedPair([1, 2, 3], [4, 5, 257], [6, 7, 8, 257])
    with torch.no_grad():
        there, back = scorer.score([pair]), scorer.score([EncodedPair(pair.prompt, pair.rejected, pair.chosen)])
    difference = (there.chosen - there.rejected) + (back.chosen - back.rejected)
    assert difference.abs().item() < 1e-5


def test_pairs_without_a_prompt_group_are_grouped_by_their_prompt(tmp_path: Path) -> None:
    rows = [tiny.row(0), tiny.row(1, prompt_group=None), tiny.row(4, prompt_group=None), tiny.row(4, prompt_group=None)]
    version = tiny.write_version(tmp_path / "v", {"train": rows})
    prompts = open_pairs(version, "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "c").prompts
    assert prompts[0] == "train-prompt-0"
    assert prompts[2] == prompts[3] and len(set(prompts)) == 3 and "None" not in prompts


def test_pairs_of_equal_tokens_share_one_cached_reference(tmp_path: Path) -> None:
    rows = [tiny.row(0), tiny.row(0, pair_id="twin"), tiny.row(1)]
    version = tiny.write_version(tmp_path / "v", {"train": rows})
    pairs = open_pairs(version, "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "c")
    refer(policy(), pairs, tmp_path / "c")
    found = refer(policy(), pairs, tmp_path / "c")
    assert found.chosen[0] == found.chosen[1] != found.chosen[2]
    assert np.isfinite(found.chosen).all()


class Wrong(Sigmoid):
    """Says of itself what is not so."""

    def at_reference(self) -> float:
        return 0.5


def test_a_loss_that_does_not_start_where_it_says_is_refused(pairs: PairSet, tmp_path: Path) -> None:
    fresh = policy()
    with pytest.raises(TrainError, match=r"must be 0\.500000 for every pair.*0\.193 away"):
        check_start(Wrong(), fresh, pairs, refer(fresh, pairs, tmp_path / "a"), np.arange(4))
