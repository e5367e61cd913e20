"""Every raw format: its sample is recognised by it alone and says what is written here, record by record."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.format_samples import SAMPLES
from helpers.read_samples import items, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.formats import READERS
from dpo_data.formats.detect import detect, reader
from dpo_data.ingest.paths import find
from dpo_data.reading.files import rows
from dpo_data.reading.records import BinaryRating, Item, Vote
from dpo_data.schema import DataError

# What the samples say, in the order of their records: 1 first wins, 2 second wins, = tie, + and - thumbs, x reject.
SAID = {
    "ab_table": "1=2=x",
    "alpaca_eval": "12==1x",
    "arena": "1=2=",
    "arena_140k": "2=",
    "arena_55k": "12=x",
    "argilla": "1=1x122",
    "binarized": "1=11",
    "distilabel": "=1",
    "dpo_review": "1=x",
    "helpsteer2": "1=x",
    "helpsteer2_preference": "112=x2",
    "helpsteer3": "11=2",
    "hh_rlhf": "1111x",
    "kto": "+-++x",
    "label_studio": "12=1x",
    "llmfao": "=12x2",
    "nectar": "112",
    "nemo_rl": "21",
    "oasst": "1122x",
    "oasst_messages": "1x",
    "pandalm": "11=2=2=",
    "pandalm_judge": "1x",
    "prism": "1",
    "prism_utterances": "122=x",
    "qlora_judge": "1=x",
    "ratings": "1=1",
    "sharegpt_dpo": "11",
    "shp": "21x",
    "squality": "112222",
    "trl": "111111",
    "ukpconvarg": "1=2",
    "ultrafeedback": "1=2x",
    "webgpt": "1=x",
}


def mark(item: Item) -> str:
    """One character for what an item says."""
    if isinstance(item, Vote):
        return {"first": "1", "second": "2", "tie": "="}[item.choice]
    if isinstance(item, BinaryRating):
        return "+" if item.label else "-"
    return "x"


@pytest.mark.parametrize("name", READERS)
def test_a_format_has_a_sample_that_it_alone_recognises(name: str) -> None:
    assert sample(name), f"no sample of {name} in tests/formats or tests/helpers/format_samples.py"
    for path in sample(name):
        for row in rows(path):
            assert [other for other, read in READERS.items() if read.detect(row.value)] == [name], row


@pytest.mark.parametrize("name", READERS)
def test_a_sample_says_what_is_written_down(name: str) -> None:
    assert "".join(mark(item) for item in items(name)) == SAID[name]


@pytest.mark.parametrize("name", READERS)
def test_every_record_of_a_sample_is_accounted_for(name: str) -> None:
    for path in sample(name):
        numbers = {row.number for row in rows(path)}
        assert {number for item in READERS[name].read(path) for number in item.records} == numbers


@pytest.mark.parametrize("name", READERS)
def test_votes_have_prompts_that_do_not_end_with_an_answer_and_strengths_within_bounds(name: str) -> None:
    for item in items(name):
        if isinstance(item, Vote):
            assert item.prompt and item.prompt[-1]["role"] != "assistant"
            assert item.strength is None or 0 <= item.strength <= 1
            assert item.annotator_kind in ("human", "model", "unknown")
            facts = [item.attributes, item.of_first, item.of_second, item.sided]
            assert all(isinstance(value, str) and value for fact in facts for value in fact.values())


JUNK: list[Any] = [None, True, 3, "x", "", [], {}, [None], {"a": 1}, -1.5, [[1]], ["x"]]


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every field and list entry of a record."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, part in inside for path in [(*above, key), *places(part, (*above, key))]]


def spoiled(record: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The record with one field replaced by junk, or removed where the junk is "remove"."""
    record = copy.deepcopy(record)
    target = record
    for key in path[:-1]:
        target = target[key]
    if junk == "remove":
        del target[path[-1]]
    else:
        target[path[-1]] = junk
    return record


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_spoiled_record_is_never_lost_and_never_stops_the_file(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(name)
    shutil.copytree(SAMPLES / name, folder / name)
    path = next(path for path in find(folder / name) if detect(path) == name)
    records = [row.value for row in rows(path)]
    number = data.draw(st.integers(0, len(records) - 1))
    where = data.draw(st.sampled_from(places(records[number])))
    records[number] = spoiled(records[number], where, data.draw(st.sampled_from(["remove", *JUNK])))
    for other in READERS.values():
        other.detect(records[number])
    broken = path.with_suffix(".jsonl")
    broken.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    found = {number for item in READERS[name].read(broken) for number in item.records}
    assert found == set(range(1, len(records) + 1))


def test_an_unknown_format_is_named_with_the_keys_found_and_the_formats_tried(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text('{"alpha": 1, "beta": 2}\n')
    with pytest.raises(DataError, match=r"no known format. Keys found: alpha, beta. Formats tried: ab_table,"):
        detect(path)


def test_detection_sees_past_broken_first_records(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    good = '{"prompt": "p", "chosen": "c", "rejected": "r"}\n'
    path.write_text("not json\n[1, 2]\n" + good * 3)
    assert detect(path) == "trl"


def test_a_misnamed_format_lists_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    with pytest.raises(DataError, match=r"unknown format 'trll'; known: ab_table, "):
        reader(path, "trll")
