"""Shingles, signatures and exact Jaccard against sets in plain Python."""

import re

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.text import minhash
from dpo_data.text.token_hashes import Ragged, tokens

WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "and", "slept"]), max_size=12)


def shingled(texts: list[str]) -> Ragged:
    return minhash.shingles(tokens(pl.Series(texts, dtype=pl.String)).words())


def in_python(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 3]) for at in range(max(len(words) - 2, 1))} if words else set()


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=2, max_size=6))
def test_the_jaccard_index_is_that_of_the_sets_of_word_triples(rows: list[list[str]]) -> None:
    texts = [" ".join(words) for words in rows]
    left, right = np.triu_indices(len(texts), 1)
    got = minhash.jaccard(minhash.incidence(shingled(texts)), left, right)
    for one, two, index in zip(left, right, got, strict=True):
        a, b = in_python(texts[one]), in_python(texts[two])
        assert index == (len(a & b) / len(a | b) if a | b else 1.0)


def test_case_space_and_marks_do_not_count_but_order_does() -> None:
    matrix = minhash.incidence(shingled(["One two, three four.", "one  TWO three\nfour", "four three two one"]))
    assert minhash.jaccard(matrix, np.array([0, 0]), np.array([1, 2])).tolist() == [1.0, 0.0]


def test_a_text_without_spaces_is_shingled_by_character() -> None:
    matrix = minhash.incidence(shingled(["今天天气很好", "今天天气很差", "你们在哪里呢"]))
    # 今天天 天天气 天气很 are shared of 5 distinct triples
    assert minhash.jaccard(matrix, np.array([0, 0]), np.array([1, 2])).tolist() == [3 / 5, 0.0]


def test_a_signature_never_changes() -> None:
    """Signatures are stored; another value here means that every store in the world must be measured again."""
    signature = minhash.unpack(minhash.sign(shingled(["the quick brown fox jumps over the lazy dog"])))
    assert signature.shape == (1, minhash.PERMUTATIONS)
    assert signature[0, :4].tolist() == [3226195303, 3374196347, 3491355737, 3280136186]


def test_a_text_without_words_has_no_signature() -> None:
    assert minhash.sign(shingled(["", "!!", "a"])).is_null().to_list() == [True, True, False]


def test_the_shingles_of_joined_parts_do_not_depend_on_the_order_of_the_parts() -> None:
    one, two = shingled(["a b c d", ""]), shingled(["e f g", "h i j"])
    assert minhash.sign(minhash.join(one, two)).to_list() == minhash.sign(minhash.join(two, one)).to_list()


def test_near_texts_are_proposed_and_far_texts_are_not() -> None:
    words = [f"word{number}" for number in range(60)]
    texts = [" ".join(words), " ".join([*words[:-2], "other", "end"]), " ".join(reversed(words))]
    left, right = minhash.candidates(minhash.sign(shingled(texts)))
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 1)]


def test_a_crowded_bucket_stays_connected_without_all_pairs() -> None:
    texts = ["the same text every time, more than three words"] * 500
    left, right = minhash.candidates(minhash.sign(shingled(texts)))
    assert len(left) < 500 * 3
    assert set(minhash.components(500, left, right).tolist()) == {0}


def test_components_are_named_by_their_smallest_row() -> None:
    assert minhash.components(5, [3, 1], [4, 3]).tolist() == [0, 1, 2, 1, 1]
