"""Train: a published version in, a run with its slice report out.

The run's id is a hash of the version, the model's content and the settings that decide results, so the same training
asked for twice is found and not repeated, and one that was interrupted goes on from its last checkpoint.
"""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from dpo_data.schema import DataError
from dpo_data.store import versions
from dpo_train.run import RESULTS, settings_of
from flows.environment import first_process, processes
from flows.steps import Step, plain, record_table

if TYPE_CHECKING:
    from dpo_train.config import TrainConfig


class TrainSummary(TypedDict):
    """Where a run lies and what came out; `created` is false when it was there already."""

    run: str
    created: bool
    version: str
    path: str
    report: str
    result: dict[str, Any]


def train(config: "TrainConfig", version: str, store: Path, step: Step = plain) -> TrainSummary:
    """Train on a version (an id or "current") and write the slice report."""
    opened = versions.open_version(store, version)
    run = store / "runs" / step("identify the model", run_id, config, opened.id, store)
    created = step(f"train on {opened.id}", train_once, config, opened.path, run)
    report = step("report slices", report_once, run)
    result = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    record_table("margins", margins_table(report), f"Held-out margins of run {run.name}, by slice", step)
    return {
        "run": run.name,
        "created": created,
        "version": opened.id,
        "path": str(run),
        "report": str(run / "report.html"),
        "result": result,
    }


def assist(config: "TrainConfig", version: str, store: Path, step: Step = plain) -> None:
    """What every process of a launch but the first does: its share of the training, and nothing else."""
    opened = versions.open_version(store, version)
    step(f"train on {opened.id}", train_once, config, opened.path, store / "runs" / run_id(config, opened.id, store))


def run_id(config: "TrainConfig", version: str, store: Path | None = None) -> str:
    """16 hex digits for a version, the content of the model, the settings and code that decide results, and how many
    processes share the training where a launcher started several: each brings its own pairs to a step.

    `store` remembers hashes of model files. Raises `TrainError` where the model is an adapter or cannot be found.
    """
    from dpo_train.policy import contents

    cache = store / "cache" if store is not None else None
    asked: dict[str, Any] = {
        "version": version,
        "config": settings_of(config.model_dump(mode="json")),
        "model": contents.of_model(config.model, config.revision, cache),
        "results": RESULTS,
    }
    if processes() > 1:
        asked["processes"] = processes()
    return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def train_once(config: "TrainConfig", version: Path, run: Path) -> bool:
    """Train unless the run is complete; resume it where it was interrupted. True when it trained."""
    finished = (run / "summary.json").exists()
    if not finished:
        from dpo_train.train import train as train_policy

        train_policy(config, version, run, resume=(run / "checkpoints").is_dir())
    if first_process():  # nothing reads the checkpoints of a finished run
        shutil.rmtree(run / "checkpoints", ignore_errors=True)  # for the 135M demo: 1.1 GB beside an adapter of 1.9 MB
    return not finished


def report_once(run: Path) -> Path:
    """Write the run's slice report; the path of report.json."""
    from dpo_train.report import page as report

    report.write(run)
    return run / "report.json"


def confirm_slice(store: Path, run: Path, wanted: str, keep: float, seeds: int) -> dict[str, Any]:
    """Retrain a run without the slice AXIS=VALUE and say what changed; raises `DataError` where it is not spelt so."""
    from dpo_train.ablation.effects import read
    from dpo_train.ablation.retraining import confirm

    axis, equals, value = wanted.partition("=")
    if not equals:
        raise DataError(f"--confirm {wanted!r}: expected AXIS=VALUE, such as desk=night; the report has them.")
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    version = versions.open_version(store, config["version"])
    path = confirm(version.path, run, axis.strip(), value.strip(), keep, seeds)
    return next(one for one in read(run) if one["file"] == path.name)


def margins_table(report: Path) -> list[dict[str, Any]]:
    """Slices of the held-out pairs as plain rows for the Prefect run: counts and margins, never text."""
    rows = json.loads(report.read_text(encoding="utf-8"))["slices"]
    return [
        {
            name: row.get(name)
            for name in ("axis", "slice", "pairs", "prompts", "movement", "movement_low", "movement_high")
        }
        for row in rows
        if row.get("split") == "validation"
    ]


def find_run(store: Path, run: str) -> Path:
    """The folder of a run by id, by a prefix that only it has, or "latest"; raises `DataError`."""
    folders = sorted((store / "runs").glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    runs = [path.parent for path in folders]
    if run == "latest" and runs:
        return runs[-1]
    matches = [folder for folder in runs if run and folder.name.startswith(run)]
    if len(matches) != 1:
        known = ", ".join(folder.name for folder in runs) or "none"
        raise DataError(f"{run!r} names {len(matches)} runs of {store}, expected one. Finished runs there: {known}.")
    return matches[0]
