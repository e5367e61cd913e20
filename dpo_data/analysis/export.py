"""Any selection of comparisons as a file for other tools: csv, jsonl, Argilla, Label Studio.

Argilla and Label Studio files are read back by `formats`: prompt and responses travel untouched, so a verdict given
there becomes a vote on the same comparison. Sides a and b are the store's own, named by hash, so the order betrays
nothing to who judges. CSV is for eyes and spreadsheets; a cell that a spreadsheet would run as a formula
gets an apostrophe in front, so it must not be read back as text.
"""

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import polars as pl

from dpo_data.analysis import sql
from dpo_data.ids import coin
from dpo_data.release.shards import KEPT
from dpo_data.schema import DataError
from dpo_data.store.atomic import replacing
from dpo_data.store.batches import open_batches
from dpo_data.store.versions import open_version

Format = Literal["csv", "jsonl", "argilla", "label_studio"]
Row = dict[str, Any]
_CHUNK = 5_000
# Besides the ASCII signs their full-width forms, which spreadsheets take for the same (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_METADATA = (
    "source",
    "preferred",
    "kept",
    "split",
    "agreement",
    "confidence",
    "p_equal",
    "similarity",
    "votes",
    "reasons",
)

# Choices and not Label Studio's Pairwise, which knows no tie.
LABEL_STUDIO_CONFIG = """<View>
  <Paragraphs name="prompt" value="$prompt" layout="dialogue" nameKey="role" textKey="content"/>
  <Header value="Which response is better?"/>
  <View style="display: grid; grid-template-columns: 1fr 1fr; gap: 1em">
    <Text name="response_a" value="$response_a"/>
    <Text name="response_b" value="$response_b"/>
  </View>
  <Choices name="better" toName="response_a" choice="single-radio" showInline="true">
    <Choice value="a" hotkey="a"/>
    <Choice value="tie" hotkey="t"/>
    <Choice value="b" hotkey="b"/>
  </Choices>
</View>
"""


def export(
    store: Path,
    path: Path,
    format: Format,
    *,
    where: str = "kept",
    version: str = "current",
    sample: int | None = None,
) -> int:
    """Write the comparisons for which the SQL condition `where` over the ledger holds; returns how many.

    `sample` takes at most so many of them, by the coin of their id. Sorted by id. For Label Studio the labelling page
    is written beside the tasks, as .xml; for Argilla make a dataset with a ChatField `prompt`, TextFields `response_a`
    and `response_b` and a LabelQuestion `better` (response_a, response_b, tie), then `records.from_json(path)`. Raises
    `DataError` for an unknown format or a condition that DuckDB does not understand.
    """
    writers = {"csv": _csv, "jsonl": _jsonl, "argilla": _argilla, "label_studio": _label_studio}
    if format not in writers:
        raise DataError(f"Unknown export format {format!r}. Known: {', '.join(writers)}.")
    sql.check_condition(where)
    ids = [row["comparison_id"] for row in sql.query(store, _selection(where), version)]
    if sample is not None:
        ids = sorted(sorted(ids, key=lambda name: coin(name, "sample"))[:sample])
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.writelines(writers[format](_rows(store, ids, version)))
    if format == "label_studio":
        path.with_suffix(".xml").write_text(LABEL_STUDIO_CONFIG, encoding="utf-8")
    return len(ids)


def _selection(where: str) -> str:
    return f"SELECT comparison_id FROM ledger WHERE ({where}\n) ORDER BY comparison_id"


def _rows(store: Path, ids: list[str], version: str) -> Iterator[Row]:
    """Text and ledger of the comparisons, a bounded number at a time, in the order of `ids` (sorted)."""
    texts = open_batches(store).comparisons().select("comparison_id", "prompt", "response_a", "response_b")
    ledger = open_version(store, version).ledger()
    for start in range(0, len(ids), _CHUNK):
        chosen = pl.col("comparison_id").is_in(ids[start : start + _CHUNK])
        facts = ledger.filter(chosen).with_columns(kept=KEPT)
        frame = texts.filter(chosen).join(facts, on="comparison_id").sort("comparison_id").collect()
        yield from frame.iter_rows(named=True)


def _csv(rows: Iterator[Row]) -> Iterator[str]:
    buffer = StringIO()
    writer = csv.writer(buffer)
    for number, row in enumerate(rows):
        flat = {**row, "prompt": _as_text(row["prompt"]), "reasons": ", ".join(row["reasons"])}
        if number == 0:
            writer.writerow(flat)
        writer.writerow([_safe(value) for value in flat.values()])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _safe(value: Any) -> Any:
    """A cell that no spreadsheet runs; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.startswith(_FORMULA) else value


def _as_text(prompt: list[dict[str, str]]) -> str:
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def _jsonl(rows: Iterator[Row]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _argilla(rows: Iterator[Row]) -> Iterator[str]:
    """What `rg.Dataset.records.from_json` of Argilla 2 reads: a list of records, nothing answered yet."""
    return _array(
        {
            "id": row["comparison_id"],
            "fields": {name: row[name] for name in ("prompt", "response_a", "response_b")},
            "metadata": _metadata(row),
            "suggestions": {},
            "responses": {},
            "vectors": {},
        }
        for row in rows
    )


def _label_studio(rows: Iterator[Row]) -> Iterator[str]:
    """Label Studio's task import: the data alone; what the pipeline decided travels under `meta`, out of sight."""
    return _array(
        {
            "data": {name: row[name] for name in ("prompt", "response_a", "response_b", "comparison_id")},
            "meta": _metadata(row),
        }
        for row in rows
    )


def _metadata(row: Row) -> Row:
    facts = {name: row[name] for name in _METADATA if row.get(name) is not None}  # an older version lacks the newest
    return {**facts, "kept": str(row["kept"]).lower(), "reasons": ", ".join(row["reasons"])}


def _array(items: Iterator[Row]) -> Iterator[str]:
    opening = "[\n"
    for item in items:
        yield opening + json.dumps(item, ensure_ascii=False, allow_nan=False)
        opening = ",\n"
    yield "[]\n" if opening == "[\n" else "\n]\n"
