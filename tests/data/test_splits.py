"""Splits: shares, no group on two sides, and nothing moves when data is added."""

import polars as pl
import pytest
from pydantic import ValidationError

from dpo_data.measures import splits
from dpo_data.measures.splits import SplitShares


def ledger(groups: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "comparison_id": [f"id{row}" for row in range(len(groups))],
            "prompt_hash": [f"hash{row}" for row in range(len(groups))],
            "prompt_group": groups,
        },
        schema_overrides={"prompt_group": pl.String},
    )


def assigned(groups: list[str | None], shares: SplitShares | None = None) -> pl.DataFrame:
    return splits.assign(splits.measure(ledger(groups)), shares or SplitShares())


def test_a_group_lies_on_one_side() -> None:
    found = assigned([f"group{row % 50}" for row in range(500)])
    assert found.group_by("prompt_group").agg(pl.col("split").n_unique())["split"].max() == 1


def test_the_shares_are_those_asked_for() -> None:
    found = assigned([f"group{row}" for row in range(4000)], SplitShares(train=0.5, validation=0.3, test=0.2))
    counts = dict(found["split"].value_counts().iter_rows())
    for side, share in (("train", 0.5), ("validation", 0.3), ("test", 0.2)):
        spread = (share * (1 - share) / 4000) ** 0.5
        assert abs(counts[side] / 4000 - share) < 4 * spread


def test_adding_data_moves_no_row() -> None:
    old = assigned([f"group{row}" for row in range(300)])
    new = assigned([f"group{row}" for row in range(900)])
    assert splits.moved(old, new).is_empty()


def test_groups_that_merge_move_and_are_counted() -> None:
    old = assigned([f"group{row}" for row in range(300)])
    merged = assigned(["group0"] * 300)
    moved = splits.moved(old, merged)
    side = old["split"][0]
    assert len(moved) == int((old["split"] != side).sum())
    assert moved.columns == ["comparison_id", "split_old", "split_new"]


def test_a_larger_test_share_takes_rows_over_and_gives_none_back() -> None:
    groups: list[str | None] = [f"group{row}" for row in range(500)]
    small = assigned(groups, SplitShares(train=0.9, validation=0.0, test=0.1))
    large = assigned(groups, SplitShares(train=0.8, validation=0.0, test=0.2))
    assert set(small.filter(pl.col("split") == "test")["comparison_id"]) < set(
        large.filter(pl.col("split") == "test")["comparison_id"]
    )


def test_a_row_without_a_group_stands_for_itself() -> None:
    assert assigned([None, None])["split_coin"].n_unique() == 2


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"is 1\.1, expected 1"):
        SplitShares(train=0.9, validation=0.1, test=0.1)
