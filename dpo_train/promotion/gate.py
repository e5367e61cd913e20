"""The promotion gate: may a challenger take the champion's place?

Both are judged on the held-out pairs that both were evaluated on, pair against pair. The challenger must be better
overall (or, for a plain refresh, not worse), and not worse on any protected slice. Since ALL of these must hold, no
correction for many tests is due (intersection–union test, Berger 1982). A slice too small to judge is "not tested",
never "passed". "No decision" is a possible result; the champion then stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dpo_train.config import TrainError
from dpo_train.data.axes import Axis, label, left_out
from dpo_train.promotion.compare_runs import HeadToHead, choose_split, meet, scores
from dpo_train.promotion.paired_tests import Kind, Metric, PairedTest, Question, amount, paired_test
from dpo_train.slices.margin_change import hits
from dpo_train.statistics import Bools, Floats

Outcome = Literal["promote", "reject", "no decision"]
Level = Literal["green", "amber", "red"]
ALL = "all held-out pairs"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GateSettings(_Frozen):
    """What a challenger must show. Losses are in units of the metric: .005 is half a point of accuracy, or .005 nats.

    The allowances and the smallest slice are engineering defaults, nobody's published numbers: with 100 prompts and
    15 % discordant pairs a slice can show a loss of about ten points and no less.
    """

    split: str | None = None  # None: test where both runs have it, else validation
    metric: Metric = "accuracy"
    question: Kind = "superiority"
    confidence: float = Field(default=0.95, gt=0.5, lt=1)  # of each one-sided bound
    allowed_loss: float = Field(default=0.005, gt=0)  # read only by question: non-inferiority
    protected: tuple[str, ...] = ("source",)  # axes of the slice report
    allowed_slice_loss: float = Field(default=0.03, gt=0)
    fewest_prompts: int = Field(default=30, ge=2)
    fewest_slice_prompts: int = Field(default=100, ge=2)
    seed_sd: float | None = Field(default=None, gt=0)  # of the metric between retrainings that differ by seed alone
    displaced_share: float = Field(default=0.5, ge=0, le=1)
    amber_drift: float = Field(default=-0.05, lt=0)  # mean log-ratio of chosen, nats a token
    red_drift: float = Field(default=-0.2, lt=0)
    length_gap_growth: float = Field(default=0.05, gt=0)


class Guard(_Frozen):
    """A number that says something else than who wins: a red one rejects, an amber one is for people to read."""

    name: str
    champion: float | None
    challenger: float | None
    level: Level
    sentence: str


class Judged(_Frozen):
    """Which run was judged, at which step, by which log."""

    run: str
    step: int
    pair_log_sha256: str


class Decision(_Frozen):
    """What the gate says, and every number it rests on; `model_dump(mode="json")` for a file."""

    decision: Outcome
    because: str
    notes: tuple[str, ...]
    tests: tuple[PairedTest, ...]
    guards: tuple[Guard, ...]
    split: str
    pairs: int  # held out by both
    prompts: int
    only_champion: int
    only_challenger: int
    trained_on: int
    champion: Judged
    challenger: Judged
    settings: GateSettings

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything the gate has to say, the decision first."""
        said = (*(test.sentence for test in self.tests), *(guard.sentence for guard in self.guards))
        return (f"{self.decision.capitalize()}: {self.because}", *said, *self.notes)


def gate(champion_run: Path | None, challenger_run: Path, settings: GateSettings) -> Decision:
    """Judge a challenger against the champion (None: against the untrained reference).

    Both arguments are run folders with pair_log.parquet and pairs.parquet. Raises `TrainError` where a log is missing
    or broken, where the runs share no split, or where a protected axis does not exist.
    """
    split = choose_split(champion_run, challenger_run, settings.split)
    met = meet(champion_run, challenger_run, split)
    if not np.isfinite(met.champion_margin).all():
        raise TrainError(
            f"champion {met.champion.name} has margins that are not numbers in split {split}: evaluate it again."
        )
    broken = int((~np.isfinite(met.challenger_margin)).sum())
    if broken:
        because = f"{broken} of the challenger's {len(met.pair_ids)} margins are not numbers."
        return _decision("reject", because, met, settings, (), ())
    tests = paired_tests(met, settings)
    guards = guard_rails(met, settings)
    outcome, because = decide(tests, guards, settings)
    return _decision(outcome, because, met, settings, tests, guards)


def decide(tests: tuple[PairedTest, ...], guards: tuple[Guard, ...], settings: GateSettings) -> tuple[Outcome, str]:
    """Reject on proof of harm, promote when all that could be tested passed, else no decision; and why, in words."""
    primary = tests[0]
    harm = [test.sentence for test in tests if test.verdict == "failed"]
    harm += [guard.sentence for guard in guards if guard.level == "red"]
    if harm:
        return "reject", " ".join(harm)
    if primary.verdict != "passed":
        return "no decision", primary.sentence
    unsure = [test.sentence for test in tests[1:] if test.verdict == "undecided"]
    if unsure:
        return "no decision", "Better overall, but a loss is not excluded. " + " ".join(unsure)
    noise = 2 * settings.seed_sd if settings.seed_sd is not None and settings.question == "superiority" else 0.0
    if primary.difference is not None and primary.difference < noise:
        gain, spread = (amount(value, settings.metric) for value in (primary.difference, noise))
        return "no decision", f"The gain of {gain} is within two standard deviations of retraining, {spread}."
    return "promote", primary.sentence


def paired_tests(met: HeadToHead, settings: GateSettings) -> tuple[PairedTest, ...]:
    """The test over all pairs, then one for every slice of every protected axis."""
    champion, challenger = scores(met, settings.metric)

    def test(axis: str, name: str, members: Bools) -> PairedTest:
        kind: Kind = "non-inferiority" if axis else settings.question
        allowed = settings.allowed_slice_loss if axis else settings.allowed_loss
        limit = 0.0 if kind == "superiority" else -allowed
        fewest = settings.fewest_slice_prompts if axis else settings.fewest_prompts
        asked = Question(axis, name, kind, settings.metric, limit, fewest, settings.confidence)
        return paired_test(asked, champion[members], challenger[members], met.groups[members])

    tests = [test("", ALL, np.ones(len(champion), dtype=np.bool_))]
    for name, axis in protected_axes(met, settings).items():
        tests += [test(name, level, axis.codes == code) for code, level in enumerate(axis.levels)]
    return tuple(tests)


def protected_axes(met: HeadToHead, settings: GateSettings) -> dict[str, Axis]:
    """The protected axes that split the pairs; one on which all pairs agree is tested by the test over all pairs."""
    if not len(met.pair_ids):
        return {}
    known, silent = label(met.columns), left_out(met.columns)
    for name in settings.protected:
        if name not in known and not silent.get(name, "no such axis").startswith("all pairs are"):
            raise TrainError(
                f"protected axis {name!r} cannot be tested: {silent.get(name, 'the run has no such column')}. "
                f"Axes of this run: {', '.join(known) or 'none'}."
            )
    return {name: known[name] for name in settings.protected if name in known}


def guard_rails(met: HeadToHead, settings: GateSettings) -> tuple[Guard, ...]:
    """Drift of the chosen responses, and how much better longer winners are ranked than shorter ones."""
    if not len(met.pair_ids):
        return ()
    found = [_drift(met, settings)]
    gap = met.columns["tokens_chosen"] - met.columns["tokens_rejected"]
    before, after = (_length_gap(margin, gap) for margin in (met.champion_margin, met.challenger_margin))
    if before is not None and after is not None:
        level: Level = "amber" if after - before > settings.length_gap_growth else "green"
        said = f"Longer winners are ranked right {100 * after:+.1f} points more often than shorter ones; "
        said += f"by the champion, {100 * before:+.1f}."
        found.append(Guard(name="length gap", champion=before, challenger=after, level=level, sentence=said))
    return tuple(found)


def _drift(met: HeadToHead, settings: GateSettings) -> Guard:
    """Mean log-ratio of chosen per token, and how often it fell among the pairs that the challenger ranks right."""
    logratio = met.columns["logp_chosen"] - met.columns["ref_logp_chosen"]
    drift = float(np.mean(logratio / np.maximum(met.columns["tokens_chosen"], 1)))
    right = met.challenger_margin > 0
    displaced = float(np.mean(logratio[right] < 0)) if right.any() else 0.0
    fallen = drift < settings.amber_drift and displaced > settings.displaced_share
    level: Level = "red" if drift < settings.red_drift else "amber" if fallen else "green"
    said = f"Chosen responses moved {drift:+.3f} nats a token from the challenger's reference; "
    said += f"{displaced:.0%} of those in pairs ranked right became less likely."
    return Guard(name="drift of chosen", champion=None, challenger=drift, level=level, sentence=said)


def _length_gap(margin: Floats, gap: Floats) -> float | None:
    """Accuracy where chosen is longer minus accuracy where it is shorter."""
    if not (gap > 0).any() or not (gap < 0).any():
        return None
    return float(hits(margin[gap > 0]).mean() - hits(margin[gap < 0]).mean())


def _notes(met: HeadToHead, settings: GateSettings) -> tuple[str, ...]:
    notes = [
        f"Compared on the {len(met.pair_ids)} {met.split} pairs that both hold out; "
        f"{met.only_champion} more are the champion's alone, {met.only_challenger} the challenger's."
    ]
    if met.trained_on:
        notes.append(f"{met.trained_on} shared pairs were left out: their prompts stand in a training probe.")
    if met.split == "validation":
        notes.append(
            "These validation pairs also chose where training stopped, so both runs look better than they are."
        )
    if settings.seed_sd is None:
        notes.append("How much retraining alone moves the result was not measured: the verdict is about these weights.")
    return tuple(notes)


def _decision(
    outcome: Outcome,
    because: str,
    met: HeadToHead,
    settings: GateSettings,
    tests: tuple[PairedTest, ...],
    guards: tuple[Guard, ...],
) -> Decision:
    champion, challenger = (
        Judged(run=side.name, step=side.step, pair_log_sha256=side.digest) for side in (met.champion, met.challenger)
    )
    return Decision(
        decision=outcome,
        because=because,
        notes=_notes(met, settings),
        tests=tests,
        guards=guards,
        split=met.split,
        pairs=len(met.pair_ids),
        prompts=len(np.unique(met.groups)),
        only_champion=met.only_champion,
        only_challenger=met.only_challenger,
        trained_on=met.trained_on,
        champion=champion,
        challenger=challenger,
        settings=settings,
    )
