"""Trainings killed, stopped and left with torn checkpoints at random moments; each must end as an undisturbed one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from result import Result

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny  # noqa: E402

TRIALS = 12
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DAMAGES = ("short", "empty", "garbled")
PROGRAM = """
import sys
from collections.abc import Callable
from pathlib import Path
from dpo_train.config import TrainConfig
from dpo_train.train import train
config, version, run = map(Path, sys.argv[1:])
train(TrainConfig.model_validate_json(config.read_text()), version, run, resume=(run / "checkpoints").is_dir())
"""


def run(seed: int) -> Result:
    """Each trial stops a training up to three times, may damage its newest checkpoint, and lets it end."""
    chance, result = random.Random(seed), Result()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model, version = tiny.model_folder(place / "model"), tiny.version(place)
        changes = {
            "attribution": {"by": "category"},
            "gradient_accumulation_steps": 2,
            "lora_dropout": 0.1,
            "save_steps": 2,
        }
        config = tiny.settings(model, per_device_train_batch_size=3, max_steps=24, eval_steps=4, **changes)
        (place / "config.json").write_text(config.model_dump_json())
        started = time.perf_counter()
        _start(place, version, "straight").wait()
        seconds = time.perf_counter() - started
        for trial in range(TRIALS):
            result.record(_trial(place, version, f"trial{trial}", chance, seconds))
            shutil.rmtree(place / f"trial{trial}", ignore_errors=True)
    return result


def _start(place: Path, version: Path, name: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(place / "config.json"), str(version)]
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([*command, str(place / name)], stderr=subprocess.PIPE, env={**os.environ, **quiet})


def _trial(place: Path, version: Path, name: str, chance: random.Random, seconds: float) -> str | None:
    run, story = place / name, []
    for _ in range(chance.randint(1, 3)):
        process, kind = _start(place, version, name), chance.choice(SIGNALS)
        time.sleep(chance.uniform(0.3, 1.0) * seconds)
        process.send_signal(kind)
        process.communicate()
        story.append(kind.name)
        if chance.random() < 0.3:
            story.append(_tear(run, chance))
    if not (run / "summary.json").exists():
        process = _start(place, version, name)
        _, errors = process.communicate()
        if process.returncode:
            return f"{name} after {', '.join(story)}: exit {process.returncode}: {errors.decode()[-300:]}"
    different = [part for part in _PARTS if not _PARTS[part](place / "straight", run)]
    left = [path.name for path in run.rglob(".*")]
    if different or left:
        return f"{name} after {', '.join(story)}: differs in {different}, left {left}"
    return None


def _tear(run: Path, chance: random.Random) -> str:
    """Damage a file of the newest checkpoint as a power cut would."""
    steps = sorted(run.glob("checkpoints/step-*"))
    if not steps or (run / "summary.json").exists():
        return "nothing to tear"
    file, damage = chance.choice(sorted(steps[-1].iterdir())), chance.choice(DAMAGES)
    whole = file.read_bytes()
    torn = {"short": whole[: len(whole) // 2], "empty": b"", "garbled": whole[:-9] + b"#" * 9}[damage]
    file.write_bytes(torn)
    return f"{file.name} {damage}"


def _same_bytes(name: str) -> Callable[[Path, Path], bool]:
    return lambda one, two: (one / name).read_bytes() == (two / name).read_bytes()


def _same_table(name: str) -> Callable[[Path, Path], bool]:
    return lambda one, two: pq.read_table(one / name).equals(pq.read_table(two / name))


def _same_metrics(one: Path, two: Path) -> bool:
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    return bool(rows[0] == rows[1])


_PARTS = {
    "adapter": _same_bytes("adapter/adapter_model.safetensors"),
    "attribution.parquet": _same_table("attribution.parquet"),
    "pair_log.parquet": _same_table("pair_log.parquet"),
    "metrics.jsonl": _same_metrics,
}
