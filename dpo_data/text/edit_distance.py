"""Edit ratio of two token sequences."""

from collections.abc import Sequence


def edit_ratio(tokens_a: Sequence[int], tokens_b: Sequence[int]) -> float:
    """Insertions and deletions that turn a into b, over the tokens of both: 0 identical, 1 nothing in common.

    Longest common subsequence by bits in Python's own integers (Hyyrö 2004), after the shared start and end.
    """
    total = len(tokens_a) + len(tokens_b)
    if not total:
        return 0.0
    start, stop_a, stop_b = 0, len(tokens_a), len(tokens_b)
    while start < stop_a and start < stop_b and tokens_a[start] == tokens_b[start]:
        start += 1
    while stop_a > start and stop_b > start and tokens_a[stop_a - 1] == tokens_b[stop_b - 1]:
        stop_a, stop_b = stop_a - 1, stop_b - 1
    middle_a, middle_b = tokens_a[start:stop_a], tokens_b[start:stop_b]
    return (len(middle_a) + len(middle_b) - 2 * _common(middle_a, middle_b)) / total


def _common(one: Sequence[int], two: Sequence[int]) -> int:
    """Length of the longest common subsequence."""
    long, short = (one, two) if len(one) >= len(two) else (two, one)
    if not short:
        return 0
    places: dict[int, int] = {}
    bit = 1
    for token in long:
        places[token] = places.get(token, 0) | bit
        bit <<= 1
    row = full = bit - 1
    for matched in filter(None, map(places.get, short)):
        kept = row & matched
        row = (row + kept) | (row - kept)  # bits that are carried beyond the row stay out of it
    return len(long) - (row & full).bit_count()
