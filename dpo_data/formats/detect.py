"""Which format a file is in, from its first readable records."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dpo_data.formats import READERS, columns
from dpo_data.reading.decoding import names
from dpo_data.reading.files import check_name, rows
from dpo_data.reading.records import Reader, Record
from dpo_data.schema import DataError

SAMPLE = 20  # records looked at: enough to see past a broken or odd first one


def detect(path: Path) -> str:
    """The name of the format that recognises most of the first records.

    `DataError` when none does (with the keys found), or when two recognise equally many.
    """
    first = list(islice(rows(path), 10 * SAMPLE))
    sample = [row.value for row in first if row.problem is None][:SAMPLE]
    if not sample:
        why = f" Record {first[0].number}: {first[0].problem}" if first else " It holds nothing but white space."
        raise DataError(
            f"{path}: none of the first records can be read, so its format cannot be detected.{why} Check the file."
        )
    votes = {name: sum(_recognises(reader, record) for record in sample) for name, reader in READERS.items()}
    most = max(votes.values())
    best = [name for name, count in votes.items() if count == most]
    if most and len(best) == 1:
        return best[0]
    keys = names(sorted({str(key) for record in sample for key in record}))
    if most:
        raise DataError(f"{path}: could be {' or '.join(best)} (keys: {keys}). Name the format of this source.")
    raise DataError(
        f"{path}: no known format. Keys found: {keys}. Formats tried: {', '.join(sorted(READERS))}. "
        "Name the format of this source, or map its columns (format: columns) in the recipe."
    )


def _recognises(reader: Reader, record: Record) -> bool:
    try:
        return bool(reader.detect(record))
    except Exception:  # a record of any other shape
        return False


def reader(path: Path, format: str | None = None, mapping: Mapping[str, Any] | None = None) -> tuple[str, Reader]:
    """The name and the reader for a file: as named, by the columns' mapping, or detected."""
    check_name(path)
    if mapping is not None:
        if format not in (None, "columns"):
            raise DataError(f"{path}: a mapping of columns goes with the format columns, not with {format!r}.")
        try:
            return "columns", columns.reader(columns.Columns.model_validate(mapping))
        except ValidationError as problem:
            said = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'columns'}: {one['msg']}" for one in problem.errors())
            raise DataError(f"{path}: the mapping of columns cannot be used. {said}.") from problem
    name = format or detect(path)
    if name not in READERS:
        hint = "give its columns" if name == "columns" else f"known: {', '.join(sorted(READERS))}, columns"
        raise DataError(f"{path}: unknown format {name!r}; {hint}.")
    return name, READERS[name]
