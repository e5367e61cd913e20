"""What is forgotten is in no later version, and whoever asked learns which versions still hold it."""

import json
from pathlib import Path

import pytest
from helpers.planted_version import config, ledger_of, many, plant_store

from dpo_data import curate
from dpo_data.analysis.forgetting import forget
from dpo_data.config import CurationConfig
from dpo_data.ingest.append import append_batch
from dpo_data.publish import publish_version
from dpo_data.schema import DataError
from dpo_data.store import batches, versions

CONFIG = CurationConfig(tokenizer=None, embedding_model=None)


def write_table(path: Path) -> None:
    """Ten comparisons, each judged by ann and bob; eleven is judged by bob alone."""
    rows = [
        {
            "prompt": f"Question {i}?",
            "response_a": f"Good {i}",
            "response_b": f"Bad {i}",
            "winner": "a",
            "annotator": who,
        }
        for i in range(11)
        for who in (("ann", "bob") if i < 10 else ("bob",))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def publish(store: Path) -> versions.Version:
    return publish_version(store, curate.decide(curate.measure(store, CONFIG), CONFIG), CONFIG)


def test_a_forgotten_annotator_votes_in_no_later_version(tmp_path: Path) -> None:
    write_table(tmp_path / "votes.jsonl")
    append_batch(tmp_path, [tmp_path / "votes.jsonl"], "planted", "ab_table")
    first = publish(tmp_path)
    assert forget(tmp_path, annotator="bob").still_in == (first.id,)
    second = publish(tmp_path)
    assert second.id != first.id
    ledger = second.ledger().collect()
    assert ledger.height == 11 and ledger["votes"].sum() == 10
    alone = ledger.filter(votes=0)
    assert alone.height == 1 and alone["reasons"].to_list() == [["no_votes"]]
    assert forget(tmp_path, annotator="bob").still_in == (first.id,)
    assert (tmp_path / "forgotten.jsonl").read_text() == '{"annotator": "bob"}\n'


def test_a_forgotten_comparison_is_in_no_later_ledger(tmp_path: Path) -> None:
    write_table(tmp_path / "votes.jsonl")
    append_batch(tmp_path, [tmp_path / "votes.jsonl"], "planted", "ab_table")
    first = publish(tmp_path)
    gone = first.ledger().collect()["comparison_id"][0]
    assert forget(tmp_path, comparison=gone).still_in == (first.id,)
    second = publish(tmp_path)
    assert gone not in second.ledger().collect()["comparison_id"]
    assert second.stats["changes"]["gone_comparisons"] == 1
    assert gone not in batches.open_batches(tmp_path).comparisons().collect()["comparison_id"]


def test_forgetting_changes_the_digest_of_the_inputs(tmp_path: Path) -> None:
    store = plant_store(tmp_path, many(10))
    before = batches.open_batches(store).digest
    forget(store, annotator="ann-1")
    assert batches.open_batches(store).digest != before


def test_a_misspelt_name_is_refused_and_a_broken_line_stops_all_reading(tmp_path: Path) -> None:
    rows = many(5)
    store = plant_store(tmp_path, rows)
    with pytest.raises(DataError, match="Check the spelling"):
        forget(store, annotator="an-1")
    with pytest.raises(DataError, match="one at a time"):
        forget(store)
    assert not (store / "forgotten.jsonl").exists()
    (store / "forgotten.jsonl").write_text('{"annotator": "ann-1"}\n{"anotator": "ann-2"}\n')
    with pytest.raises(DataError, match=r"forgotten\.jsonl:2"):
        publish_version(store, ledger_of(rows), config())
