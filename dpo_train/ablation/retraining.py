"""Retrain without a slice and compare the effect with what attribution predicted.

The slice's pairs keep their places with weight 0: same batches, order, learning rates and number of steps. This is not
"drop and refill with other pairs". Each seed is trained with and without the slice, so seed effects cancel; the
disagreement between seeds is the upper bound for any prediction.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from dpo_train.ablation.effects import FOLDER, compare, held_out
from dpo_train.ablation.mask import mask, slug
from dpo_train.ablation.predictions import from_account, from_likeness
from dpo_train.config import TrainConfig, TrainError
from dpo_train.slices.margin_change import Movement, movement
from dpo_train.slices.topics import with_topics

logger = logging.getLogger(__name__)
KEPT = ("pair_log.parquet", "pairs.parquet", "summary.json")  # of a retraining; its weights are not of interest


def confirm(version: Path, run: Path, axis: str, value: str, keep: float = 0.0, seeds: int = 2) -> Path:
    """Retrain with a share `keep` (by hash of the pair's id) of the slice `axis` = `value`; the path of the result.

    Trains 2 * seeds - 1 times (the run itself is the first seed with the slice); what is there already is not trained
    again. Raises `TrainError` where the run, the version or the slice does not allow it.
    """
    if not 0 <= keep < 1 or seeds < 1:
        raise TrainError(f"keep {keep}, seeds {seeds}: expected 0 <= keep < 1 and at least one seed.")
    config, last = _settings(run, version)
    place = run / FOLDER / slug(axis, value, keep)
    with tempfile.TemporaryDirectory(prefix="dpo-confirm-") as scratch:
        masked, counts = mask(version, Path(scratch), axis, value, keep, pq.read_table(run / "pairs.parquet"))
        with_it, without = [], []
        for seed in range(config.seed, config.seed + seeds):
            one = config.model_copy(update={"seed": seed})
            full = run if seed == config.seed else _trained(one, version, run / FOLDER / f"seed-{seed}")
            lacking = _trained(one, masked, place / f"seed-{seed}")
            check_same_reference(full, lacking)
            with_it.append(_moved(full, last))
            without.append(_moved(lacking, last))
        from dpo_train.ablation.hidden_state_similarity import likeness

        alike = likeness(config, masked, with_it[0], held_out(with_it[0], axis, value))
    predicted = {**from_account(run, axis, value, counts), "likeness": from_likeness(alike, counts)}
    found = {
        "axis": axis,
        "slice": value,
        "keep": keep,
        "seeds": list(range(config.seed, config.seed + seeds)),
        "step": last,
        **counts,
        "estimand": f"weight 0 for {counts['masked']} training pairs; same batches, rates and steps",
        "cells": compare(with_it, without, axis, value, predicted),
    }
    path = place.with_suffix(".json")
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    partial.replace(path)
    return path


def _settings(run: Path, version: Path) -> tuple[TrainConfig, int]:
    """The run's settings without what a retraining does not need, and the step at which runs are compared."""
    try:
        raw = json.loads((run / "config.json").read_text(encoding="utf-8"))
        last = int(json.loads((run / "summary.json").read_text(encoding="utf-8"))["steps"])
    except FileNotFoundError as error:
        raise TrainError(f"{error.filename} is missing: only a finished run can be confirmed.") from error
    if raw.pop("version", version.name) != version.name:
        raise TrainError(f"{run.name} was not trained on version {version.name}.")
    raw.pop("beta", None)
    quiet = {"attribution": {"by": None}, "report_to": (), "stop_when_flat": False, "load_best_model_at_end": False}
    often = raw["save_steps"] or raw["eval_steps"] or max(1, last // 10)
    looks = {"eval_steps": last, "save_steps": often, "probe_pairs": 0}  # once, at the end
    config = TrainConfig.model_validate(raw | quiet | looks)
    if config.loss.shards != "pairs":
        raise TrainError(
            f"{run.name} was trained on single responses (loss_type {config.loss.loss_type}); only "
            "runs on pairs can be retrained without a slice."
        )
    return config, last


def _trained(config: TrainConfig, version: Path, folder: Path) -> Path:
    """The folder of a retraining, made or gone on with where it is not finished; its weights are removed."""
    if not (folder / "summary.json").exists():
        from dpo_train.train import train

        logger.info("retraining on %s, seed %d", version.name, config.seed)
        train(config, version, folder, resume=(folder / "checkpoints").is_dir())
    for part in folder.iterdir():
        if part.is_dir():
            shutil.rmtree(part)
        elif part.name not in KEPT:
            part.unlink()
    return folder


def check_same_reference(one: Path, other: Path) -> None:
    """Margins of two runs are measured from one start only where their references are the same; else `TrainError`."""
    known = [json.loads((run / "summary.json").read_text(encoding="utf-8")).get("reference") for run in (one, other)]
    if None not in known and known[0] != known[1]:
        raise TrainError(
            f"{one} and {other} started from different references: {known[0]} and {known[1]}. The model, its tokenizer "
            "or its template was changed in between: put it back and remove the second folder, or train the run again."
        )


def _moved(run: Path, last: int) -> Movement:
    log = pq.read_table(run / "pair_log.parquet")
    return movement(log, with_topics(pq.read_table(run / "pairs.parquet")), "validation", last=last)
