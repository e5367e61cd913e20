"""Selections as files for other tools, and verdicts given there that come back as votes on the same comparison."""

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from helpers.planted_version import Planted, comparisons_of, config, ledger_of, many, plant_store

from dpo_data.analysis.export import export
from dpo_data.ingest.append import append_batch
from dpo_data.publish import publish_version
from dpo_data.schema import DataError
from dpo_data.store import batches, versions

STARTS = ("=HYPERLINK(1)", "+1", "-1+cmd", "@SUM(1)", "＝1")


def planted(tmp_path: Path, *more: Planted) -> tuple[Path, list[Planted]]:
    rows = [*many(12), *more]
    rows[0].reasons = ("tie",)
    store = plant_store(tmp_path / "store", rows)
    publish_version(store, ledger_of(rows), config())
    return store, rows


def read(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_a_selection_is_sorted_complete_and_can_be_sampled(tmp_path: Path) -> None:
    store, rows = planted(tmp_path)
    out = tmp_path / "out.jsonl"
    assert export(store, out, "jsonl") == 11
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["comparison_id"] for row in found] == sorted(row.id for row in rows[1:])
    texts = {row["comparison_id"]: row for row in comparisons_of(rows).to_dicts()}
    assert all(row["response_b"] == texts[row["comparison_id"]]["response_b"] and row["kept"] for row in found)
    assert export(store, out, "jsonl", where="list_contains(reasons, 'tie')") == 1
    assert json.loads(out.read_text())["reasons"] == ["tie"]
    assert export(store, out, "jsonl", sample=4) == 4
    four = [json.loads(line)["comparison_id"] for line in out.read_text().splitlines()]
    assert export(store, out, "jsonl", sample=5) == 5
    five = [json.loads(line)["comparison_id"] for line in out.read_text().splitlines()]
    assert set(four) < set(five) and four == sorted(four)


@pytest.mark.parametrize("format", ["argilla", "label_studio"])
def test_a_version_published_before_a_column_was_known_is_exported_without_it(tmp_path: Path, format: str) -> None:
    store, _ = planted(tmp_path)
    opened = versions.open_version(store)
    pl.read_parquet(opened.path / "ledger.parquet").drop("p_equal").write_parquet(opened.path / "ledger.parquet")
    assert export(store, tmp_path / "out.json", format) == 11
    text = (tmp_path / "out.json").read_text()
    assert "confidence" in text and "p_equal" not in text


def hostile(start: str) -> Planted:
    return Planted(f"{start}\nsecond, line", f'{start} "quoted"', "plain", category=start)


@pytest.fixture(scope="module")
def with_formulas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("formulas"), *map(hostile, STARTS))[0]


@pytest.mark.parametrize("start", STARTS)
def test_no_cell_of_a_csv_runs_as_a_formula_and_every_text_survives(
    with_formulas: Path, tmp_path: Path, start: str
) -> None:
    store, row_of, out = with_formulas, hostile(start), tmp_path / "out.csv"
    assert export(store, out, "csv", where=f"comparison_id = '{row_of.id}'") == 1
    with out.open(encoding="utf-8", newline="") as file:
        [row] = list(csv.DictReader(file))
    assert not any(cell.startswith(("=", "+", "@", "-", "＝")) for name, cell in row.items() if not _number(cell))
    side = f"response_{row_of.preferred}"
    assert row[side] == f"'{row_of.better}" and row["category"] == f"'{start}"
    assert row["prompt"] == f"user: {start}\nsecond, line"


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def voted(store: Path, file: Path) -> dict[str, list[tuple[str, str | None]]]:
    """Ingest a file as a new source of the same store; its votes by comparison."""
    summary = append_batch(store, [file], "verdicts")
    assert summary.rejected == 0
    found: dict[str, list[tuple[str, str | None]]] = {}
    for vote in batches.open_batches(store).votes().collect().to_dicts():
        if vote["source"] == "verdicts":
            found.setdefault(vote["comparison_id"], []).append((vote["choice"], vote["annotator"]))
    return found


def test_verdicts_given_in_argilla_come_back_as_votes_on_the_same_comparisons(tmp_path: Path) -> None:
    turns = Planted("Hello, Grüße", "One", "Two")
    store, rows = planted(tmp_path, turns)
    out = tmp_path / "records.json"
    export(store, out, "argilla")
    records = read(out)
    assert set(records[0]) == {"id", "fields", "metadata", "suggestions", "responses", "vectors"}
    verdicts = ["response_a", "response_b", "tie"]
    for i, record in enumerate(records):
        record["responses"] = {"better": [{"value": verdicts[i % 3], "user_id": "ann", "status": "submitted"}]}
    out.write_text(json.dumps(records))
    assert voted(store, out) == {record["id"]: [(("a", "b", "tie")[i % 3], "ann")] for i, record in enumerate(records)}
    assert {record["id"] for record in records} == {row.id for row in rows[1:]}


def test_verdicts_given_in_label_studio_come_back_as_votes_on_the_same_comparisons(tmp_path: Path) -> None:
    store, rows = planted(tmp_path)
    out = tmp_path / "tasks.json"
    export(store, out, "label_studio")
    tasks = read(out)
    page = ElementTree.fromstring(out.with_suffix(".xml").read_text())
    shown = {tag.attrib["value"] for tag in page.iter() if tag.tag in ("Text", "Paragraphs")}
    assert shown == {f"${name}" for name in tasks[0]["data"] if name != "comparison_id"}
    labels = [tag.attrib["value"] for tag in page.iter("Choice")]
    for i, task in enumerate(tasks):
        answer = {"type": "choices", "from_name": "better", "to_name": "response_a"}
        result = [{**answer, "value": {"choices": [labels[i % 3]]}}]
        task |= {"id": i, "annotations": [{"completed_by": 7, "was_cancelled": False, "result": result}]}
    out.write_text(json.dumps(tasks))
    assert voted(store, out) == {task["data"]["comparison_id"]: [(labels[i % 3], "7")] for i, task in enumerate(tasks)}
    assert sorted(labels) == ["a", "b", "tie"] and len(tasks) == len(rows) - 1


def test_nothing_selected_is_an_empty_file_of_the_right_kind(tmp_path: Path) -> None:
    store, _ = planted(tmp_path)
    for format, empty in (("jsonl", ""), ("csv", ""), ("argilla", "[]\n"), ("label_studio", "[]\n")):
        out = tmp_path / format
        assert export(store, out, format, where="false") == 0  # type: ignore[arg-type]
        assert out.read_text() == empty


def test_unknown_formats_and_conditions_are_told(tmp_path: Path) -> None:
    store, _ = planted(tmp_path)
    with pytest.raises(DataError, match="Known: csv, jsonl, argilla, label_studio"):
        export(store, tmp_path / "x", "excel")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no_such"):
        export(store, tmp_path / "x", "csv", where="no_such = 1")
    assert not list(tmp_path.glob("*x*"))
