"""Changes to the samples of the raw formats, field by field and byte by byte, and what must hold of any such file.

`choose` picks one of a sequence: hypothesis draws it in the tests, a seeded generator in the fault campaign.
"""

import copy
import csv
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpo_data.formats.detect import detect
from dpo_data.ingest.append import append_batch
from dpo_data.ingest.paths import find
from dpo_data.ingest.preview import inspect
from dpo_data.reading.files import rows
from dpo_data.schema import DataError
from dpo_data.store.batches import open_batches
from helpers.format_samples import SAMPLES

Choose = Callable[[Sequence[Any]], Any]


def nested(levels: int, inner: Any = 1.5) -> Any:
    """A value inside this many lists and objects."""
    for level in range(levels):
        inner = [inner] if level % 2 else {"k": inner}
    return inner


JUNK: list[Any] = [None, True, 3, "x", "", [], {}, [None], {"a": 1}, -1.5, [[1]], ["x"], [{}], "  ", "a", "1"]
JUNK += [10**30, -(10**300), 1.7e308, float("nan"), "nan", "inf", "1e400", nested(260), nested(480), nested(700)]
JUNK += ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", 10**17, "\ud800", "e\u0301\u0000\u2028", "9" * 5000]
TABLE = {"q": "why", "l": "so", "r": "thus", "better": "left", "who": "w", "when": "2024-05-06", "n": 3, "up": True}
MAPPINGS = [
    {"first": "l", "second": "r", "winner": "better", "at": "when", "annotator": "who", "strength": "n"},
    {"chosen": "l", "rejected": "r", "model_first": "who"},
    {"completion": "l", "label": "up", "system": "who"},
    {"response": "l", "rating": "n", "annotator": "who", "model": "r"},
]
NOT_OBJECTS: list[Any] = [None, [], [nested(300)], "text", 7, {}]


def sample(name: str, folder: Path) -> tuple[Path, list[Path]]:
    """A copy of a format's sample in `folder`: the file that is read, and it with those that are read with it."""
    shutil.copytree(SAMPLES / name, folder / name)
    paths = [path for path in find(folder / name) if detect(path) == name]
    return paths[0], [paths[0], *sorted(path for path in (folder / name).rglob("*.json*") if path not in paths)]


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every field and list entry of a record, 20 levels down."""
    if len(above) > 20:
        return []
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, part in inside for path in [(*above, key), *places(part, (*above, key))]]


def changed(records: list[Any], choose: Choose) -> list[Any]:
    """The records after one change to one field, or to one record as a whole."""
    records = list(records)
    at = choose(range(len(records)))
    how = choose(["field", "field", "field", "field", "wrap", "remove", "repeat", "replace", "move", "borrow"])
    if how == "repeat":
        records.insert(choose(range(len(records) + 1)), records[at])
    elif how == "replace":
        records[at] = choose(NOT_OBJECTS)
    elif how == "move":
        records.insert(0, records.pop(at))
    elif how == "borrow":  # a field of another record, an id say
        other = choose(records)
        key = choose(sorted(other))
        records[at] = {**records[at], key: other[key]}
    else:
        path = choose(places(records[at]))
        target = records[at] = copy.copy(records[at])
        for key in path[:-1]:  # copied along the path only: the rest may be nested deeper than copies reach
            target[key] = target = copy.copy(target[key])
        if how == "remove":
            del target[path[-1]]
        elif how == "wrap":
            target[path[-1]] = choose([[target[path[-1]]], {"x": target[path[-1]]}, [target[path[-1]]] * 2])
        else:
            target[path[-1]] = choose(JUNK)
    return records


def write(path: Path, records: list[Any]) -> None:
    """Write records in the form that the file's name says."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
            table = csv.writer(file)
            table.writerow(next((record for record in records if isinstance(record, dict) and record), ["a", "b"]))
            table.writerows(record.values() if isinstance(record, dict) else [record] for record in records)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def mangled(path: Path, choose: Choose, times: int = 1) -> None:
    """Change a sample's file in place, record by record."""
    records: list[Any] = [row.value for row in rows(path)]
    for _ in range(times):
        whole = [record for record in records if isinstance(record, dict) and record]
        records = changed(whole, choose) if whole else records
    write(path, records)


def problem(path: Path, name: str | None, columns: dict[str, str] | None = None) -> str | None:
    """What is wrong with how a file was read; null where it is one clear error or accounts for every record."""
    try:
        inspect(path, name, columns)
    except DataError as error:
        if path.name not in str(error) and path.parent.parent.name not in str(error):
            return f"an error of {path.name} that does not name it: {error}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            summary = append_batch(Path(folder), [path], "s", name, columns=columns)
        except DataError:
            return None
        batches = open_batches(Path(folder))
        places = [row for table in (batches.votes(), batches.thumbs(), batches.rejects()) for row in origins(table)]
    wrong = [place for place in places if not re.fullmatch(rf"{re.escape(path.name)}:\d+(,\d+)*", place)]
    numbers = {int(number) for place in places for number in place.rpartition(":")[2].split(",")}
    expected = {row.number for row in rows(path)}
    if wrong or numbers != expected or summary.records != len(expected):
        return f"{path.name}: records {sorted(expected)}, accounted for {sorted(numbers)}, origins {wrong}"
    return None


def origins(table: Any) -> list[str]:
    """The origins of a table of the store."""
    return list(table.select("origin").collect()["origin"])
