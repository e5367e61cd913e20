"""Texts as hashed words and marks, against a regular expression."""

import re

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.text import token_hashes
from dpo_data.text.token_hashes import tokens

TEXTS = st.lists(st.text(st.sampled_from("abAB01_ .,\n\t—é“\u00a0"), max_size=20), min_size=1, max_size=5)
TOKEN = re.compile(r"\w+|[^\w\s]")


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_tokens_are_those_of_a_regular_expression(texts: list[str]) -> None:
    found = tokens(pl.Series(texts, dtype=pl.String))
    expected = [TOKEN.findall(text) for text in texts]
    assert np.diff(found.offsets).tolist() == [len(row) for row in expected]
    flat = [token for row in expected for token in row]
    assert found.spoken.tolist() == [bool(re.match(r"\w", token)) for token in flat]
    names: dict[int, str] = {}
    for value, token in zip(found.folded.tolist(), flat, strict=True):
        assert names.setdefault(value, token.lower()) == token.lower()
    assert len(names) == len({token.lower() for token in flat})


def test_case_is_told_apart_by_the_exact_hash_only() -> None:
    found = tokens(pl.Series(["Foo foo FOO"]))
    assert len(set(found.exact.tolist())) == 3
    assert len(set(found.folded.tolist())) == 1


def test_scripts_without_spaces_give_one_token_a_character() -> None:
    found = tokens(pl.Series(["天气good很好。"]))
    assert np.diff(found.offsets).tolist() == [6]
    assert found.spoken.tolist() == [True] * 5 + [False]


def test_the_same_word_has_the_same_hash_wherever_it_stands() -> None:
    long = "x" * 300_000  # longer than a chunk
    found = tokens(pl.Series(["word", f"{long} word", None, "", "a, word"]))
    assert np.diff(found.offsets).tolist() == [1, 2, 0, 0, 3]
    assert len({found.folded[0], found.folded[2], found.folded[5]}) == 1


def test_hashes_never_change() -> None:
    """Signatures rest on them and are stored: another value means that every store must be measured again."""
    assert tokens(pl.Series(["Fjord"])).folded.tolist() == [18344911690603359501]


def test_rows_can_be_taken_out_of_a_ragged_table() -> None:
    table = tokens(pl.Series(["a b c", "d e", "", "f"])).words()
    assert len(table.rows(1, 3)) == 2
    taken = table.take(np.array([3, 1]))
    assert taken.values.tolist() == [*table.rows(3, 4).values, *table.rows(1, 2).values]
    assert taken.offsets.tolist() == [0, 1, 3]


def test_no_texts_are_no_tokens() -> None:
    assert len(token_hashes.tokens(pl.Series([], dtype=pl.String)).words()) == 0
