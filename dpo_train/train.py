"""The training loop, top to bottom: a version in, a run folder out.

Prepare, then step by step: draw a window of pairs, add up its gradient, move the weights, look at the held-out pairs
now and then, and stop when nothing more comes. What is kept are the earliest weights whose held-out log-loss cannot be
told from the lowest, which need not be the last ones.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dpo_train import checkpoints
from dpo_train.atomic import write_json
from dpo_train.attribution.recorder import Account, open_account
from dpo_train.config import TrainConfig
from dpo_train.distributed import clip_gradient, share_gradient, whole
from dpo_train.early_stopping import Evaluation, candidates, flattened
from dpo_train.evaluation import at_start, evaluate
from dpo_train.gradients import Observer, add_gradient, check_gradient, random_of_step
from dpo_train.logs.metrics import alarms, means, untrained
from dpo_train.logs.metrics_log import MetricsLog
from dpo_train.logs.pair_log import PairLog, write_metadata
from dpo_train.policy import saved
from dpo_train.policy.card import write_card
from dpo_train.policy.flops import Throughput
from dpo_train.policy.optimizer import rate_factor
from dpo_train.progress import bar
from dpo_train.run import held
from dpo_train.setup import TrainingRun, TrainState, prepare, resume_from, save_checkpoint
from dpo_train.signals import Interrupted, listening

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSummary:
    """How a run ended; written as summary.json."""

    version: str
    base: dict[str, str]
    reference: dict[str, str]  # fingerprints of weights, tokenizer with template, and precision
    steps: int
    planned_steps: int
    stop_reason: str
    best_step: int  # whose weights were kept
    pairs: dict[str, int]
    metrics: dict[str, dict[str, float]]  # validation and test under the kept weights: exact means over pairs
    alarms: list[str]
    notes: list[str]
    output: str  # adapter or model
    speed: dict[str, float]  # of the loop (seconds), and of its optimiser steps: work.Stopwatch


def train(
    config: TrainConfig, version: Path, run: Path, resume: bool = False, observe: Observer | None = None
) -> RunSummary:
    """Train on a published version and write the run folder; `resume` goes on from the newest checkpoint, if any.

    Raises `TrainError` for user-fixable problems, and `Interrupted`, with a checkpoint written, where Ctrl-C or
    SIGTERM asked it to stop. `observe`, where no account is kept, is called wherever the gradient of pairs was just
    added.
    """
    with held(run, version):
        return _train(config, version, run, resume, observe)


def _train(config: TrainConfig, version: Path, run: Path, resume: bool, observe: Observer | None) -> RunSummary:
    job = prepare(config, version, run, resume)
    log = PairLog(run / "pair_log.parquet", config.beta)
    standing = _begin(job, log, resume)
    account = _account(job, standing)
    first = {name: watched.first for name, watched in job.watched.items() if watched.first is not None}
    records = MetricsLog(run, job.accelerator, job.identity["config"], first, standing.step)
    watch = Throughput(job.policy.counter, job.accelerator.num_processes)
    started = time.perf_counter()
    stop = _flattened(job, standing)  # of a run that had stopped early and died before its summary
    progress = bar(job.total, "train", "step", standing.step)

    with listening(run, job.total) as requests:
        while standing.step < job.total and stop is None:
            window = job.schedule.window(standing.step)
            with watch.on(job.training, window):
                random_of_step(config.seed, standing.step)
                listener = account.observe if account is not None else observe
                measured = add_gradient(job.scoring, job.learned, window, listener)
                share_gradient(job.parameters, job.accelerator)
                norm = clip_gradient(job.parameters, config.max_grad_norm)
                check_gradient(norm, standing.step + 1, config, _going_on(run))
                rate = config.rate * rate_factor(
                    config.lr_scheduler_type, standing.step, job.total, config.warmup_ratio
                )
                for group in job.optimizer.param_groups:
                    group["lr"] = rate
                job.optimizer.step()
                if account is not None:
                    account.step(norm)
                job.optimizer.zero_grad(set_to_none=True)
            standing.step += 1
            standing.spent += rate

            row = means(measured)
            records.add("train", standing.step, row | {"grad_norm": norm, "learning_rate": rate})
            progress.set_postfix_str(_glance(row, watch), refresh=False)
            progress.update()

            last = standing.step == job.total
            if standing.step % job.eval_every == 0 or last:
                _look(job, standing, log, records)
                stop = _flattened(job, standing)
                if account is not None:
                    account.look(standing.step, last or stop is not None)
            asked = requests.heard(job.accelerator)
            if standing.step % job.save_every == 0 or last or stop or asked:
                kept = account.state() if account is not None and job.accelerator.is_main_process else None
                save_checkpoint(job, standing, kept)
            if asked and not last:
                raise Interrupted(run, job.total, asked)

    progress.close()
    seconds = time.perf_counter() - started
    if account is not None and job.accelerator.is_main_process:
        account.write(run / "attribution.parquet")
    reason = stop or "all planned steps were taken"
    return _finish(job, standing, log, reason, {"seconds": seconds, **watch.told(job.policy.network)})


def _glance(row: dict[str, float], watch: Throughput) -> str:
    """What the progress bar says of the last step, and how fast all of them went."""
    margin, right = row["rewards/margins"], row["rewards/accuracies"]
    return f"loss {row['loss']:.3f}, margin {margin:+.3f}, {right:.0%} right, {watch.tokens / watch.seconds:.0f} tok/s"


def _begin(job: TrainingRun, log: PairLog, resume: bool) -> TrainState:
    """Where the run stands: at a checkpoint, or at step 0 with the first rows of the log written."""
    for watched in job.watched.values():
        if len(watched.indices):
            watched.first = watched.last = at_start(job.scoring, watched.known, watched.indices)
    found = _resumable(job, log) if resume else None
    if found is not None:
        standing = resume_from(found, job, log)
        for watched in job.watched.values():
            watched.last = watched.first if standing.step == 0 else None
        return standing
    for watched in job.watched.values():
        if watched.first is not None:
            log.add(watched.name, 0, watched.pairs, watched.indices, watched.first)
    standing = TrainState()
    _remember(job, standing)
    if job.accelerator.is_main_process:
        log.write()
        write_metadata(job.run / "pairs.parquet", [(seen.pairs, seen.indices) for seen in job.watched.values()])
    return standing


def _resumable(job: TrainingRun, log: PairLog) -> Path | None:
    """The checkpoint to resume from; None, with a warning where there are some, if the run must start over."""
    folder = job.run / "checkpoints"
    found = checkpoints.newest_whole(folder) if log.readable() else None
    if found is None and checkpoints.latest(folder) is not None:
        logger.warning("no checkpoint of %s can be used with its log of pairs: starting again from step 0", job.run)
    return found


def _account(job: TrainingRun, standing: TrainState) -> Account | None:
    """Who moves the weights from here on; None where that is turned off or cannot be told (the notes say why)."""
    account = open_account(job)
    if (
        account is not None
        and standing.step
        and not account.resume(checkpoints.at(job.run / "checkpoints", standing.step))
    ):
        job.notes.append("margins are described but not accounted for: the checkpoint holds no ledger")
        return None
    return account


def _look(job: TrainingRun, standing: TrainState, log: PairLog, records: MetricsLog) -> None:
    """Evaluate validation pairs and training probe; log every pair."""
    for name in ("validation", "train_probe"):
        watched = job.watched[name]
        if len(watched.indices):
            watched.last = evaluate(job.scoring, watched.known, watched.indices)
            log.add(name, standing.step, watched.pairs, watched.indices, watched.last)
            records.add("eval" if name == "validation" else name, standing.step, means(watched.last))
    _remember(job, standing)
    if job.accelerator.is_main_process:
        log.write()


def _remember(job: TrainingRun, standing: TrainState) -> None:
    """Add the evaluation to the history, and put its weights aside where they may be the ones to keep."""
    validation = job.watched["validation"]
    if validation.last is None:
        return
    now = Evaluation(standing.step, standing.spent, validation.last.margin, validation.last.log_loss)
    before = [seen for seen in standing.history if seen.step in standing.candidates]
    standing.history.append(now)
    standing.candidates = [seen.step for seen in candidates(before, now, validation.prompts)]
    if standing.step in standing.candidates:
        weights = whole(job.parameters, keep=job.accelerator.is_main_process)
        if job.accelerator.is_main_process:
            checkpoints.save_candidate(job.run / "checkpoints", standing.step, weights)
    job.accelerator.wait_for_everyone()


def _flattened(job: TrainingRun, standing: TrainState) -> str | None:
    """Why the run should stop where it stands, in words, or None."""
    if not job.config.stop_when_flat:
        return None
    return flattened(standing.history, job.watched["validation"].prompts)


def _going_on(run: Path) -> str:
    """Where a run that stops now can be taken up again."""
    found = checkpoints.latest(run / "checkpoints")
    return f"The last good weights are in {found}." if found else "No checkpoint was written yet."


def _finish(job: TrainingRun, standing: TrainState, log: PairLog, reason: str, speed: dict[str, float]) -> RunSummary:
    """Put the weights to keep back, measure them on validation and test pairs, and write what stays of the run."""
    validation, probe, test = (job.watched[name] for name in ("validation", "train_probe", "test"))
    for watched in (validation, probe):  # a run resumed at its very end has not looked yet
        if len(watched.indices) and watched.last is None:
            watched.last = evaluate(job.scoring, watched.known, watched.indices)
    warnings = []
    if validation.first is not None and validation.last is not None:
        grown = probe.last.margin.mean() if probe.last is not None else None
        warnings = alarms(validation.first, validation.last, grown)
    keep_best = job.config.load_best_model_at_end and validation.last is not None
    kept = standing.candidates[0] if keep_best else standing.step
    if kept != standing.step:
        checkpoints.load_weights(checkpoints.candidate(job.run / "checkpoints", kept), job.parameters)
    metrics = {}
    for watched in (validation, test):
        if len(watched.indices):
            stale = watched is test or kept != standing.step or watched.last is None
            values = evaluate(job.scoring, watched.known, watched.indices) if stale else watched.last
            assert values is not None
            metrics[watched.name] = means(values)
            if watched is test and kept > 0:
                log.add("test", kept, test.pairs, test.indices, values)
    output = "adapter" if job.policy.adapter is not None else "model"
    summary = RunSummary(
        version=job.version,
        base=job.policy.base,
        reference=job.identity["reference"],
        steps=standing.step,
        planned_steps=job.total,
        stop_reason=reason,
        best_step=kept,
        pairs={watched.pairs.split: len(watched.pairs) for watched in job.watched.values()},
        metrics=metrics,
        alarms=warnings + untrained(kept, standing.step),
        notes=job.notes,
        output=output,
        speed=speed,
    )
    held_out = next((seen for seen in (validation, test, probe) if len(seen.indices)), None)
    probe_of_saved = saved.measure(
        job.policy, *((held_out.pairs, held_out.indices) if held_out else (job.training, [0]))
    )
    weights = whole(job.parameters, keep=job.accelerator.is_main_process)
    if job.accelerator.is_main_process:
        log.write()
        saved.write(job.run, probe_of_saved)
        with saved.checked(job.run, output, probe_of_saved) as folder:
            job.policy.save(folder, weights)
            write_card(folder, job.policy.base, job.identity["config"], asdict(summary))
        write_json(job.run / "summary.json", asdict(summary))
    job.accelerator.wait_for_everyone()  # what the first process has written is there for all
    job.accelerator.end_training()
    return summary
