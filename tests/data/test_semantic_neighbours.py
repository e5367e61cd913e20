"""Exact neighbours, whatever the block, and each pair of texts compared once."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dpo_data.text import semantic_neighbours
from dpo_data.text.embeddings import Embedded, Vectors


def some(rows: int = 60) -> Vectors:
    """Unit vectors, ten of which lie near ten others."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(rows, 8)).astype(np.float32)
    vectors[40:50] = vectors[:10] + 0.05 * rng.normal(size=(10, 8)).astype(np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def near(vectors: Vectors, cosine: float) -> set[tuple[int, int]]:
    cosines = vectors @ vectors.T
    return {(i, j) for i in range(len(vectors)) for j in range(i + 1, len(vectors)) if cosines[i, j] >= cosine}


@pytest.mark.parametrize("block", [7, 64])
def test_all_pairs_above_the_limit_are_found_whatever_the_block(block: int) -> None:
    expected = near(some(), 0.95)
    assert len(expected) >= 10
    left, right = semantic_neighbours.pairs(some(), 0.95, block=block)
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == expected
    assert len(left) == len(expected)


@pytest.mark.parametrize("known", [0, 13, 45, 60])
def test_pairs_among_known_rows_are_left_out_and_no_other(known: int) -> None:
    left, right = semantic_neighbours.pairs(some(), 0.9, known=known, block=7)
    found = set(zip(left.tolist(), right.tolist(), strict=True))
    assert found == {(i, j) for i, j in near(some(), 0.9) if j >= known}


@pytest.mark.parametrize("block", [7, 64])
def test_the_nearest_is_the_first_of_equals_whatever_the_block(block: int) -> None:
    vectors = some()
    others = np.concatenate([vectors[20:40], vectors[20:40]])
    row, cosine = semantic_neighbours.nearest(vectors, others, block)
    exact = np.round((vectors @ others.T).astype(np.float64), 4)
    assert row.tolist() == exact.argmax(axis=1).tolist()
    assert cosine.tolist() == exact.max(axis=1).tolist()
    assert row[20:40].tolist() == list(range(20))


def embedded(rows: list[int]) -> Embedded:
    return Embedded(pl.Series([f"{row:02d}" for row in rows]), some()[rows], 0, len(rows))


def test_what_was_compared_once_is_remembered_and_nothing_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "near" / "topics.parquet"
    first, second, everything = list(range(0, 60, 2)), list(range(0, 60)), list(range(60))
    assert semantic_neighbours.recall(path, embedded(first), 0.9)[1] == 30
    found, fresh = semantic_neighbours.recall(path, embedded(second), 0.9)
    assert fresh == 30
    names = {(f"{i:02d}", f"{j:02d}") for i, j in near(some(), 0.9)}
    assert set(found.iter_rows()) == names and len(found) == len(names)
    again, none = semantic_neighbours.recall(path, embedded(everything), 0.9)
    assert none == 0 and again.equals(found)


def test_a_text_that_comes_back_is_compared_with_those_that_came_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "topics.parquet"
    semantic_neighbours.recall(path, embedded(list(range(0, 20))), 0.9)
    semantic_neighbours.recall(path, embedded(list(range(10, 60))), 0.9)
    found, fresh = semantic_neighbours.recall(path, embedded(list(range(60))), 0.9)
    assert fresh == 10
    assert set(found.iter_rows()) == {(f"{i:02d}", f"{j:02d}") for i, j in near(some(), 0.9)}


def test_another_limit_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "topics.parquet"
    semantic_neighbours.recall(path, embedded(list(range(60))), 0.95)
    found, fresh = semantic_neighbours.recall(path, embedded(list(range(60))), 0.5)
    assert fresh == 60 and len(found) == len(near(some(), 0.5))
