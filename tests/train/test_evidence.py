"""What the page says of a training slice's push: down where the interval says so, and else that it does not."""

from typing import Any

import pytest

from dpo_train.attribution.tables import direction
from dpo_train.report.evidence import told
from dpo_train.report.headline import headline, suspects


def account(low: float, high: float, p: float) -> dict[str, Any]:
    """Of three training slices, one of which pushed others down by .5 with this interval, p adjusted."""
    night = {"pushed": -0.5, "pushed_low": low, "pushed_high": high, "excess": -0.1, "p": p / 3, "p_adjusted": p}
    day = {"pushed": 0.4, "pushed_low": 0.1, "pushed_high": 0.7, "excess": 0.1, "p": 0.5, "p_adjusted": 1.0}
    rest = {"pairs": 9, "of": 40}
    return {
        "axis": "desk",
        "train": ["night", "day"],
        "cells": [{"train": name, "train_pairs": 20} for name in ("night", "day")],
        "elsewhere": {name: {**one, **rest, "direction": direction(one)} for name, one in
                      (("night", night), ("day", day))},
    }  # fmt: skip


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Held-out margins that grew; no slice of them is described."""
    whole = {"axis": "all", "slice": "all", "split": "validation", "from_step": 0, "to_step": 9, "status": "measured"}
    numbers = {"pairs": 40, "prompts": 40, "movement": 0.3, "movement_low": 0.1, "movement_high": 0.5, "accuracy": 0.7}
    return [{**whole, **numbers, "chosen_reward": 0.1, "rejected_reward": -0.2, "p_adjusted": None}]


def test_a_push_whose_interval_lies_below_zero_is_called_down(rows: list[dict[str, Any]]) -> None:
    said = headline(rows, account(-0.9, -0.1, p=0.03))
    assert said["fix"] == "Fix first: desk = night. Its training pairs pushed the margins of others down."
    assert "the interval says so" in said["sure"] and said["suspect"]["level"] == "accounted"
    assert "−0.50 (95 % −0.90 to −0.10) per pair (9 of 40 pairs sampled): the interval is below 0." in said["points"][0]


def test_a_push_whose_interval_covers_zero_is_only_called_less_than_others(rows: list[dict[str, Any]]) -> None:
    said = headline(rows, account(-1.5, 0.3, p=0.03))
    assert said["fix"].endswith("pushed the margins of others less than other slices did.")
    assert "is unclear (the interval includes 0)" in said["sure"] and said["suspect"]["level"] == "pushed less"
    assert "down" not in said["fix"] and "the interval includes 0" in said["points"][0]
    assert said["next"] == "--confirm desk=night"


def test_a_push_that_is_neither_below_zero_nor_below_others_is_no_evidence(rows: list[dict[str, Any]]) -> None:
    assert suspects(rows, account(-1.5, 0.3, p=0.4)) == [] == suspects(rows, account(-0.9, -0.1, p=0.4))


def test_every_training_slice_is_told_in_words() -> None:
    words = {one["name"]: one["words"] for one in told(account(-1.5, 0.3, p=0.03))}
    assert words == {
        "night": "direction unclear (95% interval includes 0); less than the other slices for its size",
        "day": "pushed them up",
    }
    assert told(account(-0.9, -0.1, p=0.4))[0]["words"] == "pushed them down"
