"""Token counts by the tokenizer of the model to be trained."""

from pathlib import Path

import polars as pl
import pytest

from dpo_data.schema import COMPARISONS, DataError
from dpo_data.text import token_counts

pytestmark = pytest.mark.models

ROWS = [
    ("x", "What is a fjord?", "A long narrow inlet of the sea.", "A long narrow valley."),
    ("y", "Same?", "Yes.", "Yes."),
    ("z", "Longer?", "Yes.", "Yes. Indeed."),
]


def comparisons() -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "comparison_id": name,
                "prompt": [{"role": "user", "content": prompt}],
                "response_a": one,
                "response_b": two,
                "attributes": [],
            }
            for name, prompt, one, two in ROWS
        ],
        schema=COMPARISONS,
    )


def test_counts_are_those_of_the_chat_template_and_the_text() -> None:
    tokenizer = token_counts.load(token_counts.DEFAULT)
    counted = token_counts.count(comparisons(), tokenizer).rows(named=True)
    for row, (_, prompt, one, two) in zip(counted, ROWS, strict=True):
        messages = [{"role": "user", "content": prompt}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert row["tokens_prompt"] == len(tokenizer(rendered, add_special_tokens=False)["input_ids"])
        for side, text in (("a", one), ("b", two)):
            assert row[f"tokens_{side}"] == len(tokenizer(text)["input_ids"]) + 1


def test_shared_tokens_reach_to_the_first_difference_and_past_the_end_of_equal_texts() -> None:
    counted = token_counts.count(comparisons(), token_counts.load(token_counts.DEFAULT))
    tokenizer = token_counts.load(token_counts.DEFAULT)
    opening = len(tokenizer("A long narrow")["input_ids"])
    yes = len(tokenizer("Yes.")["input_ids"])
    # equal texts share their end mark too; a longer one goes on where the shorter ends
    assert counted["tokens_shared"].to_list() == [opening, yes + 1, yes]


def test_a_batch_is_counted_once_per_tokenizer(tmp_path: Path) -> None:
    comparisons().write_parquet(tmp_path / "comparisons.parquet")
    path = token_counts.measure_batch(tmp_path, token_counts.DEFAULT)
    before = path.stat().st_mtime_ns
    assert token_counts.measure_batch(tmp_path, token_counts.DEFAULT) == path
    assert path.stat().st_mtime_ns == before
    assert pl.read_parquet(path)["comparison_id"].to_list() == ["x", "y", "z"]


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tokenizer"):
        token_counts.load(str(tmp_path))
