"""Raw files of any size and state: long records, small files that unpack to large ones, files that change."""

import gzip
import json
import os
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.format_samples import message
from helpers.mangling import nested

from dpo_data.formats import READERS
from dpo_data.formats.detect import detect
from dpo_data.ingest.append import _jobs, append_batch
from dpo_data.ingest.paths import find
from dpo_data.ingest.preview import inspect
from dpo_data.reading import decoding, streams
from dpo_data.reading.files import count, pieces, rows
from dpo_data.reading.records import Reject, Vote
from dpo_data.schema import DataError
from dpo_data.store.batches import open_batches

VOTE = {"prompt": "Why?", "response_a": "So.", "response_b": "Thus.", "winner": "a"}
LINE = f"{json.dumps(VOTE)}\n".encode()


def problems(path: Path) -> dict[int, str]:
    return {row.number: row.problem for row in rows(path) if row.problem is not None}


# nesting


@pytest.mark.parametrize("levels", [400, 700, 1020])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_nested_field_that_no_reader_uses_costs_nothing(tmp_path: Path, levels: int, suffix: str) -> None:
    field = b'{"extra": ' + b"[" * levels + b"1.5" + b"]" * levels + b", " + LINE.strip()[1:]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(field + b"\n" if suffix == ".jsonl" else b"[" + field + b"]")
    assert append_batch(tmp_path / "s", [path], "s").voted == 1
    assert inspect(path).votes == 1


def test_a_record_deeper_than_json_is_decoded_is_one_reject(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINE + b'{"prompt": ' + b"[" * 1100 + b"]" * 1100 + b"}\n" + LINE)
    assert problems(path) == {2: "The record is nested deeper than 1,024 levels."}


@pytest.mark.parametrize("levels", [260, 480, 700])
def test_a_nested_response_is_kept_as_json_or_rejected_by_its_depth(tmp_path: Path, levels: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(VOTE | {'response_a': nested(levels)})}\n{json.dumps(VOTE)}\n")
    first, second = READERS["ab_table"].read(path)
    assert isinstance(second, Vote)
    if levels < decoding.MAX_EXACT_DEPTH:
        assert isinstance(first, Vote) and json.loads(first.first) == nested(levels)
    else:
        assert isinstance(first, Reject) and first.reason == "Field 'response_a' is nested deeper than 500 levels."


def test_a_long_number_inside_deep_nesting_is_one_reject(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": {"[" * 600}{10**30}{"]" * 600}}}\n{{"a": {"[" * 400}{10**30}{"]" * 400}}}\n')
    (said,) = problems(path).items()
    assert said == (1, "The record holds a number past 64 bits and is nested deeper than 500 levels.")


@pytest.mark.parametrize("item", [nested(300), nested(700)])
def test_an_item_of_an_array_that_is_no_object_shows_its_own_bytes(tmp_path: Path, item: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([VOTE, [item]]))
    row = list(rows(path))[1]
    assert row.problem == "The record is a list, expected a JSON object." and row.text.startswith("[[{")


def test_a_tree_of_480_turns_is_read_to_its_last_reply(tmp_path: Path) -> None:
    replies = [message("y", "yes", "assistant", 0), message("n", "no", "assistant", 1)]
    tree = json.dumps(message("m", "last", "prompter", None) | {"replies": replies})
    for turn in range(480):  # text by text: json.dumps does not reach so deep
        above = json.dumps(message(f"m{turn}", f"turn {turn}", "prompter" if turn % 2 else "assistant", None))
        tree = f'{above[:-1]}, "replies": [{tree}]}}'
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"message_tree_id": "m", "prompt": {tree}}}\n')
    (vote,) = READERS["oasst"].read(path)
    assert isinstance(vote, Vote) and (len(vote.prompt), vote.choice) == (481, "first")
    assert append_batch(tmp_path / "s", [path], "s").voted == inspect(path).votes == 1


# size


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".jsonl.gz"])
def test_a_record_over_the_limit_is_one_reject_with_its_size(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_RECORD_BYTES", 5000)
    large = VOTE | {"response_a": "w" * 6000}
    path = tmp_path / f"a{suffix}"
    lines = LINE + f"{json.dumps(large)}\n".encode() + LINE
    if suffix == ".json":
        path.write_text(json.dumps([VOTE, large, VOTE]))
        monkeypatch.setattr("dpo_data.reading.json_arrays.WHOLE_ARRAY_BYTES", 5000)
    elif suffix == ".csv":
        path.write_text(f"prompt,response_a,response_b,winner\np,a,b,a\np,{'w' * 6000},b,a\np,a,b,a\n")
    else:
        path.write_bytes(gzip.compress(lines) if suffix.endswith(".gz") else lines)
    summary = append_batch(tmp_path / "s", [path], "s")
    assert (summary.records, summary.voted, summary.rejected) == (3, 2, 1)
    (reason,) = open_batches(tmp_path / "s").rejects().collect()["reason"]
    assert reason.startswith("The record has 6,") and "more than the 5,000 that are read as one record" in reason


def test_a_large_parquet_row_is_one_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_RECORD_BYTES", 5000)
    pq.write_table(pa.Table.from_pylist([VOTE, VOTE | {"prompt": "w" * 6000}, VOTE]), tmp_path / "a.parquet")
    assert "more than the 5,000" in problems(tmp_path / "a.parquet")[2]
    assert append_batch(tmp_path / "s", [tmp_path / "a.parquet"], "s").voted == 2


def repeated(unit: bytes, times: int, before: bytes = b"") -> bytes:
    return gzip.compress(before + unit * times, 9)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".csv.gz", ".json.gz", ".jsonl.zst"])
def test_a_file_that_unpacks_to_far_more_than_text_does_is_an_error(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "UNPACKED_BYTES", 1 << 20)
    path = tmp_path / f"a{suffix}"
    data = b"prompt,response_a,response_b,winner\n" + (b"x" * 1000 + b"\n") * 20_000
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(data, 9))
    else:
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(data)
    for attempt in (lambda: inspect(path, "ab_table"), lambda: append_batch(tmp_path / "s", [path], "s", "ab_table")):
        with pytest.raises(DataError, match=rf"a{suffix}: its [\d,]+ bytes unpack to .* over 200 times as many"):
            attempt()


def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(repeated(b"\0" * (1 << 20), 300))
    tracemalloc.start()
    with pytest.raises(DataError, match="times as many"):
        detect(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_text_that_packs_well_is_read_whatever_its_ratio(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(repeated(LINE, 30_000))
    assert path.stat().st_size * streams.MAX_RATIO < 30_000 * len(LINE) and count(path) == 30_000


@pytest.mark.parametrize(("name", "before"), [("a.jsonl", LINE), ("a.csv", b"a,b\n1,2\n")])
def test_a_million_blank_lines_are_an_error(
    tmp_path: Path, name: str, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_BLANK_LINES", 1000)
    (tmp_path / name).write_bytes(before + b"\n" * 900 + before)
    assert count(tmp_path / name) == 2 if name.endswith("l") else 3
    (tmp_path / name).write_bytes(before + b"\n" * 1100)
    with pytest.raises(DataError, match="1,000 blank lines one after another"):
        list(rows(tmp_path / name))


# Parquet types


def parquet(path: Path, column: pa.Array) -> Path:
    columns = {key: pa.array([value] * len(column)) for key, value in VOTE.items()}
    pq.write_table(pa.table(columns | {"when": column}), path)
    return path


OUT_OF_RANGE = [
    pa.array([0, 2_000_000_000], pa.int32()).cast(pa.date32()),
    pa.array([0, 2**60], pa.int64()).cast(pa.timestamp("us")),
    pa.array([0, -(2**60)], pa.int64()).cast(pa.timestamp("ms", "UTC")),
    pa.array([0, 2**62], pa.int64()).cast(pa.duration("s")),
]


@pytest.mark.parametrize("column", OUT_OF_RANGE, ids=lambda column: str(column.type))
def test_a_date_that_python_cannot_hold_is_read_as_text(tmp_path: Path, column: pa.Array) -> None:
    path = parquet(tmp_path / "a.parquet", column)
    first, second = (row.value["when"] for row in rows(path))
    assert not isinstance(first, str) and second.startswith(f"{column.type} ") and "(out of range)" in second
    assert append_batch(tmp_path / "s", [path], "s").voted == inspect(path).votes == 2


def test_a_date_out_of_range_inside_a_list_is_one_reject(tmp_path: Path) -> None:
    column = pa.array([[0], [2_000_000_000]], pa.list_(pa.int32())).cast(pa.list_(pa.date32()))
    path = parquet(tmp_path / "a.parquet", column)
    assert list(problems(path)) == [2] and "in column 'when' cannot be read" in problems(path)[2]
    assert append_batch(tmp_path / "s", [path], "s").rejected == 1


@pytest.mark.parametrize("zone", ["Mars/Olympus_Mons", "not a zone", "+99:99"])
def test_times_in_an_unknown_zone_are_read_in_utc(tmp_path: Path, zone: str) -> None:
    at = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    column = pa.array([at, None], pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone))
    path = parquet(tmp_path / "a.parquet", column)
    assert [row.value["when"] for row in rows(path)] == [at, None]
    deep = pa.array([[{"t": at}]], pa.list_(pa.struct({"t": pa.timestamp("us", "UTC")})))
    deep = deep.cast(pa.list_(pa.struct({"t": pa.timestamp("us", zone)})))
    assert next(iter(rows(parquet(tmp_path / "b.parquet", deep)))).value["when"] == [{"t": at}]


def test_known_zones_and_dates_are_read_as_before(tmp_path: Path) -> None:
    at = datetime(2024, 5, 6, 7, tzinfo=UTC)
    zoned = parquet(tmp_path / "a.parquet", pa.array([at], pa.timestamp("us", "Europe/Berlin")))
    plain = parquet(tmp_path / "b.parquet", pa.array([date(9999, 12, 31)]))
    assert [str(row.value["when"]) for path in (zoned, plain) for row in rows(path)] == [
        "2024-05-06 09:00:00+02:00",
        "9999-12-31",
    ]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_that_leaves_the_calendar_in_utc_is_no_time(tmp_path: Path, at: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(VOTE | {'at': at})}\n")
    (vote,) = READERS["ab_table"].read(tmp_path / "a.jsonl")
    assert isinstance(vote, Vote) and vote.at is None


def test_two_parquet_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    table = pa.table([pa.array(["p"]), pa.array(["q"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="the columns prompt are there more than once"):
        list(rows(tmp_path / "a.parquet"))


# files that change


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let `change` happen after the files were hashed and before any is read."""
    read = _jobs

    def changed(*args: Any) -> Iterator[Any]:
        change()
        yield from read(*args)

    monkeypatch.setattr("dpo_data.ingest.append._jobs", changed)


def grow(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


def test_lines_appended_while_a_log_is_read_wait_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(LINE * 3)
    with monkeypatch.context() as patch:
        meanwhile(patch, lambda: grow(log, LINE * 2))
        first = append_batch(tmp_path / "s", [log], "s")
    assert (first.records, first.voted, first.bytes) == (3, 3, 3 * len(LINE))
    second = append_batch(tmp_path / "s", [log], "s")
    assert (second.records, second.files_known) == (5, 0)
    assert append_batch(tmp_path / "s", [log], "s").files_known == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [*product(["a.csv", "a.jsonl.gz", "a.json", "a.jsonl"], ["cut", "replace", "remove"])]
    + [(name, "grow") for name in ("a.csv", "a.jsonl.gz", "a.json")],
)
def test_a_file_that_changes_while_it_is_read_is_one_error(
    tmp_path: Path, name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    csv = b"prompt,response_a,response_b,winner\n" + b"p,a,b,a\n" * 5
    whole = {
        ".csv": csv, ".gz": gzip.compress(LINE * 5), ".json": json.dumps([VOTE] * 5).encode(), ".jsonl": LINE * 5,
    }  # fmt: skip
    path.write_bytes(whole[path.suffix])

    def act() -> None:
        if change == "grow":
            grow(path, whole[path.suffix])
        elif change == "cut":
            path.write_bytes(whole[path.suffix][:-12])
        elif change == "remove":
            path.unlink()
        else:
            path.write_bytes(bytes(reversed(whole[path.suffix])))
            os.utime(path, ns=(1, 1))

    meanwhile(monkeypatch, act)
    with pytest.raises(DataError, match=rf"{name}: the file changed while it was read"):
        append_batch(tmp_path / "s", [path], "s")
    assert open_batches(tmp_path / "s").ids == []


def test_a_longer_file_in_the_place_of_another_is_no_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE * 3)
    (tmp_path / "b").write_bytes(LINE * 4)
    meanwhile(monkeypatch, lambda: (tmp_path / "b").replace(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match=r"a\.jsonl: the file changed while it was read"):
        append_batch(tmp_path / "s", [tmp_path / "a.jsonl"], "s")


def test_pieces_of_a_growing_log_end_where_it_was_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpo_data.ingest.append.pieces", lambda path, total: pieces(path, 300, total))
    log = tmp_path / "log.jsonl"
    log.write_bytes(LINE * 50)
    meanwhile(monkeypatch, lambda: grow(log, LINE * 50))
    assert append_batch(tmp_path / "s", [log], "s").voted == 50


def test_a_companion_that_changes_while_it_is_read_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crowd-comparisons.csv").write_text("id,model_x,model_y,winner,left,right\n0,1,2,left,F,O\n")
    pairs = tmp_path / "pairs-crowd.jsonl"
    pairs.write_text(f"{json.dumps({'id': 0, 'text': 'p', 'result_x': 'x', 'result_y': 'y'})}\n")
    meanwhile(monkeypatch, lambda: grow(pairs, b"{}\n"))
    with pytest.raises(DataError, match=r"pairs-crowd\.jsonl: the file changed while it was read"):
        append_batch(tmp_path / "s", [tmp_path / "crowd-comparisons.csv"], "s")


def test_a_file_that_vanishes_before_it_is_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file"):
        append_batch(tmp_path / "s", [tmp_path / "gone.jsonl"], "s", "ab_table")


# names


@pytest.mark.parametrize("format", [None, "ab_table"])
def test_a_file_name_that_is_not_utf_8_is_an_error(tmp_path: Path, format: str | None) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xe9.jsonl"))
    path.write_bytes(LINE)
    for attempt in (
        lambda: append_batch(tmp_path / "s", [path], "s", format),
        lambda: inspect(path, format),
        lambda: find(path),
        lambda: find(tmp_path) if format is None else list(rows(path)),
    ):
        with pytest.raises(
            DataError, match=r"bad\\xe9\.jsonl: the name of the file .* is not UTF-8\. Rename it"
        ) as raised:
            attempt()
        assert str(raised.value).encode()


def test_a_csv_header_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt,response_a,response_b,winner,\xe9tat\nq,a,b,a,x\n")
    for attempt in (lambda: inspect(path, "ab_table"), lambda: append_batch(tmp_path / "s", [path], "s")):
        with pytest.raises(DataError, match=r"a\.csv: the first line, .* is not UTF-8; save the table as UTF-8"):
            attempt()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_errors_that_list_columns_stay_short(tmp_path: Path, name: str) -> None:
    columns = [f"column number {n}" for n in range(20_000)]
    record = json.dumps(dict.fromkeys(columns, "x"))
    text = f"{','.join([*columns, columns[0]])}\nx\n" if name == "a.csv" else f"{record}\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="and 19,98") as raised:
        detect(tmp_path / name)
    assert len(str(raised.value)) < 2000


def test_a_reject_never_quotes_more_of_the_data_than_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(VOTE | {'prompt': [{'role': 'w' * 10_000, 'content': 'x'}]})}\n")
    (item,) = READERS["ab_table"].read(tmp_path / "a.jsonl")
    assert isinstance(item, Reject) and len(item.reason) < 600
