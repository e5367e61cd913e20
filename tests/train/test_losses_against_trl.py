"""Values and gradients of the losses against the code of TRL 1.16 itself, in float64, to 1e-10.

TRL keeps its mathematics inline in `DPOTrainer._compute_loss`, so the trainer is made without its constructor and given
a model that returns the per-token log-probabilities we choose. Where TRL is wrong, the test's name says so.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import TypeAdapter

from dpo_train.losses import (
    Cpo,
    Loss,
    Orpo,
    PairLogprobs,
    PairLoss,
    Sft,
    Sigmoid,
    Simpo,
    kl_estimate,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl import DPOTrainer, KTOTrainer
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

pytestmark = pytest.mark.filterwarnings(
    "ignore::dpo_train.losses.BetaWarning"
)  # TRL's β of .1 on means is compared too

LOSSES = TypeAdapter(Loss)
BATCHES = (1, 2, 7)
BETAS = (0.01, 0.1, 0.5)
PROMPT = 2  # tokens; the first token of a row is never predicted, so a prompt must not be empty
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Tokens(NamedTuple):
    """Per-token log-probabilities, (2 pairs, tokens): chosen rows first; zero off the mask, as in TRL."""

    policy: torch.Tensor
    reference: torch.Tensor
    collision: torch.Tensor
    mask: torch.Tensor


def random_tokens(pairs: int, seed: int, spread: float = 1.0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (2 * pairs,), generator=generator)
    width = int(lengths.max())
    mask = torch.arange(width)[None] < lengths[:, None]

    def draw() -> torch.Tensor:
        return -spread * torch.rand(2 * pairs, width, generator=generator) * mask

    return Tokens(draw(), draw(), draw(), mask)


def summed(tokens: Tokens, policy: torch.Tensor, **optional: Any) -> PairLogprobs:
    """Our inputs from the same tokens; `policy` carries the gradient."""
    pairs = len(policy) // 2
    lengths = tokens.mask.sum(1)
    shorter = torch.minimum(lengths[:pairs], lengths[pairs:]).repeat(2)
    opening = torch.arange(policy.shape[1])[None] < shorter[:, None]

    def halves(per_token: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return per_token.sum(1).chunk(2)

    return PairLogprobs(
        *halves(policy),
        *halves(tokens.reference),
        *lengths.chunk(2),
        **dict(zip(("chosen_prefix", "rejected_prefix"), halves(policy * opening), strict=True)),
        **dict(zip(("ref_chosen_prefix", "ref_rejected_prefix"), halves(tokens.reference * opening), strict=True)),
        **dict(zip(("chosen_collision", "rejected_collision"), halves(tokens.collision), strict=True)),
        **optional,
    )


class _Accelerator:
    device = torch.device("cpu")
    gather = gather_for_metrics = staticmethod(lambda values: values)


class _Unbuilt(DPOTrainer):
    def __init__(self) -> None:
        pass


def trl_loss(
    tokens: Tokens, policy: torch.Tensor, types: list[str], weights: list[float], **knobs: Any
) -> torch.Tensor:
    """The batch loss of TRL's own `_compute_loss`; `knobs` are DPOConfig's."""
    trainer = _Unbuilt()
    settings = {
        "model": SimpleNamespace(training=True),
        "accelerator": _Accelerator(),
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "loss_types": types,
        "loss_weights": weights,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "beta": 0.1,
        "label_smoothing": 0.0,
        "use_weighting": False,
        "args": SimpleNamespace(discopop_tau=knobs.pop("discopop_tau", 0.05)),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        **knobs,
    }
    for name, value in settings.items():
        object.__setattr__(trainer, name, value)
    rows, width = policy.shape
    completion = torch.cat([torch.zeros(rows, PROMPT, dtype=torch.long), tokens.mask.long()], dim=1)
    silent = torch.zeros(rows, PROMPT - 1)
    nothing = torch.zeros(rows, width + PROMPT - 1)
    outputs = SimpleNamespace(
        log_probs=torch.cat([silent, policy], dim=1),
        log_sum_sq_probs=torch.cat([silent, tokens.collision], dim=1),
        entropy=nothing,
        mean_logits=nothing,
        is_top1=nothing.bool(),
    )
    scaled = dict(
        zip(("ref_chosen_logps", "ref_rejected_logps"), _ld_reference(tokens, settings["ld_alpha"]), strict=True)
    )
    inputs = {"input_ids": completion, "attention_mask": torch.ones_like(completion), "completion_mask": completion}
    value = trainer._compute_loss(lambda **_: outputs, {**inputs, **scaled}, False)
    trainer_metrics.update({name: found[-1] for name, found in settings["_metrics"]["train"].items()})
    assert isinstance(value, torch.Tensor)
    return value


trainer_metrics: dict[str, float] = {}


def _ld_reference(tokens: Tokens, ld_alpha: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What TRL's own precomputation stores: the reference sums with `ld_alpha` already inside."""
    lengths = tokens.mask.sum(1)
    pairs = len(lengths) // 2
    shorter = torch.minimum(lengths[:pairs], lengths[pairs:]).repeat(2)
    beyond = torch.arange(tokens.mask.shape[1])[None] >= shorter[:, None]
    scale = torch.where(beyond, 1.0 if ld_alpha is None else ld_alpha, 1.0)
    chosen, rejected = (tokens.reference * scale).sum(1).chunk(2)
    return chosen, rejected


def compare(ours: PairLoss, tokens: Tokens, types: list[str], weights: list[float] | None = None, **knobs: Any) -> None:
    """Mean value and gradient by every token log-probability: ours equals TRL's."""
    mine, theirs = (tokens.policy.clone().requires_grad_() for _ in range(2))
    value = ours(summed(tokens, mine))
    assert value.shape == (len(tokens.policy) // 2,)
    value.mean().backward()
    expected = trl_loss(tokens, theirs, types, weights or [1.0] * len(types), **knobs)
    expected.backward()
    torch.testing.assert_close(value.mean(), expected, **TOLERANCE)
    torch.testing.assert_close(mine.grad * tokens.mask, theirs.grad * tokens.mask, **TOLERANCE)


def cases(spread: float = 1.0) -> Iterator[tuple[float, Tokens]]:
    for beta in BETAS:
        for pairs in BATCHES:
            for seed in range(3):
                yield beta, random_tokens(pairs, 100 * pairs + seed, spread)


DIVERGENT = ["sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "discopop"]
POINTWISE = ["nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"]
WINDOW = ["aot", "aot_unpaired"]
PLAIN = DIVERGENT + POINTWISE + WINDOW


def smoothing(loss_type: str) -> dict[str, float]:
    return {"label_smoothing": 0.2} if loss_type in ("robust", "exo_pair", "aot", "aot_unpaired") else {}


@pytest.mark.parametrize("spread", [1.0, 30.0], ids=["near", "far"])
@pytest.mark.parametrize("loss_type", PLAIN)
def test_value_and_gradient_equal_trl(loss_type: str, spread: float) -> None:
    for beta, tokens in cases(spread):
        knobs = {"beta": beta, **smoothing(loss_type)}
        compare(LOSSES.validate_python({"loss_type": loss_type, **knobs}), tokens, [loss_type], **knobs)


@pytest.mark.parametrize("ld_alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("loss_type", PLAIN)
def test_length_desensitised_loss_equals_trl(loss_type: str, ld_alpha: float) -> None:
    for beta, tokens in cases():
        knobs = {"beta": beta, "ld_alpha": ld_alpha, **smoothing(loss_type)}
        compare(LOSSES.validate_python({"loss_type": loss_type, **knobs}), tokens, [loss_type], **knobs)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence"])
@pytest.mark.parametrize("loss_type", DIVERGENT)
def test_f_divergence_equals_trl(loss_type: str, divergence: str) -> None:
    for beta, tokens in cases():
        knobs = {"beta": beta, "f_divergence_type": divergence, **smoothing(loss_type)}
        compare(LOSSES.validate_python({"loss_type": loss_type, **knobs}), tokens, [loss_type], **knobs)


@pytest.mark.parametrize("coefficient", [0.5, 2.0, 1.0])
@pytest.mark.parametrize("loss_type", DIVERGENT)
def test_alpha_divergence_equals_trl_in_float32_the_only_precision_that_trl_has_it_in(
    loss_type: str, coefficient: float
) -> None:
    torch.set_default_dtype(torch.float32)
    knobs = {"beta": 0.1, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": coefficient}
    knobs |= smoothing(loss_type)
    ours = LOSSES.validate_python({"loss_type": loss_type, **knobs})
    for pairs in BATCHES:
        tokens = random_tokens(pairs, pairs)
        expected = trl_loss(tokens, tokens.policy, [loss_type], [1.0], **knobs)
        torch.testing.assert_close(ours(summed(tokens, tokens.policy)).mean(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss_type", [name for name in DIVERGENT + POINTWISE if name != "hinge"])
def test_wpo_weighting_equals_trl(loss_type: str) -> None:
    for beta, tokens in cases():
        knobs = {"beta": beta, "use_weighting": True, **smoothing(loss_type)}
        compare(LOSSES.validate_python({"loss_type": loss_type, **knobs}), tokens, [loss_type], **knobs)


def test_weighted_hinge_equals_trl_and_has_a_gradient_where_trl_overwrites_its_own() -> None:
    ours = LOSSES.validate_python({"loss_type": "hinge", "use_weighting": True})
    tokens = random_tokens(7, 0)
    mine, theirs = (tokens.policy.clone().requires_grad_() for _ in range(2))
    value, expected = ours(summed(tokens, mine)).mean(), trl_loss(tokens, theirs, ["hinge"], [1.0], use_weighting=True)
    torch.testing.assert_close(value, expected, **TOLERANCE)
    value.backward()
    assert mine.grad is not None and mine.grad.abs().sum() > 0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        expected.backward()


def test_sft_over_tokens_equals_trl() -> None:
    for _, tokens in cases():
        compare(Sft(average="token"), tokens, ["sft"])


def test_sft_over_pairs_equals_trl_one_pair_at_a_time_where_its_average_does_not_depend_on_the_batch() -> None:
    for seed in range(5):
        compare(Sft(), random_tokens(1, seed), ["sft"])


def test_mixture_equals_trl() -> None:
    ours = LOSSES.validate_python(
        {
            "loss_type": "mixture",
            "terms": [{"loss_type": "sigmoid"}, {"loss_type": "bco_pair"}, {"loss_type": "sft", "average": "token"}],
            "loss_weights": [0.8, 0.2, 1.0],
        }
    )
    for _, tokens in cases():
        compare(ours, tokens, ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0])


def test_rewards_equal_those_that_trl_logs_except_per_token_for_sigmoid_norm_whose_loss_reads_them_so() -> None:
    for loss_type in (name for name in PLAIN if name != "sigmoid_norm"):
        tokens = random_tokens(7, 3)
        loss = LOSSES.validate_python({"loss_type": loss_type, "beta": 0.1})
        trl_loss(tokens, tokens.policy, [loss_type], [1.0], label_smoothing=1e-3)
        chosen, rejected = loss.rewards(summed(tokens, tokens.policy))
        assert chosen.mean().item() == pytest.approx(trainer_metrics["rewards/chosen"], abs=1e-12)
        assert rejected.mean().item() == pytest.approx(trainer_metrics["rewards/rejected"], abs=1e-12)


def test_label_smoothing_works_for_sigmoid_where_trl_silently_ignores_it() -> None:
    tokens = random_tokens(7, 0)
    theirs = [trl_loss(tokens, tokens.policy, ["sigmoid"], [1.0], label_smoothing=e).item() for e in (0.0, 0.3)]
    ours = [Sigmoid(label_smoothing=e)(summed(tokens, tokens.policy)).mean().item() for e in (0.0, 0.3)]
    assert theirs[0] == theirs[1] == pytest.approx(ours[0], abs=1e-12)
    # −log σ(−m) = m − log σ(m), so smoothing adds exactly ε times the mean margin
    chosen, rejected = Sigmoid().rewards(summed(tokens, tokens.policy))
    assert ours[1] - ours[0] == pytest.approx(0.3 * (chosen - rejected).mean().item(), abs=1e-12)


def test_aot_over_a_window_equals_trl_on_the_whole_and_not_on_its_micro_batches() -> None:
    tokens = random_tokens(8, 5, spread=5.0)
    parts = [Tokens(*(torch.cat([field[i : i + 4], field[8 + i : 12 + i]]) for field in tokens)) for i in (0, 4)]
    whole = trl_loss(tokens, tokens.policy, ["aot"], [1.0], beta=0.5).item()
    accumulated = sum(trl_loss(part, part.policy, ["aot"], [1.0], beta=0.5).item() for part in parts) / 2
    ours = LOSSES.validate_python({"loss_type": "aot", "beta": 0.5})
    assert ours.scope == "window"
    assert ours(summed(tokens, tokens.policy)).mean().item() == pytest.approx(whole, abs=1e-12)
    assert abs(accumulated - whole) > 1e-3


@pytest.mark.parametrize("alpha", [0.0, 0.25])
@pytest.mark.parametrize("smooth", [0.0, 0.1])
def test_simpo_and_alphapo_equal_trl(alpha: float, smooth: float) -> None:
    for pairs in BATCHES:
        tokens = random_tokens(pairs, pairs)
        mine, theirs = (tokens.policy.clone().requires_grad_() for _ in range(2))
        ours = Simpo(beta=2.0, simpo_gamma=0.7, alpha=alpha, label_smoothing=smooth)
        logps = summed(tokens, mine)
        settings = SimpleNamespace(
            loss_type="simpo",
            beta=2.0,
            simpo_gamma=0.7,
            alpha=alpha,
            label_smoothing=smooth,
            accelerator=_Accelerator(),
        )
        averages = (theirs.sum(1) / tokens.mask.sum(1)).chunk(2)
        value, chosen, rejected = CPOTrainer.cpo_loss(settings, *averages)
        _same(ours(logps), value, mine, theirs)
        torch.testing.assert_close(torch.stack(ours.rewards(logps)), torch.stack([chosen, rejected]), **TOLERANCE)


@pytest.mark.parametrize("smooth", [0.0, 0.1])
def test_preference_term_of_cpo_equals_trl(smooth: float) -> None:
    for beta, tokens in cases():
        mine, theirs = (tokens.policy.clone().requires_grad_() for _ in range(2))
        ours = Cpo(beta=beta, cpo_alpha=0.0, label_smoothing=smooth)
        settings = SimpleNamespace(
            loss_type="sigmoid", beta=beta, alpha=0.0, label_smoothing=smooth, accelerator=_Accelerator()
        )
        value, _, _ = CPOTrainer.cpo_loss(settings, *theirs.sum(1).chunk(2))
        _same(ours(summed(tokens, mine)), value, mine, theirs)


def test_odds_ratio_of_orpo_equals_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # TRL rounds to float32 first
    for beta, tokens in cases():
        mine, theirs = (tokens.policy.clone().requires_grad_() for _ in range(2))
        logps = summed(tokens, mine)
        likelihood = logps.chosen / logps.chosen_tokens
        settings = SimpleNamespace(beta=beta, accelerator=_Accelerator())
        averages = (theirs.sum(1) / tokens.mask.sum(1)).chunk(2)
        value, chosen, rejected, _, _ = ORPOTrainer.odds_ratio_loss(settings, *averages)
        _same(Orpo(beta=beta)(logps) + likelihood, -value, mine, theirs)
        torch.testing.assert_close(
            torch.stack(Orpo(beta=beta).rewards(logps)), torch.stack([chosen, rejected]), **TOLERANCE
        )


class _UnbuiltKto(KTOTrainer):
    def __init__(self) -> None:
        pass

    def _compute_kl_logps(self, model: Any, batch: dict[str, Any]) -> Any:
        return batch["kl_logps"]


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("towards", [-3.0, 3.0], ids=["clamped", "drifted"])
def test_kto_equals_trl(loss_type: str, towards: float) -> None:
    for seed, rows in enumerate((1, 2, 7)):
        generator = torch.Generator().manual_seed(seed)
        mine, theirs = (torch.zeros(rows, 4).requires_grad_() for _ in range(2))
        policy, reference = (-5 * torch.rand(rows, 4, generator=generator) for _ in range(2))
        wrong, ref_wrong = (-5 * torch.rand(rows, generator=generator) for _ in range(2))
        desirable = torch.rand(rows, generator=generator) < 0.5
        ours = LOSSES.validate_python(
            {"loss_type": loss_type, "beta": 0.2, "desirable_weight": 1.3, "undesirable_weight": 0.7}
        )
        kl = kl_estimate(wrong + towards, ref_wrong)
        sums = (policy + mine).sum(1)
        good = desirable.double()
        before = reference.sum(1)
        sides = (sums * good, sums * (1 - good), before * good, before * (1 - good), 4 * good, 4 * (1 - good))
        value = ours(PairLogprobs(*sides, neutral=kl))
        trainer = _UnbuiltKto()
        mask = torch.cat([torch.zeros(rows, 1), torch.ones(rows, 4)], dim=1).long()
        nothing = torch.zeros(rows, 4)
        settings = {
            "model": SimpleNamespace(training=True),
            "accelerator": _Accelerator(),
            "aux_loss_enabled": False,
            "precompute_ref_logps": True,
            "calculate_KL": loss_type == "kto",
            "loss_type": loss_type,
            "beta": 0.2,
            "desirable_weight": 1.3,
            "undesirable_weight": 0.7,
            "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
            "_total_train_tokens": 0,
            "_tp_size": 1,
        }
        for name, setting in settings.items():
            object.__setattr__(trainer, name, setting)
        outputs = SimpleNamespace(
            log_probs=policy + theirs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )
        batch = {
            "input_ids": mask,
            "attention_mask": torch.ones_like(mask),
            "completion_mask": mask,
            "label": desirable,
            "ref_logps": reference.sum(1),
            "kl_logps": wrong + towards,
            "ref_KL_logps": ref_wrong,
        }
        expected = trainer._compute_loss(lambda outputs=outputs, **_: outputs, batch, False)
        value.mean().backward()
        expected.backward()
        torch.testing.assert_close(value.mean(), expected, **TOLERANCE)
        torch.testing.assert_close(mine.grad, theirs.grad, **TOLERANCE)


def _same(value: torch.Tensor, expected: torch.Tensor, mine: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(value, expected, **TOLERANCE)
    value.mean().backward()
    expected.mean().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, **TOLERANCE)
