"""Embeddings by the packaged model: cached once, deduplicated, checked."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dpo_data.ids import text_hash
from dpo_data.schema import DataError
from dpo_data.text import embeddings

WORDS = [a + b + c for a in "bdfglm" for b in "aeiou" for c in "knprs"]
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


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: one random layer that knows 150 words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast, set_seed

    folder = tmp_path_factory.mktemp("models") / "small"
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."]
    (folder.parent / "vocab.txt").write_text("\n".join([*marks, *WORDS]))
    BertTokenizerFast(str(folder.parent / "vocab.txt")).save_pretrained(folder)
    set_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=len(marks) + len(WORDS), **shape))
    model.embeddings.position_embeddings.weight.data.zero_()  # else random places would say more than the words
    model.save_pretrained(folder)
    return folder


def test_a_static_table_agrees_with_the_model_that_it_is_made_from(small_model: Path, tmp_path: Path) -> None:
    luck = np.random.default_rng(0)
    texts = pl.Series([" ".join(luck.choice(WORDS[60:], 6, replace=False)) + "." for _ in range(80)])
    found = [embeddings.embed(texts, tmp_path, start + str(small_model)) for start in ("", embeddings.STATIC)]
    assert found[0].hashes.equals(found[1].hashes)
    above = np.triu_indices(len(texts), 1)
    model, table = ((one.vectors @ one.vectors.T)[above] for one in found)
    assert np.corrcoef(model, table)[0, 1] > 0.5
    assert np.allclose(np.linalg.norm(found[1].vectors, axis=1), 1, atol=1e-5)


def test_a_static_table_is_made_once_a_store_and_knows_no_order(small_model: Path, tmp_path: Path) -> None:
    model = embeddings.STATIC + str(small_model)
    said, turned, nothing = (
        pl.Series([f"{WORDS[80]} {WORDS[90]}"]),
        pl.Series([f"{WORDS[90]} {WORDS[80]}"]),
        pl.Series([" "]),
    )
    first = embeddings.embed(said, tmp_path, model)
    [made] = (tmp_path / "cache" / "static").glob("*/vectors.npy")
    before = made.stat()
    assert np.allclose(embeddings.embed(turned, tmp_path, model).vectors, first.vectors, atol=1e-6)
    assert not embeddings.embed(nothing, tmp_path, model).vectors.any()
    assert made.stat() == before
    assert not list(made.parent.parent.glob(".table-*"))
    assert embeddings.fingerprint(model) not in (embeddings.fingerprint(str(small_model)), "")
    elsewhere = embeddings.embed(said, tmp_path / "elsewhere", model)
    assert np.allclose(elsewhere.vectors, first.vectors, atol=1e-5)  # nothing of the store goes into the table
