"""One training per run folder, a claim on its version while it trains, and `dpo runs`."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny
from typer.testing import CliRunner

from dpo_data.analysis import retention
from dpo_data.schema import DataError
from dpo_train.config import TrainError
from dpo_train.run import held
from dpo_train.train import train
from flows.cli import runs
from flows.cli.app import app
from flows.train import train_once

ROOT = Path(__file__).resolve().parents[2]
settings = partial(tiny.settings, per_device_train_batch_size=6, max_steps=2, eval_steps=2)

HOLDER = """
import sys
from pathlib import Path
from dpo_train.run import held
with held(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one version of tiny pairs, and a model beside it."""
    tiny.model_folder(tmp_path / "model")
    tiny.version(tmp_path / "store")
    return tmp_path / "store"


class Holder:
    """Another process that trains a run, as far as its claim says."""

    def __init__(self, run: Path, version: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", HOLDER, str(run), str(version)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == "held\n"

    def __enter__(self) -> "Holder":
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate()


def finished(store: Path, name: str, at: float, margin: float = 0.1) -> Path:
    """A run folder as a finished training leaves it, written at `at`."""
    folder = store / "runs" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"version": "tiny", "loss": {"loss_type": "sigmoid"}}))
    metrics = {"validation": {"rewards/margins": margin}}
    (folder / "summary.json").write_text(json.dumps({"steps": 2, "metrics": metrics}))
    os.utime(folder / "summary.json", (at, at))
    return folder


def test_a_second_training_of_a_run_is_refused_and_names_the_first(store: Path) -> None:
    version, run = store / "versions" / "tiny", store / "runs" / "one"
    with Holder(run, version) as other, pytest.raises(TrainError, match=f"trained by process {other.process.pid}"):
        train(settings(store.parent / "model"), version, run)
    train(settings(store.parent / "model"), version, run)  # a kill has freed the claim
    assert (run / "summary.json").exists()


def test_a_version_that_was_removed_meanwhile_is_named(store: Path) -> None:
    with (
        pytest.raises(TrainError, match=r"version gone is not there.*removed meanwhile"),
        held(store / "runs" / "one", store / "versions" / "gone"),
    ):
        pass


def test_a_version_stays_while_a_training_that_claims_it_lives(store: Path) -> None:
    run = store / "runs" / "one"
    with Holder(run, store / "versions" / "tiny"):
        assert retention.being_trained(run)
        assert retention._trained_on(store) == {"tiny": ["one"]}
    assert not retention.being_trained(run)
    assert retention._trained_on(store) == {}


def test_a_finished_run_keeps_no_checkpoints(store: Path) -> None:
    run = store / "runs" / "one"
    config = settings(store.parent / "model", attribution={"by": "category"})
    assert train_once(config, store / "versions" / "tiny", run)
    assert (run / "attribution.parquet").exists() and not (run / "checkpoints").exists()
    assert not list(run.rglob("ledger*")) and not [path for path in run.rglob(".*") if path.is_file()]
    (run / "checkpoints").mkdir()  # a run that was killed between its summary and the removal
    assert not train_once(config, store / "versions" / "tiny", run)
    assert not (run / "checkpoints").exists()


def test_runs_are_listed_newest_first_with_margin_and_state(store: Path) -> None:
    for number in range(3):
        finished(store, f"run{number}", 1e9 + number, margin=number / 10)
    (store / "current.json").write_text(json.dumps({"champion": "run1"}))
    with Holder(store / "runs" / "living", store / "versions" / "tiny"):
        listed = runs.listed(store)
        shown = CliRunner().invoke(app, ["runs", "--store", str(store)])
    assert [(run.id, run.state) for run in listed] == [
        ("living", "training"),
        ("run2", "finished"),
        ("run1", "champion"),
        ("run0", "finished"),
    ]
    assert [run.margin for run in listed] == [None, 0.2, 0.1, 0.0]
    assert shown.exit_code == 0 and "+0.20" in shown.output and "champion" in shown.output


def test_pruning_keeps_the_newest_the_champion_and_what_is_trained(store: Path) -> None:
    for number in range(5):
        finished(store, f"run{number}", 1e9 + number)
    (store / "current.json").write_text(json.dumps({"champion": "run0"}))
    with Holder(store / "runs" / "living", store / "versions" / "tiny"):
        os.utime(store / "runs" / "living" / "claim.json", (1e9 - 5, 1e9 - 5))
        dry = CliRunner().invoke(app, ["runs", "--prune", "2", "--json", "--store", str(store)])
        assert json.loads(dry.stdout)["runs"] == ["run2", "run1"]
        assert len(list((store / "runs").iterdir())) == 6  # nothing was touched
        pruned = runs.prune(store, 2)
    assert pruned.stays == {"run0": "is the champion", "living": "is being trained"}
    assert sorted(path.name for path in (store / "runs").iterdir()) == ["living", "run0", "run3", "run4"]


def test_fewer_than_one_run_cannot_be_kept(store: Path) -> None:
    with pytest.raises(DataError, match="expected 1 or more"):
        runs.plan(store, 0)
