"""A run that is told to stop finishes its step and keeps it; one that is killed loses what came after a checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny

from dpo_train import checkpoints
from dpo_train.signals import Interrupted
from dpo_train.train import train

ROOT = Path(__file__).resolve().parents[2]

settings = partial(tiny.settings, per_device_train_batch_size=6, max_steps=6, eval_steps=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("store")
    return tiny.model_folder(root / "model"), tiny.version(root)


def weights(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_its_step_and_resuming_loses_nothing(
    place: tuple[Path, Path], tmp_path: Path, number: int, code: int
) -> None:
    model, version = place
    seen: list[int] = []

    def ask(_: object, places: Any) -> None:
        seen.extend(places)
        if len(seen) == 12:  # six pairs a step: in the second
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=rf"kept up to step 2 of 6 in {tmp_path / 'run'}.*resume=True") as stopped:
        train(settings(model), version, tmp_path / "run", observe=ask)
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) == before
    train(settings(model), version, tmp_path / "run", resume=True)
    train(settings(model), version, tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")


def test_a_second_signal_stops_at_once_and_says_what_is_kept(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    seen: list[int] = []

    def ask(_: object, places: Any) -> None:
        seen.extend(places)
        if len(seen) == 18:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="kept up to step 2 of 6"):
        train(settings(model, save_steps=1), version, tmp_path / "run", observe=ask)


def test_a_killed_run_loses_at_most_the_steps_since_its_last_checkpoint(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    model, version = place
    config = settings(model, max_steps=400, save_steps=2, eval_steps=400)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "launched_run.py")]
    places = [str(tmp_path / "config.json"), str(version), str(tmp_path / "run")]
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    running = subprocess.Popen([*command, *places], stderr=subprocess.PIPE, env={**os.environ, **quiet})
    while checkpoints.latest(tmp_path / "run" / "checkpoints") is None and running.poll() is None:
        time.sleep(0.01)
    running.kill()
    _, said = running.communicate()
    assert running.returncode == -signal.SIGKILL, said.decode()[-2000:]
    reached = checkpoints.read_state(checkpoints.latest(tmp_path / "run" / "checkpoints") or Path())["step"]
    whole = (tmp_path / "run" / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()
    lost = max(json.loads(line)["step"] for line in whole) - reached
    assert reached % 2 == 0 and lost <= 2  # save_steps, and the step a signal cannot be heard in
    seen: list[int] = []

    def enough(_: object, places: Any) -> None:
        seen.extend(places)
        if len(seen) >= 12 and len(seen) - len(places) < 12:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=f"step {reached + 2} of 400"):
        train(config, version, tmp_path / "run", resume=True, observe=enough)
