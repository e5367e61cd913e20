"""How much stands behind the kept pairs: votes, annotators, agreement, and the wrong ways round that are expected.

It is what the votes and the annotators' estimated reliability say of themselves. What people found when they read
a random sample is the review's to say (`dpo_data.review`).
"""

from collections.abc import Sequence
from typing import Any

import polars as pl


def trust(ledger: pl.DataFrame, sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts over the kept rows of a decided ledger that has `kept`; `sources` is `stats.by_source`.

    `agreement` is the share of agreeing pairs of votes among the `vote_pairs` of all comparisons, kept or not, each
    pair within one source; null where no comparison has two votes.
    `expected_wrong` is the sum of 1 - confidence over the `measured` kept pairs, `expected_share` the mean of it;
    for a pair of which neither response is better that is too little, since the posterior takes one to be.
    `one_vote` and `several_annotators` count pairs.
    """
    kept = ledger.filter("kept")
    doubt = 1 - kept["confidence"].drop_nulls()
    vote_pairs = sum(row["vote_pairs"] for row in sources)
    agreeing = sum(row["agreement"] * row["vote_pairs"] for row in sources if row["vote_pairs"])
    return {
        "kept": kept.height,
        "one_vote": int((kept["votes"] == 1).sum()),
        "agreement": agreeing / vote_pairs if vote_pairs else None,
        "vote_pairs": vote_pairs,
        "several_annotators": int((kept["annotators"] >= 2).sum()),
        "measured": len(doubt),
        "expected_wrong": float(doubt.sum()),
        "expected_share": float(doubt.sum()) / len(doubt) if len(doubt) else None,
    }
