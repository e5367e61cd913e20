"""The annotator table: who votes, how well, how evenly, and what would change without them.

Accuracy is leave-one-out: every vote is held against what all OTHER votes on its comparison say, corrected for how
unsure those are, so that a good annotator among noisy ones is not blamed for them. (The others' skills were estimated
once, with this annotator present.) Judge models are in the same table. Note: the anonymous votes of a source are one
pseudo-annotator, which is never flagged, since the number of people behind it is unknown.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dpo_data.intervals import Z95, wilson
from dpo_data.votes.agreement import KEY, code, collapse
from dpo_data.votes.annotator_model import ReliabilityLimits
from dpo_data.votes.dawid_skene import CodedVotes, Reliability, estimate, without_own

Floats = NDArray[np.float64]


FLAG_Z = 2.5758
"""Flags use 99% intervals: at 95%, a table of hundreds of annotators would flag dozens by chance. Inverted: the whole
interval is below one half. Random: accuracy is at most one half, the whole interval is below the mean accuracy of the
source's votes, and accuracy is closer to one half than to that mean."""
MIN_JUDGED = 10.0
"""Effective votes that others' votes can judge; with fewer, a single dissent would flag a person. Our choice."""


def annotators(
    votes: pl.DataFrame,
    reliability: ReliabilityLimits | None = None,
    collapsed: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """One row per source and annotator, most votes first.

    source, annotator (null: the anonymous votes of the source), kind, votes, tie_share, flag (null, random, inverted);
    skill: the estimate of P(right); accuracy, accuracy_low, accuracy_high: leave-one-out, 95 %, on `judged` votes (an
    effective number, votes whose comparison others voted on); position_n, first_share, first_low, first_high: decided
    votes whose order is known and how many chose the side shown first; position_bias: the same as a logit of the model;
    repeats, repeat_consistency: comparisons voted more than once and the share answered alike; flips: decisions that
    would change or vanish without this annotator (null for anonymous votes). `reliability` are the settings that the
    ledger's confidences were estimated with; `collapsed` is `collapse(votes)`, where the caller has it already.
    """
    reliability = reliability or ReliabilityLimits()
    coded, _, people = code(collapse(votes) if collapsed is None else collapsed, reliability)
    found = estimate(coded, reliability)
    table = people.with_columns(**leave_one_out(coded, found), **_counts(coded)).with_columns(
        pl.Series("skill", found.skills.skill), pl.Series("position_bias", found.skills.bias)
    )
    table = table.join(_position(votes), on=["source", "annotator"], how="left", nulls_equal=True)
    table = table.join(_repeats(votes), on=["source", "annotator"], how="left", nulls_equal=True)
    named = pl.col("annotator").is_not_null()
    return table.select(
        "source",
        "annotator",
        pl.col("annotator_kind").alias("kind"),
        "votes",
        "tie_share",
        "skill",
        *(pl.col(name).fill_nan(None) for name in ("judged", "accuracy", "accuracy_low", "accuracy_high")),
        pl.col("position_n").fill_null(0),
        *(pl.col(name).fill_nan(None) for name in ("first_share", "first_low", "first_high")),
        pl.when(pl.col("position_n") > 0).then("position_bias").alias("position_bias"),
        pl.col("repeats").fill_null(0),
        "repeat_consistency",
        pl.when(named).then("flag").alias("flag"),
        pl.when(named).then("flips").alias("flips"),
    ).sort("votes", "source", "annotator", descending=[True, False, False])


def leave_one_out(votes: CodedVotes, found: Reliability) -> dict[str, pl.Series]:
    """Leave-one-out accuracy with its interval, the flag, and the decisions that flip without the annotator.

    With c and d the others' posterior of their choice and of the other side, and a coin where neither is better,
    P(agree) = 1/2 + (skill - 1/2) s, s = c - d. Weighting votes by s (a coin toss of the others judges nobody, nor does
    a comparison in which they see no difference) the weighted agreement is (1 - B) / 2 + B skill, B = sum s^2 / sum s;
    its Wilson interval on Kish's n = (sum s)^2 / sum s^2 maps to the skill by the same line.
    """
    whole, rest, neither = without_own(votes, found)
    flips = np.sign(np.where(np.abs(whole) < 1e-4, 0, whole)) != np.sign(rest)
    surplus = (1 - neither) * np.abs(np.tanh(rest / 2)) * (votes.direction != 0)
    weight = surplus * votes.repeats

    def total(values: NDArray[Any]) -> Floats:
        return np.bincount(votes.annotator, values, minlength=votes.annotators).astype(np.float64)

    mass, square = total(weight), total(weight * surplus)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate, n = total(weight * (votes.direction * rest > 0)) / mass, np.where(mass > 0, mass**2 / square, 0)
        accuracy = _unmixed(rate, square / mass)
        low, high = _interval(rate, n, square / mass, Z95)
        sure_low, sure_high = _interval(rate, n, square / mass, FLAG_Z)
        earned = np.bincount(votes.group, np.nan_to_num(accuracy) * n) / np.bincount(votes.group, n)
    typical = earned[votes.group]  # NaN where nobody of the source could be judged: nobody is flagged there
    chance = (sure_low <= 0.5) & (sure_high < typical) & (accuracy < (0.5 + typical) / 2)
    flag = np.where(chance, "random", "")
    flag = np.where(sure_high < 0.5, "inverted", flag)
    flag = np.where(n >= MIN_JUDGED, flag, "")
    columns = {"judged": n, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    return {
        **{name: pl.Series(values) for name, values in columns.items()},
        "flag": pl.Series(flag).replace("", None),
        "flips": pl.Series(total(flips).astype(np.uint32)),
    }


def _unmixed(rate: Floats, slope: Floats) -> Floats:
    """The accuracy that agrees at `rate` with others who are right with probability (1 + slope) / 2."""
    return np.asarray(np.clip((rate - (1 - slope) / 2) / slope, 0, 1), np.float64)


def _interval(rate: Floats, n: Floats, slope: Floats, z: float) -> tuple[Floats, Floats]:
    """Wilson's interval of the agreement as one of the accuracy, but never narrower than if the others were perfect."""
    low, high = wilson(rate, n, z)
    least_low, least_high = wilson(_unmixed(rate, slope), n, z)
    return np.fmin(_unmixed(low, slope), least_low), np.fmax(_unmixed(high, slope), least_high)


def _counts(votes: CodedVotes) -> dict[str, pl.Series]:
    cast = np.bincount(votes.annotator, votes.repeats, minlength=votes.annotators)
    ties = np.bincount(votes.annotator, votes.repeats * (votes.direction == 0), minlength=votes.annotators)
    return {"votes": pl.Series(cast.astype(np.uint32)), "tie_share": pl.Series(ties / np.maximum(cast, 1))}


def _position(votes: pl.DataFrame) -> pl.DataFrame:
    """Share of decided votes for the side shown first, over the votes as cast (both orders of a judge count).

    A vote that stands in several batches, read again in a file that grew, was cast once.
    """
    known = votes.filter(pl.col("shown_first").is_not_null() & (pl.col("choice") != "tie"))
    if "batch" in known.columns and known["batch"].n_unique() > 1:
        known = known.unique([*KEY, "choice", "shown_first", "at", "origin"])
    shares = known.group_by("source", "annotator").agg(
        pl.len().cast(pl.UInt32).alias("position_n"),
        (pl.col("choice") == pl.col("shown_first")).mean().alias("first_share"),
    )
    low, high = wilson(shares["first_share"].to_numpy(), shares["position_n"].to_numpy())
    return shares.with_columns(pl.Series("first_low", low), pl.Series("first_high", high))


def _repeats(votes: pl.DataFrame) -> pl.DataFrame:
    """How often an annotator saw a comparison more than once in one batch, and answered the same each time."""
    group = [*KEY, *(["batch"] if "batch" in votes.columns else [])]
    again = votes.filter(pl.col("annotator").is_not_null() & pl.struct(group).is_duplicated())
    return (
        again.group_by(group)
        .agg((pl.col("choice").n_unique() == 1).alias("same"))
        .group_by("source", "annotator")
        .agg(pl.len().cast(pl.UInt32).alias("repeats"), pl.col("same").mean().alias("repeat_consistency"))
    )
