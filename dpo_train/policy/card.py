"""The card of a trained adapter or model: what it was trained from, on which data, how, and what it scores held out.

Written as README.md beside the weights, in the shape the Hub reads (YAML between dashes, then text), and filled from
the run's own numbers. It is data for people, so every word that comes from outside is quoted as code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What is said of held-out pairs: name of the metric, how it reads.
_SHOWN = {
    "rewards/accuracies": "pairs ranked as people ranked them (ties count half)",
    "rewards/margins": "mean reward margin",
    "log_loss": "log-loss of the margin",
}


def write_card(folder: Path, base: Mapping[str, str], settings: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write `folder`/README.md; `summary` as summary.json holds it, `settings` as the configuration dumps."""
    head = {"tags": ["dpo", "preference", str(settings["loss"]["loss_type"])], "library_name": "transformers"}
    if summary["output"] == "adapter":
        head |= {"library_name": "peft", "base_model": base["model"]}
    front = "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items())
    steps, planned = summary["steps"], summary["planned_steps"]
    text = [
        f"---\n{front}\n---",
        f"# {_code(base['model'])} trained on preferences",
        f"The weights of step {summary['best_step']} of a run of {steps} steps ({planned} planned); it ended because "
        f"{summary['stop_reason']}.",
        "## Base and data",
        _table(("", ""), [("data version", summary["version"]), *base.items(), *_reference(summary)]),
        _table(("split", "pairs"), list(summary["pairs"].items())),
        "## Held-out results",
        _results(summary["metrics"]) or "No held-out pairs: nothing was measured.",
        *(["## Watch out", "\n".join(f"- {alarm}" for alarm in summary["alarms"])] if summary["alarms"] else []),
        "## Settings",
        "```json\n" + json.dumps(settings, indent=1, ensure_ascii=False) + "\n```",
    ]
    (folder / "README.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _reference(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(f"fingerprint of {name.replace('_', ' ')}", value) for name, value in summary["reference"].items()]


def _results(metrics: Mapping[str, Mapping[str, float]]) -> str:
    rows = [(split, *(f"{values[name]:.4f}" for name in _SHOWN)) for split, values in metrics.items()]
    return _table(("split", *_SHOWN.values()), rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_code(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(value: Any) -> str:
    """As Markdown code, in which nothing is markup; a bar would end a cell."""
    return "`" + " ".join(str(value).replace("`", "'").replace("|", "/").split()) + "`"
