"""The loop end to end on a model of a few thousand weights: what it promises, to the bit where it promises bits."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny

from dpo_train.config import TrainConfig
from dpo_train.train import train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(model folder, version folder)"""
    root = tmp_path_factory.mktemp("store")
    return tiny.model_folder(root / "model"), tiny.version(root)


def settings(model: Path, **changes: Any) -> TrainConfig:
    base = {
        "model": str(model),
        "use_cpu": True,
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 5,
        "num_train_epochs": 2,
        "eval_steps": 2,
        "report_to": (),
        "stop_when_flat": False,
    }
    return TrainConfig.model_validate({**base, **changes})


def metrics(run: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_margins_of_unseen_pairs_grow_from_exactly_zero(place: tuple[Path, Path], tmp_path: Path) -> None:
    model, version = place
    summary = train(settings(model), version, tmp_path / "run")
    held_out = metrics(tmp_path / "run", "eval")
    assert held_out[0]["step"] == 0
    assert held_out[0]["rewards/margins"] == 0
    assert held_out[0]["rewards/accuracies"] == 0.5
    assert held_out[0]["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert held_out[-1]["rewards/margins"] > 0.05
    assert summary.metrics["test"]["rewards/accuracies"] > 0.8
    log = pq.read_table(tmp_path / "run" / "pair_log.parquet").to_pandas()
    assert set(log["split"]) == {"validation", "train_probe", "test"}
    assert (log[log["step"] == 0]["margin"] == 0).all()
