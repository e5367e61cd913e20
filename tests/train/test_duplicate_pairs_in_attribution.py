"""Slices that teach the same: told from their pushes and from what is not missed when one of them is gone."""

from typing import Any

import numpy as np
import pytest
from helpers.toy_confirm import AXIS, accounted, confirm
from helpers.toy_policy import kinds

from dpo_train.ablation.hidden_state_similarity import cosines
from dpo_train.attribution.tables import redundant

KINDS = {"first": (0, 0.0), "twin": (0, 0.0), "other": (1, 0.0)}
STRONG = {"steps": 48, "rate": 2e-2}  # so much that either twin alone would nearly do


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(account, confirmations of every slice) of a toy policy."""
    pairs, watched = kinds(36, 3, KINDS), kinds(12, 103, KINDS)
    _, account = accounted(pairs, watched, **STRONG)
    return account, [confirm(pairs, watched, [name], account, **STRONG) for name in KINDS]


def test_twins_are_marked_as_redundant_and_name_each_other(made: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    account, done = made
    found = redundant(account, done)
    assert {one["slice"]: one["twin"] for one in found} == {"first": "twin", "twin": "first"}
    assert all(one["said"] < one["missed"] for one in found)  # less is missed than the push had said


def test_twins_push_alike(made: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    cells = {(cell["train"], cell["slice"]): cell for cell in made[0]["cells"]}
    for held_out in ("first", "twin", "all"):
        one, other = cells["first", held_out], cells["twin", held_out]
        assert one["pushed_low"] < other["pushed"] < one["pushed_high"]


def test_a_slice_is_not_redundant_by_another_axis_or_when_half_of_it_stayed(
    made: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    account, done = made
    assert redundant(account, [{**one, "axis": f"not {AXIS}"} for one in done]) == []
    assert redundant(account, [{**one, "keep": 0.5} for one in done]) == []
    assert redundant(None, done) == []


def test_texts_of_one_kind_are_alike_and_texts_of_opposite_kinds_are_not() -> None:
    generator = np.random.default_rng(0)
    common, own = 10 * generator.normal(size=16), generator.normal(size=16)
    one, other = (common + side * own + 0.2 * generator.normal(size=(40, 16)) for side in (1, -1))
    everyone = np.concatenate([one, other])
    parts = {"one": np.arange(80) < 40, "other": np.arange(80) >= 40}
    found = cosines(everyone, one[:20], everyone, parts)
    assert found["one"] > 0.8 and found["other"] < -0.8  # though all vectors point much the same way
