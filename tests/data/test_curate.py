"""measure and decide on planted frames and on a store."""

import json
import random
from pathlib import Path

import polars as pl
import pytest

from dpo_data.config import CurationConfig
from dpo_data.curate import decide, measure, measure_texts
from dpo_data.ingest.append import append_batch
from dpo_data.measures.contamination import ContaminationLimits
from dpo_data.schema import LEDGER, DataError


def planted(**columns: list[object]) -> pl.DataFrame:
    """A ledger whose rows nothing is wrong with, with the given columns planted."""
    count = len(next(iter(columns.values())))
    good: dict[str, list[object]] = {
        "comparison_id": [f"{row:032x}" for row in range(count)],
        "source": ["s"] * count,
        "votes": [3] * count,
        "votes_a": [3] * count,
        "votes_b": [0] * count,
        "votes_tie": [0] * count,
        "self_contradictions": [0] * count,
        "preferred": ["a"] * count,
        "agreement": [1.0] * count,
        "confidence": [0.95] * count,
        "prompt_hash": [f"{row:032x}" for row in range(count)],
        "prompt_group": [f"{row:032x}" for row in range(count)],
        "split_coin": [(row + 0.5) / count for row in range(count)],
        "hash_a": [f"a{row}" for row in range(count)],
        "hash_b": [f"b{row}" for row in range(count)],
        "prompt_chars": [10] * count,
        "chars_a": [20] * count,
        "chars_b": [20] * count,
        "duplicate_swapped": [False] * count,
    }
    return pl.DataFrame(good | columns)


def test_a_row_with_nothing_wrong_is_kept() -> None:
    decided = decide(planted(chars_a=[5, 6, 7]), CurationConfig())
    assert decided["reasons"].to_list() == [[], [], []]
    assert decided["weight"].to_list() == [1.0, 1.0, 1.0]


def test_a_row_carries_every_reason_that_holds() -> None:
    decided = decide(planted(chars_a=[0, 5], prompt_chars=[0, 5], confidence=[0.5, 0.9]), CurationConfig())
    assert decided["reasons"].to_list() == [["blank_prompt", "blank_response", "low_confidence"], []]


def test_what_is_not_measured_fails_no_rule() -> None:
    decided = decide(
        planted(similarity=[None, 0.99], edit_ratio=[0.01, 0.01], confidence=[None, 0.9]), CurationConfig()
    )
    assert decided["reasons"].to_list() == [[], ["responses_too_similar"]]


def test_the_survivor_of_a_cluster_is_chosen_among_the_rows_standing() -> None:
    ledger = planted(duplicate_cluster=["c", "c", "c", None], votes=[9, 3, 4, 1], chars_a=[0, 20, 20, 20])
    decided = decide(ledger, CurationConfig())
    assert decided["reasons"].to_list() == [["blank_response"], ["near_duplicate"], [], []]
    survivor = decided["comparison_id"][2]
    assert decided["duplicate_of"].to_list() == [survivor, survivor, None, None]


BARE = CurationConfig(tokenizer=None, embedding_model=None, slices=("category",))


def record(number: int, winner: str, annotator: str, swapped: bool = False) -> dict[str, str]:
    one, two = f"The first answer, number {number}, is short.", f"Another answer, number {number}, says more than that."
    sides = (two, one) if swapped else (one, two)
    return {
        "prompt": f"Question {number}: what is the matter with topic {number}?",
        "response_a": sides[0],
        "response_b": sides[1],
        "winner": {"a": "b", "b": "a"}.get(winner, winner) if swapped else winner,
        "annotator": annotator,
        "category": "odd" if number % 2 else "even",
    }


def raw(path: Path, records: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in records))
    return path


def test_a_store_is_measured_and_decided(tmp_path: Path) -> None:
    records = [record(number, "a", name) for number in range(6) for name in ("ann", "bob", "cid")]
    append_batch(tmp_path, [raw(tmp_path / "one.jsonl", records)], "one")
    ledger = measure(tmp_path, BARE)
    assert len(ledger) == 6
    assert ledger["comparison_id"].is_sorted()
    assert ledger["votes"].to_list() == [3] * 6
    assert sorted(ledger["category"]) == ["even"] * 3 + ["odd"] * 3
    decided = decide(ledger, BARE)
    assert decided.columns[: len(LEDGER)] == list(LEDGER)
    assert decided["reasons"].list.len().sum() == 0


def test_neither_the_order_of_records_nor_of_batches_changes_the_ledger(tmp_path: Path) -> None:
    records = [
        record(number, "a" if number % 3 else "b", name, swapped=(number + place) % 2 == 1)
        for number in range(8)
        for place, name in enumerate(("ann", "bob", "cid"))
    ]
    random.Random(1).shuffle(records)
    parts = [records[:9], records[9:15], records[15:]]
    ledgers = []
    for name, order in (("forth", parts), ("back", [part[::-1] for part in parts[::-1]])):
        store = tmp_path / name
        for number, part in enumerate(order):
            store.mkdir(exist_ok=True)
            append_batch(store, [raw(store / f"{number}.jsonl", part)], "one")
        ledgers.append(decide(measure(store, BARE), BARE))
    assert ledgers[0].equals(ledgers[1])


def test_a_second_batch_is_all_that_is_read(tmp_path: Path) -> None:
    append_batch(tmp_path, [raw(tmp_path / "1.jsonl", [record(number, "a", "ann") for number in range(5)])], "one")
    assert measure_texts(tmp_path, BARE)["comparisons"] == 5
    append_batch(tmp_path, [raw(tmp_path / "2.jsonl", [record(number, "b", "bob") for number in range(3, 7)])], "one")
    assert measure_texts(tmp_path, BARE)["comparisons"] == 4
    assert measure_texts(tmp_path, BARE) == {
        "batches": 0,
        "comparisons": 0,
        "texts_embedded": 0,
        "texts_from_cache": 0,
        "prompts_compared": 0,
    }
    ledger = measure(tmp_path, BARE)
    assert (len(ledger), int(ledger["votes"].sum())) == (7, 9)


def test_near_twins_are_found_across_batches_and_once_verified_not_read_again(tmp_path: Path) -> None:
    long = record(1, "a", "ann") | {"response_a": " ".join(f"word{n}" for n in range(40))}
    near = long | {"response_a": long["response_a"] + " indeed", "annotator": "bob"}
    append_batch(tmp_path, [raw(tmp_path / "1.jsonl", [long])], "one")
    append_batch(tmp_path, [raw(tmp_path / "2.jsonl", [near])], "one")
    decided = decide(measure(tmp_path, BARE), BARE)
    assert sorted(decided["reasons"].to_list()) == [[], ["near_duplicate"]]
    edges = tmp_path / "cache" / "near" / "comparisons.parquet"
    before = edges.stat().st_mtime_ns
    assert decide(measure(tmp_path, BARE), BARE).equals(decided)
    assert edges.stat().st_mtime_ns == before


def test_a_benchmark_item_in_a_prompt_is_contamination(tmp_path: Path) -> None:
    append_batch(tmp_path, [raw(tmp_path / "1.jsonl", [record(number, "a", "ann") for number in range(3)])], "one")
    (tmp_path / "bench.txt").write_text("Question 1: what is the matter with topic 1?\n")
    config = BARE.model_copy(update={"contamination": ContaminationLimits(benchmarks=(str(tmp_path / "bench.txt"),))})
    decided = decide(measure(tmp_path, config), config)
    assert sorted(decided["reasons"].to_list()) == [[], [], ["contaminated"]]
    assert decided["benchmark_item"].drop_nulls().to_list() == ["bench.txt:1"]


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no batches"):
        measure(tmp_path, BARE)


def test_a_slice_that_is_a_column_already_is_refused(tmp_path: Path) -> None:
    append_batch(tmp_path, [raw(tmp_path / "1.jsonl", [record(1, "a", "ann")])], "one")
    with pytest.raises(DataError, match="source is a column"):
        measure(tmp_path, BARE.model_copy(update={"slices": ("source",)}))


@pytest.mark.real
def test_the_published_pandalm_set_is_decided(real_data: Path, tmp_path: Path) -> None:
    append_batch(tmp_path, [real_data / "pandalm" / "testset-v1.json"], "pandalm")
    decided = decide(measure(tmp_path, BARE), BARE)
    counts = dict(decided["reasons"].explode().drop_nulls().value_counts().iter_rows())
    print(f"{len(decided)} comparisons, kept {int((decided['reasons'].list.len() == 0).sum())}: {counts}")
    assert len(decided) == 863
    # One circle in the set (facts), six responses that are the JSON value true, in two comparisons.
    assert counts["preference_cycle"] == 1
    assert counts["response_not_text"] == 2
    assert counts["tie"] == 80
    assert decided.filter(pl.col("duplicate_of").is_not_null())["duplicate_similarity"].min() >= 0.8
