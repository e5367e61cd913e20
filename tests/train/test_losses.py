"""Losses by hand-derivable numbers, and by laws that hold for any log-probabilities."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from dpo_train.logs.metrics import measure
from dpo_train.losses import (
    Aot,
    AotUnpaired,
    BcoPair,
    BetaWarning,
    Hinge,
    Ipo,
    Kto,
    Loss,
    Mixture,
    Orpo,
    PairLogprobs,
    PairLoss,
    Sft,
    Sigmoid,
    SigmoidNorm,
    Simpo,
    kl_estimate,
    window_gradients,
)
from dpo_train.scoring import RunningMean

LOSSES: TypeAdapter[Loss] = TypeAdapter(Loss)
LN2 = math.log(2)
law = settings(max_examples=60, deadline=None, derandomize=True)
MARGIN = ["sigmoid", "hinge", "robust", "exo_pair", "discopop"]
POINTWISE = ["nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"]
WITH_REFERENCE = [*MARGIN, *POINTWISE, "aot", "aot_unpaired", "sigmoid_norm", "ipo"]
EVERY = [*WITH_REFERENCE, "sft", "simpo", "orpo", "cpo"]


def made(loss_type: str, **knobs: Any) -> PairLoss:
    return LOSSES.validate_python({"loss_type": loss_type, **knobs})


def pairs(
    chosen: list[float],
    rejected: list[float],
    ref_chosen: list[float],
    ref_rejected: list[float],
    chosen_tokens: list[int] | None = None,
    rejected_tokens: list[int] | None = None,
    **optional: torch.Tensor,
) -> PairLogprobs:
    sums = (torch.tensor(values, dtype=torch.float64) for values in (chosen, rejected, ref_chosen, ref_rejected))
    ones = [1] * len(chosen)
    counts = (torch.tensor(values or ones) for values in (chosen_tokens, rejected_tokens))
    return PairLogprobs(*sums, *counts, **optional)


TORCHTUNE = pairs([-0.5, -10, -1], [-0.1, -30, -21], [-0.5, -10.1, -0.1], [-0.1, -20.1, -0.1])
MARGIN_SIX = pairs([-1.0], [-5.0], [-3.0], [-1.0])


@st.composite
def any_pairs(draw: st.DrawFn, least: int = 1) -> PairLogprobs:
    count = draw(st.integers(least, 5))
    sums = st.lists(st.floats(-200, 0), min_size=count, max_size=count)
    counts = st.lists(st.integers(1, 50), min_size=count, max_size=count)
    return pairs(*(draw(sums) for _ in range(4)), *(draw(counts) for _ in range(2)))


def swapped(logps: PairLogprobs) -> PairLogprobs:
    return logps._replace(
        chosen=logps.rejected,
        rejected=logps.chosen,
        ref_chosen=logps.ref_rejected,
        ref_rejected=logps.ref_chosen,
        chosen_tokens=logps.rejected_tokens,
        rejected_tokens=logps.chosen_tokens,
    )


def test_torchtunes_hand_computed_sigmoid_and_hinge() -> None:
    assert Sigmoid()(TORCHTUNE).tolist() == pytest.approx([0.693147, 0.313262, 0.126928], abs=1e-6)
    assert Sigmoid()(TORCHTUNE).mean().item() == pytest.approx(0.377779, abs=1e-6)
    assert Hinge()(TORCHTUNE).tolist() == pytest.approx([1, 0, 0], abs=1e-12)


@pytest.mark.parametrize(
    ("loss_type", "value", "slope"),
    [("sigmoid", 0.437488, -0.035434), ("hinge", 0.4, -0.1), ("ipo", 1.0, 2.0)],
)
def test_a_margin_of_six_at_beta_a_tenth_gives_ms_swifts_values_and_gradients(
    loss_type: str, value: float, slope: float
) -> None:
    chosen = MARGIN_SIX.chosen.clone().requires_grad_()
    found = made(loss_type)(MARGIN_SIX._replace(chosen=chosen))
    (gradient,) = torch.autograd.grad(found.sum(), chosen)
    assert found.item() == pytest.approx(value, abs=1e-6)
    assert gradient.item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(
    ("loss_type", "value"),
    [
        ("sigmoid", LN2),
        ("sigmoid_norm", LN2),
        ("robust", LN2),
        ("aot", LN2),
        ("aot_unpaired", LN2),
        ("hinge", 1),
        ("apo_zero", 1),
        ("apo_down", 1),
        ("ipo", 25),  # (1/(2 · 0.1))²
        ("sppo_hard", 50),  # twice that
        ("nca_pair", 2 * LN2),
        ("bco_pair", 2 * LN2),
        ("discopop", LN2 / 2 + 0.5),
        ("exo_pair", -LN2 - 0.5 * math.log(0.001) - 0.5 * math.log(0.999)),
    ],
)
def test_value_where_policy_is_the_reference(loss_type: str, value: float) -> None:
    loss = made(loss_type)
    here = pairs([-3, -8], [-4, -1], [-3, -8], [-4, -1], [2, 3], [4, 1])
    assert loss.at_reference() == pytest.approx(value, abs=1e-12)
    assert loss(here).tolist() == pytest.approx([value, value], abs=1e-12)
    assert [reward.tolist() for reward in loss.rewards(here)] == [[0, 0], [0, 0]]


@pytest.mark.parametrize("loss_type", ["sigmoid", "sigmoid_norm"])
@law
@given(logps=any_pairs())
def test_beta_zero_costs_ln_two_whatever_the_inputs(loss_type: str, logps: PairLogprobs) -> None:
    with pytest.warns(BetaWarning, match="beta=0 is unusual"):
        loss = made(loss_type, beta=0)
    assert loss(logps).tolist() == pytest.approx([LN2] * len(logps.chosen), abs=1e-12)


@pytest.mark.parametrize("loss_type", WITH_REFERENCE)
@law
@given(logps=any_pairs())
def test_swapping_the_pair_negates_the_margin(loss_type: str, logps: PairLogprobs) -> None:
    loss = made(loss_type)
    chosen, rejected = loss.rewards(logps)
    other_chosen, other_rejected = loss.rewards(swapped(logps))
    assert (chosen - rejected).tolist() == (-(other_chosen - other_rejected)).tolist()


@pytest.mark.parametrize("loss_type", WITH_REFERENCE)
@law
@given(logps=any_pairs(), divergence=st.sampled_from(["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]))
def test_every_pair_costs_the_stated_value_at_the_reference(
    loss_type: str, logps: PairLogprobs, divergence: str
) -> None:
    takes_it = "f_divergence_type" in type(made(loss_type)).model_fields
    loss = made(loss_type, **({"f_divergence_type": divergence} if takes_it else {}))
    at_start = logps._replace(chosen=logps.ref_chosen, rejected=logps.ref_rejected)
    assert loss(at_start).tolist() == pytest.approx([loss.at_reference()] * len(logps.chosen), rel=1e-12)


@pytest.mark.parametrize("loss_type", MARGIN)
@law
@given(logps=any_pairs(), shift=st.floats(-50, 50))
def test_a_constant_added_to_both_reference_sums_of_a_pair_changes_nothing(
    loss_type: str, logps: PairLogprobs, shift: float
) -> None:
    moved = logps._replace(ref_chosen=logps.ref_chosen + shift, ref_rejected=logps.ref_rejected + shift)
    torch.testing.assert_close(made(loss_type)(moved), made(loss_type)(logps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss_type", ["nca_pair", "bco_pair", "sppo_hard", "apo_zero"])
def test_a_pointwise_loss_does_feel_a_shift_of_the_reference(loss_type: str) -> None:
    moved = TORCHTUNE._replace(ref_chosen=TORCHTUNE.ref_chosen + 1, ref_rejected=TORCHTUNE.ref_rejected + 1)
    assert (made(loss_type)(moved) - made(loss_type)(TORCHTUNE)).abs().max() > 1e-3


@pytest.mark.parametrize("loss_type", ["sigmoid", "robust", "bco_pair", "apo_zero", "sft", "cpo"])
@law
@given(logps=any_pairs())
def test_a_likelier_chosen_response_costs_less(loss_type: str, logps: PairLogprobs) -> None:
    chosen = logps.chosen.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(made(loss_type)(logps._replace(chosen=chosen)).sum(), chosen)
    assert (gradient < 0).all()


@pytest.mark.parametrize("loss_type", [name for name in EVERY if not name.startswith("aot")])
@law
@given(logps=any_pairs(least=2))
def test_the_value_of_a_pair_depends_on_no_other_pair(loss_type: str, logps: PairLogprobs) -> None:
    loss = made(loss_type)
    assert loss.scope == "pair"
    alone = [loss(PairLogprobs(*(field[i : i + 1] for field in logps[:6]))).item() for i in range(len(logps.chosen))]
    assert loss(logps).tolist() == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("loss_type", EVERY)
@law
@given(logps=any_pairs(), scale=st.sampled_from([1.0, 100.0]))
def test_values_and_gradients_are_finite_in_float32_however_far_the_policy_went(
    loss_type: str, logps: PairLogprobs, scale: float
) -> None:
    leaves = [(scale * field).float().requires_grad_() for field in logps[:2]]
    far = PairLogprobs(*leaves, logps.ref_chosen.float(), logps.ref_rejected.float(), *logps[4:6])
    values = made(loss_type)(far)
    assert values.isfinite().all()
    gradients = torch.autograd.grad(values.sum(), leaves, allow_unused=True, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(("tau", "wrong_way"), [(0.05, True), (0.2, False)])
def test_discopop_pushes_a_pair_at_margin_zero_the_wrong_way_unless_its_temperature_is_raised(
    tau: float, wrong_way: bool
) -> None:
    chosen = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
    loss = made("discopop", beta=1.0, discopop_tau=tau)
    (slope,) = torch.autograd.grad(loss(pairs([-3.0], [-4.0], [-3.0], [-4.0])._replace(chosen=chosen)).sum(), chosen)
    assert slope.item() == pytest.approx((1 - LN2) / (4 * tau) - 0.75)
    assert (slope.item() > 0) == wrong_way


def test_label_smoothing_adds_its_share_of_the_margin() -> None:
    plain, cautious = Sigmoid()(TORCHTUNE), Sigmoid(label_smoothing=0.25)(TORCHTUNE)
    margin = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)  # −log σ(−m) = m − log σ(m)
    torch.testing.assert_close(cautious - plain, 0.25 * margin)


def test_a_soft_label_is_the_vote_weighted_mean_of_both_orders() -> None:
    share = torch.tensor([0.5, 0.8, 1.0], dtype=torch.float64)
    loss = Sigmoid(soft_labels=True)
    expected = share * Sigmoid()(TORCHTUNE) + (1 - share) * Sigmoid()(swapped(TORCHTUNE))
    torch.testing.assert_close(loss(TORCHTUNE._replace(confidence=share)), expected)
    assert loss.needs == ("confidence",)
    # An even vote is cheapest at a margin of zero: it pulls a grown margin back.
    even = torch.full((3,), 0.5, dtype=torch.float64)
    assert loss(TORCHTUNE._replace(confidence=even)).argmin() == 0


def test_smoothing_a_soft_label_moves_it_towards_a_half() -> None:
    share = torch.full((3,), 0.8, dtype=torch.float64)
    both = Sigmoid(soft_labels=True, label_smoothing=0.25)(TORCHTUNE._replace(confidence=share))
    combined = torch.full((3,), 0.8 * 0.75 + 0.2 * 0.25, dtype=torch.float64)
    torch.testing.assert_close(both, Sigmoid(soft_labels=True)(TORCHTUNE._replace(confidence=combined)))


def test_an_optional_input_that_a_knob_reads_is_asked_for_by_name() -> None:
    for loss, field in (
        (Sigmoid(soft_labels=True), "confidence"),
        (Hinge(ld_alpha=0.5), "chosen_prefix"),
        (Hinge(use_weighting=True), "rejected_collision"),
        (BcoPair(delta="running_mean"), "neutral"),
        (Kto(), "neutral"),
    ):
        assert field in loss.needs
        with pytest.raises(ValueError, match=field):
            loss(TORCHTUNE)


def test_length_penalty_charges_every_token_of_a_response() -> None:
    logps = TORCHTUNE._replace(chosen_tokens=torch.tensor([9, 9, 9]), rejected_tokens=torch.tensor([4, 4, 4]))
    # Reward β·logratio + α|y|: five tokens more at α = .02 lift the margin by .1, so a longer winner teaches less.
    margin = torch.tensor([0.1, 1.1, 2.1], dtype=torch.float64)
    torch.testing.assert_close(Sigmoid(length_penalty=0.02)(logps), -torch.nn.functional.logsigmoid(margin))
    assert Sigmoid(length_penalty=0.02).at_reference() is None


def test_length_desensitisation_scales_only_what_lies_beyond_the_shorter_response() -> None:
    logps = pairs([-9.0], [-4.0], [-6.0], [-5.0], [3], [2])._replace(
        chosen_prefix=torch.tensor([-7.0], dtype=torch.float64),
        ref_chosen_prefix=torch.tensor([-3.0], dtype=torch.float64),
        rejected_prefix=torch.tensor([-4.0], dtype=torch.float64),
        ref_rejected_prefix=torch.tensor([-5.0], dtype=torch.float64),
    )
    chosen, rejected = Sigmoid(beta=1, ld_alpha=0.25).rewards(logps)
    assert chosen.item() == pytest.approx(-4 + 0.25 * (-3 + 4))  # prefix log-ratio −4, tail +1
    assert rejected.item() == pytest.approx(1)


def test_wpo_weight_is_one_for_a_policy_that_is_certain_and_carries_no_gradient() -> None:
    chosen = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(1, dtype=torch.float64)
    logps = pairs([0.0], [0.0], [-1.0], [-2.0])._replace(
        chosen=chosen, chosen_collision=nothing, rejected_collision=nothing
    )
    weighted, plain = Sigmoid(use_weighting=True), Sigmoid()
    torch.testing.assert_close(weighted(logps), plain(logps))
    slopes = [torch.autograd.grad(loss(logps).sum(), chosen)[0] for loss in (weighted, plain)]
    torch.testing.assert_close(slopes[0], slopes[1])


def test_wpo_weight_of_an_unlikely_pair_is_the_product_of_its_mean_token_chances() -> None:
    collision = torch.full((1,), -2.0, dtype=torch.float64)
    logps = pairs([-6.0], [-8.0], [-6.0], [-8.0], [2], [3])._replace(
        chosen_collision=collision, rejected_collision=collision
    )
    # exp((−6 + 2)/2) · exp((−8 + 2)/3) = e^−4
    assert Sigmoid(use_weighting=True)(logps).item() == pytest.approx(LN2 * math.exp(-4))


def test_a_running_mean_shifts_both_rewards_of_bco() -> None:
    seen, loss = RunningMean(), BcoPair(delta="running_mean")
    assert seen.value == 0  # before the first step policy == reference
    seen.update(measure(loss, TORCHTUNE._replace(neutral=torch.tensor(0.0)), np.ones(3)))
    # log-ratios: chosen 0, .1, −.9; rejected 0, −9.9, −20.9
    assert seen.value == pytest.approx((0.1 - 0.9 - 9.9 - 20.9) / 6)
    value = loss(TORCHTUNE._replace(neutral=torch.tensor(seen.value, dtype=torch.float64)))
    shifted = TORCHTUNE._replace(
        ref_chosen=TORCHTUNE.ref_chosen + seen.value, ref_rejected=TORCHTUNE.ref_rejected + seen.value
    )
    torch.testing.assert_close(value, BcoPair()(shifted))


def test_a_running_mean_of_whole_responses_is_refused_beside_scaled_tails() -> None:
    with pytest.raises(ValueError, match=r"running_mean.*ld_alpha"):
        BcoPair(delta="running_mean", ld_alpha=0.5)


def test_aot_gives_each_pair_the_value_of_its_rank() -> None:
    logps = pairs([-1, -5, -3], [-2, -2, -2], [-4, -1, -2], [-2, -2, -2])
    # policy differences 1, −3, −1; reference differences −2, 1, 0, sorted −2, 0, 1
    deltas = torch.tensor([1 - 1, -3 + 2, -1 - 0], dtype=torch.float64)
    torch.testing.assert_close(Aot(beta=1)(logps), -torch.nn.functional.logsigmoid(deltas))


def test_aot_unpaired_gives_each_pair_the_value_of_its_chosens_rank() -> None:
    logps = pairs([-1, -5, -3], [-2, -7, -4], [0, 0, 0], [0, 0, 0])
    deltas = torch.tensor([-1 + 2, -5 + 7, -3 + 4], dtype=torch.float64)
    torch.testing.assert_close(AotUnpaired(beta=1)(logps), -torch.nn.functional.logsigmoid(deltas))


@pytest.mark.parametrize(
    "loss", [Aot(), AotUnpaired(), Sft(average="token"), Sigmoid()], ids=lambda loss: loss.loss_type
)
@law
@given(logps=any_pairs(least=2))
def test_window_gradients_equal_backward_over_the_whole_window(loss: PairLoss, logps: PairLogprobs) -> None:
    leaves = [field.clone().requires_grad_() for field in logps[:2]]
    weight = torch.arange(1.0, len(logps.chosen) + 1, dtype=torch.float64)
    (loss(logps._replace(chosen=leaves[0], rejected=leaves[1])) * weight).sum().backward()
    values, gradients = window_gradients(loss, logps, weight)
    torch.testing.assert_close(values, loss(logps))
    torch.testing.assert_close(gradients["chosen"], leaves[0].grad)
    torch.testing.assert_close(
        gradients["rejected"], torch.zeros_like(weight) if leaves[1].grad is None else leaves[1].grad
    )


@pytest.mark.parametrize("loss", [Aot(), AotUnpaired(), Sft(average="token"), Sigmoid()])
def test_two_passes_over_uneven_micro_batches_give_the_gradient_of_the_whole_window(loss: PairLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 2, 3, generator=generator, dtype=torch.float64)  # five pairs, two responses, three features
    parameters = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = -torch.rand(2, 5, generator=generator, dtype=torch.float64)
    tokens = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])

    def sums(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.nn.functional.logsigmoid(inputs[rows] @ parameters)
        return scores[:, 0], scores[:, 1]

    whole = loss(PairLogprobs(*sums(slice(5)), *reference, *tokens)).mean()
    (expected,) = torch.autograd.grad(whole, parameters)

    parts = [slice(0, 4), slice(4, 5)]
    with torch.no_grad():
        gathered = [torch.cat(side) for side in zip(*(sums(part) for part in parts), strict=True)]
    _, gradients = window_gradients(loss, PairLogprobs(*gathered, *reference, *tokens))
    for part in parts:
        torch.autograd.backward(sums(part), [gradients["chosen"][part] / 5, gradients["rejected"][part] / 5])
    torch.testing.assert_close(parameters.grad, expected)


def test_sft_by_pair_counts_pairs_and_by_token_counts_tokens() -> None:
    logps = pairs([-2.0, -12.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1, 3])
    assert Sft()(logps).tolist() == [2, 4]
    assert Sft(average="token")(logps).mean().item() == pytest.approx(14 / 4)


def test_a_response_without_a_scored_token_is_zero_and_not_nan() -> None:
    logps = pairs([0.0], [-2.0], [0.0], [-2.0], [0], [2])
    for loss_type in EVERY:
        assert made(loss_type)(logps).isfinite().all(), loss_type


def test_rewards_of_the_length_normalised_loss_are_per_token_and_their_margin_is_what_it_reads() -> None:
    logps = pairs([-6.0], [-9.0], [-9.0], [-7.0], [3], [2])
    loss = SigmoidNorm(beta=5)
    chosen, rejected = loss.rewards(logps)
    assert (chosen.item(), rejected.item()) == (5, -5)  # log-ratios +3 over 3 tokens and −2 over 2
    assert loss(logps).item() == pytest.approx(math.log1p(math.exp(-10)))


def test_simpo_by_hand() -> None:
    logps = pairs([-6.0], [-9.0], [0.0], [0.0], [3], [3])
    # averages −2 and −3: β · 1 − γ = 1.5
    assert Simpo(beta=2, simpo_gamma=0.5)(logps).item() == pytest.approx(math.log1p(math.exp(-1.5)))


def test_orpo_by_hand() -> None:
    logps = pairs([3 * math.log(0.8)], [2 * math.log(0.5)], [0.0], [0.0], [3], [2])
    # odds 4 against 1: σ(log 4) = 4/5
    assert Orpo(beta=0.1)(logps).item() == pytest.approx(-math.log(0.8) - 0.1 * math.log(0.8))


def test_a_mixture_adds_its_terms_by_weight_and_starts_at_their_sum() -> None:
    loss = made("mixture", terms=[{"loss_type": "sigmoid"}, {"loss_type": "hinge", "beta": 0.5}], loss_weights=[2, 3])
    torch.testing.assert_close(loss(TORCHTUNE), 2 * Sigmoid()(TORCHTUNE) + 3 * Hinge(beta=0.5)(TORCHTUNE))
    assert loss.at_reference() == pytest.approx(2 * LN2 + 3)
    assert loss.normalisation == "sum"


def test_a_mixture_needs_and_covers_what_any_of_its_terms_does() -> None:
    loss = Mixture(terms=(Sigmoid(soft_labels=True), Sft(average="token"), BcoPair(delta="running_mean")))
    assert (loss.scope, loss.uses_reference, loss.needs) == ("window", True, ("confidence", "neutral"))
    assert loss.normalisation == "mixed"
    assert loss.at_reference() is None
    assert not Mixture(terms=(Sft(), Simpo())).uses_reference


def one_sided(response: torch.Tensor, reference: torch.Tensor) -> PairLogprobs:
    """A desirable row and an undesirable one, two tokens each."""
    good = torch.tensor([1.0, 0.0], dtype=torch.float64)
    sums = (response * good, response * (1 - good), reference * good, reference * (1 - good))
    return PairLogprobs(*sums, 2 * good, 2 * (1 - good))


def test_kto_costs_a_half_a_row_at_the_reference() -> None:
    sums = torch.tensor([-3.0, -4.0], dtype=torch.float64)
    rows = one_sided(sums, sums)._replace(neutral=kl_estimate(sums, sums))
    assert Kto()(rows).tolist() == [0.5, 0.5]
    assert Kto().at_reference() == 0.5
    assert Kto(desirable_weight=2)(rows).tolist() == [1.0, 0.5]
    assert Kto(desirable_weight=2).at_reference() is None


def test_kto_raises_good_rows_and_lowers_bad_ones() -> None:
    response = torch.tensor([-3.0, -4.0], dtype=torch.float64, requires_grad=True)
    rows = one_sided(response, response.detach())._replace(neutral=torch.tensor(0.0))
    (gradient,) = torch.autograd.grad(Kto()(rows).sum(), response)
    assert gradient.tolist() == pytest.approx([-0.025, 0.025])  # β/4 each


def test_the_kl_estimate_is_never_negative_and_carries_no_gradient() -> None:
    policy = torch.tensor([-3.0, -4.0], requires_grad=True)
    assert kl_estimate(policy, torch.tensor([-1.0, -1.0])).item() == 0
    ahead = kl_estimate(policy, torch.tensor([-4.0, -6.0]))
    assert ahead.item() == 1.5
    assert not ahead.requires_grad


@pytest.mark.parametrize(
    ("loss_type", "knob"),
    [
        ("hinge", {"label_smoothing": 0.1}),
        ("nca_pair", {"f_divergence_type": "forward_kl"}),
        ("aot", {"use_weighting": True}),
        ("sigmoid", {"discopop_tau": 0.1}),
        ("sft", {"beta": 0.1}),
        ("simpo", {"ld_alpha": 0.5}),
        ("exo_pair", {"label_smoothing": 0.0}),
        ("robust", {"label_smoothing": 0.5}),
        ("ipo", {"beta": 0.0}),
        ("sigmoid", {"f_alpha_divergence_coef": 0.3}),
        ("mixture", {"terms": []}),
        ("mixture", {"terms": [{"loss_type": "sft"}], "loss_weights": [1, 2]}),
        ("mixture", {"terms": [{"loss_type": "mixture", "terms": [{"loss_type": "sft"}]}]}),
    ],
)
def test_a_knob_that_a_loss_lacks_or_cannot_take_is_an_error(loss_type: str, knob: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        made(loss_type, **knob)


@pytest.mark.parametrize(("loss_type", "beta"), [("sigmoid_norm", 0.1), ("simpo", 0.1), ("sigmoid", 5.0)])
def test_a_beta_from_the_range_of_another_loss_is_warned_of_with_the_right_range(loss_type: str, beta: float) -> None:
    usual = type(made(loss_type)).usual_beta
    assert usual is not None
    with pytest.warns(BetaWarning, match=f"use {usual[0]:g} to {usual[1]:g}"):
        made(loss_type, beta=beta)


@pytest.mark.parametrize("loss_type", EVERY)
def test_defaults_are_not_warned_of_and_survive_a_round_trip_through_json(loss_type: str) -> None:
    loss = made(loss_type)
    assert LOSSES.validate_json(loss.model_dump_json()) == loss


def test_a_configuration_chooses_its_loss_by_name() -> None:
    class Config(BaseModel):
        loss: Loss = Sigmoid()

    assert Config().loss == Sigmoid(beta=0.1)
    assert Config.model_validate({"loss": {"loss_type": "ipo", "beta": 0.2}}).loss == Ipo(beta=0.2)
    assert Config.model_validate({"loss": {"loss_type": "sigmoid_norm"}}).loss == SigmoidNorm(beta=5)
    with pytest.raises(ValidationError, match="nonsense"):
        Config.model_validate({"loss": {"loss_type": "nonsense"}})
    assert TypeAdapter(Loss).validate_python({"loss_type": "kto"}) == Kto()
