"""Token ids of one pair, and the lengths that packing and the checks need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class EncodedPair(NamedTuple):
    """Token ids of one pair; the responses end with the end-of-turn token unless they were cut."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


def opening(pair: EncodedPair) -> int:
    """How many tokens both responses open with."""
    count = 0
    for left, right in zip(pair.chosen, pair.rejected, strict=False):
        if left != right:
            break
        count += 1
    return count


def end(pair: EncodedPair) -> int:
    """Input tokens of the pair's longer response with the prompt before it."""
    return len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) - 1


def row_length(pair: EncodedPair) -> int:
    """Input tokens of the pair's shared row: prefix + the diverging parts, without either's last token."""
    shared = opening(pair)
    inputs = len(pair.prompt) + shared
    return inputs + max(0, len(pair.chosen) - shared - 1) + max(0, len(pair.rejected) - shared - 1)
