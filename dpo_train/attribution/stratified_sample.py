"""Which held-out pairs the account looks at: as many of every slice, and how many each of them stands for.

Looking at a pair costs two backward passes, so only a sample is looked at. A draw in proportion gives a slice of a
tenth of the pairs a tenth of the looks, and its column cannot be read; an equal draw tells all columns equally well.
Means over several slices weigh every pair by what it stands for, and so stay unbiased.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from dpo_train.attribution.tables import FEWEST
from dpo_train.statistics import Floats, Indices


class Drawn(NamedTuple):
    """Places of the pairs looked at, ascending, and how many held-out pairs each stands for; both (drawn,)."""

    places: Indices
    stands_for: Floats


def draw(slices: Sequence[str], identities: Sequence[str], count: int) -> Drawn:
    """At most `count` pairs, equally many of each slice; a slice that has fewer leaves the rest to the others.

    Inside a slice the first by hash of the pair's id are taken, the same ones for the same data. Where `count` does not
    give every slice the two pairs of a column, the smallest slices are drawn from as one.
    """
    sizes = sorted(Counter(slices).items(), key=lambda item: (-item[1], item[0]))
    room = max(count // FEWEST, 1)
    alone = {name for name, _ in (sizes if len(sizes) <= room else sizes[: room - 1])}
    strata: dict[str | None, list[tuple[bytes, int]]] = {}
    for place, (name, identity) in enumerate(zip(slices, identities, strict=True)):
        ranked = (blake2b(identity.encode(), digest_size=8).digest(), place)
        strata.setdefault(name if name in alone else None, []).append(ranked)
    shares = _equal([len(members) for members in strata.values()], count)
    drawn = []
    for members, share in zip(strata.values(), shares, strict=True):
        drawn += [(place, len(members) / share) for _, place in sorted(members)[:share]]
    drawn.sort()
    return Drawn(
        np.array([place for place, _ in drawn], dtype=np.int64), np.array([weight for _, weight in drawn], dtype=float)
    )


def _equal(sizes: Sequence[int], count: int) -> list[int]:
    """Shares of `count` that are as equal as `sizes` allow; what is left over goes to the largest."""
    shares = [0] * len(sizes)
    left = min(count, sum(sizes))
    while left:
        open_ = [k for k in range(len(sizes)) if shares[k] < sizes[k]]
        each = left // len(open_)
        if not each:
            open_ = sorted(open_, key=lambda k: -sizes[k])[:left]
        for k in open_:
            more = min(max(each, 1), sizes[k] - shares[k])
            shares[k] += more
            left -= more
    return shares
