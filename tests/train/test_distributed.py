"""Two processes do what one does: the same pairs a step, the same gradient, the same numbers, each pair once.

Whether each of them holds all weights or only its shards of them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from helpers import tiny
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

from dpo_train import checkpoints
from dpo_train.config import TrainConfig, TrainError
from dpo_train.data import pairs
from dpo_train.train import train

ROOT = Path(__file__).resolve().parents[2]


def launched(*words: str) -> str:
    """What two processes on the CPU, talking through gloo, print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *words]
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet}, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_in_two(config: TrainConfig, version: Path, run: Path, interrupted: bool = False) -> None:
    settings = run.parent / ("interrupted.json" if interrupted else "settings.json")
    settings.write_text(config.model_dump_json())
    launched(str(ROOT / "tests" / "helpers" / "launched_run.py"), str(settings), str(version), str(run))


def same_course(one: Path, two: Path) -> None:
    """Every metric of every step, and every margin of the log, agree between two runs."""
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    assert len(rows[0]) == len(rows[1])
    for alone, shared in zip(*rows, strict=True):
        assert alone.pop("kind") == shared.pop("kind")
        assert alone == pytest.approx(shared, rel=1e-3, abs=1e-4)
    logs = [pq.read_table(run / "pair_log.parquet").to_pandas() for run in (one, two)]
    assert logs[0][["pair_id", "step", "split"]].equals(logs[1][["pair_id", "step", "split"]])
    np.testing.assert_allclose(logs[0]["margin"], logs[1]["margin"], atol=1e-4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model, and a version of 22 pairs: in sixes the last step is uneven."""
    folder = tmp_path_factory.mktemp("processes")
    model = tiny.model_folder(folder / "model", tie_word_embeddings=True)
    return model, tiny.version(folder, train=22, validation=7)


def settings(model: Path, processes: int, **changes: Any) -> TrainConfig:
    """Steps of six pairs, with a loss over the whole window, which no process has alone."""
    base = {"loss": {"loss_type": "aot"}, "eval_steps": 2, "max_steps": 5}
    return tiny.settings(model, **{**base, "per_device_train_batch_size": 6 // processes, **changes})


def test_two_processes_train_as_one_does(place: tuple[Path, Path], tmp_path: Path) -> None:
    """Asked for as people do, with `torchrun ... dpo train`: one of the two answers."""
    model, version = place
    train(settings(model, 1), version, tmp_path / "one")
    (version / "manifest.json").write_text(json.dumps({"schema": pairs.VERSION_SCHEMA}))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"training": settings(model, 2).model_dump(mode="json", exclude_unset=True)}))
    asked = ["train", "--recipe", str(recipe), "--store", str(version.parents[1]), "--version", "tiny"]
    said = json.loads(launched("-m", "flows.cli.app", *asked, "--no-prefect", "--json"))
    assert said["created"] and Path(said["report"]).is_file()
    same_course(tmp_path / "one", Path(said["path"]))


def test_weights_in_shards_learn_as_whole_ones_do(place: tuple[Path, Path], tmp_path: Path) -> None:
    """All of them, with their moments; stopped on the way and taken up again."""
    model, version = place
    changes = {"use_peft": False, "learning_rate": 1e-3, "gradient_checkpointing": True}
    train(settings(model, 1, **changes), version, tmp_path / "one")
    run_in_two(settings(model, 2, fsdp=True, **changes), version, tmp_path / "two", interrupted=True)
    for rank in (0, 1):
        assert "kept up to step 3 of 5" in (tmp_path / "two" / f"stopped-{rank}").read_text()
        held = json.loads((tmp_path / "two" / f"held-{rank}.json").read_text())
        assert held["here"] * 2 == held["all"]
    same_course(tmp_path / "one", tmp_path / "two")
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-5)
    state = checkpoints.read_state(checkpoints.latest(tmp_path / "two" / "checkpoints") or Path())
    with pytest.raises(TrainError, match="resumes under its own settings: processes: checkpoint 2, now 1"):
        checkpoints.check_same_run(state, {**state, "processes": 1})


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21 asks by an old name
def test_an_adapter_learns_over_weights_in_shards(place: tuple[Path, Path], tmp_path: Path) -> None:
    """In passes so small that one process has more of them than the other."""
    model, version = place
    changes = {"token_budget": 150, "attribution": {"by": "source"}}
    train(settings(model, 1, **changes), version, tmp_path / "one")
    run_in_two(settings(model, 2, fsdp=True, **changes), version, tmp_path / "two")
    same_course(tmp_path / "one", tmp_path / "two")
    opened = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "two" / "adapter")
    assert opened.peft_config["default"].base_model_name_or_path == str(model)
    notes = json.loads((tmp_path / "two" / "summary.json").read_text())["notes"]
    assert any("not accounted for: the weights lie in shards" in note for note in notes)


def test_a_launcher_is_refused_by_every_other_command() -> None:
    launcher = {"TORCHELASTIC_RUN_ID": "one", "WORLD_SIZE": "2", "RANK": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli.app", "retrain"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **launcher})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "2 processes of `dpo retrain`, and only a training can be shared out" in done.stderr
