"""A version in DuckDB by the names people expect, and what was forgotten stays out."""

from pathlib import Path

import pytest
from planted_version import config, ledger_of, many, plant_store

from dpo_data import versions
from dpo_data.questions.queries import VIEWS, connect, query
from dpo_data.schema import DataError
from dpo_data.store import forgetting


def planted(tmp_path: Path) -> Path:
    rows = many(20)
    rows[0].reasons = ("tie",)
    store = plant_store(tmp_path / "a store's folder", rows)
    versions.publish(store, ledger_of(rows), config())
    return store


def test_every_view_opens_and_counts_agree_with_each_other(tmp_path: Path) -> None:
    store = planted(tmp_path)
    with connect(store) as connection:
        counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in VIEWS}
    assert counts["ledger"] == counts["comparisons"] == 20
    assert (counts["pairs"], counts["unpaired"], counts["votes"]) == (19, 38, 60)
    assert query(store, "SELECT count(*) AS n FROM ledger WHERE kept") == [{"n": 19}]
    joined = "SELECT p.pair_id FROM pairs p JOIN ledger USING (source) JOIN votes v ON v.comparison_id = p.pair_id"
    assert len(query(store, f"SELECT DISTINCT pair_id FROM ({joined})")) == 19


def test_a_comparison_of_two_batches_stands_once(tmp_path: Path) -> None:
    rows = many(20)
    store = plant_store(tmp_path, rows)
    plant_store(store, rows[:5], "0002-planted")
    versions.publish(store, ledger_of(rows), config())
    assert query(store, "SELECT count(*) AS n, count(DISTINCT batch) AS batches FROM comparisons") == [
        {"n": 20, "batches": 1}
    ]
    assert query(store, "SELECT batch, count(*) AS n FROM votes GROUP BY batch ORDER BY batch") == [
        {"batch": "0001-planted", "n": 60},
        {"batch": "0002-planted", "n": 15},
    ]


def test_what_was_forgotten_is_not_seen(tmp_path: Path) -> None:
    store = planted(tmp_path)
    gone = query(store, "SELECT min(comparison_id) AS id FROM ledger")[0]["id"]
    forgetting.forget(store, annotator="ann-1")
    forgetting.forget(store, comparison=gone)
    assert query(store, "SELECT count(*) AS n FROM comparisons") == [{"n": 19}]
    assert query(store, "SELECT annotator, count(*) AS n FROM votes GROUP BY annotator ORDER BY annotator") == [
        {"annotator": "ann-0", "n": 19},
        {"annotator": "ann-2", "n": 19},
    ]


def test_a_wrong_query_is_told_in_plain_words(tmp_path: Path) -> None:
    store = planted(tmp_path)
    with pytest.raises(DataError, match=r"(?s)no_such_column.*Views: ledger, pairs"):
        query(store, "SELECT no_such_column FROM ledger")
