"""A store made from files of the sample, for tests that need real batches."""

from pathlib import Path

import numpy as np
import polars as pl

from dpo_data.ids import text_hash
from dpo_data.ingest.append import append_batch
from dpo_data.measures import similarity
from dpo_data.store import batches
from dpo_data.text import embeddings

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"


def store_of(store: Path, *names: str) -> Path:
    """Append the named files, one source each."""
    for name in names:
        append_batch(store, [SAMPLE / name], name.split(".")[0])
    return store


def fill_cache(store: Path, shards: list[tuple[list[str], np.ndarray]]) -> None:
    """A cache of embeddings with these text hashes and vectors, shard by shard."""
    folder = store / "cache" / "embeddings" / embeddings.fingerprint(embeddings.DEFAULT)
    folder.mkdir(parents=True)
    for number, (hashes, vectors) in enumerate(shards):
        column = pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
        pl.DataFrame({"hash": hashes, "vector": column}).write_parquet(folder / f"{number}.parquet")


def embed_by_chance(store: Path, width: int = 8) -> Path:
    """A random vector for every text that would be embedded, so that no model is needed and nothing means anything."""
    texts = similarity.pieces(batches.open_batches(store).comparisons().collect())
    hashes = sorted({text_hash(text) for name in texts.columns[1:] for text in texts[name].drop_nulls()})
    vectors = np.random.default_rng(0).normal(size=(len(hashes), width)).astype(np.float32)
    fill_cache(store, [(hashes, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))])
    return store
