"""What an annotator is like: skill, pull to one place, readiness to tie; their priors, and their maximum.

This is the M-step of the estimate in `reliability`: from how the posterior spreads each annotator's votes over the
three states of a comparison to the annotator's numbers, and from these to what a vote of the annotator weighs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, logit

from dpo_data.settings import Settings

Floats = NDArray[np.float64]


class ReliabilityLimits(Settings):
    """Priors and stopping rule of the estimate."""

    prior_right: float = Field(20.0, gt=0)
    """Beta(20, 10) on the share of right votes in a source: two thirds, a little better than chance, on the word of 30
    votes. A source with a single vote everywhere gets its mean as confidence: unknown, not certain, whatever other
    sources show; a few comparisons shared by two sources, often copies of one another, make neither of them sure."""
    prior_wrong: float = Field(10.0, gt=0)
    prior_votes: float = Field(8.0, gt=0)
    """How many votes' worth an annotator starts at the skill and the readiness to tie of the whole source."""
    prior_tie_neither: float = Field(0.7, gt=0, lt=1)
    """How often a typical annotator says tie where neither is better. Fitted: .52 on UKPConvArg1, .72 on LLMFAO, .82 on
    PandaLM (tests/bench/bench_calibration.py)."""
    prior_tie_side: float = Field(0.1, gt=0, lt=1)
    """The same where one side is better. Fitted: .17, .14 and .01."""
    prior_ties: float = Field(30.0, gt=0)
    """On the word of how many votes, as for right votes. On that of as many comparisons the share of them of which
    neither is better starts at the source's share of tie votes: .24, .39 and .11, where .20, .41 and .11 are fitted."""
    max_strength: float = Field(2.0, ge=1)
    """The most that a graded vote counts, against one for the median strength of its source. Strength is evidence: on
    SQuALITY's ratings votes with a gap under .1 of the scale agree with the others 56 % of the time, those with .35 to
    .58 92 %, above that 97 % (tests/bench/bench_agreement.py)."""
    iterations: int = Field(50, ge=1)
    """Maximum number of EM steps; changes after fifty do not affect how well hidden votes are predicted."""
    tolerance: float = Field(1e-4, gt=0)
    """Stop when no annotator's skill moves further than this,"""
    tolerance_neither: float = Field(1e-3, gt=0)
    """and no source's share of comparisons of which neither is better further than this."""


@dataclass(frozen=True)
class ExpectedCounts:
    """Each annotator's votes as the posterior spreads them over the states, in votes; arrays of shape (annotators,).

    With o = +-1 for the side shown first (0 unknown), d for the side voted for, t = P(a) - P(b):
    """

    side: Floats  # decided votes where one side is better
    neither: Floats  # decided votes where neither is
    first_side: Floats  # sum of o d over the first, and over the second
    first_neither: Floats
    lies_first: Floats  # sum of o t
    agree: Floats  # sum of d t
    ties_side: Floats  # ties where one side is better, and where neither is
    ties_neither: Floats


@dataclass(frozen=True)
class Weights:
    """What one full vote adds to the log-odds of its comparison; arrays of shape (annotators,)."""

    side: Floats  # of a over b, by a vote for a
    lean: Floats  # of the side shown first over the other, by any decided vote
    decided: Floats  # of neither over the geometric mean of both sides, by a decided vote
    placed: Floats  # the same, more by a vote for the side shown first, less by one for the other
    tie: Floats  # the same, by a tie


@dataclass(frozen=True)
class Skills:
    """The annotators, and what their sources have in common."""

    skill: Floats  # (annotators,) P(right) of a decided vote where one side is better
    bias: Floats  # (annotators,) logit added to the side shown first
    weights: Weights
    readiness: Floats  # (annotators,) odds of a tie, as a multiple of the typical annotator's
    right: Floats  # (groups,) share of right votes
    tie_odds: tuple[Floats, Floats]  # (groups,) of the typical annotator, where neither is better and where a side is


def start(group: NDArray[np.int64], limits: ReliabilityLimits) -> Skills:
    """Everybody as the priors have them; `group` is the source of each annotator, shape (annotators,)."""
    none, groups = np.zeros(len(group)), int(group.max(initial=-1)) + 1
    odds = np.exp(logit([limits.prior_tie_neither, limits.prior_tie_side]))
    before = (np.full(groups, odds[0]), np.full(groups, odds[1]))
    return _skills(ExpectedCounts(*[none] * 8), np.ones(len(group)), before, group, limits)


def maximise(
    masses: ExpectedCounts, before: Skills, tie_share: Floats, group: NDArray[np.int64], limits: ReliabilityLimits
) -> Skills:
    """The M-step: exact for votes for a side, one step uphill (below) for ties. `tie_share` has shape (groups,).

    P(tie) = r o / (1 + r o) with r an annotator's and o a state's. Since log(1 + r o) lies below its tangent, raising
    the bound that uses the tangent has a closed form and never lowers the likelihood (Hunter and Lange, The American
    Statistician 58, 2004). r has a Gamma prior with mean 1 and as many ties as `prior_votes` votes bring.
    """
    (neither, side), r = before.tie_odds, before.readiness
    cast_neither, cast_side = masses.neither + masses.ties_neither, masses.side + masses.ties_side
    expected = cast_neither * neither[group] / (1 + r * neither[group]) + cast_side * side[group] / (
        1 + r * side[group]
    )
    prior = limits.prior_votes * tie_share[group]
    said = masses.ties_neither + masses.ties_side
    r = np.divide(said + prior, expected + prior, out=np.zeros_like(r), where=prior > 0)  # who never ties, never does

    def odds(ties: Floats, cast: Floats, before: Floats, share: float) -> Floats:
        exposed = np.bincount(group, cast * r / (1 + r * before[group]), minlength=len(before))
        said = np.bincount(group, ties, minlength=len(before))
        return np.asarray((said + limits.prior_ties * share) / (exposed + limits.prior_ties * (1 - share)), np.float64)

    # "Neither" is what a typical annotator calls a tie at least as often as not: without this it could be mere noise.
    neither = np.maximum(odds(masses.ties_neither, cast_neither, neither, limits.prior_tie_neither), 1)
    side = np.minimum(odds(masses.ties_side, cast_side, side, limits.prior_tie_side), neither)
    return _skills(masses, r, (neither, side), group, limits)


def _skills(
    masses: ExpectedCounts,
    r: Floats,
    tie_odds: tuple[Floats, Floats],
    group: NDArray[np.int64],
    limits: ReliabilityLimits,
) -> Skills:
    """Skill, bias and weights in closed form.

    A decided vote is one of four cells, (voted for the first, first is better), or one of two where neither is better.
    Cell masses are u(1 +- od)(1 +- ot)/4; where the order is unknown o = 0 spreads the vote over both, so one formula
    serves all. The 2 x 2 table is saturated by (s, b): logit P(first | z) = sz + b.
    """
    groups = len(tie_odds[0])
    right = np.bincount(group, (masses.side + masses.agree) / 2, minlength=groups) + limits.prior_right
    everyone = right / (np.bincount(group, masses.side, minlength=groups) + limits.prior_right + limits.prior_wrong)
    sound, wrong = (limits.prior_votes * share / 2 for share in (everyone[group], 1 - everyone[group]))
    first_first = (masses.side + masses.first_side + masses.lies_first + masses.agree) / 4 + sound
    second_first = (masses.side - masses.first_side + masses.lies_first - masses.agree) / 4 + wrong
    first_second = (masses.side + masses.first_side - masses.lies_first - masses.agree) / 4 + wrong
    second_second = (masses.side - masses.first_side - masses.lies_first + masses.agree) / 4 + sound
    if_first, if_second = np.log(first_first / second_first), np.log(first_second / second_second)
    neither = masses.neither + limits.prior_votes
    if_neither = np.log((neither + masses.first_neither) / (neither - masses.first_neither))
    side, bias = (if_first - if_second) / 2, (if_first + if_second) / 2
    # log P(first) and log P(second) in the three states: first better, second better, neither
    states = np.stack([if_first, if_second, if_neither])
    vote_first, vote_second = np.log(expit(states)), np.log(expit(-states))
    lean = (vote_first[0] - vote_first[1] + vote_second[0] - vote_second[1]) / 2
    for_first, for_second = (vote[2] - (vote[0] + vote[1]) / 2 for vote in (vote_first, vote_second))
    able = np.log1p(r * tie_odds[1][group]) - np.log1p(r * tie_odds[0][group])  # could have said tie, and did not
    weights = Weights(
        side=side,
        lean=lean,
        decided=(for_first + for_second) / 2 + able,
        placed=(for_first - for_second) / 2,
        tie=np.log(tie_odds[0] / tie_odds[1])[group] + able,
    )
    return Skills(expit(side), bias, weights, r, everyone, tie_odds)
