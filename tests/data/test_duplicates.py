"""Near duplicates of comparisons: proposal, verification, clusters, twins, survivors; recall on real drafts."""

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dpo_data.measures import duplicates
from dpo_data.measures.duplicates import DuplicateLimits
from dpo_data.text import minhash
from dpo_data.text.minhash import sign_comparisons
from dpo_data.text.token_hashes import tokens

LONG = " ".join(f"word{number}" for number in range(40))
OTHER = " ".join(f"thing{number}" for number in range(40))
PROMPT = "Please explain to me in plain words how a bicycle stays upright when it moves along"


def texts(*rows: tuple[str, str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["comparison_id", "prompt", "response_a", "response_b"], orient="row")


def signed(frame: pl.DataFrame) -> pl.DataFrame:
    parts = [minhash.shingles(tokens(frame[name]).words()) for name in ("prompt", "response_a", "response_b")]
    return frame.select("comparison_id").with_columns(signature=sign_comparisons(*parts))


def edges(frame: pl.DataFrame) -> pl.DataFrame:
    return duplicates.verify(duplicates.proposals(signed(frame)), frame)


def test_a_twin_with_swapped_sides_is_found_and_its_orientation_told() -> None:
    frame = texts(("1", PROMPT, LONG, OTHER), ("2", PROMPT, OTHER, LONG + " indeed"))
    row = edges(frame).row(0, named=True)
    # 12 triples of 40 words: 38 + 38 of the responses, len(PROMPT) - 2 of the prompt; " indeed" adds one
    total = 38 + 38 + len(PROMPT.split()) - 2
    assert row["whole"] == pytest.approx(total / (total + 1))
    assert row["part"] == pytest.approx(38 / 39)
    assert row["swapped"] and not row["same_words"]


def test_another_case_and_white_space_is_named_as_such() -> None:
    frame = texts(("1", PROMPT, LONG, OTHER), ("2", PROMPT.upper(), LONG.replace(" ", "\n"), OTHER))
    row = edges(frame).row(0, named=True)
    assert (row["whole"], row["part"], row["swapped"], row["same_words"]) == (1.0, 1.0, False, True)


def test_the_same_long_prompt_with_another_response_is_no_duplicate() -> None:
    prompt = " ".join(f"context{number}" for number in range(400))
    frame = texts(("1", prompt, LONG, "Yes it does so"), ("2", prompt, LONG, "No it never did"))
    found = edges(frame)
    assert found["whole"][0] > 0.95 and found["part"][0] == 0
    ledger = frame.select("comparison_id")
    assert duplicates.measure(ledger, found, DuplicateLimits())["duplicate_cluster"].is_null().all()


def edge(left: str, right: str, whole: float = 0.9, swapped: bool = False) -> dict[str, object]:
    return {"left": left, "right": right, "whole": whole, "part": 0.9, "swapped": swapped, "same_words": False}


def test_a_cluster_is_a_connected_component_named_by_its_smallest_id() -> None:
    ledger = pl.DataFrame({"comparison_id": ["1", "2", "3", "4", "5"]})
    found = pl.DataFrame([edge("2", "4", 0.85), edge("1", "4", 0.95), edge("3", "5", 0.5)])
    measured = duplicates.measure(ledger, found, DuplicateLimits())
    assert measured["duplicate_cluster"].to_list() == ["1", "1", None, "1", None]
    assert measured["duplicate_similarity"].to_list() == [0.95, 0.85, None, 0.95, None]


def test_orientation_is_carried_along_a_chain_of_twins() -> None:
    ledger = pl.DataFrame({"comparison_id": ["1", "2", "3"]})
    found = pl.DataFrame([edge("1", "2", swapped=True), edge("2", "3", swapped=True)])
    assert duplicates.measure(ledger, found, DuplicateLimits())["duplicate_swapped"].to_list() == [False, True, False]


def ledger_of(votes: list[tuple[int, int]], preferred: list[str | None], swapped: list[bool]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "comparison_id": [str(row) for row in range(len(votes))],
            "duplicate_cluster": "0",
            "duplicate_swapped": swapped,
            "votes_a": [a for a, _ in votes],
            "votes_b": [b for _, b in votes],
            "preferred": preferred,
        },
        schema_overrides={"votes_a": pl.UInt32, "votes_b": pl.UInt32, "preferred": pl.String},
    )


def test_twins_that_agree_across_swapped_sides_contradict_nobody() -> None:
    measured = duplicates.measure_votes(ledger_of([(1, 0), (0, 1)], ["a", "b"], [False, True]))
    assert measured["twin_votes_for"].to_list() == [2, 2]
    assert measured["twin_votes_against"].to_list() == [0, 0]


def test_a_contradicting_twin_is_quarantined_by_votes_not_by_order() -> None:
    rule = duplicates.rules(DuplicateLimits())["contradicted_by_twin"]
    even = duplicates.measure_votes(ledger_of([(1, 0), (0, 1)], ["a", "b"], [False, False]))
    assert even.select(rule).to_series().to_list() == [True, True]
    outvoted = duplicates.measure_votes(ledger_of([(3, 0), (0, 1), (0, 0)], ["a", "b", None], [False] * 3))
    assert outvoted.select(rule).to_series().to_list() == [False, True, None]


def survivors(**columns: object) -> list[str | None]:
    frame = pl.DataFrame(
        {
            "comparison_id": ["1", "2", "3"],
            "duplicate_cluster": "1",
            "votes": [1, 1, 1],
            "confidence": [0.8, 0.8, 0.8],
            "reasons": pl.Series([[], [], []], dtype=pl.List(pl.String)),
        }
        | columns
    )
    return duplicates.choose_survivors(frame, DuplicateLimits())["duplicate_of"].to_list()


def test_the_survivor_has_most_votes_then_confidence_then_the_smallest_id() -> None:
    assert survivors() == [None, "1", "1"]
    assert survivors(confidence=[0.8, None, 0.9]) == ["3", "3", None]
    assert survivors(votes=[1, 2, 1], confidence=[0.8, 0.6, 0.9]) == ["2", None, "2"]


def test_a_cluster_with_no_row_standing_has_no_survivor() -> None:
    dropped = pl.Series([["tie"], ["tie"], ["tie"]], dtype=pl.List(pl.String))
    assert survivors(reasons=dropped) == [None, None, None]


@pytest.mark.real
def test_real_drafts_are_found_with_the_recall_promised(real_data: Path) -> None:
    folder = real_data / "neardup-drafts"
    with (folder / "docs.jsonl").open() as lines:
        documents = [json.loads(line) for line in lines]
    place = {document["doc"]: row for row, document in enumerate(documents)}
    with (folder / "truth_pairs.csv").open() as lines:
        truth = list(csv.DictReader(lines))
    rows = minhash.shingles(tokens(pl.Series([document["text"] for document in documents])).words())
    left, right = minhash.candidates(minhash.sign(rows))
    proposed = set(zip(left.tolist(), right.tolist(), strict=True))
    index = minhash.jaccard(minhash.incidence(rows), left, right)
    names = list(truth[0])
    pairs = {tuple(sorted((place[row[names[0]]], place[row[names[1]]]))): float(row[names[2]]) for row in truth}
    for limit, bar in ((0.7, 0.97), (0.8, 0.99)):
        wanted = {pair for pair, value in pairs.items() if value >= limit}
        found = {
            pair
            for pair, value in zip(zip(left.tolist(), right.tolist(), strict=True), index, strict=True)
            if value >= limit
        }
        print(f"J >= {limit}: {len(wanted)} pairs, recall {len(wanted & proposed) / len(wanted):.4f}")
        assert len(wanted & proposed) / len(wanted) >= bar
        assert found <= wanted, "precision must be 1 after verification"
    assert np.isfinite(index).all()
