"""A version and its store in DuckDB, by the names people expect: ledger, pairs, unpaired, votes, comparisons.

The views read the Parquet files where they lie and copy nothing, so a million rows open at once. What the store forgot
is left out of votes and comparisons, as everywhere. The surprise: `ledger` has one column more than its file, `kept`.
"""

import glob
from pathlib import Path
from typing import Any

import duckdb

from dpo_data.batches import open_batches
from dpo_data.schema import DataError
from dpo_data.store import forgetting
from dpo_data.versions import Version, open_version

VIEWS = ("ledger", "pairs", "unpaired", "annotators", "examples", "votes", "comparisons", "thumbs", "rejects")


def connect(store: Path, version: str = "current") -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory with the views of `VIEWS`; nothing is fetched from a network."""
    published = open_version(store, version)
    connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    _version_views(connection, published)
    _store_views(connection, store)
    return connection


def query(store: Path, sql: str, version: str = "current") -> list[dict[str, Any]]:
    """Rows of one SQL query. Raises `DataError` with DuckDB's words and the names of the views."""
    with connect(store, version) as connection:
        try:
            result = connection.execute(sql)
            names = [column[0] for column in result.description or ()]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
        except duckdb.Error as error:
            raise DataError(f"{error}\nViews: {', '.join(VIEWS)}; DESCRIBE ledger lists its columns.") from error


def _version_views(connection: duckdb.DuckDBPyConnection, published: Version) -> None:
    kept = "len(reasons) = 0 AND preferred IS NOT NULL AS kept"
    connection.execute(f"CREATE VIEW ledger AS SELECT *, {kept} FROM {_files([published.path / 'ledger.parquet'])}")
    for name in ("annotators", "examples"):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {_files([published.path / f'{name}.parquet'])}")
    for name in ("pairs", "unpaired"):
        shards = sorted((published.path / name).glob("*.parquet"))
        if shards:
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {_files(shards)}")


def _store_views(connection: duckdb.DuckDBPyConnection, store: Path) -> None:
    """The batches' tables; of a comparison in several batches the first batch's row."""
    folders = [store / "batches" / batch for batch in open_batches(store).ids]
    forgotten = forgetting.read(store)
    connection.execute("CREATE TEMP TABLE forgotten (comparison_id VARCHAR, annotator VARCHAR)")
    rows = [(name, None) for name in forgotten.comparisons] + [(None, name) for name in forgotten.annotators]
    if rows:
        connection.executemany("INSERT INTO forgotten VALUES (?, ?)", rows)
    whole = f"comparison_id NOT IN ({_named('comparison_id')})"
    voted = f"(annotator IS NULL OR annotator NOT IN ({_named('annotator')}))"
    conditions = {"comparisons": whole, "votes": f"{whole} AND {voted}", "thumbs": voted, "rejects": "TRUE"}
    for name, condition in conditions.items():
        source = _files([folder / f"{name}.parquet" for folder in folders], filename=True)
        batch = "parse_filename(parse_dirpath(filename)) AS batch"
        first = (
            "QUALIFY row_number() OVER (PARTITION BY comparison_id ORDER BY batch) = 1" if name == "comparisons" else ""
        )
        connection.execute(
            f"CREATE VIEW {name} AS SELECT * EXCLUDE (filename), {batch} FROM {source} WHERE {condition} {first}"
        )


def _named(column: str) -> str:
    return f"SELECT f.{column} FROM forgotten f WHERE f.{column} IS NOT NULL"


def _files(paths: list[Path], filename: bool = False) -> str:
    quoted = ", ".join("'" + glob.escape(str(path)).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{quoted}]{', filename = true' if filename else ''})"
