"""Raw records out of Parquet: one row per record; a row with a value that Python cannot hold is one reject.

Times in an unknown zone are read in UTC, and dates past the year 9999 as text: most often no reader needs them.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpo_data.reading import decoding
from dpo_data.reading.decoding import Row, clipped, names, oversized
from dpo_data.schema import DataError

BATCH_ROWS = 1024


def rows(path: Path) -> Iterator[Row]:
    """Every row of the file, readable or not. `DataError` where two columns have one name."""
    number = 1
    file = pq.ParquetFile(path)
    columns = file.schema_arrow.names
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1}) if len(columns) < 1000 else columns
        raise DataError(f"{path}: the columns {names(twice)} are there more than once; expected each name once.")
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        yield from _rows(number, _with_known_zones(batch))
        number += batch.num_rows


def _rows(number: int, batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a batch; one by one where one of them cannot be read or may be too large."""
    if batch.nbytes <= decoding.MAX_RECORD_BYTES:
        try:
            values = batch.to_pylist()
        except MemoryError:
            raise
        except Exception:  # bad UTF-8, dates that Python does not reach, and whatever else its types refuse
            values = None
        if values is not None:
            yield from (Row(number + index, value) for index, value in enumerate(values))
            return
    for index in range(batch.num_rows):
        yield _row(number + index, batch.slice(index, 1))


def _row(number: int, batch: pa.RecordBatch) -> Row:
    shared = any(pa.types.is_dictionary(field.type) for field in batch.schema)  # one row bears the whole dictionary
    if batch.nbytes > decoding.MAX_RECORD_BYTES and not shared:
        return oversized(number, b"(see the file)", batch.nbytes)
    value: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value[name] = _value(column)
        except MemoryError:
            raise
        except Exception as problem:
            why = "is not UTF-8" if isinstance(problem, UnicodeDecodeError) else f"cannot be read ({problem})"
            reason = f"The {column.type} in column {clipped(name, 60)!r} {why}."
            return Row(number, {}, reason, b"(see the file)")
    return Row(number, value)


def _value(column: pa.Array) -> Any:
    """The only value of a column; of a date or time past the years that Python knows, its number as text."""
    try:
        return column[0].as_py()
    except OverflowError:
        if not pa.types.is_temporal(column.type):
            raise
        width = pa.int32() if column.type.bit_width == 32 else pa.int64()
        return f"{column.type} {column.cast(width)[0].as_py()} (out of range)"


def _with_known_zones(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with times in UTC where their zone is not known here: they name the same moments."""
    fields = [field.with_type(_known(field.type)) for field in batch.schema]
    if all(new.type == old.type for new, old in zip(fields, batch.schema, strict=True)):
        return batch
    return batch.cast(pa.schema(fields))


def _known(kind: pa.DataType) -> pa.DataType:
    """The type with UTC for every unknown time zone, in lists and structures too."""
    if pa.types.is_timestamp(kind) and kind.tz is not None and not _is_known(kind.tz):
        return pa.timestamp(kind.unit, "UTC")
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_known(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_known(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_known(field.type)) for field in kind])
    return kind


@cache
def _is_known(zone: str) -> bool:
    try:
        pa.lib.string_to_tzinfo(zone)
    except Exception:
        return False
    return True
