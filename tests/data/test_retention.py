"""Old versions go only where nothing names them, and a look at what would go touches nothing."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from helpers.digests import digests
from helpers.planted_version import config, ledger_of, many, plant_store
from typer.testing import CliRunner

from dpo_data.analysis import retention
from dpo_data.publish import publish_version
from dpo_data.schema import DataError
from dpo_data.store import versions
from dpo_data.text import embeddings
from dpo_data.votes.agreement import AgreementLimits
from flows.cli.app import app
from flows.schedules import awaited

DAY = 86_400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four versions of one ledger, a day apart; the first has a run, and the third knows the embedding model."""
    rows = many(30)
    store = plant_store(tmp_path_factory.mktemp("made"), rows)
    for number in range(4):
        model = embeddings.DEFAULT if number == 2 else None
        limits = config(agreement=AgreementLimits(min_agreement=number / 10), embedding_model=model)
        path = publish_version(store, ledger_of(rows), limits).path
        os.utime(path / "manifest.json", (number * DAY, number * DAY))
        if number == 0:
            (store / "runs" / "feed").mkdir(parents=True)
            (store / "runs" / "feed" / "config.json").write_text(json.dumps({"version": path.name}))
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))  # times are copied too


def test_versions_are_listed_with_what_they_hold_and_who_used_them(store: Path) -> None:
    listed = retention.published(store)
    assert [version.at.day for version in listed] == [4, 3, 2, 1]
    assert [version.runs for version in listed] == [(), (), (), ("feed",)]
    assert [version.current for version in listed] == [True, False, False, False]
    assert [version.parent for version in listed] == [*[version.id for version in listed[1:]], None]
    assert {(version.comparisons, version.kept) for version in listed} == {(30, 30)}
    path = store / "versions" / listed[0].id
    assert listed[0].bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_only_what_nothing_names_goes_and_only_when_asked(store: Path) -> None:
    new, awaited_one, old, trained = (version.id for version in retention.published(store))
    before = digests(store)
    named = {awaited_one: "a training waits for it"}
    assert retention.plan(store, 1, named).versions == (old,)
    assert digests(store) == before
    found = retention.prune(store, 1, named)
    assert found.versions == (old,)
    assert found.stays.keys() == {awaited_one, trained}
    assert "feed" in found.stays[trained]
    after = digests(store)
    assert after == {name: digest for name, digest in before.items() if not name.startswith(f"versions/{old}/")}
    assert {version.id for version in retention.published(store)} == {new, awaited_one, trained}
    with pytest.raises(DataError, match="is no version"):
        versions.open_version(store, old)


def test_a_version_that_was_made_current_again_stays_however_old(store: Path) -> None:
    second = retention.published(store)[2].id
    versions.make_current(store, second)
    found = retention.prune(store, 1)
    assert second not in found.versions and found.stays[second] == "is current"
    with pytest.raises(DataError, match="became current"):
        versions.remove(store, [second])
    assert versions.open_version(store).id == second
    with pytest.raises(DataError, match="expected 1 or more"):
        retention.plan(store, 0)


def test_caches_of_a_model_go_when_no_version_left_was_measured_with_it(store: Path) -> None:
    known = embeddings.fingerprint(embeddings.DEFAULT)
    files = [store / "cache" / "embeddings" / model / "x.parquet" for model in (known, "other-model")]
    files += [store / "cache" / "near" / f"topics-{model}.parquet" for model in (known, "other-model")]
    files += [store / "batches" / "0001-planted" / f"similarity-{model}.parquet" for model in (known, "other-model")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    retention.prune(store, 9)
    assert [file.exists() for file in files] == [True, False] * 3
    retention.prune(store, 1)
    assert not any(file.exists() for file in files)
    assert (store / "batches" / "0001-planted").is_dir()


def test_a_training_that_waits_in_prefect_names_its_version(store: Path) -> None:
    assert awaited(store) == {}
    old = retention.published(store)[2].id
    (store / "prefect").mkdir()
    with closing(sqlite3.connect(store / "prefect" / "prefect.db")) as database, database:
        database.execute("create table flow_run (name text, state_type text, parameters json)")
        for name, state, version in (
            ("calm", "SCHEDULED", old),
            ("past", "COMPLETED", "0123"),
            ("plain", "RUNNING", None),
        ):
            database.execute("insert into flow_run values (?, ?, ?)", (name, state, json.dumps({"version": version})))
    assert awaited(store) == {old: "scheduled training calm names it"}
    command = ["versions", "--prune", "1", "--store", str(store)]
    would = CliRunner().invoke(app, command)
    assert would.exit_code == 0 and f"stays     version {old}: scheduled training calm names it" in would.stdout
    assert "Nothing was touched" in would.stdout and len(retention.published(store)) == 4
    done = CliRunner().invoke(app, [*command, "--yes", "--json"])
    assert json.loads(done.stdout)["removed"] is True and len(retention.published(store)) == 3
    assert CliRunner().invoke(app, ["versions", "--yes"]).exit_code == 2
    shown = CliRunner().invoke(app, ["versions", "--store", str(store)]).stdout
    assert old in shown and "(current)" in shown and "feed" in shown
