"""The page: what is measured about every comparison, and what is decided from it.

`measure` only adds columns: no row goes, no fact changes. `decide` adds the reasons: the row rules first, in any
order, all recorded; then, among the rows still standing, one survivor per duplicate cluster, the cap on prompt groups
and the length rebalance. Deciding again with other limits touches no text.
"""

import logging
from pathlib import Path

import polars as pl

from dpo_data.config import CurationConfig
from dpo_data.executor import Executor, Inline
from dpo_data.measures import (
    contamination,
    cycles,
    duplicates,
    length_bias,
    lengths,
    prompt_map,
    prompts,
    similarity,
    splits,
)
from dpo_data.schema import LEDGER, DataError, check
from dpo_data.store.batches import open_batches
from dpo_data.text import edges, embeddings, features, repair, semantic_neighbours, token_counts
from dpo_data.votes import agreement

logger = logging.getLogger(__name__)

REASONS = pl.List(pl.String)
_PAIRS = 8192  # proposed pairs verified together: about 60 MB of text
DECIDED = ("duplicate_of", "group_rank", "split", "weight", "reasons")


@repair.measuring
def measure_texts(store: Path, config: CurationConfig, executor: Executor | None = None) -> dict[str, int]:
    """Everything that reads text, batch by batch; a batch measured before is not read again. Counts what was new."""
    counts = dict.fromkeys(("batches", "comparisons", "texts_embedded", "texts_from_cache", "prompts_compared"), 0)
    for folder in _folders(store):
        rows = features.measure_batch(folder, executor)
        counts["batches"] += rows > 0
        counts["comparisons"] += rows
        if config.tokenizer is not None:
            token_counts.measure_batch(folder, config.tokenizer, executor)
        if config.embedding_model is not None:
            _add(counts, similarity.measure_batch(folder, store, config.embedding_model, executor))
        if config.contamination.benchmarks:
            contamination.measure_batch(folder, config.contamination, features.PROMPT_TEXT, executor)
            if config.embedding_model is not None:
                prompts_of = similarity.prompts_of(folder, config.embedding_model)
                model = config.embedding_model
                _add(counts, contamination.measure_neighbours(folder, prompts_of, store, config.contamination, model))
    counts["prompts_compared"] = _near_topics(store, config)[1]
    repair.sweep_parts(store)
    return counts


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        counts[name] += count


@repair.measuring
def measure(store: Path, config: CurationConfig, executor: Executor | None = None) -> pl.DataFrame:
    """Every comparison of the store with every measure, sorted by comparison_id; nothing decided yet.

    `executor` shares the work on text and the bands of signatures among workers; the ledger is the same.
    """
    measure_texts(store, config, executor)
    batches = open_batches(store)
    texts = batches.comparisons()
    known = _known(store, config)
    measured = known.join(texts.select("comparison_id").collect(), on="comparison_id", how="semi")
    measured = prompts.sign(known, measured)
    ledger = measured.drop("signature", "prompt_signature")
    if config.tokenizer is not None:
        ledger = lengths.measure(ledger)
    ledger = agreement.measure(ledger, batches.votes().collect(), config.agreement)
    ledger = duplicates.measure(ledger, _comparison_edges(store, measured, texts, executor), config.duplicates)
    ledger = duplicates.measure_votes(ledger)
    ledger = prompts.measure(ledger, _prompt_edges(store, measured, texts, config, executor))
    ledger = cycles.measure(ledger, config.cycles)
    ledger = splits.measure(ledger)
    if config.embedding_model is not None:
        ledger = prompt_map.measure(ledger, store, config.embedding_model)
    ledger = _add_slices(ledger.drop("topic_hash", "question_hash", strict=False), texts, config.slices)
    return _complete(ledger)


def _folders(store: Path) -> list[Path]:
    names = open_batches(store).ids
    if not names:
        raise DataError(
            f"{store} holds no batches that count: ingest a source first (`dpo refresh`). `dpo sources` lists those "
            "that were forgotten."
        )
    return [store / "batches" / name for name in names]


def _known(store: Path, config: CurationConfig) -> pl.DataFrame:
    """All that was measured on text, one row per comparison; a repeat in a later batch has the same text."""
    parts = []
    for folder in _folders(store):
        part = pl.read_parquet(folder / features.FILE, glob=False)
        if config.tokenizer is not None:
            counted = pl.read_parquet(token_counts.batch_file(folder, config.tokenizer), glob=False)
            part = part.join(counted, on="comparison_id", how="left", maintain_order="left")
        if config.embedding_model is not None:
            alike = pl.read_parquet(similarity.batch_file(folder, config.embedding_model), glob=False)
            part = part.join(alike, on="comparison_id", how="left", maintain_order="left")
        if config.contamination.benchmarks:
            leaks = pl.read_parquet(contamination.batch_file(folder, config.contamination), glob=False)
            part = part.join(leaks, on="comparison_id", how="left", maintain_order="left")
            if config.embedding_model is not None:
                near_file = contamination.near_file(folder, config.contamination, config.embedding_model)
                near = pl.read_parquet(near_file, glob=False)
                part = part.join(near, on="comparison_id", how="left", maintain_order="left")
        parts.append(part)
    order = ["comparison_id", pl.col("response_not_text").not_(), pl.col("prompt_signature").is_null()]
    return pl.concat(parts).sort(order).unique("comparison_id", keep="first", maintain_order=True)


def _comparison_edges(
    store: Path, measured: pl.DataFrame, texts: pl.LazyFrame, executor: Executor | None
) -> pl.DataFrame:
    proposed = duplicates.proposals(measured.select("comparison_id", "signature"), executor)

    def verify(pairs: pl.DataFrame) -> pl.DataFrame:
        named = _ends(pairs).lazy()
        read = texts.join(named, on="comparison_id", how="semi")
        kept = read.select("comparison_id", "response_a", "response_b", prompt=features.PROMPT_TEXT).collect()
        # A pair is a fact of its two texts, so blocks of pairs are verified apart: bounded memory, any worker.
        parts = [pairs[start : start + _PAIRS] for start in range(0, max(len(pairs), 1), _PAIRS)]
        jobs = ((part, kept.join(_ends(part), on="comparison_id", how="semi")) for part in parts)
        return pl.concat((executor or Inline()).map(_verify, jobs))

    return edges.recall(_near_file(store, "comparisons"), proposed, verify, duplicates.METHOD)


def _near_file(store: Path, name: str) -> Path:
    """Where pairs that were looked at once are remembered."""
    return store / "cache" / "near" / f"{name}.parquet"


def _ends(pairs: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("comparison_id")


def _verify(job: tuple[pl.DataFrame, pl.DataFrame]) -> pl.DataFrame:
    return duplicates.verify(*job)


def _prompt_edges(
    store: Path, measured: pl.DataFrame, texts: pl.LazyFrame, config: CurationConfig, executor: Executor | None
) -> pl.DataFrame:
    first = measured.unique("prompt_hash", keep="first", maintain_order=True)
    proposed = prompts.proposals(measured.select("prompt_hash", signature="prompt_signature"), executor)

    def verify(pairs: pl.DataFrame) -> pl.DataFrame:
        hashes = pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("prompt_hash")
        wanted = first.select("comparison_id", "prompt_hash").join(hashes, on="prompt_hash", how="semi")
        read = texts.join(wanted.lazy(), on="comparison_id").select("prompt_hash", prompt=features.SPOKEN_TEXT)
        return prompts.verify(pairs, read.collect())

    words = edges.recall(_near_file(store, "prompts"), proposed, verify, prompts.METHOD)
    found = words.filter(pl.col("whole") >= config.prompts.jaccard).select("left", "right")
    near, _ = _near_topics(store, config)
    if near is None:
        return found
    return pl.concat([found, prompts.same_topic(first.select("prompt_hash", "topic_hash").drop_nulls(), near)])


def _near_topics(store: Path, config: CurationConfig) -> tuple[pl.DataFrame | None, int]:
    """Hashes of topics (`left`, `right`) that mean nearly the same, null where not looked for; and how many are new."""
    model, limits = config.embedding_model, config.prompts
    if model is None or limits.cosine is None:
        return None, 0
    topics = pl.concat([similarity.prompts_of(folder, model)["topic_hash"] for folder in _folders(store)])
    topics = topics.drop_nulls().unique()
    if len(topics) > limits.max_semantic:
        logger.warning("%d prompts are over prompts.max_semantic: groups go by words alone.", len(topics))
        return None, 0
    path = _near_file(store, f"topics-{embeddings.fingerprint(model)}")
    return semantic_neighbours.recall(path, embeddings.recall(topics, store, model), limits.cosine)


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
    complete = ledger.with_columns(absent).select(*contract, *others)
    # A published ledger is sorted: to sort a million rows of seventy columns again is most of deciding again.
    return complete if complete["comparison_id"].is_sorted() else complete.sort("comparison_id")


def row_rules(config: CurationConfig) -> dict[str, pl.Expr]:
    """Every reason that a row gives by itself. To add a rule: its room's `rules`, and its line here."""
    return (
        lengths.rules(config.sizes)
        | agreement.rules(config.agreement)
        | similarity.rules(config.similarity)
        | duplicates.rules(config.duplicates)
        | cycles.rules(config.cycles)
        | contamination.rules(config.contamination)
    )


def decide(ledger: pl.DataFrame, config: CurationConfig) -> pl.DataFrame:
    """The ledger with `reasons` (empty: kept), `duplicate_of`, `split` and `weight`, sorted by comparison_id."""
    count = len(ledger)
    ledger = _complete(ledger.drop(DECIDED, strict=False))
    ledger = ledger.with_columns(reasons=_reasons(ledger, row_rules(config)))
    ledger = duplicates.choose_survivors(ledger, config.duplicates)
    ledger = prompts.cap(ledger, config.prompts)
    ledger = length_bias.rebalance(ledger, config.length_bias)
    rebalanced = pl.lit(["length_rebalanced"], dtype=REASONS)
    ledger = ledger.with_columns(reasons=pl.when("length_rebalanced").then(rebalanced).otherwise("reasons"))
    ledger = splits.assign(ledger, config.splits).with_columns(weight=pl.col("length_weight"))
    ledger = check(ledger.drop("length_rebalanced", "length_weight"), LEDGER, "ledger")
    assert len(ledger) == count and ledger["comparison_id"].is_unique().all()
    return ledger


def _reasons(ledger: pl.DataFrame, rules: dict[str, pl.Expr]) -> pl.Series:
    """The names of all rules that hold, row by row; null, not measured, never holds.

    One bit a rule: few combinations occur, so lists are made for those only and not for a million rows.
    """
    held = [rule.fill_null(False).cast(pl.UInt64) * (1 << bit) for bit, rule in enumerate(rules.values())]
    codes = ledger.select(code=pl.sum_horizontal(held))
    seen = codes.unique()
    names = [[name for bit, name in enumerate(rules) if code >> bit & 1] for code in seen["code"]]
    lists = seen.with_columns(reasons=pl.Series(names, dtype=REASONS))
    return codes.join(lists, on="code", how="left", maintain_order="left")["reasons"]
