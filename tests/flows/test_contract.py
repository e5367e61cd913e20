"""The one place where both packages meet: what `dpo_data` publishes, `dpo_train` opens and keeps."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from helpers.sample_store import store_of
from helpers.tiny import model_folder

from dpo_data import curate, schema
from dpo_data.analysis import retention, sql
from dpo_data.config import CurationConfig
from dpo_data.measures.splits import SplitShares
from dpo_data.publish import publish_version
from dpo_data.schema import DataError
from dpo_data.store import versions
from dpo_train.config import TrainConfig, TrainError
from dpo_train.data import pairs
from dpo_train.train import train
from flows.cli.text import pruning_lines


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> versions.Version:
    store = store_of(tmp_path_factory.mktemp("store"), "chats.jsonl", "triples.json")
    shares = SplitShares(train=0.6, validation=0.2, test=0.2)
    config = CurationConfig(tokenizer=None, embedding_model=None, slices=("category",), splits=shares)
    return publish_version(store, curate.decide(curate.measure(store, config), config), config)


@pytest.fixture(scope="module")
def run(published: versions.Version, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    model = model_folder(folder / "model")
    config = TrainConfig(model=str(model), use_cpu=True, max_steps=2, eval_steps=1, learning_rate=1e-3, report_to=())
    train(config, published.path, folder / "run")
    return folder / "run"


def test_the_trainer_logs_every_published_validation_pair(published: versions.Version, run: Path) -> None:
    expected = set(published.pairs("validation").select("pair_id").collect()["pair_id"])
    logged = pl.read_parquet(run / "pair_log.parquet").filter(split="validation", step=0)
    assert set(logged["pair_id"]) == expected
    assert logged["margin"].abs().max() < 1e-4


def test_the_columns_that_kept_a_pair_are_its_slices_in_the_run(published: versions.Version, run: Path) -> None:
    metadata = pl.read_parquet(run / "pairs.parquet")
    ledger = published.ledger().select("comparison_id", "agreement", "confidence", "source", "category").collect()
    joined = metadata.join(ledger, left_on="pair_id", right_on="comparison_id", suffix="_ledger")
    assert joined.height == metadata.height > 0
    for name in ("agreement", "confidence", "source", "category"):
        assert joined[name].equals(joined[f"{name}_ledger"], null_equal=True), name


def test_pruning_names_every_cache_that_a_training_filled(published: versions.Version, run: Path) -> None:
    store = published.path.parents[1]
    found = retention.plan(store, 1)
    assert {path.name for path in found.trainers} == {path.name for path in (store / "cache").iterdir()} - {"near"}
    assert found.trainers_bytes > 0
    [line] = [line for line in pruning_lines(found, removed=False) if "trainer's caches" in line]
    assert all(str(path) in line for path in found.trainers)


def test_the_run_knows_the_version_it_was_trained_on(published: versions.Version, run: Path) -> None:
    assert published.id in (run / "summary.json").read_text(encoding="utf-8")


def test_both_packages_read_the_same_schema() -> None:
    assert pairs.VERSION_SCHEMA == schema.SCHEMA


def test_a_version_of_an_older_schema_is_refused_in_one_sentence(
    published: versions.Version, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Path(shutil.copytree(published.path.parents[1], tmp_path / "store"))
    folder = store / "versions" / published.id
    manifest = json.loads((folder / "manifest.json").read_text())
    old = folder.rename(folder.with_name("0123456789abcdef"))
    (old / "manifest.json").write_text(json.dumps({name: manifest[name] for name in manifest if name != "schema"}))
    (store / "current.json").write_text(json.dumps({"version": old.name}))
    sentence = f"Version {old.name} has tables of schema 1, and this release reads schema {schema.SCHEMA}. Run `dpo "
    for ask in (
        lambda: versions.open_version(store),
        lambda: versions.open_version(store, "0123"),
        lambda: sql.query(store, "from ledger"),
    ):
        with pytest.raises(DataError, match=re.escape(sentence)):
            ask()
    with pytest.raises(TrainError, match=re.escape(sentence)):
        train(TrainConfig(model=str(model_folder(tmp_path / "model")), use_cpu=True), old, tmp_path / "run")
    config = CurationConfig.model_validate(manifest["config"])
    new = publish_version(store, curate.decide(curate.measure(store, config), config), config)
    assert new.created and versions.open_version(store).id == new.id
    assert "has tables of another schema" in caplog.text and new.stats["changes"] is None
