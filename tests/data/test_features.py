"""Measures of a block and of a batch folder."""

from pathlib import Path

import polars as pl
import pytest
from helpers.sample_store import store_of

from dpo_data.executor import Inline, Processes
from dpo_data.ids import prompt_hash, text_hash
from dpo_data.release import fingerprint
from dpo_data.schema import COMPARISONS, MEASURES, DataError
from dpo_data.text import features, minhash

PROMPT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is a fjord?"},
    {"role": "assistant", "content": "A long narrow inlet."},
    {"role": "user", "content": "Where would I find one near the coast of Norway?"},
]


def comparisons(count: int = 1) -> pl.DataFrame:
    rows = [
        {
            "comparison_id": f"{row:032x}",
            "prompt": PROMPT if row % 2 == 0 else [{"role": "user", "content": f"Question number {row}?"}],
            "response_a": f"# Answer\n- **Bergen** number {row}",
            "response_b": f"Answer: Oslo number {row}",
            "attributes": [{"key": "non_text_response", "value": "a"}] if row == 1 else [],
        }
        for row in range(count)
    ]
    return pl.DataFrame(rows, schema=COMPARISONS)


def test_a_row_is_measured_as_by_hand() -> None:
    row = features.measure(comparisons()).row(0, named=True)
    expected = {
        "prompt_hash": prompt_hash(PROMPT),
        "last_turn_hash": text_hash(PROMPT[-1]["content"]),
        "opening_hash": prompt_hash(PROMPT[:2]),
        "exchange_hash": prompt_hash(PROMPT[:3]),
        "hash_a": text_hash("# Answer\n- **Bergen** number 0"),
        "turns": 2,
        "prompt_chars": sum(len(message["content"]) for message in PROMPT),
        "response_not_text": False,
        "chars_a": 30,
        "words_a": 6,
        "headers_a": 1,
        "lists_a": 1,
        "bold_a": 1,
        "code_a": 0,
        "headers_b": 0,
        "language": "en",
        "language_a": None,  # 18 letters
        # tokens: # Answer - * * Bergen * * number 0 | Answer : Oslo number 0; common: Answer number 0
        "edit_ratio": (10 + 5 - 2 * 3) / 15,
    }
    assert {name: row[name] for name in expected} == expected


def test_the_contract_holds_and_a_prompt_signature_comes_once() -> None:
    measured = features.measure(comparisons(5))
    assert measured.schema == MEASURES
    # prompts 0, 2 and 4 are one prompt
    assert measured["prompt_signature"].is_null().to_list() == [False, False, True, False, True]
    assert measured["response_not_text"].to_list() == [False, True, False, False, False]


def test_a_batch_is_measured_once_and_the_same_by_any_number_of_processes(tmp_path: Path) -> None:
    written = []
    for executor in (Inline(), Processes(2)):
        folder = tmp_path / type(executor).__name__
        folder.mkdir()
        comparisons(50).write_parquet(folder / "comparisons.parquet")
        assert features.measure_batch(folder, executor, block=16) == 50
        assert features.measure_batch(folder, executor, block=16) == 0
        written.append(pl.read_parquet(folder / "measures.parquet"))
        executor.close()
    assert written[0]["comparison_id"].to_list() == comparisons(50)["comparison_id"].to_list()
    assert written[0].equals(written[1])


def test_an_empty_batch_is_measured_to_an_empty_table(tmp_path: Path) -> None:
    comparisons(0).write_parquet(tmp_path / "comparisons.parquet")
    assert features.measure_batch(tmp_path) == 0
    assert pl.read_parquet(tmp_path / "measures.parquet").schema == MEASURES


def test_a_folder_that_is_no_batch_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no comparisons\.parquet"):
        features.measure_batch(tmp_path)


def test_a_shared_system_message_makes_no_two_prompts_near() -> None:
    system = " ".join(f"rule{number}" for number in range(200))
    frame = comparisons(2).with_columns(
        prompt=pl.Series(
            [
                [{"role": "system", "content": system}, {"role": "user", "content": question}]
                for question in ("How deep is the sea here?", "Why do cats purr at night?")
            ]
        )
    )
    signatures = features.measure(frame)["prompt_signature"]
    assert len(minhash.candidates(signatures)[0]) == 0


def test_measures_of_other_code_with_other_columns_are_made_anew(tmp_path: Path) -> None:
    comparisons(3).write_parquet(tmp_path / "comparisons.parquet")
    assert features.measure_batch(tmp_path) == 3
    measured = (tmp_path / features.FILE).read_bytes()
    pl.read_parquet(tmp_path / features.FILE).drop("edit_ratio").write_parquet(tmp_path / features.FILE)
    assert features.measure_batch(tmp_path) == 3
    assert (tmp_path / features.FILE).read_bytes() == measured
    assert features.measure_batch(tmp_path) == 0


def test_measures_by_another_method_are_made_anew_though_their_columns_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparisons(3).write_parquet(tmp_path / "comparisons.parquet")
    assert features.measure_batch(tmp_path) == 3
    assert features.measure_batch(tmp_path) == 0
    monkeypatch.setattr(features, "METHOD", "text measures 0")
    assert features.measure_batch(tmp_path) == 3
    assert features.measure_batch(tmp_path) == 0


def test_a_change_of_method_is_given_a_number(tmp_path: Path) -> None:
    """Fails when the same texts are measured otherwise: raise the number in text_measures.METHOD, then mend this one.

    Languages and signatures come from libraries, whose release stands in METHOD by itself.
    """
    store = store_of(tmp_path, "rated.json")
    [folder] = (store / "batches").glob("0*")
    features.measure_batch(folder)
    measured = pl.read_parquet(folder / features.FILE)
    own = [name for name in measured.columns if "language" not in name and "signature" not in name]
    numbers = measured.select(pl.col(own), pl.col("edit_ratio").round(9).alias("ratio")).drop("edit_ratio")
    found = features.METHOD.split(",")[0], fingerprint.rows(numbers)
    assert found == ("text measures 1", "932fa8bf0620d9642b0a7b160fff22e9")
