"""When an interval of the account ends: as before where little moves, sooner where much does."""

import numpy as np

from dpo_train.attribution.intervals import IntervalScheduler


def intervals(moved: list[float], bend: float, target: float = 0.01) -> list[float]:
    """Movement of each interval over evaluations that move so much (nats), gaps growing as bend * movement ^ 2."""
    pace, first, since, found = IntervalScheduler(len(moved), 2, target), 0, 0.0, []
    for step, part in enumerate(moved, 1):
        since += part
        if pace.due(first, step, np.full((2, 3), since / 2)) or step == len(moved):
            pace.learn(bend * since**2)
            found.append(since)
            first, since = step, 0.0
    return found


def test_a_slow_run_ends_intervals_at_the_fixed_edges_alone() -> None:
    assert [round(part, 1) for part in intervals([0.1] * 20, bend=0.001)] == [0.7, 1.3]  # 20 * (1 / 2) ** 1.5 is 7


def test_a_fast_run_ends_them_before_they_leave_too_wide_a_gap() -> None:
    found = intervals([1.0] * 20, bend=0.001)  # a gap of .01 is left by 3.2 nats
    assert len(found) > 4 and max(found[1:]) <= 3.2  # the first cannot know yet
    assert intervals([1.0] * 20, bend=0.1)[1:] == [1.0] * 13  # no evaluation is skipped where even one is too much


def test_movement_that_stops_and_gaps_of_nothing_are_no_trouble() -> None:
    assert len(intervals([1.0] * 5 + [0.0] * 15, bend=0.001)) <= 4
    assert len(intervals([0.0] * 20, bend=0.001)) == 2
    assert len(intervals([1.0] * 20, bend=0.0)) == 2
