"""What discovery and calibration find where something was planted, and where nothing was."""

import numpy as np
import pytest
from helpers import synthetic_run

from dpo_train.data.axes import label
from dpo_train.slices.calibration import calibrate, turned
from dpo_train.slices.margin_change import Movement, movement
from dpo_train.slices.subgroups import discover, halves


def drawn(seed: int, prompts: int = 600) -> tuple[Movement, dict[str, np.ndarray]]:
    """One pair a prompt, four random axes, movements of pure noise."""
    generator = np.random.default_rng(seed)
    names = {axis: np.array(["x", "y", "z"], dtype=object)[generator.integers(0, 3, size=prompts)] for axis in "abcd"}
    pair_log, pairs = synthetic_run.tables(prompts=3)
    template = movement(pair_log, pairs, "validation")
    noise = generator.normal(size=prompts)
    return template._replace(
        pair_ids=np.array([f"pair-{i:04d}" for i in range(prompts)], dtype=object),
        groups=np.arange(prompts),
        columns=names,
        **dict.fromkeys(("margin", "chosen", "rejected", "final", "gap"), noise),
    ), names


def test_a_planted_conjunction_is_found_on_one_half_and_confirmed_on_the_other() -> None:
    moved, names = drawn(0)
    inside = (names["a"] == "x") & (names["c"] == "z")
    found = discover(moved._replace(margin=moved.margin - 1.5 * inside), label(names))
    assert [one.words for one in found][:1] == ["a = x and c = z"]
    assert found[0].pairs == inside.sum() and found[0].confirmed.high < 0 and found[0].p_adjusted < 0.01


def test_an_effect_of_one_axis_alone_is_no_discovery() -> None:
    moved, names = drawn(1)
    assert discover(moved._replace(margin=moved.margin - 1.5 * (names["a"] == "x")), label(names)) == []


def test_noise_is_rarely_discovered() -> None:
    times = sum(bool(discover(moved, label(names))) for moved, names in (drawn(seed) for seed in range(10, 40)))
    print(f"pure noise: something confirmed in {times} of 30 runs")
    assert times <= 6  # q = .10 of 30 runs is 3


def test_the_halves_share_no_prompt_and_are_the_same_every_time() -> None:
    moved = movement(*synthetic_run.tables(prompts=50), "validation")
    first, second = halves(moved)
    assert not set(moved.groups[first]) & set(moved.groups[second]) and (first | second).all()
    assert (halves(moved)[0] == first).all()


@pytest.mark.parametrize("true_slope", [1.0, 0.4])
def test_the_slope_of_votes_on_margins_is_recovered_although_chosen_always_won(true_slope: float) -> None:
    generator = np.random.default_rng(2)
    moved, _ = drawn(3, prompts=4000)
    margin = generator.normal(0, 1.5, size=4000)  # of side A, before anyone votes
    votes_for = generator.binomial(5, 1 / (1 + np.exp(-true_slope * margin)))
    won = votes_for >= 3
    votes = {"votes_chosen": np.where(won, votes_for, 5 - votes_for).astype(float)}
    votes["votes_rejected"] = 5 - votes["votes_chosen"]
    found = calibrate(moved._replace(final=np.where(won, margin, -margin), columns=votes))
    assert found is not None
    print(f"true slope {true_slope}: {found['slope']:.3f} ({found['slope_low']:.3f} to {found['slope_high']:.3f})")
    assert found["slope_low"] <= true_slope <= found["slope_high"]
    assert found["slope_high"] - found["slope_low"] < 0.1
    assert found["floor"] < found["log_loss"] and sum(one["pairs"] for one in found["bins"]) == 4000


def test_turning_pairs_is_fair_and_belongs_to_the_pair() -> None:
    names = [f"pair-{i}" for i in range(4000)]
    sides = turned(names)
    assert abs(sides.mean()) < 0.05 and (turned(names[::-1])[::-1] == sides).all()


def test_without_votes_there_is_no_calibration() -> None:
    moved, _ = drawn(4)
    assert calibrate(moved) is None
