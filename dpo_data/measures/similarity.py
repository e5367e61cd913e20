"""How alike the two responses are, how far from the prompt, and whether they keep its language.

Alike takes two signals: few tokens differ, and what differs means the same. Either alone is wrong: in mathematics
and code one token can be the whole lesson, and two honest answers to a narrow question are close in meaning.
Pairs with similar embeddings drive likelihood displacement (Razin et al. 2410.08847).
`similarity` compares the responses from the sentence where they diverge, not the shared opening.
"""

import re
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from dpo_data.executor import Executor
from dpo_data.ids import text_hash
from dpo_data.settings import Settings
from dpo_data.text import stamps
from dpo_data.text.embeddings import DIGITS, READ, Embedded, embed, fingerprint

BATCH_COLUMNS = {
    "comparison_id": pl.String,
    "similarity": pl.Float64,
    "similarity_prompt_a": pl.Float64,
    "similarity_prompt_b": pl.Float64,
    "topic_hash": pl.String,  # of the texts whose vectors stand for the prompt: the conversation so far,
    "question_hash": pl.String,  # and its last user message
}
METHOD = "similarity 1"  # raise it when other texts would be embedded, or compared otherwise
_ROWS = 20_000  # a block: at most 80,000 vectors, 120 MB

_SENTENCE_END = re.compile(r"[.!?。！？]\s+|\n")


class SimilarPairLimits(Settings):
    """A pair goes when it is alike in words and in meaning, and the votes do not say that the difference matters."""

    # From the sentence where they part, all-MiniLM-L6-v2 puts another number, name or operator at .57 to .87, and
    # another spelling or mark at .91 and above. It hardly sees a "not" (.98): that is what the votes are asked for.
    cosine: float = Field(default=0.9, ge=-1, le=1)
    # Pairs at low edit distance fail under DPO (Pal et al. 2402.13228); see the yield curve in stats.json.
    edit_ratio: float = Field(default=0.1, ge=0, le=1)
    unless_confidence: float | None = Field(default=0.95, ge=0.5, le=1)  # several annotators, all of one mind


class SimilarityLimits(Settings):
    """Limits on likeness; `by_slice` maps a slice column to value -> limits, for mathematics or code."""

    responses: SimilarPairLimits | None = SimilarPairLimits()
    by_slice: dict[str, dict[str, SimilarPairLimits | None]] = Field(default_factory=dict)
    # Off: short answers ("Yes.") are far from any prompt in embedding space and still on topic.
    min_prompt_cosine: float | None = None
    # Off: all six PandaLM rows that it finds are requests to translate. Look at the slice before switching it on.
    same_language: bool = False


def parting(response_a: str, response_b: str) -> tuple[str, str]:
    """Both responses from the sentence in which they part, each cut to what the model reads.

    A long shared opening would drown the part that differs; and beyond the model's window it would be all there is.
    """
    ends = min(len(response_a), len(response_b))
    same = next((at for at, (one, two) in enumerate(zip(response_a, response_b, strict=False)) if one != two), ends)
    start = 0
    for found in _SENTENCE_END.finditer(response_a, 0, same):
        if found.end() < ends:
            start = found.end()
    return response_a[start : start + READ], response_b[start : start + READ]


def pieces(comparisons: pl.DataFrame) -> pl.DataFrame:
    """The texts that are embedded: `comparison_id, prompt, topic, response_a, response_b`.

    `prompt` is the last user message (what the response must be about), `topic` how the conversation starts without
    its system message (what makes two prompts the same topic); null where there is nothing to embed.
    """
    contents = pl.element().struct.field("content")
    role = pl.element().struct.field("role")
    parted = [parting(one, two) for one, two in zip(comparisons["response_a"], comparisons["response_b"], strict=True)]
    texts = comparisons.select(
        "comparison_id",
        prompt=pl.col("prompt").list.eval(contents.filter(role == "user")).list.last().str.slice(0, READ),
        topic=pl.col("prompt").list.eval(contents.filter(role != "system")).list.join("\n").str.slice(0, READ),
        response_a=pl.Series([one for one, _ in parted], dtype=pl.String),
        response_b=pl.Series([two for _, two in parted], dtype=pl.String),
    )
    return texts.with_columns(pl.when(pl.col(name) != "").then(name) for name in texts.columns[1:])


def measure(parts: pl.DataFrame, embedded: Embedded) -> pl.DataFrame:
    """The cosines of a block, and the hashes of its prompts' texts, in BATCH_COLUMNS."""
    hashes = {name: _hashes(parts[name]) for name in ("prompt", "topic", "response_a", "response_b")}
    return pl.DataFrame(
        {
            "comparison_id": parts["comparison_id"],
            "similarity": _cosines(hashes["response_a"], hashes["response_b"], embedded),
            "similarity_prompt_a": _cosines(hashes["prompt"], hashes["response_a"], embedded),
            "similarity_prompt_b": _cosines(hashes["prompt"], hashes["response_b"], embedded),
            "topic_hash": hashes["topic"],
            "question_hash": hashes["prompt"],
        },
        schema=BATCH_COLUMNS,
    )


def _hashes(texts: pl.Series) -> pl.Series:
    return pl.Series([None if text is None else text_hash(text) for text in texts], dtype=pl.String)


def _cosines(one: pl.Series, two: pl.Series, embedded: Embedded) -> pl.Series:
    """Null where either text is blank; rounded, since the last bits of a vector depend on its batch mates."""
    known = one.is_not_null() & two.is_not_null()
    left, right = embedded.rows(one.filter(known)), embedded.rows(two.filter(known))
    cosines = np.einsum("ij,ij->i", embedded.vectors[left], embedded.vectors[right]).astype(np.float64)
    found = np.full(len(one), np.nan)
    found[known.to_numpy()] = np.round(np.clip(cosines, -1, 1), DIGITS)
    return pl.Series(found).fill_nan(None)


def batch_file(folder: Path, model: str) -> Path:
    """Where a batch keeps its cosines by `model`."""
    return folder / f"similarity-{fingerprint(model)}.parquet"


def measure_batch(folder: Path, store: Path, model: str, executor: Executor | None = None) -> dict[str, int]:
    """Write `similarity-<model>.parquet` beside the batch, once; how many texts were embedded and taken from cache.

    Blocks go by id: which texts share a block, and with it the last bits, does not depend on the order of the files.
    """
    target = batch_file(folder, model)
    counts = {"texts_embedded": 0, "texts_from_cache": 0}
    if stamps.made_by(target, METHOD) and pl.scan_parquet(target, glob=False).collect_schema() == BATCH_COLUMNS:
        return counts
    source = pl.scan_parquet(folder / "comparisons.parquet", glob=False).select(
        "comparison_id", "prompt", "response_a", "response_b"
    )
    ids = source.select("comparison_id").collect()["comparison_id"].sort()
    blocks = [pl.DataFrame(schema=BATCH_COLUMNS)]
    for start in range(0, len(ids), _ROWS):
        block = ids[start : start + _ROWS]
        rows = (
            source.filter(pl.col("comparison_id").is_between(pl.lit(block[0]), pl.lit(block[-1])))
            .collect()
            .sort("comparison_id")
        )
        parts = pieces(rows)
        embedded = embed(pl.concat([parts[name] for name in parts.columns[1:]]), store, model, executor)
        counts["texts_embedded"] += embedded.embedded
        counts["texts_from_cache"] += embedded.cached
        blocks.append(measure(parts, embedded))
    stamps.write(pl.concat(blocks), target, METHOD)
    return counts


def prompts_of(folder: Path, model: str) -> pl.DataFrame:
    """`comparison_id, topic_hash, question_hash` of a measured batch: the texts whose vectors stand for each prompt."""
    columns = ["comparison_id", "topic_hash", "question_hash"]
    return pl.read_parquet(batch_file(folder, model), columns=columns, glob=False)


def rules(limits: SimilarityLimits) -> dict[str, pl.Expr]:
    """Too alike (both signals), far from the prompt, in another language than the prompt."""
    found: dict[str, pl.Expr] = {}
    alike = _too_similar(limits)
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


def _too_similar(limits: SimilarityLimits) -> pl.Expr | None:
    if limits.responses is None and not limits.by_slice:
        return None
    chosen = _both(limits.responses)
    for column, values in limits.by_slice.items():
        for value, own in values.items():
            chosen = pl.when(pl.col(column) == value).then(_both(own)).otherwise(chosen)
    return chosen


def _both(limits: SimilarPairLimits | None) -> pl.Expr:
    if limits is None:
        return pl.lit(False)
    alike = (pl.col("similarity") > limits.cosine) & (pl.col("edit_ratio") < limits.edit_ratio)
    if limits.unless_confidence is None:
        return alike
    return alike & (pl.col("confidence").fill_null(0.5) < limits.unless_confidence)
