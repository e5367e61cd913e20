"""Length bias by hand and on published sets: the measure, its interval, the rebalance, and the measure again."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.published_votes import SETS, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.intervals import clustered, effective_rows
from dpo_data.measures.length_bias import LengthLimits, bias, effect, gaps, length_auc, rebalance
from dpo_data.votes import agreement


def ledger(chosen_minus_rejected: list[int], **columns: object) -> pl.DataFrame:
    """Decided rows with these gaps in characters; a is preferred in every other row."""
    rows = []
    for i, gap in enumerate(chosen_minus_rejected):
        chosen, rejected = 1000 + gap, 1000
        a, b = (chosen, rejected) if i % 2 else (rejected, chosen)
        rows.append({"comparison_id": f"{i:04}", "preferred": "a" if i % 2 else "b", "chars_a": a, "chars_b": b})
    frame = pl.DataFrame(rows).with_columns(source=pl.lit("s"), confidence=pl.lit(0.8))
    return frame.with_columns([pl.Series(name, value) for name, value in columns.items()])


def test_the_table_worked_by_hand() -> None:
    row = bias(ledger([10, 20, -5, 0])).row(0, named=True)
    assert (row["n"], row["unequal"], row["longer"], row["unit"]) == (4, 3, 2, "characters")
    assert row["p_longer"] == pytest.approx(2 / 3)
    assert (row["mean_gap"], row["median_gap"]) == (6.25, 5)
    # Pairs g_i against -g_j: 10 beats -10 -20 0 5; 20 beats four; -5 beats -10 -20; 0 beats -10 -20 and ties with 0.
    assert row["auc"] == pytest.approx((4 + 4 + 2 + 2.5) / 16)
    assert row["cohen_d"] == pytest.approx(6.25 / np.std([10, 20, -5, 0], ddof=1))


def test_tokens_are_used_only_where_every_row_has_them() -> None:
    frame = ledger([10, -5]).with_columns(tokens_a=pl.Series([1, 2]), tokens_b=pl.Series([3, 3]))
    assert gaps(frame)[1] == "tokens"
    assert gaps(frame)[0].tolist() == [2, -1]
    assert gaps(frame.with_columns(tokens_b=pl.Series([None, 3])))[1] == "characters"


def test_rows_without_a_preference_or_a_length_are_not_measured() -> None:
    frame = ledger([10, -5, 3]).with_columns(preferred=pl.Series(["b", None, "b"]), chars_a=pl.Series([1000, 2, None]))
    assert bias(frame).row(0, named=True)["n"] == 1
    assert bias(frame.clear()).row(0, named=True)["p_longer"] is None


def test_slices_are_measured_apart_and_missing_values_are_named() -> None:
    table = bias(ledger([10, 10, -5, -5], source=["x", "x", "y", None]), ["source"])
    assert table.select("slice", "value", "p_longer").rows() == [
        ("all", "all", 0.5),
        ("source", "not measured", 0.0),
        ("source", "x", 1.0),
        ("source", "y", 0.0),
    ]


def test_rows_of_one_prompt_count_as_what_they_are_worth() -> None:
    hit = np.tile([True, False], 50)
    assert effective_rows(hit, np.arange(100)) == pytest.approx(99, abs=1)
    # Ten prompts whose ten rows all answer alike: ten observations, not a hundred.
    alike = np.repeat(np.tile([True, False], 5), 10)
    assert effective_rows(alike, np.repeat(np.arange(10), 10)) == pytest.approx(9)
    narrow, wide = clustered(hit, np.arange(100)), clustered(alike, np.repeat(np.arange(10), 10))
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


def test_weights_move_the_share_and_widen_its_interval() -> None:
    hit, alone = np.repeat([True, False], [75, 25]), np.arange(100)
    balancing = np.where(hit, 4 / 6, 2.0)
    assert effective_rows(hit, alone, balancing) == pytest.approx(75, abs=1)  # 4 p q N
    low, high = clustered(hit, alone, balancing)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert clustered(hit, alone, np.full(100, 3.0)) == pytest.approx(clustered(hit, alone))


def test_every_row_alike_is_not_certainty() -> None:
    low, high = clustered(np.ones(50, bool), np.repeat(np.arange(5), 10))
    assert (round(low, 3), high) == (0.566, 1.0)  # Wilson of 5 of 5


def test_auc_is_the_chance_that_length_picks_the_chosen_side() -> None:
    rng = np.random.default_rng(0)
    gap = rng.normal(0.5, 1, 300)
    direct = np.mean([(g > -h) + 0.5 * (g == -h) for g in gap for h in gap])
    assert length_auc(gap) == pytest.approx(direct)
    assert length_auc(np.concatenate([gap, -gap])) == pytest.approx(0.5)
    doubled = length_auc(np.repeat(gap, 2))
    assert length_auc(gap, np.full(300, 2.0)) == pytest.approx(doubled)


def test_the_least_confident_rows_of_the_majority_go_first_then_the_last_by_id() -> None:
    frame = ledger([10, 10, 10, 10, -10], confidence=[0.9, 0.7, 0.9, 0.9, 0.6])
    balanced = rebalance(frame, LengthLimits(rebalance="drop", bins=1))
    assert balanced.filter("length_rebalanced")["comparison_id"].to_list() == ["0001", "0002", "0003"]


def test_equal_lengths_stay_and_slices_balance_apart() -> None:
    frame = ledger([10, 10, 0, -10, -10, -10], source=["x", "x", "x", "y", "y", "y"])
    gone = rebalance(frame, LengthLimits(rebalance="drop", bins=1)).filter("length_rebalanced")
    assert gone["comparison_id"].to_list() == ["0000", "0001", "0003", "0004", "0005"]
    assert not rebalance(frame, LengthLimits(rebalance="off"))["length_rebalanced"].any()


def test_tolerance_keeps_more_of_the_majority() -> None:
    # 4 against 16: at 25 % tolerance 4 x 1.25 / .75 = 6.67, so 6 stay.
    frame = ledger([10] * 16 + [-10] * 4)
    limits = LengthLimits(rebalance="drop", bins=1, tolerance=0.25)
    assert rebalance(frame, limits)["length_rebalanced"].sum() == 10


def test_a_bin_without_enough_of_the_larger_side_borrows_from_the_next() -> None:
    # Small gaps: 3 shorter, 1 longer. Large gaps: 6 longer. Nothing of the shorter side goes, and 3 longer stay.
    frame = ledger([-1, -1, -1, 1, 50, 50, 50, 50, 50, 50])
    gone = rebalance(frame, LengthLimits(rebalance="drop", bins=2)).filter("length_rebalanced")
    assert gone["comparison_id"].to_list() == ["0006", "0007", "0008", "0009"]


def test_rows_with_a_reason_already_are_not_balanced() -> None:
    frame = ledger([10, 10, -10], reasons=[[], ["tie"], []])
    assert not rebalance(frame, LengthLimits(rebalance="drop", bins=1))["length_rebalanced"].any()


def test_only_disputed_rows_are_balanced_when_asked() -> None:
    frame = ledger([10] * 6 + [-10], agreement=[1.0, 1.0, 0.6, 0.6, None, 0.6, 0.6])
    limits = LengthLimits(rebalance="drop", bins=1, only_where_agreement_below=0.8)
    gone = rebalance(frame, limits).filter("length_rebalanced")
    assert gone["comparison_id"].to_list() == ["0003", "0004", "0005"]


def test_weights_balance_without_dropping_and_are_clipped() -> None:
    frame = ledger([10] * 3 + [-10])
    balanced = rebalance(frame, LengthLimits(rebalance="weight", bins=1))
    assert balanced["length_weight"].to_list() == pytest.approx([4 / 6, 4 / 6, 4 / 6, 2])
    row = bias(balanced, weight="length_weight").row(0, named=True)
    assert row["p_longer"] == pytest.approx(0.5)
    assert row["p_low"] < 0.5 < row["p_high"]
    assert row["ess"] == pytest.approx(4 * (3 / 4) * (1 / 4) * 4)  # 4 p q N
    many = rebalance(ledger([10] * 99 + [-10]), LengthLimits(rebalance="weight", bins=1))
    assert many["length_weight"].max() == 4


LAW = settings(deadline=None, derandomize=True)
GAPS = st.lists(st.integers(-60, 60), min_size=1, max_size=60)


@LAW
@given(GAPS, st.integers(1, 8), st.integers(0, 5))
def test_what_is_kept_is_balanced_as_large_as_can_be_and_independent_of_order(
    values: list[int], bins: int, seed: int
) -> None:
    frame = ledger(values, confidence=[0.5 + (i * 7 % 10) / 20 for i in range(len(values))])
    balanced = rebalance(frame, LengthLimits(rebalance="drop", bins=bins))
    left, _ = gaps(balanced.filter(~pl.col("length_rebalanced")))
    all_gaps, _ = gaps(frame)
    fewest = min((all_gaps > 0).sum(), (all_gaps < 0).sum())
    assert ((left > 0).sum(), (left < 0).sum(), (left == 0).sum()) == (fewest, fewest, (all_gaps == 0).sum())
    assert balanced.drop("length_rebalanced", "length_weight").equals(frame)
    shuffled = rebalance(frame.sample(fraction=1.0, shuffle=True, seed=seed), LengthLimits(rebalance="drop", bins=bins))
    assert shuffled.sort("comparison_id").equals(balanced)


def test_the_effect_tells_before_and_after_and_what_each_slice_paid() -> None:
    frame = ledger([10] * 6 + [-10] * 2 + [10], source=["x"] * 8 + ["y"], reasons=[[] for _ in range(9)])
    balanced = rebalance(frame, LengthLimits(rebalance="drop", bins=1, by=("source",)))
    going = pl.when("length_rebalanced").then(pl.lit(["length_rebalanced"])).otherwise(pl.col("reasons"))
    table = effect(balanced.with_columns(reasons=going), ["source"])
    assert table.select("value", "n_before", "n_after", "kept").rows() == [
        ("all", 9, 4, pytest.approx(4 / 9)),
        ("x", 8, 4, 0.5),
        ("y", 1, 0, 0.0),
    ]
    assert table["p_longer_before"].to_list() == pytest.approx([7 / 9, 0.75, 1])
    assert table["p_longer_after"].to_list() == [0.5, 0.5, None]


@pytest.mark.real
@pytest.mark.parametrize("name", SETS)
def test_the_length_signal_of_published_sets_goes_and_the_rows_stay(name: str, real_data: Path) -> None:
    votes, texts = tables(real_data, name)
    measured = agreement.measure(texts, votes)
    before = bias(measured).row(0, named=True)
    if before["n"] < 500:
        assert name == "squality"
        return
    possible = 2 * min(before["longer"], before["unequal"] - before["longer"]) + before["n"] - before["unequal"]
    kept = rebalance(measured, LengthLimits(rebalance="drop")).filter(~pl.col("length_rebalanced"))
    after = bias(kept).row(0, named=True)
    weighed = bias(rebalance(measured, LengthLimits(rebalance="weight")), weight="length_weight").row(0, named=True)
    print(
        f"{name}: n {before['n']}, AUC {before['auc']:.3f}; dropped to {after['n']} of {possible} possible, "
        f"AUC {after['auc']:.4f}; weighed ESS {weighed['ess']:.0f}, AUC {weighed['auc']:.4f}"
    )
    assert abs(after["auc"] - 0.5) < 0.02
    assert after["n"] >= 0.98 * possible
    if name == "qlora":  # the judge never prefers a much shorter answer; clipped weights cannot balance what is absent
        assert abs(weighed["auc"] - 0.5) < abs(before["auc"] - 0.5) / 4
    else:
        assert abs(weighed["auc"] - 0.5) < 0.02
