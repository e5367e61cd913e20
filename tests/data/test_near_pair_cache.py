"""Verified pairs are worked out once, ever."""

from pathlib import Path

import polars as pl

from dpo_data.text import edges


def test_only_pairs_never_seen_before_are_verified(tmp_path: Path) -> None:
    asked: list[list[tuple[str, str]]] = []

    def verify(pairs: pl.DataFrame) -> pl.DataFrame:
        asked.append(pairs.rows())
        return pairs.with_columns(whole=pl.lit(0.9))

    path = tmp_path / "cache" / "pairs.parquet"
    first = pl.DataFrame({"left": ["a", "a"], "right": ["b", "c"]})
    assert edges.recall(path, first, verify, "m 1").rows() == [("a", "b", 0.9), ("a", "c", 0.9)]
    second = pl.DataFrame({"left": ["a", "b"], "right": ["c", "d"]})
    assert edges.recall(path, second, verify, "m 1").rows() == [("a", "c", 0.9), ("b", "d", 0.9)]
    assert edges.recall(path, first, verify, "m 1").rows() == [("a", "b", 0.9), ("a", "c", 0.9)]
    assert asked == [[("a", "b"), ("a", "c")], [("b", "d")]]
    edges.recall(path, second, verify, "m 2")
    assert asked[2:] == [[("a", "c"), ("b", "d")]], "another method verifies anew"


def test_no_pairs_proposed_are_no_edges(tmp_path: Path) -> None:
    none = pl.DataFrame(schema={"left": pl.String, "right": pl.String})
    found = edges.recall(tmp_path / "pairs.parquet", none, lambda pairs: pairs.with_columns(whole=pl.lit(0.9)), "m 1")
    assert found.is_empty() and found.columns == ["left", "right", "whole"]
