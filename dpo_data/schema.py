"""The tables of the store and of a version, and the check that names what is wrong, where, and what to do.

Null means "not measured" everywhere, and never fails a rule. Sides `a` and `b` are canonical: `a` is the
response with the smaller text hash, whatever order a source showed.
"""

import polars as pl

SCHEMA = 2
"""Number of the tables of a version, in its manifest. Raise it when a column changes its name or meaning."""

MESSAGES = pl.List(pl.Struct({"role": pl.String(), "content": pl.String()}))
ATTRIBUTES = pl.List(pl.Struct({"key": pl.String(), "value": pl.String()}))

COMPARISONS = pl.Schema(
    {
        "comparison_id": pl.String(),
        "prompt": MESSAGES,
        "response_a": pl.String(),
        "response_b": pl.String(),
        "attributes": ATTRIBUTES,
    }
)

VOTES = pl.Schema(
    {
        "comparison_id": pl.String(),
        "choice": pl.String(),  # a, b or tie
        "strength": pl.Float64(),  # 0..1 as the source grades it, null where it does not
        "annotator": pl.String(),  # null: anonymous
        "annotator_kind": pl.String(),  # human, model or unknown
        "at": pl.Datetime("us", "UTC"),
        "shown_first": pl.String(),  # a, b or null: the side the annotator saw first
        "source": pl.String(),
        "origin": pl.String(),  # file:record, or file:record,record where several records made one vote
    }
)

# A thumb up or down on one response that met no opposite thumb on its prompt: no pair, still worth training KTO on.
THUMBS = pl.Schema(
    {
        "prompt": MESSAGES,
        "completion": pl.String(),
        "label": pl.Boolean(),
        "annotator": pl.String(),
        "annotator_kind": pl.String(),
        "at": pl.Datetime("us", "UTC"),
        "source": pl.String(),
        "origin": pl.String(),
    }
)

REJECTS = pl.Schema({"origin": pl.String(), "reason": pl.String(), "record": pl.String(), "source": pl.String()})

# One row per comparison: what the text alone says. Every column but the id may be null ("not measured").
MEASURES = pl.Schema(
    {
        "comparison_id": pl.String(),
        "prompt_hash": pl.String(),
        "last_turn_hash": pl.String(),  # the final user message alone
        "opening_hash": pl.String(),  # prompt hash of the first user message alone; null for a single turn
        "exchange_hash": pl.String(),  # of the first user message and its reply; null for a single turn
        "hash_a": pl.String(),
        "hash_b": pl.String(),
        "turns": pl.UInt32(),  # messages of the prompt by the user
        "prompt_chars": pl.UInt32(),
        "response_not_text": pl.Boolean(),  # a response was another JSON value (true, a number), kept as its text
        "chars_a": pl.UInt32(),
        "chars_b": pl.UInt32(),
        "words_a": pl.UInt32(),
        "words_b": pl.UInt32(),
        "headers_a": pl.UInt32(),
        "headers_b": pl.UInt32(),
        "lists_a": pl.UInt32(),
        "lists_b": pl.UInt32(),
        "bold_a": pl.UInt32(),
        "bold_b": pl.UInt32(),
        "code_a": pl.UInt32(),
        "code_b": pl.UInt32(),
        "language": pl.String(),  # of the prompt's last user message
        "language_a": pl.String(),
        "language_b": pl.String(),
        "edit_ratio": pl.Float64(),  # 0 identical .. 1 nothing in common, insertions and deletions of words and marks
        "signature": pl.Binary(),  # MinHash of word 3-grams, little-endian u32
        "prompt_signature": pl.Binary(),  # the same of the prompt alone, on the first row of each prompt
    }
)

# Rows of versions/<id>/ledger.parquet: every comparison, every measure, every reason. Slices chosen from the
# attributes follow as further string columns.
LEDGER = pl.Schema(
    {
        "comparison_id": pl.String(),
        "source": pl.String(),
        "votes": pl.UInt32(),
        "votes_a": pl.UInt32(),
        "votes_b": pl.UInt32(),
        "votes_tie": pl.UInt32(),
        "annotators": pl.UInt32(),
        "self_contradictions": pl.UInt32(),  # annotators who chose both sides
        "preferred": pl.String(),  # a, b or null
        "agreement": pl.Float64(),  # share of the votes that chose `preferred`; null below two votes
        "confidence": pl.Float64(),  # P(`preferred` is better) + P(neither is) / 2, by the votes
        "p_equal": pl.Float64(),  # P(neither is better)
        **{name: kind for name, kind in MEASURES.items() if name != "comparison_id" and kind != pl.Binary},
        "tokens_prompt": pl.UInt32(),
        "tokens_a": pl.UInt32(),
        "tokens_b": pl.UInt32(),
        "tokens_shared": pl.UInt32(),  # tokens both responses start with, end mark included
        "tokens_to_divergence": pl.UInt32(),  # of the prompt and these: where training sees the first difference
        "similarity": pl.Float64(),  # cosine of the two responses
        "similarity_prompt_a": pl.Float64(),
        "similarity_prompt_b": pl.Float64(),
        "x": pl.Float64(),  # where the prompt lies on a plane, for plots
        "y": pl.Float64(),
        "duplicate_of": pl.String(),
        "duplicate_similarity": pl.Float64(),  # of the whole, with the twin it is nearest to
        "duplicate_part": pl.Float64(),  # of the part in which the two are least alike
        "duplicate_method": pl.String(),  # near or case_or_space
        "duplicate_cluster": pl.String(),
        "duplicate_swapped": pl.Boolean(),  # this row's a is the b of the row that names the cluster
        "twin_votes_for": pl.UInt32(),  # votes in the whole cluster, for the answer preferred here
        "twin_votes_against": pl.UInt32(),
        "prompt_group": pl.String(),
        "group_rank": pl.UInt32(),  # place among the standing rows of its group, the most confident first; null: no cap
        "split_coin": pl.Float64(),  # the group's number in [0, 1)
        "benchmark_overlap": pl.Float64(),  # share of a benchmark item's words that lie in shared 8-grams
        "benchmark_item": pl.String(),  # file:record of that item
        "benchmark_similarity": pl.Float64(),  # cosine of the prompt and the benchmark item nearest to it
        "benchmark_neighbour": pl.String(),  # file:record of that item
        "in_cycle": pl.Boolean(),
        "cycle_edge": pl.Boolean(),  # in the smallest set whose removal opens every circle
        "split": pl.String(),  # train, validation or test
        "weight": pl.Float64(),
        "reasons": pl.List(pl.String),  # empty: kept
    }
)

# The wire format. Slice columns follow; all are flat, plain types.
PAIRS = pl.Schema(
    {
        "pair_id": pl.String(),  # the comparison's id
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "weight": pl.Float64(),
        "confidence": pl.Float64(),  # P(chosen is better) + P(neither is) / 2: a soft label
        "p_equal": pl.Float64(),  # P(neither is better)
        "votes_chosen": pl.UInt32(),
        "votes_rejected": pl.UInt32(),
        "source": pl.String(),
        "split": pl.String(),
    }
)

UNPAIRED = pl.Schema(
    {
        "row_id": pl.String(),
        "prompt": MESSAGES,
        "completion": MESSAGES,
        "label": pl.Boolean(),
        "weight": pl.Float64(),
        "source": pl.String(),
        "split": pl.String(),
    }
)


class DataError(ValueError):
    """User-fixable error. The message states what was found, what was expected, where, and how to fix it."""


def check(frame: pl.DataFrame, schema: pl.Schema, where: str) -> pl.DataFrame:
    """Return `frame` with the contract's columns first, or raise `DataError` naming every difference.

    Further columns are allowed (slices, newer measures) and keep their order behind the contract's.
    """
    missing = [name for name in schema if name not in frame.columns]
    wrong = [
        f"{name} is {frame.schema[name]}, expected {kind}"
        for name, kind in schema.items()
        if name in frame.columns and frame.schema[name] != kind
    ]
    if missing or wrong:
        found = "; ".join([*(f"column {name} is missing" for name in missing), *wrong])
        raise DataError(
            f"{where}: {found}. Write it with this version of the package, or read it with the one that wrote it."
        )
    return frame.select(*schema, *(name for name in frame.columns if name not in schema))


def empty(schema: pl.Schema) -> pl.DataFrame:
    """A table with the contract's columns and no rows."""
    return pl.DataFrame(schema=schema)


SPLITS = ("train", "validation", "test")


# Columns of every pairs shard behind the wire format: what the margin report groups by.
SLICE_COLUMNS = pl.Schema(
    {
        "agreement": pl.Float64,
        "similarity": pl.Float64,
        "edit_ratio": pl.Float64,
        "length_gap_tokens": pl.Int64,  # chosen - rejected; null where tokens were not counted
        "length_gap_chars": pl.Int64,
        "tokens_chosen": pl.UInt32,
        "tokens_rejected": pl.UInt32,
        "turns": pl.UInt32,
        "language": pl.String,
        "prompt_group": pl.String,
        "annotators": pl.UInt32,
        "votes": pl.UInt32,
        "in_cycle": pl.Boolean,
        "x": pl.Float64,  # where the prompt lies on a plane, for plots
        "y": pl.Float64,
    }
)


def no_pairs(slices: tuple[str, ...]) -> pl.DataFrame:
    """The columns of the pairs shards without a row, for versions that hold unpaired responses only."""
    return empty(pl.Schema({**PAIRS, **SLICE_COLUMNS, **dict.fromkeys(slices, pl.String())}))
