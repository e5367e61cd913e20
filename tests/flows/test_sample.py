"""The committed sample is what its script makes, and `truth.json` is consistent with the files it speaks of."""

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"
TRUTH: dict[str, Any] = json.loads((SAMPLE / "truth.json").read_text())


def content(name: str, folder: Path = SAMPLE) -> bytes:
    """The bytes of a sample file, decompressed."""
    data = (folder / name).read_bytes()
    return gzip.decompress(data) if name.endswith(".gz") else data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample made once more, elsewhere, by the script as a person runs it."""
    folder = tmp_path_factory.mktemp("sample")
    subprocess.run([sys.executable, str(SAMPLE / "make_sample.py"), str(folder)], check=True, capture_output=True)
    return folder


def raw_records(name: str) -> int:
    """Raw records counted without any of our readers."""
    data = content(name)
    if name.endswith(".csv"):
        text = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
        return sum(1 for _ in csv.reader(text)) - 1
    if name.endswith(".json"):
        return len(json.loads(data))
    return len(data.splitlines())


def readable(name: str) -> list[dict[str, Any]]:
    """The records of a file of JSON lines but for those planted as unreadable."""
    bad = {int(planted["origin"].rpartition(":")[2]) for planted in TRUTH["files"][name]["unreadable"]}
    return [json.loads(line) for number, line in enumerate(content(name).splitlines(), 1) if number not in bad]


@pytest.mark.parametrize("name", [*TRUTH["files"], "truth.json"])
def test_the_script_makes_every_committed_file_again_to_the_byte(name: str, made: Path) -> None:
    assert content(name, made) == content(name)


def test_the_script_makes_no_file_that_is_not_committed(made: Path) -> None:
    assert {path.name for path in made.iterdir()} <= {path.name for path in SAMPLE.iterdir()}


@pytest.mark.parametrize("name", list(TRUTH["files"]))
def test_truth_counts_the_raw_records_of_every_file(name: str) -> None:
    assert raw_records(name) == TRUTH["files"][name]["records"]


def test_truth_adds_up_to_about_fifteen_hundred_records_in_five_formats_and_more() -> None:
    files = TRUTH["files"].values()
    assert TRUTH["records"] == sum(file["records"] for file in files)
    assert 1_350 <= TRUTH["records"] <= 1_650
    assert len({file["format"] for file in files}) >= 5


def test_every_line_named_unreadable_exists_once() -> None:
    for name, file in TRUTH["files"].items():
        lines = content(name).count(b"\n")
        origins = [bad["origin"] for bad in file["unreadable"]]
        assert len(set(origins)) == len(origins)
        for origin in origins:
            there, _, line = origin.rpartition(":")
            assert there == name
            assert 1 <= int(line) <= lines


def test_the_unreadable_lines_are_the_ones_that_json_refuses() -> None:
    unreadable = {"cut", "not UTF-8", "not JSON"}
    for name, file in TRUTH["files"].items():
        if ".jsonl" not in name:
            continue
        planted = {int(bad["origin"].rpartition(":")[2]) for bad in file["unreadable"] if bad["kind"] in unreadable}
        refused = set()
        for number, line in enumerate(content(name).splitlines(), 1):
            try:
                json.loads(line.decode("utf-8"))
            except ValueError:
                refused.add(number)
        assert refused == planted


def test_the_forum_prefers_the_longer_response_as_often_as_truth_says() -> None:
    planted = TRUTH["plants"]["length_biased"]
    alike = TRUTH["plants"]["too_alike"] + TRUTH["plants"]["identical"]
    gaps = [len(record["chosen"]) - len(record["rejected"]) for record in readable("forum.jsonl")]
    longer = sum(gap > 8 for gap in gaps)  # the pairs too alike differ by less
    assert len(alike) == 30
    assert longer == planted["longer_wins"]
    assert 0.72 < longer / planted["comparisons"] < 0.88


def test_an_opposite_thumb_stands_on_its_prompt_and_all_others_are_alone() -> None:
    labels: dict[str, list[bool]] = {}
    for record in readable("thumbs.jsonl"):
        labels.setdefault(record["prompt"], []).append(record["label"])
    opposite = [found for found in labels.values() if len(found) > 1]
    assert all(sorted(found) == [False, True] for found in opposite)
    assert len(opposite) == len(TRUTH["plants"]["opposite_thumbs"])
    assert len(labels) - len(opposite) == TRUTH["plants"]["lone_thumbs"]


def test_the_recipe_names_every_raw_file_once_and_nothing_else() -> None:
    recipe = yaml.safe_load((SAMPLE / "recipe.yaml").read_text())
    assert sorted(source["path"] for source in recipe["sources"]) == sorted(TRUTH["files"])
