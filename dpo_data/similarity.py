"""How alike the two responses are, how far from the prompt, and whether they keep its language.

Alike takes two signals: few tokens differ, and what differs means the same. Either alone is wrong: in mathematics
and code one token can be the whole lesson, and two honest answers to a narrow question are close in meaning.
Pairs with similar embeddings drive likelihood displacement (Razin et al. 2410.08847).
The surprise: `similarity` compares the responses from the sentence where they part, not the shared opening.
"""

import re
from collections.abc import Sequence

import polars as pl
from pydantic import Field

from dpo_data.settings import Settings

_SENTENCE_END = re.compile(r"[.!?。！？]\s+|\n")


class AlikeLimits(Settings):
    """A pair goes when both hold. cos > .97 with edit < .1 is the two-signal reading of Razin et al. and Pal et al.
    (2402.13228: pairs at low edit distance fail), see the yield curve in stats.json before changing it."""

    cosine: float = Field(default=0.97, ge=-1, le=1)
    edit_ratio: float = Field(default=0.1, ge=0, le=1)


class SimilarityLimits(Settings):
    """Limits on likeness; `by_slice` maps a slice column to value -> limits, for mathematics or code."""

    alike: AlikeLimits | None = AlikeLimits()
    by_slice: dict[str, dict[str, AlikeLimits | None]] = Field(default_factory=dict)
    # Off: short answers ("Yes.") are far from any prompt in embedding space and still on topic.
    min_prompt_cosine: float | None = None
    same_language: bool = True


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
    if not one or not two:
        return 0
    places: dict[int, int] = {}
    for place, token in enumerate(one):
        places[token] = places.get(token, 0) | (1 << place)
    full = (1 << len(one)) - 1
    row = full
    for token in two:
        matched = places.get(token)
        if matched is not None:
            kept = row & matched
            row = ((row + kept) | (row - kept)) & full
    return len(one) - row.bit_count()


def rules(limits: SimilarityLimits) -> dict[str, pl.Expr]:
    """Too alike (both signals), far from the prompt, in another language than the prompt."""
    found: dict[str, pl.Expr] = {}
    alike = _alike(limits)
    if alike is not None:
        found["responses_too_similar"] = alike
    if limits.min_prompt_cosine is not None:
        far = pl.min_horizontal("similarity_prompt_a", "similarity_prompt_b")
        found["response_off_topic"] = far < limits.min_prompt_cosine
    if limits.same_language:
        found["wrong_language"] = pl.col("language_a").ne(pl.col("language")) | pl.col("language_b").ne(
            pl.col("language")
        )
    return found


def _alike(limits: SimilarityLimits) -> pl.Expr | None:
    if limits.alike is None and not limits.by_slice:
        return None
    chosen = _both(limits.alike)
    for column, values in limits.by_slice.items():
        for value, own in values.items():
            chosen = pl.when(pl.col(column) == value).then(_both(own)).otherwise(chosen)
    return chosen


def _both(limits: AlikeLimits | None) -> pl.Expr:
    if limits is None:
        return pl.lit(False)
    return (pl.col("similarity") > limits.cosine) & (pl.col("edit_ratio") < limits.edit_ratio)
