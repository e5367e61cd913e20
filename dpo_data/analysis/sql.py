"""A version and its store in DuckDB, by the names people expect: ledger, pairs, unpaired, votes, comparisons.

The views read the Parquet files where they lie and copy nothing, so a million rows open at once. What the store forgot
is left out of votes and comparisons, as everywhere. `ledger` has one column more than its file, `kept`. Queries read
only: they open no file outside the store, write none, and load no extension.
"""

import glob
import re
from pathlib import Path
from typing import Any

import duckdb

from dpo_data.schema import UNPAIRED, DataError, empty
from dpo_data.store import forgotten as forgetting
from dpo_data.store.batches import Batches, open_batches
from dpo_data.store.versions import Version, current, open_version

_EXPLAIN = re.compile(r"\s*explain(\s+analyze)?\s", re.IGNORECASE)
STORE_VIEWS = ("votes", "comparisons", "thumbs", "rejects")
VIEWS = ("ledger", "pairs", "unpaired", "annotators", "examples", *STORE_VIEWS)


def connect(store: Path, version: str = "current") -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory with the views of `VIEWS`, locked to files of the store; nothing is fetched.

    A store whose first version is not published yet has the views of its batches only (`STORE_VIEWS`). DuckDB may
    still write into the store (COPY TO): `query` accepts only statements that read.
    """
    store = store.absolute()
    published = current(store) if version == "current" else open_version(store, version)
    opened = open_batches(store)
    if published is None and not opened.ids:
        raise DataError(f"{store} holds no version and no batches. Read sources into it first (dpo refresh).")
    connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    if published is not None:
        _version_views(connection, published)
    _store_views(connection, store, opened)
    _lock(connection, store)
    return connection


def query(store: Path, sql: str, version: str = "current") -> list[dict[str, Any]]:
    """Rows of one SQL query. Raises `DataError` for a statement that does not read, and with DuckDB's words and the
    names of the views for a wrong one."""
    with connect(store, version) as connection:
        try:
            _check_reads(connection, sql)
            result = connection.execute(sql)
            names = [column[0] for column in result.description or ()]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
        except duckdb.Error as error:
            raise DataError(f"{error}\n{_views(store, version)}") from error


def _views(store: Path, version: str) -> str:
    """Which names a query can use."""
    if version == "current" and current(store) is None:
        return f"Views: {', '.join(STORE_VIEWS)}; {store} has no current version, and so no other view."
    return (
        f"Views: {', '.join(VIEWS)}; DESCRIBE ledger lists its columns. Files outside the store cannot be read or "
        "written here."
    )


def check_condition(where: str) -> None:
    """Raise `DataError` unless `where` is one SQL expression: text that closes the condition would run as well."""
    try:
        duckdb.SQLExpression(where)
    except duckdb.Error as error:
        raise DataError(
            f"The condition {where[:200]!r} is not one SQL expression ({error}). Expected a condition over the ledger, "
            "such as kept and confidence > 0.8."
        ) from None


def _check_reads(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise DataError(f"Found {len(statements)} SQL statements, expected one, such as: from ledger limit 5.")
    if not _reads(connection, sql):
        raise DataError(
            f"Found a statement of type {statements[0].type.name}, expected one that only reads: SELECT, FROM, WITH, "
            "DESCRIBE, SHOW, SUMMARIZE, PIVOT or EXPLAIN. To write a file, use `dpo export FILE`."
        )


def _reads(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    kind = connection.extract_statements(sql)[0].type
    if kind == duckdb.StatementType.EXPLAIN:  # EXPLAIN ANALYZE runs what it explains
        rest = _EXPLAIN.sub("", sql, count=1)
        return rest != sql and _parses(connection, rest) and _reads(connection, rest)
    if kind == duckdb.StatementType.MULTI:  # a PIVOT, and also a COPY of one: only the first can be a subquery
        return _parses(connection, f"SELECT * FROM (\n{sql.rstrip().rstrip(';')}\n)")
    return bool(kind == duckdb.StatementType.SELECT)  # FROM, WITH, VALUES, DESCRIBE, SHOW and SUMMARIZE too


def _parses(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    try:
        return len(connection.extract_statements(sql)) == 1
    except duckdb.Error:
        return False


def _lock(connection: duckdb.DuckDBPyConnection, store: Path) -> None:
    """Leave the connection the files of the store and nothing else; no later statement can undo it."""
    names = {str(folder) for folder in (store.absolute(), store.resolve())}
    names |= {glob.escape(name) for name in names}  # DuckDB compares with the path as `_files` writes it
    folders = ", ".join(f"'{_quoted(name)}'" for name in sorted(names))
    connection.execute(f"SET allowed_directories = [{folders}]")
    for setting in ("autoload_known_extensions", "allow_community_extensions", "enable_external_access"):
        connection.execute(f"SET {setting} = false")
    connection.execute("SET lock_configuration = true")


def _version_views(connection: duckdb.DuckDBPyConnection, published: Version) -> None:
    kept = "len(reasons) = 0 AND preferred IS NOT NULL AS kept"
    connection.execute(f"CREATE VIEW ledger AS SELECT *, {kept} FROM {_files([published.path / 'ledger.parquet'])}")
    for name in ("annotators", "examples"):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {_files([published.path / f'{name}.parquet'])}")
    for name in ("pairs", "unpaired"):
        shards = sorted((published.path / name).glob("*.parquet"))
        if not shards:  # a version of thumbs alone has no pairs, and shards.unpaired can be off
            columns = published.pairs().collect() if name == "pairs" else empty(UNPAIRED)
            connection.register("no_rows", columns.to_arrow())
            connection.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM no_rows")
            connection.unregister("no_rows")
        else:
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {_files(shards)}")


def _store_views(connection: duckdb.DuckDBPyConnection, store: Path, opened: Batches) -> None:
    """The batches' tables; of a comparison in several batches the first batch's row."""
    folders = [store / "batches" / batch for batch in opened.ids]
    forgotten = forgetting.read(store)
    connection.execute("CREATE TEMP TABLE forgotten (comparison_id VARCHAR, annotator VARCHAR)")
    connection.execute("CREATE TEMP TABLE superseded (batch VARCHAR, file VARCHAR)")
    rows = [(name, None) for name in forgotten.comparisons] + [(None, name) for name in forgotten.annotators]
    if rows:
        connection.executemany("INSERT INTO forgotten VALUES (?, ?)", rows)
    gone = [(batch, file) for batch, files in opened.superseded.items() for file in files]
    if gone:
        connection.executemany("INSERT INTO superseded VALUES (?, ?)", gone)
    whole = f"comparison_id NOT IN ({_named('comparison_id')})"
    voted = f"(annotator IS NULL OR annotator NOT IN ({_named('annotator')}))"
    counts = " AND ".join(f"(batch, {file}) NOT IN (FROM superseded)" for file in _FILES_OF_ORIGIN) if gone else "TRUE"
    backed = "(batch NOT IN (SELECT s.batch FROM superseded s) OR (batch, comparison_id) IN (FROM backed))"
    conditions = {
        "votes": f"{whole} AND {voted} AND {counts}",
        "comparisons": f"{whole} AND {backed if gone else 'TRUE'}",
        "thumbs": f"{voted} AND {counts}",
        "rejects": counts,
    }
    for name, condition in conditions.items():
        source = _files([folder / f"{name}.parquet" for folder in folders], filename=True)
        rows_of = f"(SELECT * EXCLUDE (filename), parse_filename(parse_dirpath(filename)) AS batch FROM {source})"
        if name == "votes" and gone:  # forgotten annotators take votes away, but no comparison
            connection.execute(f"CREATE TEMP VIEW backed AS SELECT batch, comparison_id FROM {rows_of} WHERE {counts}")
        first = (
            "QUALIFY row_number() OVER (PARTITION BY comparison_id ORDER BY batch) = 1" if name == "comparisons" else ""
        )
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {rows_of} WHERE {condition} {first}")


_LAST_FILE = "regexp_replace(origin, ':[0-9,]+$', '')"
_FILES_OF_ORIGIN = (
    _LAST_FILE,
    "regexp_replace(origin, ':[0-9,]+;.*$', '', 's')",
    f"regexp_replace({_LAST_FILE}, '^.*:[0-9,]+;', '', 's')",
)
"""The file of `origin`, or the two files of a vote made of two thumbs, as in `store.readings.in_files`."""


def _named(column: str) -> str:
    return f"SELECT f.{column} FROM forgotten f WHERE f.{column} IS NOT NULL"


def _files(paths: list[Path], filename: bool = False) -> str:
    quoted = ", ".join(f"'{_quoted(glob.escape(str(path)))}'" for path in paths)
    return f"read_parquet([{quoted}]{', filename = true' if filename else ''})"


def _quoted(path: str) -> str:
    return path.replace("'", "''")
