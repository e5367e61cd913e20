"""Which held-out pairs the account looks at: as many of every slice, the same ones always, and means stay unbiased."""

from collections import Counter

import numpy as np

from dpo_train.attribution.sampling_error import order, with_sampling
from dpo_train.attribution.stratified_sample import draw
from dpo_train.statistics import estimate

SIZES = {"day": 120, "night": 40, "early": 6, "late": 2}
SLICES = [name for name, size in SIZES.items() for _ in range(size)]
IDS = [f"pair-{place}" for place in range(len(SLICES))]
CODES = np.array([list(SIZES).index(name) for name in SLICES])


def test_every_slice_gets_as_many_looks_and_leaves_what_it_lacks_to_others() -> None:
    drawn = draw(SLICES, IDS, 24)
    looked = Counter(SLICES[place] for place in drawn.places)
    assert looked == {"day": 8, "night": 8, "early": 6, "late": 2}
    for name, size in SIZES.items():
        assert sum(drawn.stands_for[CODES[drawn.places] == list(SIZES).index(name)]) == size
    assert len(draw(SLICES, IDS, 25).places) == 25 and list(drawn.places) == sorted(drawn.places)


def test_the_draw_does_not_depend_on_the_order_of_the_pairs_and_can_hold_them_all() -> None:
    order_ = np.random.default_rng(0).permutation(len(IDS))
    mixed = draw([SLICES[k] for k in order_], [IDS[k] for k in order_], 24)
    assert {IDS[order_[place]] for place in mixed.places} == {IDS[place] for place in draw(SLICES, IDS, 24).places}
    whole = draw(SLICES, IDS, 1000)
    assert list(whole.places) == list(range(len(IDS))) and set(whole.stands_for) == {1.0}


def test_small_slices_are_drawn_as_one_where_two_pairs_each_are_not_to_be_had() -> None:
    drawn = draw(SLICES, IDS, 4)  # room for two columns: day, and one of all others
    assert Counter(SLICES[place] == "day" for place in drawn.places) == {True: 2, False: 2}
    assert sum(drawn.stands_for) == len(SLICES)
    assert len(draw(SLICES, IDS, 1).places) == 1


def test_weighted_means_are_unbiased_and_their_intervals_hold_the_truth() -> None:
    """Slices of unequal size, mean and spread; over many draws the estimate's mean is that of all pairs."""
    generator = np.random.default_rng(1)
    values = generator.normal(np.array([0.0, 3.0, -2.0, 5.0])[CODES], np.array([1.0, 2.0, 0.5, 0.1])[CODES])
    found, held = [], 0
    for turn in range(400):
        drawn = draw(SLICES, [f"{turn}-{name}" for name in IDS], 24)
        here, weights = values[drawn.places], drawn.stands_for
        known = estimate(float(here @ weights / weights.sum()), 0.0, 1, 0, 7.0)
        sure = with_sampling(known, here, weights, CODES[drawn.places])
        found.append(sure.value)
        held += sure.low <= values.mean() <= sure.high
    error = np.std(found) / len(found) ** 0.5
    print(f"bias {np.mean(found) - values.mean():+.4f} ± {error:.4f}, 95 % intervals hold {held / 400:.1%}")
    assert abs(np.mean(found) - values.mean()) < 4 * error and 0.91 <= held / 400 <= 0.985


def test_the_agreement_foretells_how_two_draws_agree_and_how_many_pairs_would_do() -> None:
    """Sixty slices of 200 pairs, whose means differ by as much as their pairs do."""
    generator = np.random.default_rng(2)
    codes = np.repeat(np.arange(60), 200)
    means = generator.normal(size=60)
    values = (0.7 * means[codes] + generator.normal(size=len(codes)))[:, None]
    names = [f"slice {code}" for code in codes]

    def of(count: int, turn: int) -> tuple[np.ndarray, dict[str, float]]:
        drawn = draw(names, [f"{turn}-{place}" for place in range(len(names))], count)
        told = order(values[drawn.places], drawn.stands_for, codes[drawn.places])
        assert told is not None
        return np.array([values[drawn.places, 0][codes[drawn.places] == code].mean() for code in range(60)]), told

    (one, told), (other, _) = of(180, 0), of(180, 1)
    print("two draws of 3 a slice correlate by", np.corrcoef(one, other)[0, 1], "foretold", told)
    assert abs(np.corrcoef(one, other)[0, 1] - told["agreement"]) < 0.15
    (one, _), (other, _) = of(int(told["needed"]), 2), of(int(told["needed"]), 3)
    assert abs(np.corrcoef(one, other)[0, 1] - 0.8) < 0.1
    assert order(values[:4], np.ones(4), codes[:4]) is None  # one slice has no order


def test_slices_that_do_not_differ_have_no_order_to_be_told() -> None:
    generator = np.random.default_rng(3)
    agreements = []
    for _ in range(50):
        told = order(generator.normal(size=(24, 2)), np.full(24, 10.0), np.repeat(np.arange(6), 4))
        assert told is not None
        agreements.append(told["agreement"])
    assert np.median(agreements) < 0.25
