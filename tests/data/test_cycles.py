"""Circles of preferences: found, opened at the least cost, and the same whatever the order of the rows."""

import json
import math
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.published_votes import tables
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.measures import cycles
from dpo_data.votes import agreement


def ledger(edges: list[tuple[str, str, float | None]], prompt: str = "p") -> pl.DataFrame:
    """A ledger from (winner, loser, confidence); a is the smaller name."""
    rows = [
        {
            "comparison_id": f"{prompt}{min(won, lost)}{max(won, lost)}",
            "prompt_hash": prompt,
            "hash_a": min(won, lost),
            "hash_b": max(won, lost),
            "preferred": "a" if won < lost else "b",
            "confidence": confidence,
        }
        for won, lost, confidence in edges
    ]
    return pl.DataFrame(rows, schema_overrides={"confidence": pl.Float64})


def marked(frame: pl.DataFrame, column: str) -> set[str]:
    return set(frame.filter(column)["comparison_id"])


def test_a_circle_is_opened_at_its_least_certain_comparison() -> None:
    frame = cycles.measure(ledger([("x", "y", 0.9), ("y", "z", 0.7), ("z", "x", 0.8), ("x", "w", 0.6)]))
    assert marked(frame, "in_cycle") == {"pxy", "pyz", "pxz"}
    assert marked(frame, "cycle_edge") == {"pyz"}


def test_one_weak_comparison_shared_by_two_circles_goes_instead_of_two() -> None:
    # Removing z > x (weight of .95) opens both circles; the cheap edges together cost more than it.
    edges = [("x", "y", 0.9), ("y", "z", 0.9), ("x", "w", 0.9), ("w", "z", 0.9), ("z", "x", 0.95)]
    frame = cycles.measure(ledger(edges))
    assert marked(frame, "in_cycle") == {"pxy", "pyz", "pwx", "pwz", "pxz"}
    assert marked(frame, "cycle_edge") == {"pxz"}


def test_preferences_in_order_are_no_circle_and_two_comparisons_cannot_be_one() -> None:
    chain = cycles.measure(ledger([("x", "y", 0.9), ("y", "z", 0.9), ("x", "z", 0.6)]))
    assert not chain["in_cycle"].any()
    two = cycles.measure(ledger([("x", "y", 0.9), ("y", "x", 0.9)]))
    assert not two["in_cycle"].any()


def test_undecided_comparisons_are_not_measured_and_unknown_confidence_goes_first() -> None:
    frame = ledger([("x", "y", 0.6), ("y", "z", None), ("z", "x", 0.6)])
    undecided = frame.clear().with_columns(pl.lit(None, pl.String).alias("preferred"))
    tie = pl.concat([frame, ledger([("v", "x", 0.5)]).with_columns(preferred=pl.lit(None, pl.String))])
    measured = cycles.measure(tie)
    assert marked(measured, "cycle_edge") == {"pyz"}
    assert measured.row(3, named=True)["in_cycle"] is None
    assert cycles.measure(undecided).height == 0


def test_the_same_responses_under_two_prompts_make_no_circle() -> None:
    parts = [
        ledger([("x", "y", 0.9), ("y", "z", 0.9)]),
        ledger([("z", "x", 0.9), ("x", "w", 0.9), ("w", "v", 0.9)], "q"),
    ]
    assert not cycles.measure(pl.concat(parts))["in_cycle"].any()


def test_only_the_removal_set_is_dropped_and_only_when_asked() -> None:
    frame = cycles.measure(ledger([("x", "y", 0.9), ("y", "z", 0.7), ("z", "x", 0.8)]))
    dropped = frame.filter(cycles.rules(cycles.CycleLimits())["preference_cycle"])
    assert dropped["comparison_id"].to_list() == ["pyz"]
    assert frame.filter(cycles.rules(cycles.CycleLimits(drop=False))["preference_cycle"]).height == 0


TOURNAMENTS = st.integers(3, 6).flatmap(
    lambda n: st.lists(
        st.tuples(st.booleans(), st.sampled_from([None, 0.5, 0.6, 0.7, 0.9])),
        min_size=n * (n - 1) // 2,
        max_size=n * (n - 1) // 2,
    ).map(lambda rows: tournament(n, rows))
)


def tournament(n: int, rows: list[tuple[bool, float | None]]) -> list[tuple[str, str, float | None]]:
    pairs = [(f"{i}", f"{j}") for i in range(n) for j in range(i)]
    return [(x, y, sure) if up else (y, x, sure) for (x, y), (up, sure) in zip(pairs, rows, strict=True)]


def weight(confidence: float | None) -> int:
    odds = 0.5 if confidence is None else confidence
    return round(math.log(odds / (1 - odds)) * cycles.SCALE + 1)


@settings(deadline=None, derandomize=True)
@given(TOURNAMENTS, st.integers(0, 5))
def test_what_is_left_has_no_circle_and_no_cheaper_set_would_do(
    edges: list[tuple[str, str, float | None]], seed: int
) -> None:
    frame = ledger(edges)
    measured = cycles.measure(frame)
    left = cycles.measure(measured.filter(~pl.col("cycle_edge")))
    assert not left["in_cycle"].any()
    names = sorted({name for edge in edges for name in edge[:2]})
    costs = []
    for order in permutations(names):
        place = {name: i for i, name in enumerate(order)}
        costs.append(sum(weight(sure) for won, lost, sure in edges if place[won] > place[lost]))
    spent = sum(weight(sure) for sure in measured.filter("cycle_edge")["confidence"])
    assert spent == min(costs)
    shuffled = cycles.measure(frame.sample(fraction=1.0, shuffle=True, seed=seed))
    assert marked(shuffled, "cycle_edge") == marked(measured, "cycle_edge")
    searched = cycles.measure(frame, cycles.CycleLimits(exact_responses=3))
    assert not cycles.measure(searched.filter(~pl.col("cycle_edge")))["in_cycle"].any()


def test_the_search_opens_large_circles_near_the_planted_cost() -> None:
    """A planted order of 60 responses, every comparison made, 10 % the wrong way round: at most as many go."""
    rng = np.random.default_rng(5)
    edges = [(f"{i:02}", f"{j:02}", 0.8) for i in range(60) for j in range(i + 1, 60)]
    wrong = rng.random(len(edges)) < 0.1
    edges = [(y, x, sure) if flip else (x, y, sure) for (x, y, sure), flip in zip(edges, wrong, strict=True)]
    measured = cycles.measure(ledger(edges))
    assert 0 < measured["cycle_edge"].sum() <= wrong.sum()
    assert not cycles.measure(measured.filter(~pl.col("cycle_edge")))["in_cycle"].any()


def test_the_summary_counts_prompts_triads_and_cyclic_triads() -> None:
    circle = ledger([("x", "y", 0.9), ("y", "z", 0.7), ("z", "x", 0.8)])
    chain = ledger([("x", "y", 0.9), ("y", "z", 0.9), ("x", "z", 0.6)], "q")
    single = ledger([("x", "y", 0.9)], "r")
    measured = cycles.measure(pl.concat([circle, chain, single]))
    assert cycles.summary(measured) == {
        "prompts": 2,
        "prompts_with_circles": 1,
        "comparisons_on_circles": 3,
        "comparisons_to_remove": 1,
        "triads": 2,
        "cyclic_triads": 1,
    }
    assert cycles.summary(cycles.measure(single))["triads"] == 0


@pytest.mark.real
def test_pandalm_has_one_circle(real_data: Path) -> None:
    votes, texts = tables(real_data, "pandalm")
    measured = cycles.measure(agreement.measure(texts, votes))
    found = cycles.summary(measured)
    print(found)
    assert found["cyclic_triads"] == 1
    assert found["prompts_with_circles"] == 1
    assert found["comparisons_to_remove"] == 1
    assert found["triads"] == 288


@pytest.mark.real
def test_pandalm_has_373_triads_where_a_model_is_a_node_and_ties_do_not_count(real_data: Path) -> None:
    """The figure others give, by their definition: two models that answer alike stay two, the majority skips ties."""
    rows = json.loads((real_data / "pandalm" / "testset-v1.json").read_text(encoding="utf-8"))
    margins: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        one, two = row["cmp_key"].split("_")
        verdicts = [str(row[f"annotator{n}"]) for n in (1, 2, 3)]
        margin = verdicts.count("1") - verdicts.count("2")
        prompt = f"{row['instruction']}\n{row['input']}"
        margins[prompt, min(one, two), max(one, two)] += margin if one < two else -margin
    won = [
        ledger([(one, two, None) if margin > 0 else (two, one, None)], prompt)
        for (prompt, one, two), margin in margins.items()
        if margin
    ]
    found = cycles.summary(cycles.measure(pl.concat(won)))
    assert (found["triads"], found["cyclic_triads"]) == (373, 1)
