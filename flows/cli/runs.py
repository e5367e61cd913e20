"""`dpo runs`: every training of a store, and which may go.

A finished run is its adapter or model, its logs and its report. The champion stays, and so does a run that a process
trains now; of the others the newest are kept.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import Json, Store, Yes, check_yes
from flows.environment import STORE
from flows.output import answer, columns

app = typer.Typer()


@dataclass(frozen=True)
class Run:
    """One run as a list shows it; `steps` and `margin` (held-out, mean) are null until it is finished."""

    id: str
    at: datetime
    version: str
    loss: str
    steps: int | None
    margin: float | None
    bytes: int
    state: str  # champion, finished, training or unfinished


@dataclass(frozen=True)
class Pruning:
    """Run ids that would go, and why each older run that stays does."""

    runs: tuple[str, ...]
    stays: dict[str, str]
    bytes: int


def listed(store: Path) -> list[Run]:
    """Every run of the store, the newest first."""
    from dpo_data.store.versions import read_pointer

    champion = read_pointer(store).get("champion")
    runs = [_read(folder, champion) for folder in sorted((store / "runs").glob("*/")) if _is_run(folder)]
    return sorted(runs, key=lambda run: (run.at, run.id), reverse=True)


def plan(store: Path, keep: int) -> Pruning:
    """What would go if the `keep` newest runs stay; nothing is removed. Raises `DataError` for a `keep` below one."""
    from dpo_data.schema import DataError

    if keep < 1:
        raise DataError(f"Found {keep} runs to keep, expected 1 or more.")
    reasons = {"champion": "is the champion", "training": "is being trained"}
    older = listed(store)[keep:]
    stays = {run.id: reasons[run.state] for run in older if run.state in reasons}
    gone = [run for run in older if run.id not in stays]
    return Pruning(tuple(run.id for run in gone), stays, sum(run.bytes for run in gone))


def prune(store: Path, keep: int) -> Pruning:
    """Remove what `plan` finds, each run by one rename first; a run that is trained or promoted meanwhile stays."""
    from dpo_data.analysis.retention import being_trained
    from dpo_data.store.versions import read_pointer

    found = plan(store, keep)
    for run in found.runs:
        folder = store / "runs" / run
        if being_trained(folder) or read_pointer(store).get("champion") == run:
            continue
        hidden = folder.with_name(f".removed-{run}")
        folder.rename(hidden)
        shutil.rmtree(hidden)
    for left in (store / "runs").glob(".removed-*"):  # of a removal that was killed
        shutil.rmtree(left)
    return found


@app.command()
def runs(
    prune_to: Annotated[
        int | None, typer.Option("--prune", metavar="KEEP", help="Which runs could go if the KEEP newest stay.")
    ] = None,
    yes: Yes = False,
    store: Store = STORE,
    as_json: Json = False,
) -> None:
    """List runs with date, version, margin, size; with --prune KEEP, remove old ones."""
    check_yes(yes, prune_to)
    if prune_to is None:
        found = listed(store)
        answer({"runs": [asdict(run) for run in found]}, as_json, _lines(found))
        return
    pruned = prune(store, prune_to) if yes else plan(store, prune_to)
    answer({"removed": yes, **asdict(pruned)}, as_json, _pruning_lines(pruned, yes))


def _is_run(folder: Path) -> bool:
    return not folder.name.startswith(".") and any(
        (folder / name).exists() for name in ("config.json", "claim.json", "summary.json")
    )


def _read(folder: Path, champion: str | None) -> Run:
    from dpo_data.analysis.retention import being_trained

    config, summary = _json(folder / "config.json"), _json(folder / "summary.json")
    state = "finished" if summary else "training" if being_trained(folder) else "unfinished"
    page = folder / ("summary.json" if summary else "config.json" if config else "claim.json")
    return Run(
        id=folder.name,
        at=datetime.fromtimestamp(page.stat().st_mtime, UTC),
        version=str((config or _json(folder / "claim.json")).get("version", "unknown")),
        loss=str(config.get("loss", {}).get("loss_type", "unknown")),
        steps=summary.get("steps"),
        margin=summary.get("metrics", {}).get("validation", {}).get("rewards/margins"),
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        state="champion" if folder.name == champion else state,
    )


def _json(path: Path) -> dict[str, Any]:
    """An object from a file, empty where it is not there or half written by a process that was killed."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _lines(found: Sequence[Run]) -> list[str]:
    rows: list[tuple[str, ...]] = [("run", "date (UTC)", "version", "loss", "steps", "held-out margin", "MB", "state")]
    rows += [
        (
            run.id,
            f"{run.at:%Y-%m-%d %H:%M}",
            run.version,
            run.loss,
            "none" if run.steps is None else str(run.steps),
            "none" if run.margin is None else f"{run.margin:+.2f}",
            f"{run.bytes / 1e6:.1f}",
            run.state,
        )
        for run in found
    ]
    return columns(rows, indent="")


def _pruning_lines(found: Pruning, removed: bool) -> list[str]:
    word = "removed" if removed else "would go"
    lines = [f"{word:<9} run {run}" for run in found.runs]
    lines += [f"stays     run {run}: {why}" for run, why in found.stays.items()]
    if not found.runs:
        return [*lines, "Nothing to remove."]
    freed = f"{found.bytes / 1e6:.1f} MB"
    return [
        *lines,
        f"{freed} freed. A version that only these runs named can go now: dpo versions --prune KEEP"
        if removed
        else f"{freed} would be freed. Nothing was touched: add --yes to remove.",
    ]
