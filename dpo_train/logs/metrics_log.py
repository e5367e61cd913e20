"""metrics.jsonl and the trackers: one row for every step and every evaluation.

A row is written at once and whole lines are all that counts: a resumed run takes over the rows up to its checkpoint and
writes the later ones again. The surprise: a power cut can leave half a line at the end, which is dropped like those.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dpo_train.atomic import replacing
from dpo_train.logs.metrics import means
from dpo_train.setup import Job


class Records:
    """The rows of one run, from step `step` on."""

    def __init__(self, job: Job, step: int) -> None:
        self.job = job
        self.path = job.run / "metrics.jsonl"
        if job.accelerator.is_main_process:
            # A run that starts at step 0 writes the rows of step 0 itself, also where a killed one had written them.
            kept = [row for row in read(self.path) if row["step"] <= step] if step else []
            with replacing(self.path) as partial:
                partial.write_text("".join(f"{json.dumps(row)}\n" for row in kept), encoding="utf-8")
        names = {"wandb": {"name": job.run.name, "dir": str(job.run)}, "trackio": {"name": job.run.name}}
        names["mlflow"] = {"run_name": job.run.name}
        job.accelerator.init_trackers("dpo", _flat(job.identity["config"]), names)
        if step == 0:
            for watched in job.watched.values():
                if watched.first is not None and watched.name != "test":
                    self.add("eval" if watched.name == "validation" else watched.name, 0, means(watched.first))

    def add(self, kind: str, step: int, row: dict[str, float]) -> None:
        """Write one row at once, so that an interruption loses none."""
        if self.job.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"kind": kind, "step": step, **row}) + "\n")
        self.job.accelerator.log({f"{kind}/{name}": value for name, value in row.items()}, step=step)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as the trackers take them: one level, and no value that is unset."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
    return found


def read(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a metrics.jsonl, none where there is no file; the half line of a power cut is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole, _, _ = text.rpartition("\n")  # a line that does not end was not finished
    return [json.loads(line) for line in whole.splitlines()]
