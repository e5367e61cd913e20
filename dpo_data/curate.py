"""The page: what is measured about every comparison, and what is decided from it.

`measure` only adds columns: no row goes, no fact changes. `decide` adds the reasons: the row rules first, in any
order, all recorded; then, among the rows still standing, one survivor per duplicate cluster, the cap on prompt groups
and the length rebalance. Deciding again with other limits touches no text.
"""

from pathlib import Path

import polars as pl

from dpo_data import (
    agreement,
    cycles,
    duplicates,
    edges,
    length_bias,
    lengths,
    prompts,
    similarity,
    splits,
    text_measures,
)
from dpo_data.agreement import AgreementLimits
from dpo_data.batches import open_batches
from dpo_data.cycles import CycleLimits
from dpo_data.duplicates import DuplicateLimits
from dpo_data.length_bias import LengthLimits
from dpo_data.lengths import SizeLimits
from dpo_data.prompts import PromptLimits
from dpo_data.schema import LEDGER, DataError, check
from dpo_data.settings import Settings
from dpo_data.similarity import SimilarityLimits
from dpo_data.splits import SplitShares

REASONS = pl.List(pl.String)


class CurationConfig(Settings):
    """Every limit of every room, and what to measure. Recorded whole in each version's manifest."""

    slices: tuple[str, ...] = ()  # attribute keys that become columns of the ledger and of the pairs
    tokenizer: str | None = "smollm2-135m-instruct"  # of the model to be trained; null: no token counts
    embedding_model: str | None = "all-minilm-l6-v2"  # null: no embeddings
    sizes: SizeLimits = SizeLimits()
    agreement: AgreementLimits = AgreementLimits()
    similarity: SimilarityLimits = SimilarityLimits()
    duplicates: DuplicateLimits = DuplicateLimits()
    prompts: PromptLimits = PromptLimits()
    cycles: CycleLimits = CycleLimits()
    length_bias: LengthLimits = LengthLimits()
    splits: SplitShares = SplitShares()


def measure(store: Path, config: CurationConfig) -> pl.DataFrame:
    """Every comparison of the store with every measure, sorted by comparison_id; nothing decided yet."""
    batches = open_batches(store)
    if not batches.ids:
        raise DataError(f"{store} holds no batches: ingest a source first (`dpo refresh`).")
    folders = [store / "batches" / batch for batch in batches.ids]
    for folder in folders:
        text_measures.measure_batch(folder)
    texts = batches.comparisons()
    measured = _known(folders)
    ledger = measured.drop("signature", "prompt_signature")
    ledger = agreement.measure(ledger, batches.votes().collect(), config.agreement)
    ledger = duplicates.measure(ledger, _comparison_edges(store, measured, texts), config.duplicates)
    ledger = duplicates.measure_votes(ledger)
    ledger = prompts.measure(ledger, _prompt_edges(store, measured, texts, config.prompts))
    ledger = cycles.measure(ledger, config.cycles)
    ledger = splits.measure(ledger)
    ledger = _add_slices(ledger, texts, config.slices)
    return _complete(ledger)


def _known(folders: list[Path]) -> pl.DataFrame:
    """Text measures of all batches, one row per comparison; a repeat was measured from the same text."""
    frames = [pl.read_parquet(folder / text_measures.FILE) for folder in folders]
    prompts_signed = pl.col("prompt_signature").is_null()
    return (
        pl.concat(frames)
        .sort("comparison_id", prompts_signed)
        .unique("comparison_id", keep="first", maintain_order=True)
    )


def _comparison_edges(store: Path, measured: pl.DataFrame, texts: pl.LazyFrame) -> pl.DataFrame:
    proposed = duplicates.proposals(measured.select("comparison_id", "signature"))

    def verify(pairs: pl.DataFrame) -> pl.DataFrame:
        wanted = pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("comparison_id")
        return duplicates.verify(
            pairs,
            texts.join(wanted.lazy(), on="comparison_id", how="semi")
            .select("comparison_id", "response_a", "response_b", prompt=text_measures.PROMPT_TEXT)
            .collect(),
        )

    return edges.recall(store / "cache" / "near" / "comparisons.parquet", proposed, verify)


def _prompt_edges(store: Path, measured: pl.DataFrame, texts: pl.LazyFrame, limits: PromptLimits) -> pl.DataFrame:
    proposed = prompts.proposals(measured.select("prompt_hash", signature="prompt_signature"))

    def verify(pairs: pl.DataFrame) -> pl.DataFrame:
        hashes = pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("prompt_hash")
        wanted = measured.select("comparison_id", "prompt_hash").unique(
            "prompt_hash", keep="first", maintain_order=True
        )
        wanted = wanted.join(hashes, on="prompt_hash", how="semi")
        return prompts.verify(
            pairs,
            texts.join(wanted.lazy(), on="comparison_id")
            .select("prompt_hash", prompt=text_measures.PROMPT_TEXT)
            .collect(),
        )

    found = edges.recall(store / "cache" / "near" / "prompts.parquet", proposed, verify)
    return found.filter(pl.col("whole") >= limits.jaccard)


def _add_slices(ledger: pl.DataFrame, texts: pl.LazyFrame, keys: tuple[str, ...]) -> pl.DataFrame:
    """The chosen attributes as columns; several values of one key are joined by ` + `, sorted."""
    taken = [key for key in keys if key in LEDGER]
    if taken:
        raise DataError(
            f"slices: {', '.join(taken)} is a column of the ledger already and always a slice; leave it out."
        )
    if not keys:
        return ledger
    pairs = texts.select("comparison_id", "attributes").explode("attributes").unnest("attributes")
    wanted = pairs.filter(pl.col("key").is_in(keys)).unique().sort("comparison_id", "key", "value").collect()
    values = wanted.group_by("comparison_id", "key", maintain_order=True).agg(pl.col("value").str.join(" + "))
    for key in keys:
        column = values.filter(pl.col("key") == key).select("comparison_id", pl.col("value").alias(key))
        ledger = ledger.join(column, on="comparison_id", how="left", maintain_order="left")
    return ledger


def _complete(ledger: pl.DataFrame) -> pl.DataFrame:
    """Columns of the contract that nothing measured are null; the decision's own are added by `decide`."""
    absent = [pl.lit(None, kind).alias(name) for name, kind in LEDGER.items() if name not in ledger.columns]
    contract = [pl.col(name).cast(kind) for name, kind in LEDGER.items()]
    others = [name for name in ledger.columns if name not in LEDGER]
    return ledger.with_columns(absent).select(*contract, *others).sort("comparison_id")


def row_rules(config: CurationConfig) -> dict[str, pl.Expr]:
    """Every reason that a row gives by itself. To add a rule: its room's `rules`, and its line here."""
    return (
        lengths.rules(config.sizes)
        | agreement.rules(config.agreement)
        | similarity.rules(config.similarity)
        | duplicates.rules(config.duplicates)
        | cycles.rules(config.cycles)
    )


def decide(ledger: pl.DataFrame, config: CurationConfig) -> pl.DataFrame:
    """The ledger with `reasons` (empty: kept), `duplicate_of`, `split` and `weight`, sorted by comparison_id."""
    count = len(ledger)
    ledger = _complete(ledger)
    ledger = _apply(ledger, row_rules(config))
    ledger = duplicates.choose_survivors(ledger, config.duplicates)
    ledger = prompts.cap(ledger, config.prompts)
    ledger = length_bias.rebalance(ledger, config.length_bias)
    ledger = _apply(ledger, {"length_rebalanced": pl.col("length_rebalanced")})
    ledger = splits.assign(ledger, config.splits).with_columns(weight=pl.col("length_weight"))
    ledger = check(ledger.drop("length_rebalanced", "length_weight"), LEDGER, "ledger")
    assert len(ledger) == count and ledger["comparison_id"].is_unique().all()
    return ledger


def _apply(ledger: pl.DataFrame, rules: dict[str, pl.Expr]) -> pl.DataFrame:
    """Append the name of every rule that holds to the row's reasons; null, not measured, never holds."""
    names = [pl.when(rule.fill_null(False)).then(pl.lit(name)) for name, rule in rules.items()]
    found = pl.concat_list(names).list.drop_nulls()
    before = pl.col("reasons").fill_null(pl.lit([], dtype=REASONS))
    return ledger.with_columns(reasons=before.list.concat(found))
