"""How far each annotator can be believed, and what that makes of each comparison: binary Dawid-Skene.

Two annotators who agree with everyone else deserve more weight than two who click at random; an annotator whose
labels are inverted deserves a negative one. The model is the one-coin case of Dawid and Skene (Applied Statistics 28,
1979) with a Beta prior that is shared among annotators, and a position bias for each annotator as a logit term:
logit P(vote = side shown first) = s_j z + b_j with z = +1 where the better response was shown first, else -1.
The surprise: a comparison on which one annotator voted says nothing about who is skilled, and EM would crawl towards
the prior on such rows, so they are judged by the estimate and take no part in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

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
    """How many votes' worth an annotator starts at the skill of all annotators of the source together."""
    tie_evidence: float = Field(0.25, ge=0, le=1)
    """How much of a vote a tie counts: evenly half for either side, half right and half wrong. Whole votes predict
    held-out votes worse (log loss .588 against .571 on UKPConvArg1, .650 against .566 on LLMFAO); none at all is better
    on one and worse on the other, and would call who always ties skilled (tests/bench/bench_agreement.py)."""
    max_strength: float = Field(2.0, ge=1)
    """The most that a graded vote counts, against one for the median strength of its source. Strength is evidence: on
    SQuALITY's ratings votes with a gap under .1 of the scale agree with the others 56 % of the time, those with .35 to
    .58 92 %, above that 97 % (tests/bench/bench_agreement.py)."""
    iterations: int = Field(50, ge=1)
    tolerance: float = Field(1e-4, gt=0)
    """Stop when no annotator's skill moves further than this."""


@dataclass(frozen=True)
class CodedVotes:
    """Votes as numbers, sorted by item and, within it, annotator. Arrays have shape (votes,), but for `group`."""

    item: NDArray[np.int32]
    annotator: NDArray[np.int32]
    direction: NDArray[np.float32]  # +1 for a, -1 for b, 0 for a tie
    evidence: NDArray[np.float32]  # strength x number of like votes; ties: the limit's tie_evidence
    first: NDArray[np.float32]  # +1 where a was shown first, -1 where b was, 0 unknown
    repeats: NDArray[np.int32]  # how many like votes this row stands for (anonymous votes)
    group: NDArray[np.int64]  # (annotators,) the source that each annotator's prior is shared in
    items: int

    @property
    def annotators(self) -> int:
        """How many annotators there are."""
        return len(self.group)


@dataclass(frozen=True)
class Reliability:
    """The estimate: `logit[i] > 0` means a is better, `skill[j]` is P(right), `bias[j]` the pull to the first side."""

    logit: Floats  # (items,)
    skill: Floats  # (annotators,)
    weight: Floats  # (annotators,) log-odds that one full vote moves a comparison
    bias: Floats  # (annotators,) logit added to the side shown first
    lean: Floats  # (annotators,) log-odds taken off the side shown first, whatever the vote
    prior_skill: Floats  # (groups,) share of right votes in each source: where its annotators start
    iterations: int
    converged: bool


def contribution(votes: CodedVotes, found: Reliability) -> NDArray[np.float32]:
    """Log-odds towards a that each vote brought, shape (votes,)."""
    weight, lean = found.weight.astype(np.float32), found.lean.astype(np.float32)
    towards_a = votes.direction * weight[votes.annotator]
    if votes.first.any():
        towards_a += votes.first * lean[votes.annotator]
    towards_a *= votes.evidence
    return towards_a


def without_own(votes: CodedVotes, found: Reliability) -> tuple[Floats, Floats]:
    """The log-odds of each vote's item with all votes, and without any of the vote's annotator; both (votes,)."""
    own = contribution(votes, found)
    new = _new_voter(votes)
    if not new.all():  # an anonymous source has several rows on an item, and they do not judge one another
        block = np.cumsum(new) - 1
        own = np.bincount(block, own)[block].astype(np.float32)
    whole = found.logit[votes.item]
    rest = whole - own
    rest[np.abs(rest) < 1e-4] = 0  # nobody else voted: what is left is rounding
    return whole, rest


def estimate(votes: CodedVotes, limits: ReliabilityLimits | None = None) -> Reliability:
    """Skill and bias of every annotator and the posterior of every item, by EM.

    Sides are exchangeable (P(a) = 1/2), so swapping a and b everywhere negates every logit and changes no skill.
    """
    limits = limits or ReliabilityLimits()
    shape = (votes.items, votes.annotators)
    rows = np.concatenate([[0], np.cumsum(np.bincount(votes.item, minlength=votes.items))])
    informative = _voters(votes) >= 2
    counted = votes.evidence * informative[votes.item]
    towards = sparse.csr_array((votes.direction * votes.evidence, votes.annotator, rows), shape=shape)
    placed = bool(votes.first.any())
    shown = sparse.csr_array((votes.first * votes.evidence, votes.annotator, rows), shape=shape) if placed else None
    total = _per_annotator(votes, counted)
    first_votes = _per_annotator(votes, counted * votes.direction * votes.first)
    del counted
    agree, lies_first = np.zeros(votes.annotators), np.zeros(votes.annotators)
    everyone = _everyone(votes.group, agree, agree, limits)
    found = _skills(agree, agree, agree, lies_first, everyone[votes.group], limits)
    done, steps = False, 0
    while not done and steps < limits.iterations:
        steps += 1
        logit = _logit(towards, shown, found)
        believed = np.tanh(logit / 2) * informative  # 2 P(a) - 1
        agree = towards.T @ believed
        if shown is not None:
            lies_first = shown.T @ believed
        everyone = _everyone(votes.group, total, agree, limits)
        before, found = found, _skills(total, first_votes, agree, lies_first, everyone[votes.group], limits)
        done = bool(np.abs(found[0] - before[0]).max(initial=0) < limits.tolerance)
    logit = _logit(towards, shown, found)
    return Reliability(logit, *found, prior_skill=everyone, iterations=steps, converged=done)


def _voters(votes: CodedVotes) -> NDArray[np.int64]:
    """How many different annotators voted on each item: the likes of an anonymous source are one, shape (items,)."""
    return np.bincount(votes.item, _new_voter(votes), minlength=votes.items).astype(np.int64)


def _new_voter(votes: CodedVotes) -> NDArray[np.bool_]:
    new = np.ones(len(votes.item), bool)
    new[1:] = (votes.item[1:] != votes.item[:-1]) | (votes.annotator[1:] != votes.annotator[:-1])
    return new


def _everyone(group: NDArray[np.int64], total: Floats, agree: Floats, limits: ReliabilityLimits) -> Floats:
    """The share of right votes in each group, with its Beta prior."""
    right, cast = np.bincount(group, (total + agree) / 2), np.bincount(group, total)
    return np.asarray((limits.prior_right + right) / (limits.prior_right + limits.prior_wrong + cast), np.float64)


def _per_annotator(votes: CodedVotes, values: NDArray[np.float32]) -> Floats:
    return np.bincount(votes.annotator, values, minlength=votes.annotators).astype(np.float64)


def _logit(towards: sparse.csr_array, shown: sparse.csr_array | None, found: tuple[Floats, ...]) -> Floats:
    logit: Floats = towards @ found[1]
    return logit if shown is None else logit + shown @ found[3]


def _skills(
    total: Floats, first_votes: Floats, agree: Floats, lies_first: Floats, everyone: Floats, limits: ReliabilityLimits
) -> tuple[Floats, Floats, Floats, Floats]:
    """Maximum of the M-step in closed form: skill, weight, bias and lean of every annotator.

    A vote is one of four cells, (voted for the first, first is better). With o = +-1 for the side shown first, d the
    direction and t = 2P(a) - 1, cell masses are u(1 +- od)(1 +- ot)/4; where the order is unknown o = 0 spreads the
    vote over both, so one formula serves all. The 2 x 2 table is saturated by (s, b): logit P(first | z) = sz + b.
    """
    right, wrong = limits.prior_votes * everyone / 2, limits.prior_votes * (1 - everyone) / 2
    hit = (total + first_votes + lies_first + agree) / 4 + right  # first chosen, first better
    miss = (total - first_votes + lies_first - agree) / 4 + wrong  # second chosen, first better
    lured = (total + first_votes - lies_first - agree) / 4 + wrong  # first chosen, second better
    sound = (total - first_votes - lies_first + agree) / 4 + right  # second chosen, second better
    if_first, if_second = np.log(hit / miss), np.log(lured / sound)
    weight, bias = (if_first - if_second) / 2, (if_first + if_second) / 2
    vote_first = np.log(hit / (hit + miss)) - np.log(lured / (lured + sound))
    vote_second = np.log(miss / (hit + miss)) - np.log(sound / (lured + sound))
    return 1 / (1 + np.exp(-weight)), weight, bias, (vote_first + vote_second) / 2
