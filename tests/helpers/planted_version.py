"""A small store and its decided ledger, built from a few lines, for the tests of what comes after the decision."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data import schema
from dpo_data.config import CurationConfig
from dpo_data.ids import canonical, coin, comparison_hash, prompt_hash, text_hash

# Columns that measuring adds beyond the contract, as it leaves them where nothing was found.
FACTS = [
    pl.lit(0.9).alias("split_coin"),
    pl.lit(0, pl.UInt32).alias("self_contradictions"),
    pl.lit(None, pl.Boolean).alias("duplicate_swapped"),
    pl.lit(None, pl.UInt32).alias("twin_votes_against"),
    pl.lit(None, pl.UInt32).alias("twin_votes_for"),
    pl.lit(None, pl.Boolean).alias("response_not_text"),
    pl.lit(None, pl.UInt32).alias("tokens_shared"),
    pl.lit(False).alias("cycle_edge"),
]


def config(**changes: Any) -> CurationConfig:
    """Settings without models, with `category` as a slice; a planted ledger is decided already."""
    return CurationConfig(tokenizer=None, embedding_model=None, slices=("category",)).model_copy(update=changes)


@dataclass
class Planted:
    """One comparison as a test thinks of it: `better` and `worse` are texts, whatever side they get."""

    prompt: str
    better: str
    worse: str
    reasons: tuple[str, ...] = ()
    split: str = "train"
    source: str = "planted"
    category: str = "chat"
    votes: int = 3  # for `better`
    against: int = 0
    measures: dict[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": canonical(self.prompt)}]

    @property
    def sides(self) -> tuple[str, str]:
        """response_a, response_b: a has the smaller hash."""
        low, high = sorted((canonical(self.better), canonical(self.worse)), key=text_hash)
        return low, high

    @property
    def id(self) -> str:
        return comparison_hash(prompt_hash(self.messages), text_hash(self.sides[0]), text_hash(self.sides[1]))

    @property
    def preferred(self) -> str:
        return "a" if self.sides[0] == canonical(self.better) else "b"


def many(count: int, **changes: Any) -> list[Planted]:
    """`count` different comparisons; about a tenth each goes to validation and test."""
    rows = []
    for i in range(count):
        luck = coin(str(i), "split")
        split = "validation" if luck < 0.1 else "test" if luck < 0.2 else "train"
        better, worse = f"Answer {i}: yes, with care.", f"No idea about {i}, " + "and so on " * (i % 7)
        rows.append(Planted(f"Question {i}?", better, worse, **{"split": split, **changes}))
    return rows


def ledger_of(rows: Sequence[Planted]) -> pl.DataFrame:
    """The decided ledger of the planted rows, in the order of `schema.LEDGER` plus `category`."""
    records = []
    for row in rows:
        a, b = row.sides
        mine, other = (row.votes, row.against) if row.preferred == "a" else (row.against, row.votes)
        total = row.votes + row.against
        records.append(
            {
                **dict.fromkeys(schema.LEDGER),
                "comparison_id": row.id,
                "source": row.source,
                "votes": total,
                "votes_a": mine,
                "votes_b": other,
                "votes_tie": 0,
                "annotators": total,
                "preferred": row.preferred,
                "agreement": row.votes / total if total > 1 else None,
                "confidence": (row.votes + 1) / (total + 2),
                "prompt_hash": prompt_hash(row.messages),
                "hash_a": text_hash(a),
                "hash_b": text_hash(b),
                "turns": 1,
                "prompt_chars": len(row.prompt),
                "chars_a": len(a),
                "chars_b": len(b),
                "words_a": len(a.split()),
                "words_b": len(b.split()),
                "edit_ratio": 0.9,
                "prompt_group": prompt_hash(row.messages),
                "split": row.split,
                "weight": 1.0,
                "reasons": list(row.reasons),
                "category": row.category,
                **row.measures,
            }
        )
    return pl.DataFrame(records, schema=pl.Schema({**schema.LEDGER, "category": pl.String}), orient="row")


def votes_of(rows: Sequence[Planted]) -> pl.DataFrame:
    """Named votes: ann-0, ann-1, … in the order of the rows' counts."""
    records = []
    for i, row in enumerate(rows):
        other = "b" if row.preferred == "a" else "a"
        for seat in range(row.votes + row.against):
            records.append(
                {
                    **dict.fromkeys(schema.VOTES),
                    "comparison_id": row.id,
                    "choice": row.preferred if seat < row.votes else other,
                    "annotator": f"ann-{seat}",
                    "annotator_kind": "human",
                    "shown_first": "a",
                    "source": row.source,
                    "origin": f"planted.jsonl:{i}",
                }
            )
    return pl.DataFrame(records, schema=schema.VOTES, orient="row")


def comparisons_of(rows: Sequence[Planted]) -> pl.DataFrame:
    """The text table of the planted rows."""
    records = [
        {
            "comparison_id": row.id,
            "prompt": row.messages,
            "response_a": row.sides[0],
            "response_b": row.sides[1],
            "attributes": [{"key": "category", "value": row.category}],
        }
        for row in rows
    ]
    return pl.DataFrame(records, schema=schema.COMPARISONS, orient="row")


def plant_store(
    store: Path, rows: Sequence[Planted], batch: str = "0001-planted", thumbs: Sequence[dict[str, Any]] = ()
) -> Path:
    """Write one batch folder that holds the rows; returns the store."""
    folder = store / "batches" / batch
    folder.mkdir(parents=True)
    comparisons_of(rows).write_parquet(folder / "comparisons.parquet")
    votes_of(rows).write_parquet(folder / "votes.parquet")
    thumb_rows = [{**dict.fromkeys(schema.THUMBS), "source": "planted", **thumb} for thumb in thumbs]
    pl.DataFrame(thumb_rows, schema=schema.THUMBS, orient="row").write_parquet(folder / "thumbs.parquet")
    schema.empty(schema.REJECTS).write_parquet(folder / "rejects.parquet")
    (folder / "manifest.json").write_text(json.dumps({"source": "planted", "digest": batch, "files": []}))
    return store
