"""Embeddings by the packaged model: cached once, deduplicated, checked."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dpo_data import embeddings
from dpo_data.identity import text_hash
from dpo_data.schema import DataError

CATS = ["The cat sleeps on the sofa.", "A cat is asleep on the couch.", "Interest rates rose in March."]


@pytest.mark.models
def test_texts_are_embedded_once_ever_and_repeats_are_one(tmp_path: Path) -> None:
    first = embeddings.embed(pl.Series([*CATS, CATS[0], None]), tmp_path)
    assert (first.embedded, first.cached, len(first.hashes)) == (3, 0, 3)
    again = embeddings.embed(pl.Series([*CATS[:2], "One text more."]), tmp_path)
    assert (again.embedded, again.cached) == (1, 2)
    recalled = embeddings.recall(first.hashes, tmp_path)
    assert np.array_equal(recalled.vectors, first.vectors)


@pytest.mark.models
def test_vectors_have_length_one_and_meaning_is_near(tmp_path: Path) -> None:
    found = embeddings.embed(pl.Series(CATS), tmp_path)
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    cat, couch, rates = found.vectors[found.rows(pl.Series([text_hash(text) for text in CATS]))]
    assert cat @ couch > 0.7 > 0.3 > cat @ rates


def test_nothing_to_embed_needs_no_model(tmp_path: Path) -> None:
    found = embeddings.embed(pl.Series([], dtype=pl.String), tmp_path)
    assert (found.embedded, found.cached, len(found.hashes)) == (0, 0, 0)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="embedding_model"):
        embeddings.load(str(tmp_path))


def test_the_packaged_model_is_the_upstream_file() -> None:
    assert embeddings.fingerprint(embeddings.DEFAULT) == "all-minilm-l6-v2-53aa51172d142c89"
