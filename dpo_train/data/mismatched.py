"""Responses under another row's prompt: what KTO's estimate of the policy's drift is taken over.

Each row gets one partner for good, the next row in the order of hashed ids whose prompt is another one. TRL rotates the
responses of a batch by one instead; both draw a response at random, but a partner that depends on no batch lets the
reference be cached as that of any row, and a row that joins the data changes one partner. Partners never
share a prompt, while TRL's do wherever both responses of one pair stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from dpo_train.config import TrainError
from dpo_train.data.encoded_pair import EncodedPair
from dpo_train.data.pairs import PairSet
from dpo_train.statistics import Indices


class Mismatched:
    """The rows of a set, each prompt followed by its partner's response; the same indices as the set's own.

    A response is cut where the row would be longer than the longest of the set, as TRL cuts at `max_length`.
    """

    def __init__(self, rows: PairSet) -> None:
        """Raises `TrainError` where all rows share one prompt."""
        self.rows = rows
        self.split = rows.split
        self.pair_ids = rows.pair_ids
        self.partners = partners(rows.pair_ids, rows.prompts)
        prompts, responses = rows.tokens_of("prompt"), rows.tokens_of("chosen") + rows.tokens_of("rejected")
        self.longest = int((prompts + responses).max(initial=0))
        self.lengths = self.ends = np.minimum(prompts + responses[self.partners], self.longest) - 1

    def __len__(self) -> int:
        return len(self.rows)

    def encoded(self, indices: Iterable[int]) -> list[EncodedPair]:
        """Token ids of some rows, the response on the chosen side."""
        places = np.asarray(list(indices), dtype=np.int64)
        own, others = self.rows.encoded(places), self.rows.encoded(self.partners[places])
        return [
            EncodedPair(row.prompt, [*other.chosen, *other.rejected][: self.longest - len(row.prompt)], ())
            for row, other in zip(own, others, strict=True)
        ]


def partners(ids: Sequence[str], prompts: Sequence[str]) -> Indices:
    """For each row, the place of the row whose response it borrows, shape (rows,); raises `TrainError` for one prompt.

    Where no two neighbours in the hashed order share a prompt, this is one rotation of all responses.
    """
    if ids and len(set(prompts)) < 2:
        raise TrainError(
            f"kto estimates the policy's drift from responses to other prompts, and all {len(ids)} rows of a split "
            "have one prompt. Use loss_type apo_zero_unpaired, which needs no estimate, or more prompts."
        )
    order = sorted(range(len(ids)), key=lambda place: blake2b(ids[place].encode(), digest_size=8).digest())
    found = np.zeros(len(ids), dtype=np.int64)
    other = -1  # the nearest row ahead whose prompt is not that of `here`
    for step in range(2 * len(order) - 1, -1, -1):  # twice around, so that the last rows find the first
        here, ahead = order[step % len(order)], order[(step + 1) % len(order)]
        if prompts[here] != prompts[ahead]:
            other = ahead
        found[here] = other
    return found
