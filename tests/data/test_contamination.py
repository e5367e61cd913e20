"""Benchmark items found in comparisons by runs of eight words."""

import json
from pathlib import Path

import polars as pl
import pytest

from dpo_data.ids import text_hash
from dpo_data.measures import contamination
from dpo_data.measures.contamination import ContaminationLimits
from dpo_data.schema import DataError
from dpo_data.text import benchmarks, embeddings

ITEM = "a train leaves the station at noon and travels north at sixty miles an hour for two hours"  # 18 words


def comparisons(*prompts: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "comparison_id": [str(row) for row in range(len(prompts))],
            "prompt": list(prompts),
            "response_a": "I do not know",
            "response_b": "Somebody else may",
        }
    )


def overlaps(folder: Path, *prompts: str) -> list[tuple[float, str | None]]:
    benchmark = benchmarks.load((str(folder),), 8)
    return contamination.measure(comparisons(*prompts), benchmark).select("benchmark_overlap", "benchmark_item").rows()


def test_the_overlap_is_the_share_of_the_item_that_lies_in_shared_runs(tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").write_text(json.dumps({"question": ITEM, "answer": "120"}) + "\n")
    words = ITEM.split()
    whole, nine, seven = " ".join(words), " ".join(words[:9]), " ".join(words[:7])
    found = overlaps(tmp_path, f"Solve: {whole.upper()}!", f"{nine} backwards", seven, "nothing of it")
    assert found == [(1.0, "bench.jsonl:1"), (9 / 18, "bench.jsonl:1"), (0.0, None), (0.0, None)]


def test_a_response_can_leak_too(tmp_path: Path) -> None:
    (tmp_path / "bench.txt").write_text(ITEM)
    frame = comparisons("What is the puzzle?").with_columns(response_b=pl.lit(ITEM))
    assert contamination.measure(frame, benchmarks.load((str(tmp_path),), 8))["benchmark_overlap"].to_list() == [1.0]


def test_a_short_item_counts_only_as_a_whole_text(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps([{"q": "What is 2 + 2?"}, {"q": "Name a colour."}]))
    found = overlaps(tmp_path, "what is 2 2", "Tell me, what is 2 + 2? I forgot.")
    assert found == [(1.0, "bench.json:1"), (0.0, None)]


def test_csv_and_parquet_benchmarks_are_read(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["1"], "text": [ITEM]}).write_csv(tmp_path / "a.csv")
    pl.DataFrame({"turns": [[ITEM]]}).write_parquet(tmp_path / "b.parquet")
    for name in ("a.csv", "b.parquet"):
        assert overlaps(tmp_path / name, ITEM) == [(1.0, f"{name}:1")]


@pytest.mark.parametrize(("name", "content"), [("broken.jsonl", "{"), ("bench.pdf", "x"), ("gone.txt", None)])
def test_a_benchmark_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=name):
        benchmarks.load((str(tmp_path / name),), 8)


def test_a_benchmark_item_may_be_nested_deeper_than_the_stack(tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").write_text(f'{{"q": {"[" * 1000}"{ITEM}"{"]" * 1000}}}\n')
    assert overlaps(tmp_path, ITEM) == [(1.0, "bench.jsonl:1")]


def test_a_benchmark_that_is_nested_too_deep_is_named(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(DataError, match=r"bench\.json cannot be read as \.json"):
        benchmarks.load((str(tmp_path),), 8)


def test_the_rule_drops_from_the_limit_on() -> None:
    frame = pl.DataFrame({"benchmark_overlap": [0.49, 0.5, None]})
    rule = contamination.rules(ContaminationLimits())["contaminated"]
    assert frame.select(rule).to_series().to_list() == [False, True, None]


@pytest.mark.models
def test_a_question_in_other_words_is_found_and_an_unrelated_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").write_text(
        json.dumps({"question": "How many legs do three spiders and two ants have altogether?"})
        + "\n"
        + json.dumps({"question": "Which planet of the solar system has the most moons?", "answer": "Thanks!"})
    )
    asked = [
        "What is the total number of legs of two ants and three spiders?",
        "How do I bake bread without yeast?",
        "Thanks!",
    ]
    embeddings.embed(pl.Series(asked), tmp_path)
    hashes = pl.DataFrame(
        {
            "comparison_id": ["reworded", "other", "short", "blank"],
            "topic_hash": [None, None, None, None],
            "question_hash": [*map(text_hash, asked), None],
        },
        schema_overrides={"topic_hash": pl.String},
    )
    limits = ContaminationLimits(benchmarks=(str(tmp_path / "bench.jsonl"),))
    counts = contamination.measure_neighbours(tmp_path, hashes, tmp_path, limits, embeddings.DEFAULT)
    assert counts == {"texts_embedded": 2, "texts_from_cache": 0}  # "Thanks!" is too short to be asked by meaning
    found = pl.read_parquet(contamination.near_file(tmp_path, limits, embeddings.DEFAULT))
    assert found["comparison_id"].to_list() == hashes["comparison_id"].to_list()
    assert found["benchmark_neighbour"][0] == "bench.jsonl:1"
    assert found["benchmark_similarity"][3] is None
    rule = contamination.rules(limits)["contaminated_in_other_words"]
    named = pl.DataFrame({"benchmark_item": ["bench.jsonl:2"], "benchmark_neighbour": ["bench.jsonl:2"]})
    assert found.filter(rule)["comparison_id"].to_list() == ["reworded"]
    assert contamination.found_items(named, limits) == {
        "bench.jsonl:2": "Which planet of the solar system has the most moons? / Thanks!"
    }
    assert contamination.measure_neighbours(tmp_path, hashes, tmp_path, limits, embeddings.DEFAULT) == {}


def test_without_a_limit_on_meaning_it_is_only_measured() -> None:
    assert set(contamination.rules(ContaminationLimits(min_cosine=None))) == {"contaminated"}
