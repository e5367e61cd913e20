"""Everything before the first step: model, tokens, reference, the checks, the optimiser, and where a run stands.

The order matters: the reference is the starting weights, so it is computed before a checkpoint's weights are loaded;
and nothing is trained before pre-flight, the check of the fast forward pass and the check of step 0 have passed.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpo_train import checkpoints
from dpo_train.atomic import sweep, write_json
from dpo_train.config import TrainConfig, TrainError
from dpo_train.data.encoding import Encoder
from dpo_train.data.pairs import SPLITS, PairSet, open_pairs
from dpo_train.data.preflight import preflight, sentences
from dpo_train.data.sampler import Schedule
from dpo_train.distributed import first_process, whole
from dpo_train.early_stopping import Evaluation, as_tensors, from_tensors
from dpo_train.logs.metrics import PairMetrics
from dpo_train.logs.pair_log import PairLog
from dpo_train.policy import fsdp
from dpo_train.policy.architecture import position_limit
from dpo_train.policy.load import open_policy
from dpo_train.policy.optimizer import optimizer_of
from dpo_train.policy.policy import Policy
from dpo_train.policy.run_checks import (
    check_surroundings,
    check_vocabulary,
    date_in_prompts,
    notes,
    of_model,
    single_prompts,
)
from dpo_train.policy.scoring_modes import check_causal, choose_scoring_mode
from dpo_train.reference import check_start, fingerprint, per_token, probe_pairs
from dpo_train.scoring import ReferencedPairs, Scoring, with_reference
from dpo_train.statistics import Indices

logger = logging.getLogger(__name__)
BUDGETS = {"cpu": 1024, "cuda": 16384}  # tokens a pass: 512 to 2048 go alike on a CPU; on a GPU a guess


@dataclass
class EvalSet:
    """Pairs evaluated again and again: which, and what the starting weights say of them."""

    name: str  # as the pair log calls it: validation, train_probe, test
    known: ReferencedPairs
    indices: Indices
    first: PairMetrics | None = None
    last: PairMetrics | None = None

    @property
    def pairs(self) -> PairSet:
        """The split they are of."""
        return self.known.pairs

    @property
    def prompts(self) -> list[str]:
        """Prompt group of each watched pair: the unit of intervals."""
        return [self.pairs.prompts[int(place)] for place in self.indices]


@dataclass
class TrainingRun:
    """A run that is ready to start: what stays the same from here on (the weights apart)."""

    config: TrainConfig
    version: str
    run: Path
    accelerator: Any
    policy: Policy
    scoring: Scoring
    learned: ReferencedPairs  # the training pairs
    watched: dict[str, EvalSet]
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    total: int
    eval_every: int
    save_every: int
    notes: list[str]
    identity: dict[str, Any]  # settings, version, reference, processes: what a checkpoint must agree with

    @property
    def training(self) -> PairSet:
        """The pairs that steps take."""
        return self.learned.pairs


@dataclass
class TrainState:
    """How far a run has come; with the weights and the optimiser's moments, all of a checkpoint."""

    step: int = 0
    spent: float = 0.0  # sum of the learning rates so far
    candidates: list[int] = field(default_factory=list)  # evaluations whose weights may be kept, earliest first
    history: list[Evaluation] = field(default_factory=list)


def cache_of(version: Path, run: Path) -> Path:
    """The store's cache, where the version lies in a store; else one of the run's own."""
    return version.parent.parent / "cache" if version.parent.name == "versions" else run / "cache"


def prepare(config: TrainConfig, version: Path, run: Path, resume: bool) -> TrainingRun:
    """Open, check and remember; raises `TrainError` for user-fixable problems."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    _prepare_folder(run, resume)
    cache = cache_of(version, run)
    check_surroundings(config)
    # Accelerate keeps the precision of whatever trained before in this process (another trainer in a notebook) and
    # refuses any other.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=config.use_cpu, mixed_precision="no", log_with=list(config.report_to) or None, project_dir=run
    )
    torch.manual_seed(config.seed)  # of the adapter's first weights
    shards = fsdp.wanted(config)
    if shards:
        fsdp.check(config, accelerator.num_processes)
    with accelerator.main_process_first():
        policy = open_policy(config, cache, accelerator.device, shards)
        encoder = encoder_of(policy, config)
        sets = {split: open_pairs(version, split, encoder, cache, config.loss.shards) for split in SPLITS}
    unused = check_vocabulary(policy, sets)
    if shards:
        policy.shard()
    checked = preflight(list(sets.values()))
    if accelerator.is_main_process:
        write_json(
            run / "config.json", {**config.model_dump(mode="json"), "beta": config.beta, "version": version.name}
        )
        write_json(run / "preflight.json", checked)
    training = sets["train"]
    if not len(training):
        why = " ".join(sentences({"train": checked["train"]}, config.max_length)) or "The shards hold none."
        raise TrainError(f"{version}: no training pair can be used. {why} Raise max_length, or look at the audit.")

    middle = np.argsort(training.lengths, kind="stable")[len(training) // 2 :][:2]
    check_causal(policy, training.encoded(middle[:1])[0])
    slower = choose_scoring_mode(
        policy, training.encoded(middle), np.concatenate([pairs.ends for pairs in sets.values()])
    )
    said = [*sentences(checked, config.max_length), *([slower] if slower else [])]
    said += [*notes(config, training, sets["validation"]), *single_prompts(config, sets)]
    said += [*of_model(policy.network, sets), *unused, *date_in_prompts(config, policy)]
    for note in said:
        logger.warning(note)
    budget = config.token_budget or BUDGETS.get(accelerator.device.type, BUDGETS["cuda"])
    wanted = watched_pairs(config, sets)
    schedule, total, eval_every = steps_of(config, len(training), accelerator.num_processes)
    scoring = Scoring(config.loss, policy, budget, accelerator)
    needed = reference_pairs(config, wanted, schedule, total)
    known = {split: with_reference(scoring, sets[split], indices, cache) for split, indices in needed.items()}
    for split, found in known.items():
        checked[split]["reference_nats_per_token"] = per_token(found.pairs, found.reference)
    if accelerator.is_main_process:
        write_json(run / "preflight.json", checked)
    watched = {name: EvalSet(name, known[split], indices) for name, (split, indices) in wanted.items()}
    probe = wanted["train_probe"][1] if len(wanted["train_probe"][1]) else np.arange(len(training))
    start = known["train"].reference
    live = probe[np.isfinite(start.chosen[probe])]
    if len(live):
        check_start(config.loss, policy, training, start, probe_pairs(live, training.lengths))

    parameters = policy.trainable()
    return TrainingRun(
        config=config,
        version=version.name,
        run=run,
        accelerator=accelerator,
        policy=policy,
        scoring=scoring,
        learned=known["train"],
        watched=watched,
        parameters=parameters,
        optimizer=optimizer_of(config, policy.network, parameters),
        schedule=schedule,
        total=total,
        eval_every=eval_every,
        save_every=config.save_steps or eval_every,
        notes=said,
        identity={
            "config": config.model_dump(mode="json"),
            "version": version.name,
            "reference": fingerprint(policy, config.template_date),
            "processes": accelerator.num_processes,  # each brings its own pairs to a step
        },
    )


def encoder_of(policy: Policy, config: TrainConfig) -> Encoder:
    """Encodes pairs as this policy reads them."""
    positions = position_limit(policy.network)
    return Encoder(policy.tokenizer, config.max_length, config.truncation_mode, positions, config.template_date)


def steps_of(config: TrainConfig, pairs: int, processes: int) -> tuple[Schedule, int, int]:
    """Which pairs each step takes, how many steps there are, and after how many held-out pairs are looked at."""
    schedule = Schedule(pairs, config.pairs_per_step * processes, config.seed)
    total = config.max_steps if config.max_steps > 0 else math.ceil(schedule.steps_per_epoch * config.num_train_epochs)
    return schedule, total, config.eval_steps or max(1, math.ceil(total / 10))


def save_checkpoint(job: TrainingRun, standing: TrainState, ledger: Mapping[str, Tensor] | None = None) -> None:
    """Write all that `resume_from` needs; every process calls it, the first one writes, `ledger` included."""
    main = job.accelerator.is_main_process
    weights = whole(job.parameters, keep=main)
    moments = whole(checkpoints.moments_of(job.parameters, job.optimizer), keep=main)
    if main:
        _write_checkpoint(job, standing, weights, moments, ledger)
    job.accelerator.wait_for_everyone()  # whoever goes on from it finds it


def _write_checkpoint(
    job: TrainingRun,
    standing: TrainState,
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    ledger: Mapping[str, Tensor] | None,
) -> None:
    seen = job.scoring.seen
    numbers = {"spent": standing.spent, "candidates": standing.candidates, "seen": [seen.total, seen.count]}
    checkpoints.save(
        job.run / "checkpoints",
        standing.step,
        weights,
        moments,
        {**job.identity, **numbers},
        as_tensors(standing.history),
        keep=job.config.save_total_limit,
        ledger=ledger,
    )
    checkpoints.drop_candidates(job.run / "checkpoints", standing.candidates)  # now that no resumed run needs others


def resume_from(checkpoint: Path, job: TrainingRun, log: PairLog) -> TrainState:
    """Take over weights, moments, standing and log rows; raises `TrainError` where the run is another one."""
    state = checkpoints.read_state(checkpoint)
    checkpoints.check_same_run(state, job.identity)
    checkpoints.load_weights(checkpoint, job.parameters)
    checkpoints.load_optimizer(checkpoint, job.parameters, job.optimizer)
    job.scoring.seen.total, job.scoring.seen.count = state["seen"]
    log.resume(state["step"])
    history = from_tensors(checkpoints.read_history(checkpoint))
    logger.info("going on from step %d", state["step"])
    return TrainState(state["step"], state["spent"], state["candidates"], history)


def _prepare_folder(run: Path, resume: bool) -> None:
    if (run / "summary.json").exists():
        raise TrainError(f"{run}: this run is finished. Give another folder, or remove it to train again.")
    if not resume and (run / "checkpoints").exists():
        shutil.rmtree(run / "checkpoints")
    if not resume:
        for name in ("metrics.jsonl", "pair_log.parquet", "pairs.parquet"):
            (run / name).unlink(missing_ok=True)
    run.mkdir(parents=True, exist_ok=True)
    if first_process():
        sweep(run)


def watched_pairs(config: TrainConfig, sets: Mapping[str, PairSet]) -> dict[str, tuple[str, Indices]]:
    """Which pairs are watched: all of validation and test (or a fixed sample), and a probe of the training pairs."""
    most = config.max_eval_pairs
    held_out = {split: sets[split].probe(most or len(sets[split])) for split in ("validation", "test")}
    return {
        "validation": ("validation", held_out["validation"]),
        "train_probe": ("train", sets["train"].probe(config.probe_pairs)),
        "test": ("test", held_out["test"]),
    }


def reference_pairs(
    config: TrainConfig, wanted: Mapping[str, tuple[str, Indices]], schedule: Schedule, total: int
) -> dict[str, Indices]:
    """The pairs of each split that the run reads a reference of: those logged, and those that a step will take."""
    needed = dict(wanted.values())
    if config.loss.uses_reference:
        taken = [schedule.window(step) for step in range(min(total, schedule.steps_per_epoch))]
        needed["train"] = np.unique(np.concatenate([needed["train"], *taken]))
    return needed
