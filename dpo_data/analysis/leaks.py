"""Which comparisons hold an item of a benchmark, and which item: the rows behind the two reasons of contamination."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from dpo_data.analysis.reasons import EXAMPLES

BY_WORDS, BY_MEANING = "contaminated", "contaminated_in_other_words"
_MOST = 200
"""Comparisons listed; all of them are in the ledger."""
_CUT = 300
"""Characters shown of an item."""


def leaks(ledger: pl.DataFrame, texts: Mapping[str, str]) -> dict[str, Any]:
    """Counts of a decided ledger, and its rows with the item each holds, those by words first, then nearest first.

    `measured` counts the comparisons that items were looked for in by words, `compared` those by meaning; a row found
    both ways is listed once, by words. `texts`: item -> text (`contamination.found_items`).
    """
    word, meaning = (pl.col("reasons").list.contains(name) for name in (BY_WORDS, BY_MEANING))
    found = ledger.filter(word | meaning).select(
        "comparison_id",
        item=pl.when(word).then("benchmark_item").otherwise("benchmark_neighbour"),
        reason=pl.when(word).then(pl.lit(BY_WORDS)).otherwise(pl.lit(BY_MEANING)),
        overlap="benchmark_overlap",
        cosine="benchmark_similarity",
    )
    order = ["reason", "overlap", "cosine", "comparison_id"]
    found = found.sort(order, descending=[False, True, True, False], nulls_last=True)
    return {
        "measured": ledger["benchmark_overlap"].count(),
        "compared": ledger["benchmark_similarity"].count(),
        "by_words": ledger.filter(word).height,
        "by_meaning": ledger.filter(meaning).height,
        "items": found["item"].n_unique(),
        "rows": [{**row, "text": texts.get(row["item"], "")[:_CUT]} for row in found.head(_MOST).to_dicts()],
        "examples": found["comparison_id"].head(EXAMPLES).to_list(),
    }
