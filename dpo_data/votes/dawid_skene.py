"""How far each annotator can be believed, and what that makes of each comparison: Dawid-Skene with a third state.

Of two responses a is better, b is better, or neither is. Two annotators who agree with everyone else deserve more
weight than two who click at random; an annotator whose labels are inverted deserves a negative one. The model is Dawid
and Skene's (Applied Statistics 28, 1979) with exchangeable sides:

* a vote for a side: logit P(vote = side shown first) = s_j z + b_j with z = +1 where the better response was shown
  first, else -1, and a Beta prior on P(right) that is shared among annotators; a coin where neither is better;
* a tie: odds r_j o, with r_j how readily the annotator says tie, and o larger where neither is better (Davidson's
  model, JASA 65, 1970, has one o that follows the distance of the two; here there are two distances).

A tie is evidence of neither, and so are votes both ways. Where a source has no ties, nothing can tell neither from
noise: there is none, and the posterior is that of one of two sides. A comparison on which one annotator
voted says nothing about who is skilled, and EM would crawl towards the prior on such rows, so they are judged by the
estimate and take no part in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from dpo_data.votes.annotator_model import ExpectedCounts, ReliabilityLimits, Skills, Weights, maximise, start

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CodedVotes:
    """Votes as numbers, sorted by item and, within it, annotator. Arrays have shape (votes,), but for `group`."""

    item: NDArray[np.int32]
    annotator: NDArray[np.int32]
    direction: NDArray[np.float32]  # +1 for a, -1 for b, 0 for a tie
    evidence: NDArray[np.float32]  # strength x number of like votes; a tie has no strength
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
    """The estimate: of every comparison, and of every annotator and source (`Skills`)."""

    logit: Floats  # (items,) log P(a better) / P(b better)
    neither_logit: Floats  # (items,) log P(neither better) / P(one is)
    skills: Skills
    prior_neither: Floats  # (groups,) share of the source's comparisons of which neither response is better
    iterations: int
    converged: bool

    @property
    def probabilities(self) -> tuple[Floats, Floats, Floats]:
        """P(a better), P(b better), P(neither better), each (items,)."""
        one = expit(-self.neither_logit)
        return one * expit(self.logit), one * expit(-self.logit), expit(self.neither_logit)


def contributions(votes: CodedVotes, weights: Weights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Log-odds of a over b, and of neither over both, that each vote brought; both (votes,)."""
    tie = votes.direction == 0
    towards_a = votes.direction * weights.side.astype(np.float32)[votes.annotator]
    neither = np.where(tie, weights.tie[votes.annotator], weights.decided[votes.annotator]).astype(np.float32)
    if votes.first.any():
        towards_a += ~tie * votes.first * weights.lean.astype(np.float32)[votes.annotator]
        neither += votes.direction * votes.first * weights.placed.astype(np.float32)[votes.annotator]
    return towards_a * votes.evidence, neither * votes.evidence


def without_own(votes: CodedVotes, found: Reliability) -> tuple[Floats, Floats, Floats]:
    """What each vote's comparison is without any of the annotator's votes on it; all (votes,).

    The log-odds of a over b with them, the same without, and P(neither) without.
    """
    own, own_neither = contributions(votes, found.skills.weights)
    new = _new_voter(votes)
    if not new.all():  # an anonymous source has several rows on an item, and they do not judge one another
        block = np.cumsum(new) - 1
        own, own_neither = (np.bincount(block, each)[block].astype(np.float32) for each in (own, own_neither))
    whole = found.logit[votes.item]
    rest = whole - own
    rest[np.abs(rest) < 1e-4] = 0  # nobody else voted: what is left is rounding
    odds = (found.neither_logit + _both(found.logit))[votes.item] - own_neither
    return whole, rest, expit(odds - _both(rest))


def estimate(votes: CodedVotes, limits: ReliabilityLimits | None = None) -> Reliability:
    """Skill, bias and readiness to tie of every annotator, and the posterior of every item, by EM.

    Sides are exchangeable (P(a) = P(b)), so swapping a and b everywhere negates every logit and changes nothing else.
    """
    limits = limits or ReliabilityLimits()
    evidence, group = _Evidence(votes), votes.group
    skills, prior = start(group, limits), evidence.tie_share
    done, steps = False, 0
    while not done and steps < limits.iterations:
        steps += 1
        logit, neither = evidence.posterior(skills.weights, prior)
        masses = evidence.masses(logit, expit(neither))
        before, skills = skills, maximise(masses, skills, evidence.tie_share, group, limits)
        known, prior = prior, evidence.share_of_neither(expit(neither), limits.prior_ties)
        still = np.abs(skills.skill - before.skill).max(initial=0) < limits.tolerance
        done = bool(still and np.abs(prior - known).max(initial=0) < limits.tolerance_neither)
    logit, neither = evidence.posterior(skills.weights, prior)
    return Reliability(logit, neither, skills, prior_neither=prior, iterations=steps, converged=done)


class _Evidence:
    """The votes as sparse matrices (items, 2 annotators), votes for a side in the first half of the columns, ties in
    the second, so that one product serves both; and what no step of EM changes."""

    def __init__(self, votes: CodedVotes) -> None:
        self.people, tie = votes.annotators, votes.direction == 0
        rows = np.concatenate([[0], np.cumsum(np.bincount(votes.item, minlength=votes.items))])
        columns = votes.annotator + np.where(tie, np.int32(self.people), np.int32(0))

        def matrix(values: NDArray[np.float32]) -> sparse.csr_array:
            return sparse.csr_array((values, columns, rows), shape=(votes.items, 2 * self.people))

        self.cast = matrix(votes.evidence)
        self.towards = matrix(votes.direction * votes.evidence)
        placed = bool(votes.first.any())
        self.shown = matrix(~tie * votes.first * votes.evidence) if placed else None
        self.placed = matrix(votes.direction * votes.first * votes.evidence) if placed else None
        groups = int(votes.group.max(initial=-1)) + 1
        source = votes.group.astype(np.int32)[votes.annotator]
        total = np.bincount(source, votes.repeats, minlength=groups)
        ties = np.bincount(source, votes.repeats * tie, minlength=groups)
        self.tie_share: Floats = ties / np.maximum(total, 1)  # (groups,)
        share = votes.repeats / np.bincount(votes.item, votes.repeats, minlength=votes.items)[votes.item]
        self.sources = sparse.csr_array((share.astype(np.float32), source, rows.copy()), shape=(votes.items, groups))
        self.sources.sum_duplicates()
        self.informative = np.bincount(votes.item, _new_voter(votes), minlength=votes.items) >= 2

    def posterior(self, weights: Weights, prior: Floats) -> tuple[Floats, Floats]:
        """Logits of every item, a against b and neither against both; `prior` (groups,) is P(neither) without votes."""
        logit = self.towards @ np.concatenate([weights.side, np.zeros(self.people)])
        odds = self.cast @ np.concatenate([weights.decided, weights.tie])
        if self.shown is not None and self.placed is not None:
            logit += self.shown @ np.concatenate([weights.lean, np.zeros(self.people)])
            odds += self.placed @ np.concatenate([weights.placed, np.zeros(self.people)])
        share = np.minimum(self.sources @ prior, 1)  # shares of several sources add up to one but for rounding
        with np.errstate(divide="ignore"):
            odds += np.log(2 * share) - np.log1p(-share)
        return logit, odds - _both(logit)

    def masses(self, logit: Floats, neither: Floats) -> ExpectedCounts:
        """Votes by the posterior of their items, where at least two annotators voted."""
        none = np.zeros(self.people)
        sided = (1 - neither) * self.informative
        neither = neither * self.informative
        believed = np.tanh(logit / 2) * sided
        side, even = self.cast.T @ sided, self.cast.T @ neither
        placed, shown = self.placed, self.shown
        return ExpectedCounts(
            side=side[: self.people],
            neither=even[: self.people],
            first_side=none if placed is None else (placed.T @ sided)[: self.people],
            first_neither=none if placed is None else (placed.T @ neither)[: self.people],
            lies_first=none if shown is None else (shown.T @ believed)[: self.people],
            agree=(self.towards.T @ believed)[: self.people],
            ties_side=side[self.people :],
            ties_neither=even[self.people :],
        )

    def share_of_neither(self, neither: Floats, prior: float) -> Floats:
        """Share of items of which neither is better, in each source; the prior is its share of tie votes, (groups,)."""
        found, judged = self.sources.T @ (neither * self.informative), self.sources.T @ self.informative.astype(float)
        return np.asarray((prior * self.tie_share + found) / (prior + judged), np.float64)


def _both(logit: Floats) -> Floats:
    """log(2 cosh(logit / 2)): the weight of both sides over their geometric mean."""
    return np.asarray(np.logaddexp(logit / 2, -logit / 2), np.float64)


def _new_voter(votes: CodedVotes) -> NDArray[np.bool_]:
    """True (votes,) at each annotator's first vote on an item; a source's anonymous votes count as one annotator."""
    new = np.ones(len(votes.item), bool)
    new[1:] = (votes.item[1:] != votes.item[:-1]) | (votes.annotator[1:] != votes.annotator[:-1])
    return new
