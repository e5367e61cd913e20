"""Points on a plane: found again from planted vectors, the same from any cut of the cache, no part of a decision."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.sample_store import embed_by_chance, fill_cache, store_of

from dpo_data import curate
from dpo_data.config import CurationConfig
from dpo_data.measures import prompt_map
from dpo_data.publish import publish_version
from dpo_data.release import fingerprint
from dpo_data.release.shards import KEPT
from dpo_data.text import embeddings

WIDTH, ROWS = 8, 90


def plant(store: Path, vectors: np.ndarray, cuts: list[slice]) -> pl.DataFrame:
    """The vectors of some topics in the shards that `cuts` names, and a ledger of all topics and a row without one."""
    hashes = [f"{row:032x}" for row in range(len(vectors))]
    fill_cache(store, [(hashes[cut], vectors[cut]) for cut in cuts])
    return pl.DataFrame({"comparison_id": [*hashes, "none"], "topic_hash": [*hashes, None]})


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Three clusters on a line along the fourth direction, a smaller spread along the second, little else."""
    luck = np.random.default_rng(0)
    found = 0.01 * luck.normal(size=(ROWS, WIDTH))
    found[:, 3] += np.repeat([-0.8, 0.0, 0.8], ROWS // 3)
    found[:, 1] += luck.uniform(-0.3, 0.3, ROWS)
    return found.astype(np.float32)


def test_the_plane_shows_the_two_directions_of_most_variance(tmp_path: Path, vectors: np.ndarray) -> None:
    measured = prompt_map.measure(plant(tmp_path, vectors, [slice(None)]), tmp_path, embeddings.DEFAULT)
    assert measured.columns == ["comparison_id", "topic_hash", "x", "y"]
    points = measured.filter(pl.col("topic_hash").is_not_null())
    assert np.corrcoef(points["x"], vectors[:, 3])[0, 1] > 0.999
    assert np.corrcoef(points["y"], vectors[:, 1])[0, 1] > 0.99
    # the singular values of the centred vectors are the spreads along the axes
    spread = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)[:2] ** 2
    assert [(points[name] ** 2).sum() for name in "xy"] == pytest.approx(spread, rel=0.01)


def test_without_a_vector_there_is_no_point(tmp_path: Path, vectors: np.ndarray) -> None:
    ledger = plant(tmp_path, vectors, [slice(0, 60)])
    measured = prompt_map.measure(ledger, tmp_path, embeddings.DEFAULT)
    assert measured["x"].is_null().to_list() == [False] * 60 + [True] * 31
    empty = prompt_map.measure(ledger, tmp_path / "elsewhere", embeddings.DEFAULT)
    assert empty["x"].null_count() == empty["y"].null_count() == ROWS + 1


def test_the_cut_of_the_cache_and_the_order_of_the_ledger_move_no_point(tmp_path: Path, vectors: np.ndarray) -> None:
    one = plant(tmp_path / "one", vectors, [slice(None)])
    cuts = [slice(70, 90), slice(0, 30), slice(20, 70)]  # ten texts embedded twice
    plant(tmp_path / "two", vectors, cuts)
    first = prompt_map.measure(one, tmp_path / "one", embeddings.DEFAULT)
    second = prompt_map.measure(one.sample(fraction=1, shuffle=True, seed=1), tmp_path / "two", embeddings.DEFAULT)
    assert first.sort("comparison_id").equals(second.sort("comparison_id"), null_equal=True)


def test_points_reach_the_ledger_and_the_pairs_and_decide_nothing(tmp_path: Path) -> None:
    store = embed_by_chance(store_of(tmp_path, "triples.json"))
    config = CurationConfig(tokenizer=None)
    measured = curate.measure(store, config)
    decided = curate.decide(measured, config)
    assert decided["x"].is_not_null().all() and decided.select("x", "y").n_unique() > 10
    moved = curate.decide(measured.with_columns(x=pl.lit(0.0), y=None), config)
    assert fingerprint.decisions(moved) == fingerprint.decisions(decided)
    version = publish_version(store, decided, config)
    pairs = version.pairs().select(comparison_id="pair_id", x="x", y="y").sort("comparison_id").collect()
    kept = decided.filter(KEPT).select("comparison_id", "x", "y").sort("comparison_id")
    assert pairs.equals(kept) and pairs.height > 0
