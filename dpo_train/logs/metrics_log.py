"""metrics.jsonl and the trackers: one row for every step and every evaluation.

A row is written at once and whole lines are all that counts: a resumed run takes over the rows up to its checkpoint and
writes the later ones again. A power cut can leave half a line at the end, which is dropped like those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_train.atomic import replacing
from dpo_train.logs.metrics import PairMetrics, means


class MetricsLog:
    """The rows of one run, from step `step` on; `first` are the evaluations before the first step, by name."""

    def __init__(
        self, run: Path, accelerator: Any, config: dict[str, Any], first: Mapping[str, PairMetrics], step: int
    ) -> None:
        self.accelerator = accelerator
        self.path = run / "metrics.jsonl"
        if accelerator.is_main_process:
            # A run that starts at step 0 writes the rows of step 0 itself, also where a killed one had written them.
            kept = [row for row in read(self.path) if row["step"] <= step] if step else []
            with replacing(self.path) as partial:
                partial.write_text("".join(f"{json.dumps(row)}\n" for row in kept), encoding="utf-8")
        names = {"wandb": {"name": run.name, "dir": str(run)}, "trackio": {"name": run.name}}
        names["mlflow"] = {"run_name": run.name}
        accelerator.init_trackers("dpo", _flat(config), names)
        if step == 0:
            for name, measured in first.items():
                if name != "test":
                    self.add("eval" if name == "validation" else name, 0, means(measured))

    def add(self, kind: str, step: int, row: dict[str, float]) -> None:
        """Write one row at once, so that an interruption loses none."""
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"kind": kind, "step": step, **row}) + "\n")
        self.accelerator.log({f"{kind}/{name}": value for name, value in row.items()}, step=step)


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
