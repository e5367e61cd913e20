"""Hashes of what a version is made of: the votes that went in and the decisions that came out.

They do not depend on files, batches, row order or the release of any library, so the same content published on
another machine, from other files, by another executor has the same version id.
"""

from hashlib import blake2b, sha256

import numpy as np
import polars as pl

from dpo_data import schema
from dpo_data.config import CurationConfig
from dpo_data.measures import contamination, duplicates, prompts, similarity
from dpo_data.store.batches import Batches
from dpo_data.text import embeddings, features, semantic_neighbours, token_counts
from dpo_data.votes import agreement

# Raise it when the same decisions would be published as other pairs: they are then another version. What measures and
# decisions come to is in `methods` and `decisions`. tests/data/test_versions.py holds a few published pairs under it.
RESULTS = "2"


def inputs(opened: Batches) -> str:
    """Hash of all votes, thumbs and rejects, whatever files, batches and order they came in."""
    votes = opened.votes().select(name for name in schema.VOTES if name != "origin")
    thumbs = opened.thumbs().select(
        pl.col("prompt").list.eval(pl.element().struct.json_encode()),
        *(name for name in schema.THUMBS if name not in ("prompt", "origin")),
    )
    unread = opened.rejects().select("reason", "record", "source")
    digests = [rows(table.collect()) for table in (votes, thumbs, unread)]
    return sha256(" ".join(digests).encode()).hexdigest()


def models(config: CurationConfig) -> dict[str, str]:
    """Name and fingerprint of the models and benchmarks behind the measures; what is switched off has no entry."""
    found = {}
    if config.tokenizer is not None:
        found["tokenizer"] = f"{config.tokenizer} {token_counts.fingerprint(config.tokenizer)}"
    if config.embedding_model is not None:
        found["embedding"] = f"{config.embedding_model} {embeddings.fingerprint(config.embedding_model)}"
    if config.contamination.benchmarks:
        found["benchmarks"] = contamination.digest(config.contamination)
    return found


def methods(config: CurationConfig) -> dict[str, str]:
    """The method version of every measure on text and of that on votes; what is switched off has no entry."""
    found = {
        "text": features.METHOD,
        "agreement": agreement.METHOD,
        "duplicates": duplicates.METHOD,
        "prompts": prompts.METHOD,
    }
    if config.tokenizer is not None:
        found["tokens"] = token_counts.METHOD
    if config.embedding_model is not None:
        found |= {"similarity": similarity.METHOD, "neighbours": semantic_neighbours.METHOD}
    if config.contamination.benchmarks:
        found["contamination"] = contamination.METHOD
        if config.embedding_model is not None:
            found["contamination by meaning"] = contamination.NEAR_METHOD
    return found


def decisions(ledger: pl.DataFrame) -> str:
    """Hash of what was decided for every comparison, and on which votes, whatever the row order."""
    numbers = [pl.col(name).round(9) for name in ("confidence", "p_equal", "weight")]
    return rows(
        ledger.select("comparison_id", "votes_a", "votes_b", "votes_tie", "preferred", "split", "reasons", *numbers)
    )


def rows(frame: pl.DataFrame) -> str:
    """Hex hash of the rows of a frame as a multiset: the same whatever their order. Flat columns and string lists.

    Unlike polars' own row hashes it does not change from release to release.
    """
    cells = [
        pl.col(name).list.join("\x1f") if isinstance(kind, pl.List) else pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
    ]
    line = pl.concat_str([cell.fill_null("\x00") for cell in cells], separator="\x1e")
    digests = bytearray()  # 16 bytes a row: the lines themselves are never held all at once
    for part in frame.iter_slices(100_000):
        lines = part.select(line).to_series()
        digests += b"".join(blake2b(text.encode(), digest_size=16).digest() for text in lines)
    ordered = np.sort(np.frombuffer(digests, dtype="V16").view("S16")) if digests else np.empty(0, "S16")
    return blake2b("\x1e".join(frame.columns).encode() + b"\n" + ordered.tobytes(), digest_size=16).hexdigest()
