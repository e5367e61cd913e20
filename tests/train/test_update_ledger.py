"""The update ledger adds up exactly, hears every pair, and changes nothing."""

import itertools

import pytest
import torch
from helpers import tiny, toy_policy
from helpers.toy_policy import planted, train

from dpo_train.attribution.update_ledger import EXTRA, Interval, UpdateLedger, cannot_book, plan
from dpo_train.config import TrainError
from dpo_train.data.encoded_pair import EncodedPair, row_length
from dpo_train.policy.logprobs import sums
from dpo_train.policy.packed_attention import read_whole_pairs
from dpo_train.policy.packing import collate

SLICES = ["a", "b", "flipped"]


def codes_of(pairs: toy_policy.Pairs) -> torch.Tensor:
    return torch.tensor([SLICES.index(name) for name in pairs.slices])


def rounding(interval: Interval) -> float:
    """What the accounts of gradients and decay leave unexplained, against the movement."""
    return float(interval.pushed[-1].norm() / (interval.after - interval.before).norm())


@pytest.mark.parametrize("max_norm", [1e9, 0.05])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("restart_at", [None, 9])
def test_the_accounts_add_up_to_the_movement_of_the_weights(
    max_norm: float, decay: float, accumulation: int, restart_at: int | None
) -> None:
    pairs = planted(48)
    changes = {"max_norm": max_norm, "decay": decay, "accumulation": accumulation, "restart_at": restart_at}
    (interval,) = train(pairs, SLICES, codes_of(pairs), **changes).intervals
    unbooked = float(interval.pushed[-len(EXTRA)].norm() / (interval.after - interval.before).norm())
    print(f"clip {max_norm:g}, decay {decay}: rounding {rounding(interval):.1e}, unbooked {unbooked:.1e}")
    assert rounding(interval) <= 1e-5 and unbooked <= 1e-5
    assert (float(interval.pushed[-2].norm()) > 0) == (decay > 0)


def test_in_double_precision_they_add_up_to_ten_digits() -> None:
    pairs = planted(48)
    (interval,) = train(pairs, SLICES, codes_of(pairs), decay=0.1, max_norm=0.05, dtype=torch.float64).intervals
    assert rounding(interval) <= 1e-10


def test_a_run_with_the_ledger_ends_in_the_same_weights_bit_for_bit() -> None:
    pairs = planted(48)
    alone = train(pairs, max_norm=0.05, decay=0.1).network.state_dict()
    watched = train(pairs, SLICES, codes_of(pairs), max_norm=0.05, decay=0.1, edges=(8, 16)).network.state_dict()
    assert all(torch.equal(alone[name], watched[name]) for name in alone)


def test_a_bucket_holds_the_gradient_that_autograd_gives_its_pairs() -> None:
    pairs = planted(12)
    network = toy_policy.Network()
    parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values())
    with torch.no_grad():  # away from the start, where half of the adapter has no gradient
        for value in parameters.values():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    ledger = UpdateLedger(network, parameters, optimizer, SLICES, 1.0)
    rows = torch.stack([pairs.chosen, pairs.rejected], 1).flatten(0, 1)
    logps = network(rows).view(-1, 2)
    losses = -torch.nn.functional.logsigmoid(logps[:, 0] - logps[:, 1])
    losses.sum().backward(retain_graph=True)
    ledger.book(codes_of(pairs).tolist(), [2 * toy_policy.LENGTH] * len(pairs))
    for code in range(3):
        alone = torch.autograd.grad(losses[codes_of(pairs) == code].sum(), list(parameters.values()), retain_graph=True)
        torch.testing.assert_close(ledger.gradient[code], torch.cat([part.flatten() for part in alone]))


@pytest.mark.parametrize("shared", [True, False])
def test_pairs_that_lie_in_one_row_are_told_apart(shared: bool) -> None:
    pairs = [EncodedPair([5, 6, 7], [8, 9, 10, 257], [8, 11, 257]), EncodedPair([256, 4], [3, 257], [30, 31, 32, 257]),
             EncodedPair([7, 8], [6, 5, 257], [6, 5, 257]), EncodedPair([9] * 8, [1, 257], [2, 257])]  # fmt: skip
    codes = [1, 0, 2, 1]
    network = tiny.network(dtype=torch.float64)
    if shared:
        read_whole_pairs(network)
    network.requires_grad_(False)
    parameters = {name: value for name, value in network.named_parameters() if "_proj" in name}
    for value in parameters.values():
        value.requires_grad_(True)
    ledger = UpdateLedger(
        network, parameters, torch.optim.AdamW(parameters.values()), ["first", "second", "equal sides"], 1.0
    )
    found = sums(network, collate(pairs, shared))
    margins = found.chosen - found.rejected
    margins.sum().backward(retain_graph=True)
    ledger.book(codes, [row_length(pair) for pair in pairs])
    for code in (0, 1):
        inside = torch.tensor([one == code for one in codes])
        alone = torch.autograd.grad(margins[inside].sum(), list(parameters.values()), retain_graph=True)
        torch.testing.assert_close(ledger.gradient[code], torch.cat([part.flatten() for part in alone]))
    equal = float(ledger.gradient[2].abs().max())
    assert equal == 0 if shared else equal <= 1e-12  # apart, equal numbers cancel in two rows; together, before any sum


def test_merged_buckets_are_the_bucket_of_the_union() -> None:
    pairs = planted(48)
    apart = train(pairs, SLICES, codes_of(pairs), max_norm=0.05).intervals[0]
    together = train(pairs, ["a or b", "flipped"], (codes_of(pairs) == 2).long(), max_norm=0.05).intervals[0]
    for account in ("pushed", "reallocated"):
        merged, union = getattr(apart, account)[:2].sum(0), getattr(together, account)[0]
        assert float((merged - union).norm() / union.norm()) <= 1e-5


def test_pairs_with_equal_sides_and_pairs_of_weight_zero_push_nothing_at_all() -> None:
    pairs = planted(48)
    inside = codes_of(pairs)
    pairs.rejected[inside == 0] = pairs.chosen[inside == 0]
    pairs.weights[inside == 1] = 0
    (interval,) = train(pairs, [*SLICES, "absent"], inside, max_norm=0.05).intervals
    assert float(interval.pushed[1].abs().max()) == 0  # weight 0
    assert float(interval.pushed[3].abs().max()) == 0  # absent
    # chosen and rejected rows cancel as sums of equal numbers; only their order of addition can leave a trace
    assert float(interval.pushed[0].norm()) <= 1e-6 * float(interval.pushed[2].norm())


@pytest.mark.parametrize("max_norm", [1e9, 1e-4])
def test_the_reallocated_accounts_sum_to_nothing(max_norm: float) -> None:
    pairs = planted(48)
    (interval,) = train(pairs, SLICES, codes_of(pairs), max_norm=max_norm).intervals
    total, gross = interval.reallocated.sum(0).norm(), interval.reallocated.norm(dim=1).sum()
    print(f"clip {max_norm:g}: reallocated sum {float(total / gross):.1e} of the gross")
    assert float(total / gross) < 0.01
    assert float(interval.pushed[:3].sum(0).norm()) > 0.1 * float(interval.pushed[:3].norm(dim=1).sum())


def test_intervals_join_without_a_gap() -> None:
    pairs = planted(48)
    whole = train(pairs, SLICES, codes_of(pairs)).intervals[0]
    parts = train(pairs, SLICES, codes_of(pairs), edges=(5, 13)).intervals
    assert [(one.first_step, one.last_step) for one in parts] == [(0, 5), (5, 13), (13, 24)]
    assert all(torch.equal(a.after, b.before) for a, b in itertools.pairwise(parts))
    torch.testing.assert_close(sum(one.pushed for one in parts), whole.pushed, rtol=1e-4, atol=1e-6)


def test_memory_is_planned_and_the_groups_halved_until_it_fits() -> None:
    assert plan(1000, 3, limit=10**9).groups == 8
    assert plan(1000, 3, limit=10**9).bytes == 7 * 25 * 1000 * 4
    assert plan(1000, 3, limit=7 * 13 * 1000 * 4).groups == 4
    assert plan(1000, 3, limit=1000).groups == 0


def test_what_cannot_be_booked_is_refused_with_its_name() -> None:
    network = toy_policy.Network()
    network.embedding.requires_grad_(True)
    parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
    assert "embedding.weight" in (cannot_book(network, parameters) or "")
    with pytest.raises(TrainError, match="no linear maps"):
        UpdateLedger(network, parameters, torch.optim.AdamW(parameters.values()), SLICES, 1.0)
    parameters.pop("embedding.weight")
    with pytest.raises(TrainError, match="only AdamW"):
        UpdateLedger(network, parameters, torch.optim.SGD(parameters.values(), lr=1), SLICES, 1.0)
