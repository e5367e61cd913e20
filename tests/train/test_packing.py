"""Steps, cuts and rows: by hand where a hand can do it, by law where it cannot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_train.data.encoded_pair import EncodedPair, row_length
from dpo_train.data.sampler import Schedule
from dpo_train.policy.optimizer import rate_factor
from dpo_train.policy.packing import collate, cut

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=40)


@given(pairs=st.integers(1, 60), per_step=st.integers(1, 13), seed=st.integers(0, 5))
def test_an_epoch_takes_every_pair_once_and_its_last_step_may_be_short(pairs: int, per_step: int, seed: int) -> None:
    schedule = Schedule(pairs, per_step, seed)
    windows = [schedule.window(step) for step in range(schedule.steps_per_epoch)]
    assert sorted(np.concatenate(windows)) == list(range(pairs))
    assert all(len(window) == per_step for window in windows[:-1])


def test_epochs_differ_and_any_step_can_be_asked_for_without_the_ones_before() -> None:
    first, second = Schedule(50, 50, 1).window(0), Schedule(50, 50, 1).window(1)
    assert not np.array_equal(first, second)
    assert np.array_equal(second, Schedule(50, 50, 1).window(1))
    assert not np.array_equal(first, Schedule(50, 50, 2).window(0))


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_a_cut_keeps_every_row_and_exceeds_the_budget_only_for_a_lone_row(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths)
    groups = cut(sizes, budget)
    assert sorted(np.concatenate(groups)) == list(range(len(sizes)))
    assert all(len(group) == 1 or sizes[group].sum() <= budget for group in groups)


def test_a_cut_takes_long_rows_first_and_fills_each_pass() -> None:
    groups = cut(np.array([100, 10, 90, 10, 30]), 200)
    assert [group.tolist() for group in groups] == [[0, 2], [4, 1, 3]]
    assert cut(np.array([], dtype=np.int64), 200) == []
    beyond = np.array([False, True, False, False, True])
    assert [group.tolist() for group in cut(np.array([100, 10, 90, 10, 30]), 200, beyond)] == [[4, 1], [0, 2, 3]]


def test_a_row_holds_prompt_and_shared_opening_once_and_no_last_token() -> None:
    pair = EncodedPair([1, 2, 3], [7, 4, 5, 9], [7, 6, 9])
    batch = collate([pair])
    assert batch.input_ids.tolist() == [[1, 2, 3, 7, 4, 5, 6]]  # the end tokens 9 are never inputs
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 4]]
    assert row_length(pair) == 7
    scored = list(zip(batch.columns.tolist(), batch.targets.tolist(), strict=True))
    assert scored == [(2, 7), (3, 4), (4, 5), (5, 9), (3, 6), (6, 9)]
    assert batch.chosen_of[0].tolist() == [0, 1, 2, 3]
    assert batch.rejected_of[0].tolist() == [0, 4, 5]


def test_pairs_lie_one_after_the_other_and_rejected_tokens_see_only_the_prefix_and_themselves() -> None:
    batch = collate([EncodedPair([1, 2], [4, 5, 9], [6, 7, 8, 9]), EncodedPair([3], [5, 9], [])])
    assert batch.input_ids.tolist() == [[1, 2, 4, 5, 6, 7, 8, 3, 5]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 4, 0, 1]]
    assert batch.spans is not None
    assert [one[:3] for one in batch.spans] == [(4, 2, 3), (2, 1, 0)]
    assert batch.spans[0].mask is not None and batch.spans[1].mask is None
    assert batch.spans[0].mask[0, 0].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch.columns.tolist() == [1, 2, 3, 1, 4, 5, 6, 7, 8]


def test_the_learning_rate_rises_from_its_first_step_and_falls_to_its_last() -> None:
    factors = [rate_factor("linear", step, 10, 0.2) for step in range(10)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert factors[-1] == pytest.approx(1 / 8)
    assert rate_factor("cosine", 5, 10, 0.0) == pytest.approx(0.5)
    assert rate_factor("constant", 0, 10, 0.5) == 1
