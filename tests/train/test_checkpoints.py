"""An interrupted run that goes on ends with the very bits of one that was never interrupted."""

import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import tiny

from dpo_train import checkpoints
from dpo_train.config import TrainConfig, TrainError
from dpo_train.early_stopping import Evaluation, as_tensors, from_tensors
from dpo_train.train import train

settings = partial(
    tiny.settings, per_device_train_batch_size=5, num_train_epochs=2, eval_steps=2, save_steps=3, lora_dropout=0.1
)


class PowerCutError(Exception):
    """Comes in the middle of a step, after some gradients were added."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("store")
    return tiny.model_folder(root / "model"), tiny.version(root)


def interrupted(config: TrainConfig, version: Path, run: Path, after: int) -> None:
    """Train until `after` gradients were added, then die."""
    count = 0

    def cut(*_: object) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(config, version, run, observe=cut)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("full", [False, True])
def test_resuming_equals_never_having_stopped_to_the_bit(place: tuple[Path, Path], tmp_path: Path, full: bool) -> None:
    model, version = place
    config = settings(model, use_peft=not full, lora_dropout=0.1, learning_rate=1e-3 if full else 5e-3)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    seen: list[int] = []
    train(config, version, straight, observe=lambda *_: seen.append(1))
    interrupted(config, version, broken, after=len(seen) * 7 // 10)  # of ten steps, in the eighth
    assert checkpoints.latest(broken / "checkpoints") == broken / "checkpoints" / "step-00000006"
    train(config, version, broken, resume=True)
    output = "model/model" if full else "adapter/adapter_model"
    assert (straight / f"{output}.safetensors").read_bytes() == (broken / f"{output}.safetensors").read_bytes()
    assert records(straight) == records(broken)
    assert pq.read_table(straight / "pair_log.parquet").equals(pq.read_table(broken / "pair_log.parquet"))
    last = "checkpoints/step-00000010"
    for name in ("weights", "optimizer", "history"):
        assert (straight / last / f"{name}.safetensors").read_bytes() == (
            broken / last / f"{name}.safetensors"
        ).read_bytes()


def died_before_its_summary(run: Path) -> dict[str, Any]:
    """Take back what is written after the last checkpoint, and leave a metrics line unfinished."""
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "st')
    return summary


@pytest.mark.parametrize("early", [False, True])
def test_a_run_that_died_after_its_last_checkpoint_ends_as_it_would_have(
    place: tuple[Path, Path], tmp_path: Path, early: bool
) -> None:
    model, version = place
    flat = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "num_train_epochs": 40, "stop_when_flat": True}
    config = settings(model, **(flat if early else {}))
    train(config, version, tmp_path / "run")
    logged, rows = pq.read_table(tmp_path / "run" / "pair_log.parquet"), records(tmp_path / "run")
    expected = died_before_its_summary(tmp_path / "run")
    assert (expected["steps"] < expected["planned_steps"]) == early
    found = asdict(train(config, version, tmp_path / "run", resume=True))
    for name in ("steps", "stop_reason", "best_step", "metrics", "alarms", "pairs"):
        assert found[name] == expected[name], name
    assert pq.read_table(tmp_path / "run" / "pair_log.parquet").equals(logged)
    assert records(tmp_path / "run") == rows


def test_a_run_that_died_before_its_first_checkpoint_starts_over(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    config = settings(model, max_steps=3)
    interrupted(config, version, tmp_path / "run", after=1)
    summary = train(config, version, tmp_path / "run", resume=True)
    assert [row["step"] for row in records(tmp_path / "run") if row["kind"] == "train"] == [1, 2, 3]
    assert summary.steps == 3


def test_another_base_model_is_refused_with_both_fingerprints(place: tuple[Path, Path], tmp_path: Path) -> None:
    _, version = place
    folder = tmp_path / "model"
    tiny.model_folder(folder, seed=0)
    config = settings(folder, save_steps=1)
    interrupted(config, version, tmp_path / "run", after=5)
    state = checkpoints.read_state(checkpoints.latest(tmp_path / "run" / "checkpoints") or Path())
    tiny.model_folder(folder, seed=1)
    with pytest.raises(
        TrainError, match=rf"another reference: weights: checkpoint '{state['reference']['weights']}', now"
    ):
        train(config, version, tmp_path / "run", resume=True)


def test_other_settings_are_refused_by_name(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    interrupted(settings(model, save_steps=1), version, tmp_path / "run", after=5)
    with pytest.raises(TrainError, match=r"learning_rate: checkpoint 0\.005, now 0\.001"):
        train(settings(model, save_steps=1, learning_rate=1e-3), version, tmp_path / "run", resume=True)


def test_a_finished_run_is_not_trained_over(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    train(settings(model, max_steps=1), version, tmp_path / "run")
    with pytest.raises(TrainError, match="finished"):
        train(settings(model, max_steps=1), version, tmp_path / "run")


def test_only_the_newest_checkpoints_and_the_best_are_kept_and_nothing_is_pickled(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    model, version = place
    train(settings(model, save_steps=1), version, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    names = sorted(path.name for path in folder.iterdir())
    assert names[-2:] == ["step-00000009", "step-00000010"]
    assert names[:-2] == [f"candidate-{step:08d}" for step in checkpoints.read_state(folder / names[-1])["candidates"]]
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}


@pytest.fixture(scope="module")
def straight_and_stopped(place: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that never stopped, and one that died in the eighth of ten steps, with checkpoints 3 and 6."""
    model, version = place
    root = tmp_path_factory.mktemp("damage")
    seen: list[int] = []
    train(settings(model), version, root / "straight", observe=lambda *_: seen.append(1))
    interrupted(settings(model), version, root / "stopped", after=len(seen) * 7 // 10)
    return root / "straight", root / "stopped"


DAMAGES = {
    "short": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "garbled": lambda whole: whole[:-9] + bytes(255 - byte for byte in whole[-9:]),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "history.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    place: tuple[Path, Path],
    straight_and_stopped: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: str,
) -> None:
    model, version = place
    straight, stopped = straight_and_stopped
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    file = run / "checkpoints" / "step-00000006" / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    train(settings(model), version, run, resume=True)
    assert f"{file.parent} is damaged" in caplog.text
    adapter = "adapter/adapter_model.safetensors"
    assert (run / adapter).read_bytes() == (straight / adapter).read_bytes()
    assert records(run) == records(straight)
    assert pq.read_table(run / "pair_log.parquet").equals(pq.read_table(straight / "pair_log.parquet"))


@pytest.mark.parametrize("broken", ["checkpoints", "log"])
def test_a_run_without_any_whole_checkpoint_starts_again(
    place: tuple[Path, Path],
    straight_and_stopped: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    model, version = place
    straight, stopped = straight_and_stopped
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    files = [run / "pair_log.parquet"] if broken == "log" else list(run.glob("checkpoints/step-*/weights.safetensors"))
    for file in files:
        file.write_bytes(file.read_bytes()[:-20])
    train(settings(model), version, run, resume=True)
    assert "starting again from step 0" in caplog.text
    assert records(run) == records(straight)
    assert pq.read_table(run / "pair_log.parquet").equals(pq.read_table(straight / "pair_log.parquet"))


def test_rows_of_step_0_are_written_once_by_a_run_that_starts_over(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    config = settings(model, max_steps=3)
    interrupted(config, version, tmp_path / "run", after=1)
    assert [row["step"] for row in records(tmp_path / "run")][:2] == [0, 0]
    train(config, version, tmp_path / "run", resume=True)
    train(config, version, tmp_path / "straight")
    assert records(tmp_path / "run") == records(tmp_path / "straight")


def test_what_a_killed_training_left_half_written_is_swept(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    run = tmp_path / "run"
    interrupted(settings(model, save_steps=1), version, run, after=5)
    litter = [run / "checkpoints" / ".step-00000002.4711", run / ".pair_log.parquet.4711", run / ".metrics.jsonl.4711"]
    litter[0].mkdir()
    (litter[0] / "weights.safetensors").write_bytes(b"half")
    for file in litter[1:]:
        file.write_bytes(b"half")
    (run / ".notes").write_text("a person's own")
    train(settings(model, save_steps=1), version, run, resume=True)
    assert not [path for path in litter if path.exists()]
    assert [path.name for path in run.rglob(".*")] == [".notes"]


def test_the_history_of_evaluations_survives_a_checkpoint_to_the_bit() -> None:
    draw = np.random.default_rng(0)
    history = [Evaluation(step, step * 0.1, draw.normal(size=3), draw.normal(size=3)) for step in (0, 5, 10)]
    again = from_tensors(as_tensors(history))
    assert [(seen.step, seen.spent) for seen in again] == [(seen.step, seen.spent) for seen in history]
    for one, other in zip(history, again, strict=True):
        assert np.array_equal(one.margin, other.margin) and np.array_equal(one.log_loss, other.log_loss)
    assert from_tensors(as_tensors([])) == []
