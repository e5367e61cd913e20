"""Responses with a label of their own, for losses that need no pairs (KTO): the pairs' two sides, and lone thumbs.

A lone thumb met no opposite thumb on its prompt, so it makes no comparison and stands in no ledger. It gets its split
from the group of its prompt, by the same coin as the pairs, so it leaks no held-out prompt into train.
Only exact prompts are known here; a lone thumb on a mere paraphrase of a held-out prompt is not noticed.
"""

import polars as pl

from dpo_data import schema
from dpo_data.ids import prompt_hash, text_hash
from dpo_data.measures import splits

_FATES = ("used", "blank", "torn", "contaminated")


def unpair(pairs: pl.DataFrame) -> pl.DataFrame:
    """Each pair (schema.PAIRS) as two rows of schema.UNPAIRED, chosen first; sorted by row_id."""
    sides = [
        pairs.select(
            pl.concat_str("pair_id", pl.lit(f"-{side}")).alias("row_id"),
            "prompt",
            pl.col(side).alias("completion"),
            pl.lit(side == "chosen").alias("label"),
            "weight",
            "source",
            "split",
        )
        for side in ("chosen", "rejected")
    ]
    return schema.check(pl.concat(sides).sort("row_id"), schema.UNPAIRED, "unpaired rows")


def lone(thumbs: pl.DataFrame, ledger: pl.DataFrame, shares: splits.SplitShares) -> tuple[pl.DataFrame, dict[str, int]]:
    """Thumbs as rows of schema.UNPAIRED sorted by row_id, and what became of them, counted by response.

    `thumbs` has the columns of schema.THUMBS. One row a prompt and response: the majority of its thumbs, one a source
    and annotator. Left out: blank responses, as many thumbs up as down (`torn`), and prompts that the ledger calls
    contaminated. Counts: thumbs (records), responses, used, blank, torn, contaminated.
    """
    keyed = thumbs.with_columns(
        pl.Series("prompt_hash", [prompt_hash(prompt) for prompt in thumbs["prompt"]], pl.String),
        pl.Series("completion_hash", [text_hash(text) for text in thumbs["completion"]], pl.String),
    )
    key = ["prompt_hash", "completion_hash"]
    once = keyed.sort("source", "annotator", "label", "origin").unique(
        [*key, "label", "source", "annotator"], keep="first", maintain_order=True
    )
    votes = once.group_by(key, maintain_order=True).agg(
        pl.col("prompt", "completion", "source").first(),
        ups=pl.col("label").sum().cast(pl.Int64),
        thumbs=pl.len().cast(pl.Int64),
    )
    tainted = ledger.filter(pl.col("reasons").list.contains("contaminated")).select("prompt_hash").unique()
    fate = (
        pl.when(pl.col("completion").str.strip_chars() == "")
        .then(pl.lit("blank"))
        .when(2 * pl.col("ups") == pl.col("thumbs"))
        .then(pl.lit("torn"))
        .when(pl.col("prompt_hash").is_in(tainted["prompt_hash"].implode()))
        .then(pl.lit("contaminated"))
        .otherwise(pl.lit("used"))
    )
    votes = votes.with_columns(fate=fate)
    groups = ledger.select("prompt_hash", "prompt_group").drop_nulls().unique("prompt_hash", keep="any")
    placed = (
        votes.filter(pl.col("fate") == "used")
        .join(groups, on="prompt_hash", how="left", maintain_order="left")
        .with_columns(comparison_id=pl.concat_str("prompt_hash", "completion_hash"))
    )
    rows = splits.assign(splits.measure(placed), shares).select(
        pl.concat_str(pl.col("comparison_id").map_elements(text_hash, pl.String), pl.lit("-thumb")).alias("row_id"),
        "prompt",
        completion=pl.concat_list(pl.struct(pl.lit("assistant").alias("role"), pl.col("completion").alias("content"))),
        label=2 * pl.col("ups") > pl.col("thumbs"),
        weight=pl.lit(1.0),
        source="source",
        split="split",
    )
    counts = {"thumbs": thumbs.height, "responses": votes.height}
    counts |= {name: votes.filter(pl.col("fate") == name).height for name in _FATES}
    return schema.check(rows.sort("row_id"), schema.UNPAIRED, "lone thumbs"), counts
