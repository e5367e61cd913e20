"""A store of thumbs alone is published, read by every command, and trained on with a loss of single responses."""

from pathlib import Path

import polars as pl
import pytest
from helpers import tiny
from helpers.degenerate_sets import read_all, recipe_of, thumbs

from dpo_data import schema
from dpo_data.analysis.sql import query
from dpo_data.release.checks import PublishGates
from dpo_data.schema import DataError
from dpo_data.store import versions
from dpo_train.config import TrainError
from dpo_train.plan import estimate
from flows.cli.text import refresh_lines
from flows.refresh import RefreshSummary, refresh
from flows.train import train


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RefreshSummary]:
    folder = tmp_path_factory.mktemp("thumbs")
    return folder / "store", refresh(recipe_of(folder, [], thumbs(20)), folder / "store")


def test_thumbs_without_pairs_are_published_and_shown(published: tuple[Path, RefreshSummary]) -> None:
    store, summary = published
    read_all(store, summary)
    version = versions.open_version(store)
    rows = pl.read_parquet(sorted((version.path / "unpaired").glob("*.parquet")))
    assert rows.height == 20 and rows["row_id"].is_unique().all() and rows["label"].sum() == 10
    assert not (version.path / "pairs").exists()
    assert version.pairs().collect().is_empty() and set(schema.PAIRS) <= set(version.pairs().collect_schema())
    assert query(store, "SELECT count(*) AS n FROM pairs") == [{"n": 0}]
    assert query(store, "SELECT count(*) AS n FROM unpaired WHERE label") == [{"n": 10}]
    assert any("20 of 20 responses" in line and "kto" in line for line in refresh_lines(summary))
    card = (version.path / "README.md").read_text(encoding="utf-8")
    assert 'data_files={"train": "unpaired/train-*.parquet"' in card and "KTOTrainer" in card
    assert "DPOTrainer" not in card
    assert "20 responses" in Path(summary["audit"]).read_text(encoding="utf-8")


def test_publishing_the_same_thumbs_again_changes_nothing(
    published: tuple[Path, RefreshSummary], tmp_path: Path
) -> None:
    store, summary = published
    again = refresh(recipe_of(tmp_path, [], thumbs(20)), store)
    assert (again["version"], again["created"]) == (summary["version"], False)
    elsewhere = refresh(recipe_of(tmp_path, [], thumbs(20)), tmp_path / "store")
    assert elsewhere["version"] == summary["version"]


@pytest.mark.parametrize(("validation", "prompts"), [(0.3, 7), (0.085, 1)])
def test_kto_trains_on_thumbs_alone_and_writes_its_report(validation: float, prompts: int, tmp_path: Path) -> None:
    """The drift cannot be estimated on one held-out prompt, which is no reason to train nothing."""
    store, model = tmp_path / "store", tiny.model_folder(tmp_path / "model")
    shares = {"train": 1 - validation, "validation": validation, "test": 0.0}
    refresh(recipe_of(tmp_path, [], thumbs(18), splits=shares), store)
    held_out = query(store, "SELECT count(DISTINCT prompt) AS n FROM unpaired WHERE split = 'validation'")
    assert held_out == [{"n": prompts}]
    config = tiny.settings(model, loss={"loss_type": "kto"}, max_steps=2, eval_steps=1, per_device_train_batch_size=4)
    summary = train(config, "current", store)
    assert summary["created"] and Path(summary["report"]).exists()
    notes = (Path(summary["path"]) / "summary.json").read_text(encoding="utf-8")
    assert ("one prompt, so kto" in notes) == (prompts == 1)


def test_a_loss_of_pairs_on_thumbs_alone_is_told_which_losses_fit(
    published: tuple[Path, RefreshSummary], tmp_path: Path
) -> None:
    store, _ = published
    config = tiny.settings(tiny.model_folder(tmp_path / "model"))
    for attempt in (
        lambda: train(config, "current", store),
        lambda: estimate(config, versions.open_version(store).path),
    ):
        with pytest.raises(TrainError, match=r"20 single responses with a thumb and no pairs.*kto or apo_zero_unp"):
            attempt()


def test_the_gate_on_a_fall_of_rows_counts_thumbs_where_there_are_no_pairs(tmp_path: Path) -> None:
    store = tmp_path / "store"
    refresh(recipe_of(tmp_path, [], thumbs(20)), store)
    split_vote = {**thumbs(1)[0], "label": False, "annotator": "ann"}
    gated = recipe_of(tmp_path, [], [split_vote]).model_copy(update={"gates": PublishGates(max_drop=0.01)})
    with pytest.raises(DataError, match=r"Lone thumbs fall from 20 \(current version\) to 19, .*max_drop=0\.01"):
        refresh(gated, store)


def test_thumbs_outside_train_are_nothing_to_train_on(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, [], thumbs(5), splits={"train": 0.0, "validation": 0.5, "test": 0.5})
    with pytest.raises(DataError, match=r"none of the 5 lone thumbs \(no pair is kept\) is in the train split"):
        refresh(recipe, tmp_path / "store")
