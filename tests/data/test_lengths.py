"""Characters, words and the rules on sizes."""

import polars as pl

from dpo_data.measures import lengths
from dpo_data.measures.lengths import SizeLimits
from dpo_data.text.style import length_counts


def test_characters_are_code_points_and_words_are_split_on_white_space() -> None:
    frame = pl.DataFrame({"text": ["", "naïve  café\n—no", "你好"]})
    counted = frame.select(**length_counts(pl.col("text")))
    assert counted["chars"].to_list() == [0, 15, 2]
    assert counted["words"].to_list() == [0, 3, 1]


def row(**columns: object) -> pl.DataFrame:
    good = {
        "prompt_chars": 5,
        "chars_a": 5,
        "chars_b": 5,
        "hash_a": "x",
        "hash_b": "y",
        "response_not_text": False,
        "tokens_prompt": 10,
        "tokens_a": 30,
        "tokens_b": 20,
        "tokens_shared": 4,
    }
    return pl.DataFrame({name: [value] for name, value in (good | columns).items()})


def reasons(limits: SizeLimits, **columns: object) -> list[str]:
    found = lengths.measure(row(**columns)).select(**lengths.rules(limits)).row(0, named=True)
    return sorted(name for name, holds in found.items() if holds)


def test_a_good_row_breaks_no_rule() -> None:
    assert reasons(SizeLimits()) == []


def test_blank_texts_and_identical_responses_are_named() -> None:
    assert reasons(SizeLimits(), prompt_chars=0) == ["blank_prompt"]
    assert reasons(SizeLimits(), chars_b=0) == ["blank_response"]
    assert reasons(SizeLimits(), hash_b="x") == ["identical_responses"]
    assert reasons(SizeLimits(), response_not_text=True) == ["response_not_text"]


def test_a_pair_that_parts_beyond_the_window_is_identical_after_truncation() -> None:
    # prompt 10 + shared 4: the 15th token is the first that differs
    assert reasons(SizeLimits(max_length=14)) == ["identical_after_truncation"]
    assert reasons(SizeLimits(max_length=15)) == []
    assert reasons(SizeLimits(max_length=None)) == []
    assert reasons(SizeLimits(max_length=14), tokens_shared=None) == []


def test_a_response_over_the_limit_is_too_long() -> None:
    assert reasons(SizeLimits(max_response_tokens=29)) == ["response_too_long"]
    assert reasons(SizeLimits(max_response_tokens=30)) == []
