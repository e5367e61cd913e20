"""What the text of a comparison alone can tell, measured once, batch by batch, and written beside the batch.

Every other room works on these narrow columns; a batch measured once is never read again for them. Rows are
measured in blocks that know nothing of each other (blocks.py), so any number of processes gives the same file.
"""

from pathlib import Path

import numpy as np
import polars as pl

from dpo_data.executor import Executor
from dpo_data.ids import text_hash
from dpo_data.schema import MEASURES
from dpo_data.text import blocks, languages, minhash, style
from dpo_data.text.edit_distance import edit_ratio
from dpo_data.text.minhash import sign_comparisons
from dpo_data.text.style import length_counts
from dpo_data.text.token_hashes import Tokens, tokens

FILE = "measures.parquet"
# Raise the number when anything below, or in the rooms it calls, would measure the same text otherwise: a length, a
# style count, a hash, a word, the edit ratio. tests/data/test_features.py fails when that was forgotten.
METHOD = f"text measures 1, {minhash.METHOD}, {languages.METHOD}"
NOT_TEXT = "non_text_response"  # the attribute by which a reader says that a response was no JSON string

# One text for a whole prompt; the same separators as ids.prompt_hash.
_MESSAGES = pl.col("prompt").list.eval(
    pl.concat_str(pl.element().struct.field("role"), pl.lit("\x1f"), pl.element().struct.field("content"))
)
_CONTENTS = pl.col("prompt").list.eval(pl.element().struct.field("content"))
PROMPT_TEXT = _CONTENTS.list.join("\n")
# What near prompts are compared by: a long system message that all of them share says nothing about the question.
SPOKEN_TEXT = (
    pl.col("prompt")
    .list.eval(pl.element().struct.field("content").filter(pl.element().struct.field("role") != "system"))
    .list.join("\n")
)
_SYSTEM = (pl.col("prompt").list.first().struct.field("role") == "system").fill_null(False).cast(pl.UInt32)
_SEVERAL = pl.col("prompt").list.len() >= _SYSTEM + 3
_BY_USER = pl.col("prompt").list.eval(
    pl.element().struct.field("content").filter(pl.element().struct.field("role") == "user")
)


def measure_batch(folder: Path, executor: Executor | None = None, block: int = blocks.ROWS) -> int:
    """Write `measures.parquet` (schema MEASURES) beside `comparisons.parquet`; the rows measured, 0 where it exists."""
    return blocks.write(folder / FILE, measure, MEASURES, METHOD, executor, block)


def measure(comparisons: pl.DataFrame) -> pl.DataFrame:
    """The measures of a block of comparisons, same order. Pure: depends on nothing but the rows' own texts."""
    texts = comparisons.select(
        "comparison_id",
        "response_a",
        "response_b",
        whole=_MESSAGES.list.join("\x1e"),
        prompt=PROMPT_TEXT,
        prompt_chars=_CONTENTS.list.eval(pl.element().str.len_chars()).list.sum(),
        last=_BY_USER.list.last(),
        response_not_text=pl.col("attributes").list.eval(pl.element().struct.field("key") == NOT_TEXT).list.any(),
        turns=_BY_USER.list.len(),
        spoken=SPOKEN_TEXT,
        opening=pl.when(_SEVERAL).then(_MESSAGES.list.head(_SYSTEM + 1).list.join("\x1e")),
        exchange=pl.when(_SEVERAL).then(_MESSAGES.list.head(_SYSTEM + 2).list.join("\x1e")),
    )
    rows = len(texts)
    found = tokens(pl.concat([texts["prompt"], texts["response_a"], texts["response_b"]]))
    shingles = minhash.shingles(found.words())
    parts = [shingles.rows(part * rows, (part + 1) * rows) for part in range(3)]
    sides = {
        f"{name}_{side}": count
        for side in ("a", "b")
        for name, count in (
            length_counts(pl.col(f"response_{side}")) | style.style_counts(pl.col(f"response_{side}"))
        ).items()
    }
    measured = texts.select(
        "comparison_id",
        "turns",
        "prompt_chars",
        "response_not_text",
        *(expression.alias(name) for name, expression in sides.items()),
        prompt_hash=_hashes(texts["whole"]),
        last_turn_hash=_hashes(texts["last"]),
        opening_hash=_hashes(texts["opening"]),
        exchange_hash=_hashes(texts["exchange"]),
        hash_a=_hashes(texts["response_a"]),
        hash_b=_hashes(texts["response_b"]),
        language=languages.identify(texts["last"]),
        language_a=languages.identify(texts["response_a"]),
        language_b=languages.identify(texts["response_b"]),
        edit_ratio=_edit_ratios(found, rows),
        signature=sign_comparisons(*parts),
    )
    # A prompt's own signature is stored with its first row in the block; its other rows would only repeat it.
    first = measured["prompt_hash"].is_first_distinct()
    spoken = parts[0]
    if (texts["spoken"] != texts["prompt"]).any():
        spoken = minhash.shingles(tokens(texts["spoken"]).words())
    signed = minhash.sign(spoken.take(first.arg_true().to_numpy()))
    place = pl.Series(np.where(first.to_numpy(), first.cum_sum().to_numpy().astype(np.int64) - 1, 0))
    measured = measured.with_columns(prompt_signature=pl.when(first).then(signed.gather(place)))
    return measured.cast({name: kind for name, kind in MEASURES.items() if kind == pl.UInt32}).select(*MEASURES)


def _hashes(texts: pl.Series) -> pl.Series:
    return pl.Series([None if text is None else text_hash(text) for text in texts], dtype=pl.String)


def _edit_ratios(found: Tokens, rows: int) -> pl.Series:
    """`found` holds prompts, then sides a, then sides b."""
    codes, borders = found.exact.tolist(), found.offsets.tolist()
    side_a, side_b = borders[rows : 2 * rows + 1], borders[2 * rows :]
    return pl.Series(
        [edit_ratio(codes[side_a[row] : side_a[row + 1]], codes[side_b[row] : side_b[row + 1]]) for row in range(rows)],
        dtype=pl.Float64,
    )
