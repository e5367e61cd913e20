"""From moved weights to moved margins: which training slice changed the log-probabilities of which held-out pair.

Along the chord between two edges of the update ledger, M(b) - M(a) is the integral of <gradient of M, D>, and D is the
sum of the buckets' parts (Aumann-Shapley). One gradient at the midpoint of each chord measures it, and two more make
it Gauss' rule of three points. The residual to the observed change is reported next to every number. Chosen and
rejected log-probability are attributed separately. More points per chord reduce the residual but hardly change the
split among buckets, which only shorter chords do (intervals.py). The result describes this run, not what a run without
the slice would have done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dpo_train.attribution.update_ledger import Interval
from dpo_train.statistics import Estimate, Floats, estimate

# Log-probability of the chosen and of the rejected response of pair i under the weights as they are, with graph.
Score = Callable[[int], tuple[Tensor, Tensor]]
# How much each held-out pair counts in a mean (pairs,): which ones, or how many each stands for.
Weights = npt.NDArray[np.bool_] | Floats
# (place on the chord, weight). Gauss and Legendre's rule of three points holds that of one, so nothing is thrown away.
MIDPOINT = ((0.5, 1.0),)
OUTER = ((0.5 - math.sqrt(0.15), 5 / 18), (0.5 + math.sqrt(0.15), 5 / 18))
MIDDLE = 8 / 18  # of the midpoint, once the outer two are added


class Attributed(NamedTuple):
    """Nats of log-probability; (pairs, accounts), accounts being the buckets and then `updates.EXTRA`."""

    chosen: Floats
    rejected: Floats
    chosen_reallocated: Floats  # (pairs, buckets)
    rejected_reallocated: Floats
    chosen_tracin: Floats  # (pairs, buckets)
    rejected_tracin: Floats
    chosen_observed: Floats  # (pairs,)
    rejected_observed: Floats

    def add(self, other: Attributed) -> Attributed:
        """The account of two intervals one after the other."""
        return Attributed(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@contextmanager
def weights_at(parameters: Mapping[str, nn.Parameter], vector: Tensor) -> Iterator[None]:
    """The network under other weights (weights,), put back bit for bit afterwards."""
    kept = [parameter.detach().clone() for parameter in parameters.values()]
    try:
        _put(parameters, vector)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters.values(), kept, strict=True):
                parameter.copy_(value)


def _put(parameters: Mapping[str, nn.Parameter], vector: Tensor) -> None:
    start = 0
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(vector[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()


def attribute(
    score: Score,
    pairs: int,
    parameters: Mapping[str, nn.Parameter],
    interval: Interval,
    observed: Floats,
    nodes: Sequence[tuple[float, float]] = MIDPOINT,
) -> Attributed:
    """Split the change of `pairs` pairs over one interval among the buckets of its ledger.

    `observed` (2, pairs): what the chosen and the rejected log-probabilities changed by, in nats. Cost: a forward pass
    with two backward passes a pair and node.
    """
    accounts = torch.cat([interval.pushed, interval.reallocated, interval.tracin])
    total = np.zeros((2, pairs, len(accounts)))
    for place, weight in nodes:
        with weights_at(parameters, torch.lerp(interval.before, interval.after, place)):
            for index in range(pairs):
                sides = score(index)
                for side, value in enumerate(sides):
                    slopes = torch.autograd.grad(value, list(parameters.values()), retain_graph=side == 0)
                    slope = torch.cat([one.flatten() for one in slopes]).to(accounts.dtype)
                    total[side, index] += weight * (accounts @ slope).double().cpu().numpy()
    pushed, reallocated, tracin = np.split(total, np.cumsum([len(interval.pushed), len(interval.reallocated)]), axis=2)
    return Attributed(*pushed, *reallocated, *tracin, *observed)


def refine(found: Attributed, score: Score, parameters: Mapping[str, nn.Parameter], interval: Interval) -> Attributed:
    """The split of `attribute` at the midpoint, made one of three points; costs two more nodes."""
    observed = np.stack([found.chosen_observed, found.rejected_observed])
    outer = attribute(score, observed.shape[1], parameters, interval, observed, OUTER)
    parts = [MIDDLE * mine + theirs for mine, theirs in zip(found[:-2], outer[:-2], strict=True)]
    return Attributed(*parts, *observed)


class Cell(NamedTuple):
    """One training slice's part in one held-out slice: mean per held-out pair, margins in beta * nats."""

    pushed: Estimate
    chosen: float  # of which by the chosen log-probability
    rejected: float  # of which by the rejected log-probability (a fall is positive: it widens the margin)
    reallocated: Estimate
    tracin: float  # by plain gradient descent: its size means nothing, only its order
    excess: Estimate  # pushed per training pair, against the other slices' pairs: the test of "more than its size"


def hash_group_spread(parts: Floats) -> tuple[float, float]:
    """Standard error of a total from the hash groups (groups,) that make it up, and its degrees of freedom."""
    groups = len(parts)
    if groups < 2:
        return math.nan, math.nan
    return math.sqrt(groups / (groups - 1) * float(((parts - parts.mean()) ** 2).sum())), groups - 1.0


def cells(found: Attributed, beta: float, sizes: Floats, weights: Weights, groups: int) -> list[Cell]:
    """The column of one held-out slice: a cell for each training slice.

    Buckets are ordered slice by slice with `groups` hash groups each; `sizes` (buckets,) counts training pairs booked
    in each; `weights` (pairs,) says how much each held-out pair counts in the slice's mean, 0 outside.
    """
    slices = len(sizes) // groups
    shares = beta * weights / weights.sum()
    chosen, rejected = (shares @ side[:, : len(sizes)] for side in (found.chosen, found.rejected))
    moved = shares @ (found.chosen_reallocated - found.rejected_reallocated)
    tracin = shares @ (found.chosen_tracin - found.rejected_tracin)
    pushed = (chosen - rejected).reshape(slices, groups)
    counts = sizes.reshape(slices, groups)
    column = []
    for k in range(slices):
        own = slice(k * groups, (k + 1) * groups)
        column.append(
            Cell(
                _total(pushed[k], counts[k]),
                float(chosen[own].sum()),
                float(-rejected[own].sum()),
                _total(moved[own], counts[k]),
                float(tracin[own].sum()),
                _excess(pushed, counts, k),
            )
        )
    return column


def _total(parts: Floats, counts: Floats) -> Estimate:
    error, freedom = hash_group_spread(parts)
    return estimate(float(parts.sum()), error**2, int(counts.sum()), 0, freedom)


def _excess(pushed: Floats, counts: Floats, k: int) -> Estimate:
    """Mean push per training pair inside minus outside the slice, paired by hash group."""
    others = np.delete(np.arange(len(pushed)), k)
    inside, outside = counts[k], counts[others].sum(axis=0)
    both = (inside > 0) & (outside > 0)
    value = pushed[k].sum() / max(counts[k].sum(), 1) - pushed[others].sum() / max(counts[others].sum(), 1)
    if both.sum() < 2:
        return estimate(float(value), math.nan, int(counts[k].sum()), 0, math.nan)
    differences = pushed[k][both] / inside[both] - pushed[others].sum(axis=0)[both] / outside[both]
    groups = int(both.sum())
    return estimate(float(value), float(differences.var(ddof=1)) / groups, int(counts[k].sum()), 0, groups - 1)


def closure(found: Attributed, weights: Weights) -> float:
    """Relative gap between attributed and observed margin change: sum |predicted - observed| / sum |parts| by pairs.

    The denominator is what was pushed back and forth, as in the research this follows; 0.01 is a gap of 1 %. `weights`
    (pairs,) as in `cells`.
    """
    parts = found.chosen - found.rejected
    observed = found.chosen_observed - found.rejected_observed
    gross = float(weights @ np.abs(parts).sum(axis=1))
    return float(weights @ np.abs(parts.sum(axis=1) - observed)) / gross if gross > 0 else 0.0


def bucket_names(slices: Sequence[str], groups: int) -> list[str]:
    """Names of the ledger's buckets, slice by slice."""
    return [f"{name} #{group}" for name in slices for group in range(groups)]
