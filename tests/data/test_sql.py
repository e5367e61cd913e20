"""A version in DuckDB by the names people expect, and what was forgotten stays out."""

from pathlib import Path

import pytest
from helpers.planted_version import config, ledger_of, many, plant_store

from dpo_data.analysis.export import export
from dpo_data.analysis.forgetting import forget
from dpo_data.analysis.sql import VIEWS, connect, query
from dpo_data.publish import publish_version
from dpo_data.schema import DataError


def planted(tmp_path: Path) -> Path:
    rows = many(20)
    rows[0].reasons = ("tie",)
    store = plant_store(tmp_path / "a store's folder", rows)
    publish_version(store, ledger_of(rows), config())
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
    publish_version(store, ledger_of(rows), config())
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
    forget(store, annotator="ann-1")
    forget(store, comparison=gone)
    assert query(store, "SELECT count(*) AS n FROM comparisons") == [{"n": 19}]
    assert query(store, "SELECT annotator, count(*) AS n FROM votes GROUP BY annotator ORDER BY annotator") == [
        {"annotator": "ann-0", "n": 19},
        {"annotator": "ann-2", "n": 19},
    ]


def test_a_wrong_query_is_told_in_plain_words(tmp_path: Path) -> None:
    store = planted(tmp_path)
    with pytest.raises(DataError, match=r"(?s)no_such_column.*Views: ledger, pairs"):
        query(store, "SELECT no_such_column FROM ledger")


# ---- what a query cannot do ----


def copied_to(path: Path) -> str:
    return f"(SELECT 1 AS a) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT csv)"


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "statement",
    [
        "COPY {copy}",
        "EXPLAIN ANALYZE COPY {copy}",
        "COPY (PIVOT ledger ON source USING count(*)) TO '{path}' (FORMAT csv)",
        "EXPORT DATABASE '{path}'",
        "ATTACH '{path}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling",
        "CALL enable_logging(storage = 'file', storage_path = '{path}')",
        "DROP VIEW ledger",
        "FROM ledger; COPY {copy}",
        "",
        "-- nothing",
    ],
)
def test_a_statement_that_does_not_read_is_refused(tmp_path: Path, statement: str) -> None:
    store = planted(tmp_path)
    before = contents(store)
    target = store / "current.json"
    sql = statement.replace("{copy}", copied_to(target)).replace("{path}", str(target).replace("'", "''"))
    with pytest.raises(DataError, match="expected one"):
        query(store, sql)
    assert contents(store) == before


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{path}')",
        "SELECT * FROM read_csv('{path}')",
        "FROM '{path}'",
        "FROM glob('{folder}/*')",
        "FROM enable_logging(storage = 'file', storage_path = '{folder}/log')",
        "FROM read_parquet('https://example.org/x.parquet')",
    ],
)
def test_a_query_opens_nothing_outside_the_store(tmp_path: Path, sql: str) -> None:
    store = planted(tmp_path)
    beside = tmp_path / "beside.csv"
    beside.write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match="Views: ledger"):
        query(store, sql.replace("{path}", str(beside)).replace("{folder}", str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a store's folder", "beside.csv"]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM ledger",
        "WITH x AS (FROM ledger) SELECT count(*) FROM x;",
        "DESCRIBE ledger",
        "SHOW TABLES",
        "SUMMARIZE ledger",
        "PIVOT ledger ON split USING count(*)",
        "EXPLAIN FROM ledger",
        "explain analyze from ledger",
        "VALUES (1)",
    ],
)
def test_every_statement_that_reads_is_answered(tmp_path: Path, sql: str) -> None:
    assert query(planted(tmp_path), sql)


def test_a_relative_path_and_a_link_to_a_store_can_be_queried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(store)
    for name in (Path(store.name), Path("link"), tmp_path / "link"):
        assert query(name, "SELECT count(*) AS n FROM votes") == [{"n": 60}]


@pytest.mark.parametrize(
    "where",
    [
        "true) UNION ALL SELECT content FROM read_text('/etc/hostname') --",
        "true) UNION ALL SELECT comparison_id FROM ledger WHERE (true",
        "kept; DROP VIEW ledger",
        "kept, split",
        "",
    ],
)
def test_a_condition_is_one_expression(tmp_path: Path, where: str) -> None:
    store = planted(tmp_path)
    with pytest.raises(DataError, match="not one SQL expression"):
        export(store, tmp_path / "out.jsonl", "jsonl", where=where)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_condition_may_ask_other_views_and_end_in_a_comment(tmp_path: Path) -> None:
    where = "kept AND comparison_id IN (SELECT comparison_id FROM votes) -- all of them"
    assert export(planted(tmp_path), tmp_path / "out.jsonl", "jsonl", where=where) == 19
