"""Raw files, whole and broken: one bad record costs one reject, a bad file one clear error."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.format_samples import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.ingest.paths import find
from dpo_data.reading import json_arrays
from dpo_data.reading.decoding import Row
from dpo_data.reading.files import count, kind, pieces, rows
from dpo_data.schema import DataError

GOOD = {"prompt": "p", "chosen": "c", "rejected": "r"}
LINE = json.dumps(GOOD).encode()


def read(path: Path, data: bytes) -> list[Row]:
    path.write_bytes(data)
    found = list(rows(path))
    assert len(found) == count(path)
    return found


def problems(found: list[Row]) -> dict[int, str]:
    return {row.number: row.problem for row in found if row.problem is not None}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "p", "chosen": "c", ', "Not valid JSON: "),
        (b'{"prompt": "\\ud800", "chosen": "c"}', "half of a surrogate pair"),
        (b'{"prompt": "\xff\xfe", "chosen": "c"}', "byte 13 of the record is not UTF-8"),
        (b'{"prompt": NaN}', "NaN and Infinity are not JSON numbers"),
        (b'{"prompt": 1e400}', "Not valid JSON"),
        (b"[1, 2]", "The record is a list, expected a JSON object."),
        (b'"text"', "The record is text, expected a JSON object."),
        (b"null", "The record is null, expected a JSON object."),
        (b"[" * 5000 + b"]" * 5000, "nested deeper than 1,024 levels"),
        (b'{"prompt": "a\x00b"}', "Not valid JSON"),
    ],
)
def test_a_broken_line_is_one_reject_with_its_number_and_a_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    found = read(tmp_path / "a.jsonl", LINE + b"\n" + line + b"\n" + LINE + b"\n")
    assert [row.number for row in found] == [1, 2, 3]
    assert list(problems(found)) == [2] and reason in problems(found)[2]


def test_bom_crlf_blank_lines_and_a_missing_last_line_end_are_no_faults(tmp_path: Path) -> None:
    found = read(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + LINE + b"\r\n\r\n  \n" + LINE)
    assert [(row.number, row.value) for row in found] == [(1, GOOD), (4, GOOD)]


def test_unicode_line_separators_inside_a_text_do_not_end_the_line(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three"
    found = read(tmp_path / "a.jsonl", json.dumps({"prompt": text}, ensure_ascii=False).encode() + b"\n")
    assert [row.value for row in found] == [{"prompt": text}]


def test_duplicate_keys_keep_the_last_and_long_numbers_their_digits(tmp_path: Path) -> None:
    found = read(tmp_path / "a.jsonl", b'{"id": 1, "id": 123456789012345678901234, "deep": [{"x": 2.5e30}]}\n')
    assert found[0].value == {"id": 123456789012345678901234, "deep": [{"x": 2.5e30}]}


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".json.zst"])
def test_compressed_files_read_as_plain_ones(tmp_path: Path, suffix: str) -> None:
    data = LINE + b"\n" + LINE + b"\n"
    path = tmp_path / f"a{suffix}"
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(data))
    else:
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(data)
    assert [row.value for row in rows(path)] == [GOOD, GOOD]


@pytest.mark.parametrize("cut", [1, 5, 12, 20, 40])
def test_a_cut_gzip_file_is_an_error_that_says_so(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((LINE + b"\n") * 50)[:-cut])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: the file cannot be read to its end .* download it again"):
        list(rows(path))


def test_a_cut_zstd_file_is_an_error_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
        stream.write(b"".join(json.dumps({"prompt": str(n) * n}).encode() + b"\n" for n in range(300)))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read to its end"):
        list(rows(path))


@pytest.mark.parametrize("data", [b"PAR1", b"PAR1 and no footer PAR1", b"x"])
def test_a_broken_parquet_file_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet: the file cannot be read to its end"):
        list(rows(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    with pytest.raises(DataError, match="the file is empty"):
        list(rows(path))


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in '\.xlsx'; expected one of \.jsonl, "):
        kind(tmp_path / "a.xlsx")


def test_parquet_rows_are_numbered_over_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": [str(n) for n in range(2500)]}), path, row_group_size=1000)
    found = list(rows(path))
    assert [row.number for row in found] == list(range(1, 2501)) and found[-1].value == {"prompt": "2499"}
    assert count(path) == 2500


def test_a_json_array_that_is_broken_in_one_item_loses_that_item_only(tmp_path: Path) -> None:
    items = [b'{"prompt": "a [ bracket ] and a \\" quote"}', b'{"prompt": "\\ud800"}', b'{"prompt": NaN}', LINE]
    found = read(tmp_path / "a.json", b"[" + b",\n".join(items) + b"]")
    assert [row.number for row in found] == [1, 2, 3, 4]
    assert set(problems(found)) == {2, 3} and found[3].value == GOOD


def test_a_json_array_that_is_cut_keeps_what_came_before_and_rejects_the_rest(tmp_path: Path) -> None:
    found = read(tmp_path / "a.json", b"[" + LINE + b", " + LINE + b', {"prompt": "unfinis')
    assert [row.problem is None for row in found] == [True, True, False]
    assert "cut off" in problems(found)[3]


def test_an_array_of_no_objects_yields_rejects_and_an_object_stands_for_one_record(tmp_path: Path) -> None:
    assert "expected a JSON object" in problems(read(tmp_path / "a.json", b'[1, "two"]'))[2]
    assert [row.value for row in read(tmp_path / "b.json", json.dumps(GOOD, indent=2).encode())] == [GOOD]


def test_a_json_file_of_lines_is_read_as_lines(tmp_path: Path) -> None:
    found = read(tmp_path / "a.json", LINE + b"\nnot json\n" + LINE + b"\n")
    assert [row.number for row in found] == [1, 2, 3] and list(problems(found)) == [2]


def test_csv_records_are_numbered_by_the_line_they_start_in(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", b'prompt,winner\n"two\nlines",a\nshort\n"x",b\n"y",\xff\n')
    assert [row.number for row in found] == [2, 4, 5, 6]
    assert found[0].value == {"prompt": "two\nlines", "winner": "a"}
    assert problems(found) == {
        4: "The row has 1 cells, the header 2.",
        6: "The row is not UTF-8; save the table as UTF-8.",
    }


def test_a_quote_that_is_never_closed_is_one_reject_where_it_opens(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", b'prompt,winner\nx,a\n"open,b\ny,b\nz,b\n')
    assert found[0].value == {"prompt": "x", "winner": "a"}
    assert len(found) == 2 and "starts here" in problems(found)[3]


def test_a_long_csv_cell_and_a_bom_are_no_faults(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", b"\xef\xbb\xbfprompt,winner\n" + b"w" * 300_000 + b",a\n")
    assert len(found[0].value["prompt"]) == 300_000


def test_tsv_is_read_by_tabs(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", b"prompt\twinner\np,q\ta\n")[0].value == {"prompt": "p,q", "winner": "a"}


def test_pieces_cover_the_file_once_whatever_their_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(LINE + b"\n" * (1 + n % 3) for n in range(200)) + LINE)
    whole = list(rows(path))
    for size in (1, 64, 1000, 5000):
        cut = [row for piece in pieces(path, size) for row in rows(piece)]
        assert cut == whole
    assert pieces(path, 1 << 20) == []


def test_a_folder_gives_its_data_files_and_leaves_companions_to_their_readers() -> None:
    samples = SAMPLES
    assert [path.name for path in find(samples / "llmfao")] == ["crowd-comparisons.csv", "gpt4-crowd-comparisons.csv"]
    assert len(find(samples / "qlora_judge")) == 1
    assert len(find(f"{samples}/*/*.csv")) == 4


def test_a_data_file_in_a_folder_that_nothing_recognises_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(LINE + b"\n")
    (tmp_path / "odd.jsonl").write_text('{"alpha": 1}\n')
    (tmp_path / "README.md").write_text("notes")
    with pytest.raises(DataError, match=r"odd\.jsonl: no known format.*name the files you mean by a glob"):
        find(tmp_path)
    assert find(tmp_path, format="trl") == [tmp_path / "good.jsonl", tmp_path / "odd.jsonl"]


@pytest.mark.parametrize("where", ["nothing-here.jsonl", "*.csv"])
def test_a_path_that_is_not_there_is_an_error(tmp_path: Path, where: str) -> None:
    with pytest.raises(DataError, match="no such file or folder, and no file matches"):
        find(tmp_path / where)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no file that ends in"):
        find(tmp_path)


def test_remote_files_are_fetched_once_a_version_with_their_companions(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    samples = SAMPLES / "llmfao"
    for path in samples.iterdir():
        memory.pipe(f"/bucket/llmfao/{path.name}", path.read_bytes())
    found = find("memory://bucket/llmfao", tmp_path)
    assert [path.name for path in found] == ["crowd-comparisons.csv", "gpt4-crowd-comparisons.csv"]
    assert found[0].read_bytes() == (samples / "crowd-comparisons.csv").read_bytes()
    assert find("memory://bucket/llmfao", tmp_path) == found
    assert [path.name for path in find("memory://bucket/llmfao/*.csv", tmp_path)] == [path.name for path in found]
    (one,) = find("memory://bucket/llmfao/pairs-crowd.jsonl", tmp_path)
    assert one.read_bytes() == (samples / "pairs-crowd.jsonl").read_bytes()


@pytest.mark.parametrize("where", ["memory://nowhere/at-all", "nosuchprotocol://x/y.jsonl"])
def test_a_remote_path_that_cannot_be_read_is_an_error_that_says_what_to_check(tmp_path: Path, where: str) -> None:
    with pytest.raises(DataError, match="Check the address"):
        find(where, tmp_path)


@pytest.mark.parametrize("whole", [0, 1 << 20])
def test_arrays_read_alike_as_a_whole_and_item_by_item(
    tmp_path: Path, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_arrays, "WHOLE_ARRAY_BYTES", whole)
    items = [{"prompt": 'a "quoted", [bracketed] {brace} \\ text', "n": [1, {"x": []}]}, 7, "two, three", None, GOOD]
    found = read(tmp_path / "a.json", json.dumps(items, indent=1).encode())
    assert [row.value for row in found] == [items[0], {}, {}, {}, GOOD]
    assert list(problems(found)) == [2, 3, 4]


def test_long_numbers_in_an_array_keep_their_digits(tmp_path: Path) -> None:
    found = read(tmp_path / "a.json", b'[{"id": 123456789012345678901234}]')
    assert found[0].value == {"id": 123456789012345678901234}


def test_text_after_an_array_is_a_reject_and_an_empty_array_an_error(tmp_path: Path) -> None:
    assert problems(read(tmp_path / "a.json", b"[" + LINE + b"]\n[1]")) == {2: "Text after the array's end."}
    with pytest.raises(DataError, match="without a single item"):
        read(tmp_path / "b.json", b"[ ]")


def test_records_wrapped_in_an_object_are_found(tmp_path: Path) -> None:
    found = read(tmp_path / "a.json", json.dumps({"version": 1, "data": [GOOD, GOOD]}, indent=1).encode())
    assert [row.value for row in found] == [GOOD, GOOD]


def test_a_utf_16_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,winner\np,a\n", encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16, expected UTF-8"):
        list(rows(path))


def test_semicolons_are_read_where_the_header_has_no_comma(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", b"prompt;winner\np, q;a\n")[0].value == {"prompt": "p, q", "winner": "a"}


@pytest.mark.parametrize("header", [b"prompt\n", b"prompt,prompt\n"])
def test_a_header_that_names_too_few_columns_or_one_twice_is_an_error(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(DataError, match="expected two or more names"):
        read(tmp_path / "a.csv", header + b"p,q\n")


WHOLE = [
    {"prompt": f"why {n} \u00e9", "response_a": 'a, "q" [x]', "response_b": "b\n{y}", "winner": "a"} for n in range(30)
]


def bytes_of(suffix: str, folder: Path) -> bytes:
    """The same 30 records in each form of file."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in WHOLE).encode()
    if suffix == ".csv":
        text = io.StringIO()
        table = csv.DictWriter(text, list(WHOLE[0]))
        table.writeheader()
        table.writerows(WHOLE)
        return text.getvalue().encode()
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(WHOLE), folder / "whole", row_group_size=10)
        return (folder / "whole").read_bytes()
    forms = {".jsonl": lines, ".json": json.dumps(WHOLE, indent=1).encode(), ".jsonl.gz": gzip.compress(lines)}
    return forms[suffix]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".jsonl.gz", ".parquet"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_bytes_are_damaged_the_file_reads_the_same_number_of_records_twice_or_is_an_error(
    suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = bytearray(bytes_of(suffix, folder))
    where = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(0, 30))
    whole[where : where + length] = data.draw(st.binary(max_size=4))
    path = folder / f"a{suffix}"
    path.write_bytes(bytes(whole))
    try:
        assert len(list(rows(path))) == count(path)
    except DataError as error:
        assert str(path) in str(error)
