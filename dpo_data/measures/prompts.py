"""Prompt groups: which comparisons ask the same thing, so that they share a split, a cap and a cluster of errors.

A group is a connected component over equal prompts, near-duplicate prompts (word 3-grams) and, where embeddings
are measured, semantic neighbours. Groups decide splits and caps only: a prompt is never dropped for being
common (LLMFAO has 13 prompts in all), so the cap is off unless it is set.
"""

import numpy as np
import polars as pl
from pydantic import Field

from dpo_data.executor import Executor
from dpo_data.settings import Settings
from dpo_data.text import minhash as near
from dpo_data.text.token_hashes import tokens

METHOD = f"near prompts 1, {near.METHOD}"  # raise it when the same two prompts would be compared otherwise


class PromptLimits(Settings):
    """How alike two prompts must be to share a group, and how many comparisons of a group may stay."""

    jaccard: float = Field(default=0.8, ge=0.3, le=1)
    cosine: float | None = Field(
        default=0.95, ge=0.5, le=1
    )  # null: words only; all-MiniLM-L6-v2: paraphrases of one question sit above .9
    max_semantic: int = 100_000  # prompts; all pairs of more take minutes (n^2), so groups then go by words alone
    max_per_group: int | None = Field(default=None, ge=1)


def sign(known: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
    """`measured` with the signature of every prompt whose signed row was left out, forgotten or superseded."""
    if measured.height == known.height:
        return measured
    signed = known.filter(pl.col("prompt_signature").is_not_null()).select("comparison_id", "prompt_hash")
    left_out = signed.join(measured.select("comparison_id"), on="comparison_id", how="anti")
    found = known.select("comparison_id", found="prompt_signature").join(left_out, on="comparison_id")
    found = found.select("prompt_hash", "found").unique("prompt_hash", keep="any")  # equal texts, equal signatures
    return (
        measured.join(found, on="prompt_hash", how="left", maintain_order="left")
        .with_columns(prompt_signature=pl.coalesce("prompt_signature", "found"))
        .drop("found")
    )


def proposals(signed: pl.DataFrame, executor: Executor | None = None) -> pl.DataFrame:
    """Pairs of prompt hashes (`left` < `right`) whose signatures meet in a band. `signed`: prompt_hash, signature."""
    known = signed.drop_nulls("signature").unique("prompt_hash", keep="any").sort("prompt_hash")
    left, right = near.candidates(known["signature"], executor)
    hashes = known["prompt_hash"]
    return pl.DataFrame({"left": hashes.gather(left), "right": hashes.gather(right)})


def verify(pairs: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """Add `whole`, the exact Jaccard index of the two prompts. `texts`: prompt_hash, prompt (as one text)."""
    texts = texts.unique("prompt_hash", keep="any").sort("prompt_hash")
    matrix = near.incidence(near.shingles(tokens(texts["prompt"]).words()))
    place = pl.DataFrame({"id": texts["prompt_hash"], "row": np.arange(len(texts), dtype=np.int64)})
    left = pairs.select(id="left").join(place, on="id", maintain_order="left")["row"].to_numpy()
    right = pairs.select(id="right").join(place, on="id", maintain_order="left")["row"].to_numpy()
    return pairs.with_columns(whole=pl.Series(near.jaccard(matrix, left, right)))


def same_topic(topics: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Edges between prompts (`left`, `right`) of one topic or of two `near` ones (`left`, `right`, topic hashes).

    `topics`: prompt_hash, topic_hash. The smallest prompt hash of a topic stands for it, so that a topic of many
    prompts (one question under many system messages) has as many edges and not their square.
    """
    first = topics.group_by("topic_hash").agg(pl.col("prompt_hash").min().alias("first"))
    alike = topics.join(first, on="topic_hash").select(left="first", right="prompt_hash")
    across = near.join(first.rename({"topic_hash": "left", "first": "one"}), on="left").join(
        first.rename({"topic_hash": "right", "first": "two"}), on="right"
    )
    edges = pl.concat([alike, across.select(left="one", right="two")])
    return edges.filter(pl.col("left") != pl.col("right")).sort("left", "right")


def conversations(ledger: pl.DataFrame) -> pl.DataFrame:
    """Prompts (`left`, `right`) of one conversation: the same first exchange, or the first question asked alone.

    A shorter prompt that is the start of a longer one would else teach on one side what is tested on the other.
    """
    several = ledger.select("prompt_hash", "opening_hash", "exchange_hash").drop_nulls("exchange_hash").unique()
    same = several.select(left=pl.col("prompt_hash").min().over("exchange_hash"), right="prompt_hash")
    alone = ledger.select(left="prompt_hash").unique()
    started = several.select("opening_hash", right="prompt_hash").join(alone, left_on="opening_hash", right_on="left")
    return pl.concat([same, started.select(left="opening_hash", right="right")]).filter(
        pl.col("left") != pl.col("right")
    )


def measure(ledger: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """Add `prompt_group`: the smallest prompt hash of the connected component. `edges`: left, right (prompt hashes)."""
    hashes = ledger.select(id="prompt_hash").drop_nulls().unique().sort("id")
    place = hashes.with_row_index("row")
    known = (
        pl.concat([edges.select("left", "right"), conversations(ledger)])
        .join(place.rename({"id": "left", "row": "from"}), on="left")
        .join(place.rename({"id": "right", "row": "to"}), on="right")
    )
    smallest = near.components(len(hashes), known["from"].to_numpy(), known["to"].to_numpy())
    groups = hashes.with_columns(prompt_group=hashes["id"].gather(smallest)).rename({"id": "prompt_hash"})
    base = ledger.drop("prompt_group", strict=False)
    return base.join(groups, on="prompt_hash", how="left", maintain_order="left")


def cap(ledger: pl.DataFrame, limits: PromptLimits) -> pl.DataFrame:
    """Rank the standing rows of a group, the most confident first, then by id; `over_prompt_cap` beyond the cap.

    Adds `group_rank`, null without a cap and for rows that fell before.
    """
    ledger = ledger.drop("group_rank", strict=False)
    if limits.max_per_group is None:
        return ledger.with_columns(group_rank=pl.lit(None, pl.UInt32))
    standing = pl.col("reasons").list.len() == 0
    ranked = (
        ledger.lazy()
        .filter(standing & pl.col("prompt_group").is_not_null())
        .select("comparison_id", "prompt_group", "confidence")
        .sort("confidence", "comparison_id", descending=[True, False], nulls_last=True)
        .select("comparison_id", group_rank=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over("prompt_group"))
        .collect()
    )
    reason = pl.lit(["over_prompt_cap"], dtype=pl.List(pl.String))
    joined = ledger.join(ranked, on="comparison_id", how="left", maintain_order="left")
    over = pl.col("group_rank") > limits.max_per_group
    return joined.with_columns(reasons=pl.when(over).then(reason).otherwise("reasons"))
