"""A measured or cached table that cannot be read is made again; the version is that of a store without damage."""

import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.refresh_trials import SAMPLE, recipe_file, sealed
from helpers.sample_store import embed_by_chance, store_of

from dpo_data import curate
from dpo_data.config import CurationConfig
from dpo_data.text import blocks, edges, embeddings, features, stamps
from flows.recipe import load
from flows.refresh import refresh


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("whole")
    recipe = load(recipe_file(folder / "recipe.yaml", {"chats": SAMPLE / "chats.jsonl"}))
    refresh(recipe, folder / "store")
    return recipe, folder / "store"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def write_a_second_footer(path: Path) -> None:
    """As a process does that fails while another has published the file it writes to."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + content[-1000:] + content[1004:])


def spoil_the_pages(path: Path) -> None:
    """The footer stays whole, so only reading the rows finds it."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 2000 + content[2004:])


def change_columns(path: Path) -> None:
    """By the same method, as a release would that forgot to raise it."""
    method = pl.read_parquet_metadata(path)["dpo_data.method"]
    stamps.write(
        pl.read_parquet(path).rename({"left": "links"}, strict=False).drop("turns", strict=False), path, method
    )


DAMAGES = [cut, empty, zero, write_a_second_footer, spoil_the_pages, change_columns]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("table", ["batches/*/measures.parquet", "cache/near/comparisons.parquet"])
def test_a_damaged_table_is_made_again(
    whole: tuple[Any, Path], tmp_path: Path, table: str, damage: Callable[[Path], None]
) -> None:
    recipe, undisturbed = whole
    store = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    [path] = store.glob(table)
    before = pl.read_parquet(path)
    damage(path)
    assert refresh(recipe, store)["created"] is False
    assert sealed(store) == sealed(undisturbed)
    assert pl.read_parquet(path).equals(before)


def test_a_damaged_block_of_a_table_that_is_not_finished_is_made_again(whole: tuple[Any, Path], tmp_path: Path) -> None:
    recipe, undisturbed = whole
    store = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    [target] = store.glob("batches/*/measures.parquet")
    target.rename(tmp_path / "saved.parquet")
    digest = blake2b(features.METHOD.encode(), digest_size=8).hexdigest()
    parts = target.with_name(f".measures-{digest}-{blocks.ROWS}")
    parts.mkdir()
    (parts / "000000000000.parquet").write_bytes(b"PAR1 short")
    refresh(recipe, store)
    assert pl.read_parquet(target).equals(pl.read_parquet(tmp_path / "saved.parquet"))
    assert not list(target.parent.glob(".*"))


@pytest.mark.parametrize("damage", [cut, empty, spoil_the_pages])
def test_damaged_vectors_and_cosines_are_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    config = CurationConfig(tokenizer=None)
    store = embed_by_chance(store_of(tmp_path, "judged.jsonl"))
    expected = curate.measure(store, config)
    for pattern in ("batches/*/similarity-*.parquet", "cache/near/topics-*.parquet"):
        [path] = store.glob(pattern)
        damage(path)
        assert curate.measure(store, config).equals(expected)
    [shard] = (store / "cache" / "embeddings" / embeddings.fingerprint(embeddings.DEFAULT)).glob("*.parquet")
    kept, extra = shard.read_bytes(), shard.with_name("extra.parquet")
    extra.write_bytes(kept)
    damage(extra)
    assert curate.measure(store, config).equals(expected)
    assert not extra.exists() and shard.read_bytes() == kept


def test_vectors_of_another_width_do_not_end_a_refresh(tmp_path: Path) -> None:
    config = CurationConfig(tokenizer=None)
    store = embed_by_chance(store_of(tmp_path, "judged.jsonl"))
    expected = curate.measure(store, config)
    [shard] = (store / "cache" / "embeddings").glob("*/*.parquet")
    shutil.copy(shard, shard.with_name("copy.parquet"))
    odd = pl.DataFrame({"hash": ["0"], "vector": pl.Series([[1.0, 0.0]], dtype=pl.Array(pl.Float32, 2))})
    odd.write_parquet(shard.with_name("odd.parquet"))
    assert curate.measure(store, config).equals(expected)


def test_an_error_that_no_damaged_table_explains_is_raised_as_it_is(whole: tuple[Any, Path], tmp_path: Path) -> None:
    recipe, undisturbed = whole
    store = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    [votes] = store.glob("batches/*/votes.parquet")
    cut(votes)
    before = sorted(store.glob("batches/*/measures.parquet"))
    with pytest.raises(pl.exceptions.PolarsError):
        refresh(recipe, store)
    assert before == sorted(store.glob("batches/*/measures.parquet")) and votes.exists()


def test_remembered_pairs_with_other_columns_are_verified_again(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pairs = pl.DataFrame({"left": ["a"], "right": ["b"]})
    more = pl.DataFrame({"left": ["a", "a"], "right": ["b", "c"]})
    stamps.write(pairs.with_columns(part=pl.lit(1)), path, "m 1")
    for proposed in (more, pairs):
        found = edges.recall(path, proposed, lambda fresh: fresh.with_columns(whole=pl.lit(0.9)), "m 1")
        assert found.equals(proposed.with_columns(whole=pl.lit(0.9)))
