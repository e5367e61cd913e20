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
    Over the `measured` kept pairs, those with a posterior: `expected_wrong` is how many probably stand the wrong way
    round, the sum of 1 - confidence - p_equal / 2, and `expected_share` the mean of it; `expected_equal` is of how
    many probably neither response is better, the sum of p_equal, and `expected_equal_share` the mean of that.
    `one_vote` and `several_annotators` count pairs.
    """
    kept = ledger.filter("kept")
    known = kept.filter(pl.col("confidence").is_not_null()).with_columns(pl.col("p_equal").fill_null(0.0))
    p_equal = known["p_equal"]
    doubt = 1 - known["confidence"] - p_equal / 2
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
        "expected_equal": float(p_equal.sum()),
        "expected_equal_share": float(p_equal.sum()) / len(doubt) if len(doubt) else None,
    }
