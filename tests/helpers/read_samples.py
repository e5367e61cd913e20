"""What the samples of raw formats yield, and the reading of single records."""

import json
from pathlib import Path
from typing import Any

from dpo_data.formats import READERS
from dpo_data.formats.detect import detect
from dpo_data.ingest.paths import find
from dpo_data.reading.records import Item
from helpers.format_samples import SAMPLES


def sample(name: str) -> list[Path]:
    """The sample files of a format, less the companions that are read with them."""
    return [path for path in find(SAMPLES / name) if detect(path) == name]


def items(name: str, folder: Path = SAMPLES) -> list[Item]:
    """Everything that the sample of a format yields."""
    return [item for path in find(folder / name) if detect(path) == name for item in READERS[name].read(path)]


def read(tmp_path: Path, format: str, *records: Any) -> list[Any]:
    """What a format yields of these records, written as one JSON-lines file."""
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return list(READERS[format].read(path))
