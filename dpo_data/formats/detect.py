"""Which format a file is in, from its first readable records."""

from itertools import islice
from pathlib import Path

from dpo_data.formats import READERS
from dpo_data.formats.files import rows
from dpo_data.schema import DataError

SAMPLE = 20  # records looked at: enough to see past a broken or odd first one


def detect(path: Path) -> str:
    """The name of the format that recognises most of the first records.

    `DataError` when none does (with the keys found), or when two recognise equally many.
    """
    sample = [row.value for row in islice(rows(path), 10 * SAMPLE) if row.problem is None][:SAMPLE]
    if not sample:
        raise DataError(f"{path}: none of the first records can be read, so its format cannot be told. Check the file.")
    votes = {name: sum(reader.detect(record) for record in sample) for name, reader in READERS.items()}
    most = max(votes.values())
    best = [name for name, count in votes.items() if count == most]
    if most and len(best) == 1:
        return best[0]
    keys = ", ".join(sorted({str(key) for record in sample for key in record}))
    if most:
        raise DataError(f"{path}: could be {' or '.join(best)} (keys: {keys}). Name the format of this source.")
    raise DataError(
        f"{path}: no known format. Keys found: {keys}. Formats tried: {', '.join(sorted(READERS))}. "
        "Name the format of this source, or map its columns (format: columns) in the recipe."
    )
