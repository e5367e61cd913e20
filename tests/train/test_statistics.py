"""Estimators against hand-derived numbers, scipy, and simulations with known truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpo_train.statistics import (
    benjamini_hochberg,
    bootstrap_counts,
    clustered_mean,
    contrast,
    contrast_p,
    detectable,
    familywise,
    p_value,
    ranks,
    shrink,
    slope,
    t_quantile,
    t_tail,
    weighted_medians,
)


@given(st.floats(-60, 60), st.floats(1, 500))
@settings(max_examples=150, deadline=None)
def test_students_t_is_the_one_of_scipy(t: float, freedom: float) -> None:
    assert t_tail(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("freedom", [1, 2.5, 9, 29, 1000])
def test_quantiles_of_t_are_the_ones_of_scipy(freedom: float) -> None:
    for probability in (0.8, 0.95, 0.975, 0.9995):
        assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-8)


def test_two_prompts_of_two_pairs_give_the_standard_error_worked_out_by_hand() -> None:
    # mean 2.5, residual sums by prompt -2 and +2, so Var = 2/1 * (4 + 4) / 16 = 1
    found = clustered_mean(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1]))
    assert (found.value, found.error, found.prompts, found.freedom) == (2.5, 1.0, 2, 1)
    assert found.high - 2.5 == pytest.approx(stats.t.ppf(0.975, 1))


def test_with_one_pair_a_prompt_the_clustered_error_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = clustered_mean(values, np.arange(40))
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(40))


def test_with_one_pair_a_prompt_the_contrast_is_welchs_test() -> None:
    generator = np.random.default_rng(1)
    values, members = generator.normal(size=60), np.arange(60) < 15
    found = contrast(values, members, np.arange(60))
    oracle = stats.ttest_ind(values[members], values[~members], equal_var=False)
    assert p_value(found) == pytest.approx(oracle.pvalue)
    assert found.freedom == pytest.approx(oracle.df)


def test_a_small_slice_of_skewed_values_is_blamed_at_the_nominal_rate() -> None:
    generator = np.random.default_rng(5)
    own = common = 0
    for _ in range(2000):
        values, members = generator.exponential(size=150), np.arange(150) < 15
        own += p_value(contrast(values, members, np.arange(150))) < 0.05
        common += contrast_p(values, members, np.arange(150)) < 0.05
    print(f"under .05 of 2,000: spread of each side {own / 20:.1f} %, of the whole {common / 20:.1f} %")
    assert 0.035 <= common / 2000 <= 0.065 < own / 2000


def test_a_difference_that_is_there_is_found_and_one_that_cannot_be_told_is_not_a_number() -> None:
    values, members = np.arange(40.0) % 7, np.arange(40) < 12
    assert contrast_p(values + 5 * members, members, np.arange(40)) < 1e-3
    assert math.isnan(contrast_p(np.ones(40), members, np.arange(40)))
    assert math.isnan(contrast_p(values, np.ones(40, dtype=bool), np.arange(40)))


def test_a_contrast_inside_prompts_gains_from_what_their_pairs_share() -> None:
    generator = np.random.default_rng(2)
    groups = np.repeat(np.arange(50), 2)
    shared = np.repeat(generator.normal(0, 5, size=50), 2)
    members = np.tile([True, False], 50)
    found = contrast(shared + 0.1 * generator.normal(size=100) + members, members, groups)
    assert abs(found.value - 1) < 0.1 and found.error < 0.05


def test_the_slope_of_one_pair_a_prompt_has_the_robust_error() -> None:
    generator = np.random.default_rng(3)
    x = generator.normal(size=50)
    y = 2 * x + generator.normal(size=50)
    found = slope(y, x, np.arange(50))
    centred = x - x.mean()
    residual = y - y.mean() - found.value * centred
    by_hand = 50 / 49 * ((residual * centred) ** 2).sum() / (centred**2).sum() ** 2
    assert found.value == pytest.approx(stats.linregress(x, y).slope) and found.error == pytest.approx(by_hand**0.5)


def test_clustered_intervals_cover_the_truth_93_to_97_times_in_100() -> None:
    generator = np.random.default_rng(4)
    covered, naive, times = 0, 0, 3000
    for _ in range(times):
        sizes = generator.integers(1, 6, size=30)
        groups = np.repeat(np.arange(30), sizes)
        values = 0.3 + generator.standard_t(6, size=30)[groups] + generator.normal(size=len(groups))
        found = clustered_mean(values, groups)
        covered += found.low <= 0.3 <= found.high
        alone = clustered_mean(values, np.arange(len(values)))
        naive += alone.low <= 0.3 <= alone.high
    print(
        f"coverage with 30 prompts: clustered {covered / times:.3f}, as if pairs were independent {naive / times:.3f}"
    )
    assert 0.93 <= covered / times <= 0.97
    assert naive / times < 0.85


def test_adjusted_p_values_are_those_of_scipy_and_leave_out_what_is_unknown() -> None:
    p = np.array([0.01, 0.04, math.nan, 0.03, 0.8])
    adjusted = benjamini_hochberg(p)
    assert math.isnan(adjusted[2])
    known = ~np.isnan(p)
    np.testing.assert_allclose(adjusted[known], stats.false_discovery_control(p[known]))


def test_max_t_asks_of_independent_slices_what_sidak_asks_and_of_copies_nothing_more() -> None:
    generator = np.random.default_rng(6)
    alone = generator.normal(size=(4000, 12))
    p = np.array([0.001, 0.01, 0.2, *[0.9] * 8, np.nan])
    adjusted, level = familywise(alone, p)
    np.testing.assert_allclose(adjusted[:3], 1 - (1 - p[:3]) ** 11, rtol=0.3)  # one of the twelve is not in the family
    assert np.isnan(adjusted[-1]) and level == pytest.approx(1 - 0.95 ** (1 / 11), rel=0.25)
    copies, same = familywise(np.repeat(alone[:, :1], 12, axis=1) * 7, p)
    np.testing.assert_allclose(copies[1:3], p[1:3], rtol=0.3)
    assert same == pytest.approx(0.05, rel=0.2)


def test_max_t_leaves_out_draws_that_miss_every_slice() -> None:
    generator = np.random.default_rng(7)
    draws, p = generator.normal(size=(1000, 2)), np.array([0.01, 0.5])
    without = familywise(draws, p)
    missed = familywise(np.vstack([draws, np.full((40, 2), np.nan)]), p)
    np.testing.assert_array_equal(without[0], missed[0])
    assert without[1] == missed[1]


def test_shrinkage_moves_uncertain_values_more_and_pure_noise_all_the_way() -> None:
    values, errors = np.array([1.0, 1.0, -0.8, -1.1]), np.array([0.1, 0.6, 0.1, 0.6])
    drawn = shrink(values, errors, centre=0.0)
    assert 0 < drawn[1] < drawn[0] < 1
    noise = np.random.default_rng(5).normal(size=200)
    assert np.abs(shrink(noise, np.full(200, 3.0))).max() < 0.5


def test_shrunken_values_are_nearer_the_truth() -> None:
    generator = np.random.default_rng(6)
    truth, errors = generator.normal(0, 0.5, size=400), generator.uniform(0.2, 1.5, size=400)
    seen = truth + errors * generator.normal(size=400)
    assert ((shrink(seen, errors) - truth) ** 2).mean() < 0.5 * ((seen - truth) ** 2).mean()


def test_a_true_difference_of_the_detectable_size_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(7)
    members, groups, found = np.arange(200) < 60, np.arange(200), 0
    size = np.mean([detectable(contrast(generator.normal(size=200), members, groups)) for _ in range(50)])
    for _ in range(1500):
        values = generator.normal(size=200)
        found += p_value(contrast(values + size * members, members, groups)) < 0.05
    assert 0.76 < found / 1500 < 0.84


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_weighted_median_is_the_median_of_the_pairs_written_out(values: list[float], seed: int) -> None:
    array = np.array(values)
    counts = np.random.default_rng(seed).integers(0, 4, size=(5, len(array))).astype(float)
    for draw, found in zip(counts, weighted_medians(array, counts), strict=True):
        written = np.repeat(array, draw.astype(int))
        assert (math.isnan(found) and not len(written)) or found == np.median(written)


def test_bootstrap_draws_are_the_same_however_they_are_cut_and_hold_every_group_once_on_average() -> None:
    whole = np.concatenate(list(bootstrap_counts(20, 600, block=600)))
    cut = np.concatenate(list(bootstrap_counts(20, 600, block=77)))
    np.testing.assert_array_equal(whole, cut)
    assert (whole.sum(axis=1) == 20).all() and abs(whole.mean() - 1) < 1e-12


def test_ties_share_their_mean_rank() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0])
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values))
