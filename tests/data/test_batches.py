"""Batches: every record accounted for, written whole or not at all, the same bytes for the same input."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.format_samples import SAMPLES
from helpers.read_samples import sample
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.formats import READERS
from dpo_data.ids import comparison_hash, prompt_hash, text_hash
from dpo_data.ingest import convert, thumb_pairs
from dpo_data.ingest.append import BatchSummary, append_batch
from dpo_data.ingest.preview import inspect
from dpo_data.reading import files
from dpo_data.schema import COMPARISONS, REJECTS, THUMBS, VOTES, DataError, check
from dpo_data.store.batches import open_batches

VOTE = {"prompt": "Why?", "response_a": "So.", "response_b": "Thus.", "winner": "a"}


def write(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def tables(store: Path) -> dict[str, pl.DataFrame]:
    opened = open_batches(store)
    return {name: getattr(opened, name)().collect() for name in ("comparisons", "votes", "thumbs", "rejects")}


def contents(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in sorted(store.glob("batches/[0-9]*/*"))}


def as_dict(facts: list[dict[str, str]]) -> dict[str, str]:
    return {fact["key"]: fact["value"] for fact in facts}


@pytest.mark.parametrize("name", READERS)
def test_every_record_of_every_format_ends_in_votes_thumbs_or_rejects(name: str, tmp_path: Path) -> None:
    found = append_batch(tmp_path, sample(name), name)
    assert found.records == sum(files.count(path) for path in sample(name))
    assert found.records == found.voted + found.thumbs + found.rejected
    frames = tables(tmp_path)
    for table, schema in (("comparisons", COMPARISONS), ("votes", VOTES), ("thumbs", THUMBS), ("rejects", REJECTS)):
        check(frames[table], schema, name)
    assert (frames["comparisons"].height, frames["votes"].height) == (found.comparisons, found.votes)
    assert set(frames["votes"]["comparison_id"]) == set(frames["comparisons"]["comparison_id"])
    assert frames["votes"]["choice"].is_in(["a", "b", "tie"]).all()


def test_ids_are_those_of_the_texts_and_a_is_the_smaller_hash(tmp_path: Path) -> None:
    append_batch(tmp_path, [path for name in ("trl", "arena", "oasst") for path in sample(name)], "mixed")
    for row in tables(tmp_path)["comparisons"].iter_rows(named=True):
        a, b = text_hash(row["response_a"]), text_hash(row["response_b"])
        assert a < b
        assert row["comparison_id"] == comparison_hash(prompt_hash(row["prompt"]), a, b)


def test_the_same_comparison_swapped_is_one_comparison_with_two_agreeing_votes(tmp_path: Path) -> None:
    swapped = {**VOTE, "response_a": VOTE["response_b"], "response_b": VOTE["response_a"], "winner": "b"}
    sides = {"model_a": "m1", "model_b": "m2", "shown_first": "a"}
    turned = {"model_a": "m2", "model_b": "m1", "shown_first": "b"}
    append_batch(tmp_path, [write(tmp_path / "v.jsonl", VOTE | sides, swapped | turned)], "s")
    frames = tables(tmp_path)
    assert frames["comparisons"].height == 1 and frames["votes"]["choice"].n_unique() == 1
    assert frames["votes"]["shown_first"].n_unique() == 1
    (row,) = frames["comparisons"].to_dicts()
    winner = "a" if row["response_a"] == "So." else "b"
    assert frames["votes"]["choice"][0] == winner
    assert as_dict(row["attributes"])[f"model_{winner}"] == "m1"


def test_canonical_text_joins_what_differs_in_white_space_and_unicode_form_only(tmp_path: Path) -> None:
    one = {**VOTE, "response_a": "Caf\u00e9\nau lait"}
    two = {**VOTE, "response_a": "  Cafe\u0301\r\nau lait \n", "prompt": "Why? "}
    found = append_batch(
        tmp_path, [write(tmp_path / "v.jsonl", one, two, {**one, "response_a": "Café\n au lait"})], "s"
    )
    assert (found.comparisons, found.votes) == (2, 3)


def test_attributes_that_name_a_side_follow_the_side(tmp_path: Path) -> None:
    append_batch(tmp_path, [*sample("ukpconvarg"), *sample("pandalm")], "s")
    rows = tables(tmp_path)["comparisons"].to_dicts()
    gold = next(row for row in rows if "Tea keeps calm." in (row["response_a"], row["response_b"]))
    odd = next(row for row in rows if "true" in (row["response_a"], row["response_b"]))
    assert as_dict(gold["attributes"])["gold"] == ("a" if gold["response_a"] == "Tea keeps calm." else "b")
    assert as_dict(odd["attributes"])["non_text_response"] == ("a" if odd["response_a"] == "true" else "b")


def test_attributes_never_take_the_name_of_a_ledger_column(tmp_path: Path) -> None:
    append_batch(
        tmp_path, [write(tmp_path / "v.jsonl", {**VOTE, "source": "web", "language": "en", "topic": "t"})], "s"
    )
    facts = as_dict(tables(tmp_path)["comparisons"]["attributes"][0].to_list())
    assert facts == {"subset": "web", "source_language": "en", "topic": "t"}


def test_differing_attributes_of_a_repeated_comparison_are_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "PART_ITEMS", 2)
    records = [{**VOTE, "topic": topic} for topic in ("x", "y", "x", "z")] + [{**VOTE, "prompt": "Other?"}]
    append_batch(tmp_path, [write(tmp_path / "v.jsonl", *records)], "s")
    rows = tables(tmp_path)["comparisons"].to_dicts()
    assert [[fact["value"] for fact in row["attributes"]] for row in rows] == [["x", "y", "z"], []]


def test_a_second_batch_adds_attributes_but_no_second_row(tmp_path: Path) -> None:
    append_batch(tmp_path, [write(tmp_path / "1.jsonl", {**VOTE, "topic": "x"})], "one")
    append_batch(tmp_path, [write(tmp_path / "2.jsonl", {**VOTE, "topic": "y"}, {**VOTE, "prompt": "New?"})], "two")
    frames = tables(tmp_path)
    assert frames["comparisons"].columns == COMPARISONS.names()
    assert [[fact["value"] for fact in facts] for facts in frames["comparisons"]["attributes"].to_list()] == [
        ["x", "y"],
        [],
    ]
    assert frames["votes"]["batch"].to_list() == [open_batches(tmp_path).ids[index] for index in (0, 1, 1)]


def test_a_file_seen_before_is_a_no_op_whatever_its_name(tmp_path: Path) -> None:
    first = append_batch(tmp_path / "s", [write(tmp_path / "1.jsonl", VOTE)], "one")
    before = contents(tmp_path / "s")
    again = append_batch(tmp_path / "s", [write(tmp_path / "renamed.jsonl", VOTE)], "one")
    assert again == BatchSummary(None, "one", 0, 1) and first.batch is not None
    assert contents(tmp_path / "s") == before


def test_only_new_files_of_a_source_are_read_and_the_same_file_is_new_to_another_source(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.jsonl", VOTE), write(tmp_path / "2.jsonl", {**VOTE, "winner": "b"})
    append_batch(tmp_path / "s", [one], "one")
    second = append_batch(tmp_path / "s", [one, two, one], "one")
    assert (second.files, second.files_known, second.votes) == (1, 2, 1)
    assert second.bytes == two.stat().st_size  # nothing of the file that was known was read again
    assert append_batch(tmp_path / "s", [one], "other").votes == 1
    assert len(open_batches(tmp_path / "s").ids) == 3


def test_a_changed_companion_makes_a_file_new(tmp_path: Path) -> None:
    for path in (SAMPLES / "llmfao").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    votes = tmp_path / "crowd-comparisons.csv"
    append_batch(tmp_path / "s", [votes], "llmfao")
    with (tmp_path / "pairs-crowd.jsonl").open("a") as file:
        file.write("\n")
    assert append_batch(tmp_path / "s", [votes], "llmfao").batch is not None


def test_the_bytes_depend_on_the_input_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [path for name in READERS for path in sample(name)]
    append_batch(tmp_path / "1", paths, "all")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    append_batch(tmp_path / "2", list(reversed(paths)), "all")
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_processes_and_pieces_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{**VOTE, "prompt": f"Why {n % 700}?", "topic": str(n % 3)} for n in range(3000)]
    path = write(tmp_path / "v.jsonl", *records, ["not", "an", "object"])
    whole = append_batch(tmp_path / "whole", [path], "s")
    monkeypatch.setattr(files, "PIECE_BYTES", 1)
    monkeypatch.setattr("dpo_data.ingest.append.pieces", lambda path, total: files.pieces(path, 40_000, total))
    cut = append_batch(tmp_path / "cut", [path], "s")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        pooled = append_batch(tmp_path / "pooled", [path], "s", mapper=pool.map)
    assert contents(tmp_path / "pooled") == contents(tmp_path / "cut")
    assert whole == cut == pooled and whole.rejected == 1
    one, two = tables(tmp_path / "whole"), tables(tmp_path / "cut")
    assert all(one[name].equals(two[name]) for name in one)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(order=st.permutations(range(6)), cut=st.integers(0, 6))
def test_order_and_split_into_files_change_no_digest(
    order: list[int], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [{**VOTE, "prompt": f"p{n % 4}", "annotator": f"w{n}", "winner": "ab"[n % 2]} for n in range(6)]
    base, other = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("other")
    shuffled = [records[index] for index in order]
    halves = [write(other / f"{n}.jsonl", *half) for n, half in enumerate((shuffled[:cut], shuffled[cut:])) if half]
    append_batch(base / "s", [write(base / "v.jsonl", *records)], "s")
    append_batch(other / "s", halves, "s", format="ab_table")
    assert open_batches(base / "s").digest == open_batches(other / "s").digest


def test_opposite_thumbs_on_a_prompt_become_comparisons_and_lone_ones_stay(tmp_path: Path) -> None:
    def thumb(prompt: str, completion: str, label: bool, **more: Any) -> dict[str, Any]:
        return {"prompt": prompt, "completion": completion, "label": label, **more}

    first = write(
        tmp_path / "1.jsonl",
        thumb("Hi", "good one", True, annotator="mia", topic="t", mood="x"),
        thumb("Hi", "good two", True, annotator="ben"),
        thumb("Alone", "good", True),
        thumb("Twice", "same", True),
        thumb("Twice", "same", False),
    )
    second = write(tmp_path / "2.jsonl", thumb("Hi ", "bad", False, annotator="mia", topic="t", mood="y"))
    found = append_batch(tmp_path / "s", [first, second], "thumbs")
    assert (found.records, found.voted, found.thumbs, found.votes, found.comparisons) == (6, 3, 3, 2, 2)
    frames = tables(tmp_path / "s")
    best = dict(frames["comparisons"].select("comparison_id", "response_a").iter_rows())
    won = [(best[row["comparison_id"]] == "bad") != (row["choice"] == "a") for row in frames["votes"].to_dicts()]
    assert won == [True, True]
    assert sorted(frames["votes"]["annotator"].to_list(), key=str) == [None, "mia"]
    assert sorted(frames["votes"]["origin"]) == ["1.jsonl:1;2.jsonl:1", "1.jsonl:2;2.jsonl:1"]
    assert sorted(frames["thumbs"]["completion"]) == ["good", "same", "same"]
    assert {"topic"} < {fact["key"] for facts in frames["comparisons"]["attributes"].to_list() for fact in facts}


def test_a_prompt_with_very_many_thumbs_gives_a_bounded_number_of_comparisons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumb_pairs, "MAX_PAIRS", 30)
    records = [
        {"prompt": "p", "completion": f"{label}{n}", "label": label} for n in range(10) for label in (True, False)
    ]
    found = append_batch(tmp_path / "s", [write(tmp_path / "t.jsonl", *records)], "thumbs")
    assert (found.comparisons, found.voted, found.thumbs) == (30, 20, 0)


def test_a_batch_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "1.jsonl", VOTE), tmp_path / "2.jsonl.gz"
    bad.write_bytes(b"\x1f\x8b\x08\x00 cut")
    with pytest.raises(DataError, match=r"2\.jsonl\.gz"):
        append_batch(tmp_path / "s", [good, bad], "s", format="ab_table")
    assert open_batches(tmp_path / "s").ids == []
    assert [path.name for path in (tmp_path / "s" / "batches").iterdir() if not path.name.startswith(".lock")] == []


def test_no_files_and_unknown_formats_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files found"):
        append_batch(tmp_path, [], "s")
    with pytest.raises(DataError, match="unknown format 'nope'"):
        append_batch(tmp_path, [write(tmp_path / "v.jsonl", VOTE)], "s", format="nope")


def test_inspect_finds_a_reader_that_loses_a_record_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "v.jsonl", VOTE, VOTE)
    monkeypatch.setattr("dpo_data.ingest.preview.count", lambda path: 3)
    with pytest.raises(DataError, match=r"v\.jsonl: 3 records counted, but 2 voted"):
        inspect(path)


@pytest.mark.parametrize("records", [1, 3])
def test_a_file_that_grows_or_shrinks_while_it_is_inspected(
    tmp_path: Path, records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "v.jsonl", VOTE, VOTE)

    def counted(piece: files.Piece) -> int:
        number = files.count(piece)
        write(path, *[VOTE] * records)
        return number

    monkeypatch.setattr("dpo_data.ingest.preview.count", counted)
    if records == 3:
        assert inspect(path).votes == 2
        return
    with pytest.raises(DataError, match=r"v\.jsonl: the file changed while it was read"):
        inspect(path)


def test_the_summary_refuses_counts_that_do_not_add_up() -> None:
    with pytest.raises(DataError, match="5 records counted, but 2 voted"):
        BatchSummary("b", "s", 1, 0, records=5, voted=2, thumbs=1, rejected=1)


def test_a_reader_that_loses_a_record_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "v.jsonl", VOTE, VOTE)
    monkeypatch.setattr("dpo_data.ingest.append.count", lambda path: 3)
    good = write(tmp_path / "w.jsonl", VOTE, VOTE, {**VOTE, "winner": "?"})
    with pytest.raises(DataError, match=r"v\.jsonl: 3 records counted, but 2 voted \+ 0 thumbs \+ 0 rejected came out"):
        append_batch(tmp_path / "s", [good, path], "s")
    assert open_batches(tmp_path / "s").ids == []


SLOW = """
import sys, time
from pathlib import Path
from dpo_data.ingest import append
merge = append.merge_parts
def slow(folder, written):
    done = merge(folder, written)
    print("converted", flush=True)
    time.sleep(float(sys.argv[3]))
    return done
append.merge_parts = slow
print(append.append_batch(Path(sys.argv[1]), [Path(sys.argv[2])], "s").batch)
"""


def started(store: Path, path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, str(store), str(path), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_append_leaves_the_store_as_it_was_and_is_cleared_away(tmp_path: Path) -> None:
    store, path = tmp_path / "s", write(tmp_path / "v.jsonl", VOTE)
    with started(store, path, 60) as process:
        assert process.stdout is not None and process.stdout.readline() == "converted\n"
        assert open_batches(store).ids == []
        os.kill(process.pid, signal.SIGKILL)
    assert list((store / "batches").glob(".incoming-*/votes.parquet"))
    append_batch(store, [path], "s")
    assert list((store / "batches").glob(".incoming-*")) == []
    append_batch(tmp_path / "fresh", [path], "s")
    assert contents(store) == contents(tmp_path / "fresh")


def test_two_appends_of_one_file_at_once_make_one_batch(tmp_path: Path) -> None:
    store, path = tmp_path / "s", write(tmp_path / "v.jsonl", VOTE)
    with started(store, path, 0.5) as one, started(store, path, 0.5) as two:
        said = [process.communicate(timeout=60)[0].split()[-1] for process in (one, two)]
    assert sorted(said)[1] == "None" and [name for name in said if name != "None"] == open_batches(store).ids


def test_a_table_with_other_column_names_is_read_by_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "survey.csv"
    path.write_text("frage,links,rechts,besser,wer,thema\nWarum?,So.,Darum.,R,mia,x\nWarum?,So.,Darum.,=,ben,x\n")
    columns = {"prompt": "frage", "first": "links", "second": "rechts", "winner": "besser", "annotator": "wer"}
    more = {"winner_values": {"L": "first", "R": "second", "=": "tie"}, "attributes": ["thema"]}
    found = append_batch(tmp_path / "s", [path], "survey", columns={**columns, **more}, annotator_kind="human")
    assert (found.comparisons, found.votes, found.rejected) == (1, 2, 0)
    votes = tables(tmp_path / "s")["votes"]
    assert votes["annotator"].to_list() == ["mia", "ben"] and votes["annotator_kind"].unique().to_list() == ["human"]


@pytest.mark.parametrize(
    ("columns", "record", "said"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, {"q": "p", "good": "c", "bad": "r"}, (1, 0)),
        ({"prompt": "m.q", "completion": "a", "label": "ok"}, {"m": {"q": "p"}, "a": "c", "ok": 1}, (0, 1)),
    ],
)
def test_the_other_kinds_of_plain_tables(
    tmp_path: Path, columns: dict[str, str], record: Any, said: tuple[int, int]
) -> None:
    found = append_batch(tmp_path / "s", [write(tmp_path / "t.jsonl", record)], "t", "columns", columns=columns)
    assert (found.votes, found.thumbs) == said


def test_rated_rows_of_a_plain_table_are_paired_by_prompt_and_annotator_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("q,a,stars,who\np,one,5,mia\nother,x,3,mia\np,two,2,mia\np,one,4,ben\np,two,4,ben\np,one,none,al\n")
    columns = {"prompt": "q", "response": "a", "rating": "stars", "annotator": "who"}
    found = append_batch(tmp_path / "s", [path], "t", columns=columns)
    assert (found.records, found.voted, found.rejected, found.votes) == (6, 4, 2, 2)
    assert sorted(tables(tmp_path / "s")["votes"]["choice"] == "tie") == [False, True]


@pytest.mark.parametrize("columns", [{"prompt": "q"}, {"prompt": "q", "first": "a"}, {"prompt": "q", "nope": "x"}])
def test_a_mapping_that_names_no_whole_kind_of_table_is_an_error(tmp_path: Path, columns: dict[str, str]) -> None:
    with pytest.raises(DataError, match="the mapping of columns cannot be used"):
        append_batch(tmp_path / "s", [write(tmp_path / "t.jsonl", VOTE)], "t", columns=columns)


def test_inspect_says_what_an_append_would_do_and_writes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "v.jsonl", VOTE, {**VOTE, "winner": "tie", "annotator": "mia"}, {**VOTE, "winner": "z"})
    seen = inspect(path)
    assert (seen.format, seen.records, seen.votes, seen.ties, seen.rejected) == ("ab_table", 3, 2, 1, 1)
    assert seen.rows[0]["first"] == "So." and seen.rows[1]["annotator"] == "mia"
    assert seen.rejects[0]["origin"] == "v.jsonl:3" and "'z'" in seen.rejects[0]["reason"]
    assert [path.name for path in tmp_path.iterdir()] == ["v.jsonl"]


def test_names_in_origins_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    paths = [write(tmp_path / side / "v.jsonl", {**VOTE, "prompt": side}) for side in ("left", "right")]
    append_batch(tmp_path / "s", paths, "s")
    assert sorted(tables(tmp_path / "s")["votes"]["origin"]) == ["left/v.jsonl:1", "right/v.jsonl:1"]


def test_the_digest_of_a_store_does_not_depend_on_the_order_of_its_batches(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.jsonl", VOTE), write(tmp_path / "2.jsonl", {**VOTE, "prompt": "Else?"})
    for store, order in (("x", (one, two)), ("y", (two, one))):
        for path in order:
            append_batch(tmp_path / store, [path], path.stem)
    assert open_batches(tmp_path / "x").digest == open_batches(tmp_path / "y").digest
    assert open_batches(tmp_path / "none").comparisons().collect().schema == COMPARISONS
