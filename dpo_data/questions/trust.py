"""How much stands behind the kept pairs: votes, annotators, and the wrong ways round that the posterior expects.

It is what the votes and the annotators' estimated reliability say of themselves. What people found when they read
a random sample is the review's to say (`dpo_data.review`).
"""

from typing import Any

import polars as pl


def trust(ledger: pl.DataFrame) -> dict[str, Any]:
    """Counts over the kept rows of a decided ledger that has `kept`.

    `expected_wrong` is the sum of 1 - confidence over the `measured` kept pairs, `expected_share` the mean of it;
    `one_vote` and `several_annotators` count pairs.
    """
    kept = ledger.filter("kept")
    doubt = 1 - kept["confidence"].drop_nulls()
    return {
        "kept": kept.height,
        "one_vote": int((kept["votes"] == 1).sum()),
        "several_annotators": int((kept["annotators"] >= 2).sum()),
        "measured": len(doubt),
        "expected_wrong": float(doubt.sum()),
        "expected_share": float(doubt.sum()) / len(doubt) if len(doubt) else None,
    }
