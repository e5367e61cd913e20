"""Two processes do what one does: the same pairs a step, the same gradient, the same numbers, each pair once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from dpo_train.config import TrainConfig
from dpo_train.train import train

ROOT = Path(__file__).resolve().parents[1]


def launched(config: TrainConfig, version: Path, run: Path) -> None:
    """The run in two processes on the CPU, talking through gloo."""
    settings = run.with_suffix(".json")
    settings.write_text(config.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "tests" / "launched_run.py"), str(settings), str(version), str(run)]
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet}, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """With a loss over the whole window, which neither process has alone."""
    model, version = tiny.model_folder(tmp_path / "model"), tiny.version(tmp_path, train=22, validation=7)
    base: dict[str, Any] = {
        "model": str(model),
        "use_cpu": True,
        "loss": {"loss_type": "aot"},
        "learning_rate": 5e-3,
        "eval_steps": 2,
        "max_steps": 5,
        "report_to": (),
        "stop_when_flat": False,
    }
    one = TrainConfig.model_validate({**base, "per_device_train_batch_size": 6})
    two = TrainConfig.model_validate({**base, "per_device_train_batch_size": 3})
    train(one, version, tmp_path / "one")
    launched(two, version, tmp_path / "two")  # 22 pairs in sixes: the last step is uneven
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(rows[0]) == len(rows[1])
    for alone, shared in zip(*rows, strict=True):
        assert alone.pop("kind") == shared.pop("kind")
        assert alone == pytest.approx(shared, rel=1e-3, abs=1e-4)
    logs = [pq.read_table(tmp_path / name / "pair_log.parquet").to_pandas() for name in ("one", "two")]
    assert logs[0][["pair_id", "step", "split"]].equals(logs[1][["pair_id", "step", "split"]])
    np.testing.assert_allclose(logs[0]["margin"], logs[1]["margin"], atol=1e-4)
