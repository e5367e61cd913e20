"""A mistake in reading can be taken back: another mapping, a corrected file, a source that left, and `dpo forget`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpo_data import curate
from dpo_data.analysis import sources, sql
from dpo_data.analysis.forgetting import _append, forget
from dpo_data.ingest.append import append_batch
from dpo_data.measures import prompts
from dpo_data.schema import DataError
from dpo_data.store import batches, forgotten, readings, versions
from dpo_data.votes import agreement
from flows.cli.text import refresh_lines
from flows.recipe import load
from flows.refresh import refresh
from flows.source_text import batch_lines, departed_lines, reading_lines

ROOT = Path(__file__).resolve().parents[2]
CURATION = {"tokenizer": None, "embedding_model": None}
MAPPING = {"prompt": "question", "first": "left", "second": "right", "winner": "better", "annotator": "who"}
RIGHT = {**MAPPING, "winner_values": {"L": "first", "R": "second"}}
INVERTED = {**MAPPING, "winner_values": {"L": "second", "R": "first"}}
UNREADABLE = {**MAPPING, "winner_values": {"left": "first"}}
SIDES = ("The long way round takes an hour.", "Nobody here has ever measured it.")


def survey(path: Path, count: int = 12, more: str = "") -> Path:
    """A table with one vote per question; the left answer is better in two of three."""
    rows = "".join(
        f"What about item {n}?,Left {n}: {SIDES[0]},Right {n}: {SIDES[1]},{'LLR'[n % 3]},mia\n" for n in range(count)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"question,left,right,better,who\n{rows}{more}")
    return path


def recipe(folder: Path, *listed: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"sources": list(listed), "curation": CURATION}))
    return path


def mapped(path: Path, columns: dict[str, Any], name: str = "survey", **more: Any) -> dict[str, Any]:
    return {"name": name, "path": str(path), "format": "columns", "columns": columns, **more}


def refreshed(folder: Path, store: Path, *listed: dict[str, Any]) -> dict[str, Any]:
    return dict(refresh(load(recipe(folder, *listed)), store))


def same_version(one: Path, other: Path) -> bool:
    """Whether both current versions have one id and the same sealed bytes and numbers."""
    first, second = versions.current(one), versions.current(other)
    assert first is not None and second is not None
    kept = ("counts", "reasons", "rejects", "lone_thumbs")
    return (
        first.id == second.id
        and first.manifest == second.manifest
        and all(first.stats[name] == second.stats[name] for name in kept)
    )


@pytest.mark.parametrize(
    "wrong", [INVERTED, UNREADABLE | {"winner_values": {"L": "first"}}], ids=["inverted", "partial"]
)
def test_a_corrected_mapping_publishes_what_a_fresh_store_would(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = survey(tmp_path / "survey.csv", more="Half a record?,Only left,Only right,neither of them,mia\n")
    first = refreshed(tmp_path, tmp_path / "s", mapped(path, wrong))
    second = refreshed(tmp_path, tmp_path / "s", mapped(path, RIGHT))
    refreshed(tmp_path, tmp_path / "fresh", mapped(path, RIGHT))
    assert second["version"] != first["version"] and second["created"]
    assert same_version(tmp_path / "s", tmp_path / "fresh")
    assert second["stats"]["counts"]["rejected_records"] == 1
    [old] = second["ingested"][0]["supersedes"]
    assert (old["why"], old["votes"]) == ("reading", first["stats"]["counts"]["vote_records"])
    assert old["rejects"] == first["stats"]["counts"]["rejected_records"]
    [line] = [line for line in refresh_lines(second) if line.startswith("replaced")]
    assert f"{old['votes']} votes, {old['rejects']} reject" in line and old["batch"] in line


def test_a_mapping_that_is_turned_back_counts_again(tmp_path: Path) -> None:
    path = survey(tmp_path / "survey.csv")
    ids = [refreshed(tmp_path, tmp_path / "s", mapped(path, how))["version"] for how in (RIGHT, INVERTED, RIGHT)]
    assert ids[0] == ids[2] != ids[1]
    states = [row.state for row in sources.rows(tmp_path / "s")]
    assert states == ["superseded", "superseded", "counts"]
    again = refreshed(tmp_path, tmp_path / "s", mapped(path, RIGHT))
    assert again["ingested"][0]["batch"] is None and again["version"] == ids[0]


def test_another_annotator_kind_is_another_reading(tmp_path: Path) -> None:
    path = survey(tmp_path / "survey.csv")
    for kind in ("human", "model", "model"):
        last = append_batch(tmp_path / "s", [path], "survey", None, kind, columns=RIGHT)
    votes = batches.open_batches(tmp_path / "s").votes().collect()
    assert votes.height == 12 and votes["annotator_kind"].unique().to_list() == ["model"]
    assert last.batch is None


def test_only_the_file_that_is_read_again_is_superseded(tmp_path: Path) -> None:
    one, two = survey(tmp_path / "one.csv", 6), tmp_path / "two.csv"
    two.write_text(survey(tmp_path / "x.csv", 12).read_text().replace("mia", "ben"))
    append_batch(tmp_path / "s", [one, two], "survey", columns=INVERTED)
    append_batch(tmp_path / "s", [one], "survey", columns=RIGHT)
    opened = batches.open_batches(tmp_path / "s")
    origins = opened.votes().with_columns(file=pl.col("origin").str.split(":").list.first()).collect()
    assert sorted(origins.group_by("batch", "file").len().iter_rows()) == [
        (opened.ids[0], "two.csv", 12),
        (opened.ids[1], "one.csv", 6),
    ]
    append_batch(tmp_path / "t", [two], "survey", columns=INVERTED)
    append_batch(tmp_path / "t", [one], "survey", columns=RIGHT)
    fresh = batches.open_batches(tmp_path / "t")
    key = "comparison_id"
    for table in ("comparisons", "votes", "rejects"):
        found, expected = (getattr(store, table)().collect() for store in (opened, fresh))
        assert (
            found.drop("batch", strict=False)
            .sort("origin" if table != "comparisons" else key)
            .equals(expected.drop("batch", strict=False).sort("origin" if table != "comparisons" else key))
        )
    assert [row.state for row in sources.rows(tmp_path / "s")] == ["partly superseded", "counts"]
    [line] = [line for line in batch_lines(sources.rows(tmp_path / "s"), tmp_path) if "1 of 2 files" in line]
    assert line.startswith("0001-survey")


def test_sql_sees_the_rows_that_count_and_no_others(tmp_path: Path) -> None:
    one, two = survey(tmp_path / "one.csv", 6), survey(tmp_path / "two.csv", 12, "Odd?,x,y,z,ben\n")
    two.write_text(two.read_text().replace("mia", "ben"))
    listed = mapped(tmp_path / "*.csv", INVERTED)
    refreshed(tmp_path, tmp_path / "s", listed)
    append_batch(tmp_path / "s", [one], "survey", columns=RIGHT)
    forget(tmp_path / "s", annotator="ben")
    opened = batches.open_batches(tmp_path / "s")
    for table in ("votes", "comparisons", "rejects", "thumbs"):
        [row] = sql.query(tmp_path / "s", f"SELECT count(*) AS n FROM {table}")
        assert row["n"] == getattr(opened, table)().select(pl.len()).collect().item(), table
    assert opened.comparisons().collect().height == 12  # ben's remain, without a vote


HEAD = "prompt,response_a,response_b,winner,annotator\n"
IRON = "What rusts?,Iron.,Gold.,{},mia\n"
WAX, SWIFT = "What melts?,Wax.,Stone.,a,mia\n", "What flies?,Swift.,Cow.,a,mia\n"
V1 = HEAD + IRON.format("b") + WAX + "What sinks?,Lead.,Cork.,left?,mia\n"
V2 = HEAD + IRON.format("a") + WAX + "What sinks?,Lead.,Cork.,a,mia\n" + SWIFT


def exported(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_corrected_file_of_the_same_name_supersedes_the_older_content(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    append_batch(tmp_path / "s", [exported(path, V1)], "votes")
    second = append_batch(tmp_path / "s", [exported(path, V2)], "votes")
    assert [(old.why, old.votes, old.rejects) for old in second.supersedes] == [("content", 2, 1)]
    append_batch(tmp_path / "fresh", [path], "votes")
    opened, fresh = (batches.open_batches(tmp_path / name) for name in ("s", "fresh"))
    assert opened.digest == fresh.digest and opened.votes().collect().height == 4
    assert opened.rejects().collect().is_empty()


def test_a_file_that_grew_counts_once_and_as_in_a_fresh_store(tmp_path: Path) -> None:
    for count in (5, 8, 12):
        path = survey(tmp_path / "survey.csv", count)
        summary = refreshed(tmp_path, tmp_path / "s", mapped(path, RIGHT))
    refreshed(tmp_path, tmp_path / "fresh", mapped(path, RIGHT))
    assert summary["stats"]["counts"]["vote_records"] == 12
    assert same_version(tmp_path / "s", tmp_path / "fresh")


def test_an_export_that_overwrites_yesterdays_votes_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    append_batch(tmp_path / "s", [exported(path, HEAD + IRON.format("a") + WAX)], "votes")
    second = append_batch(tmp_path / "s", [exported(path, HEAD + WAX.replace("mia", "ben") + SWIFT)], "votes")
    assert second.supersedes == () and batches.open_batches(tmp_path / "s").votes().collect().height == 4
    [beside] = second.beside
    assert (beside.shared, beside.of, beside.paired) == (1, 2, False)
    summary = {"source": "votes", "beside": [vars_of(beside)]}
    [line] = reading_lines([summary], tmp_path / "s")
    assert (
        "1 of 2 comparisons and thumbs are not in the new content" in line
        and f"dpo forget --batch {beside.batches[-1]}" in line
    )


@pytest.mark.parametrize("rater", ["mia", ""], ids=["named", "anonymous"])
def test_a_rolling_export_loses_no_day_and_counts_no_vote_twice(tmp_path: Path, rater: str) -> None:
    path = tmp_path / "last_days.csv"
    for day in range(4):  # each export has ten of the questions, two of them new
        rows = [f"What about {n}?,Left {n}.,Right {n}.,a,{rater}\n" for n in range(2 * day, 2 * day + 10)]
        append_batch(tmp_path / "s", [exported(path, HEAD + "".join(rows))], "votes")
    votes = batches.open_batches(tmp_path / "s").votes().collect()
    counted = agreement.tally(votes)
    assert counted.height == 16 and set(counted["votes"].to_list()) == {1}


def vars_of(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def test_content_that_is_still_there_under_another_path_is_kept(tmp_path: Path) -> None:
    one = exported(tmp_path / "mia" / "v.csv", HEAD + IRON.format("a") + WAX)
    append_batch(tmp_path / "s", [one], "votes")
    two = exported(tmp_path / "ben" / "v.csv", one.read_text().replace("mia", "ben"))
    second = append_batch(tmp_path / "s", [one, two], "votes")
    assert (second.supersedes, second.beside) == ((), ())
    assert batches.open_batches(tmp_path / "s").votes().collect().height == 4


def test_thumbs_paired_with_another_file_are_not_lost_with_a_grown_one(tmp_path: Path) -> None:
    def thumb(text: str, label: bool) -> str:
        return json.dumps({"prompt": "Hi", "completion": text, "label": label}) + "\n"

    up, down = (
        exported(tmp_path / "up.jsonl", thumb("good", True)),
        exported(tmp_path / "down.jsonl", thumb("bad", False)),
    )
    append_batch(tmp_path / "s", [up, down], "thumbs")
    grown = append_batch(tmp_path / "s", [exported(up, thumb("good", True) + thumb("better", True)), down], "thumbs")
    assert grown.supersedes == () and [beside.paired for beside in grown.beside] == [True]
    assert batches.open_batches(tmp_path / "s").votes().collect().height == 1


def test_lone_thumbs_of_a_grown_file_count_once(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"p{n}", "completion": f"c{n}", "label": True}) + "\n" for n in range(4)]
    lines.append(json.dumps({"prompt": "p0", "completion": "bad", "label": False}) + "\n")
    for count in (3, 5):
        last = append_batch(tmp_path / "s", [exported(tmp_path / "t.jsonl", "".join(lines[:count]))], "thumbs")
    opened = batches.open_batches(tmp_path / "s")
    assert [old.thumbs for old in last.supersedes] == [3]
    assert (opened.thumbs().collect().height, opened.votes().collect().height) == (3, 1)


@pytest.mark.parametrize("name", ["a;b.csv", "v1:2.csv", "1,2.csv", "(x)+.csv", "with space.csv", "é\u2028.csv"])
def test_any_file_name_is_told_apart_from_the_others(tmp_path: Path, name: str) -> None:
    odd = exported(tmp_path / name, HEAD + IRON.format("a"))
    plain = exported(tmp_path / "b.csv", HEAD + WAX)
    append_batch(tmp_path / "s", [odd, plain], "votes")
    for path, left in ((plain, odd), (odd, plain)):
        store = tmp_path / f"of {path.name}"
        append_batch(store, [odd, plain], "votes")
        append_batch(store, [path], "votes", None, "model")
        votes = batches.open_batches(store).votes().collect()
        kinds = dict(votes.select(pl.col("origin").str.replace(r":\d+$", ""), "annotator_kind").iter_rows())
        assert votes.height == 2 and kinds[path.name] == "model" and kinds[left.name] != "model"


def test_superseding_leaves_out_one_file_among_60000_rows(tmp_path: Path) -> None:
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    record = {"response_a": "Yes.", "response_b": "No.", "winner": "a", "annotator": "mia"}
    large.write_text("".join(json.dumps({"prompt": f"Is {n} even?", **record}) + "\n" for n in range(55_000)))
    small.write_text("".join(json.dumps({"prompt": f"Is {n} odd?", **record}) + "\n" for n in range(5_000)))
    append_batch(tmp_path / "s", [small, large], "votes")
    append_batch(tmp_path / "s", [small], "votes", None, "model")
    opened = batches.open_batches(tmp_path / "s")
    scans = [opened.votes(), opened.comparisons(), opened.rejects()]
    assert all(isinstance(scan, pl.LazyFrame) for scan in scans)
    counted = opened.votes().group_by("annotator_kind").len().sort("len").collect()
    assert counted["len"].to_list() == [5_000, 55_000] and opened.comparisons().collect().height == 60_000
    plan = opened.comparisons().select("comparison_id").explain()
    assert "response" not in plan and "PROJECT */" not in plan  # no text is read to leave rows out
    forget(tmp_path / "s", batch="0002")
    assert opened_again(tmp_path / "s")["annotator_kind"].unique().to_list() != ["model"]


def opened_again(store: Path) -> pl.DataFrame:
    return batches.open_batches(store).votes().collect()


def test_an_older_manifest_is_read_and_its_file_not_read_again(tmp_path: Path) -> None:
    path = survey(tmp_path / "survey.csv")
    first = append_batch(tmp_path / "s", [path], "survey", None, "human", columns=RIGHT)
    manifest_file = tmp_path / "s" / "batches" / str(first.batch) / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    old = {name: manifest[name] for name in ("source", "digest", "counts")}
    old["files"] = [{name: file[name] for name in ("name", "format", "key")} for file in manifest["files"]]
    manifest_file.write_text(json.dumps(old))
    assert append_batch(tmp_path / "s", [path], "survey", None, "human", columns=RIGHT).batch is None
    second = append_batch(tmp_path / "s", [path], "survey", None, "human", columns=INVERTED)
    assert len(second.supersedes) == 1 and opened_again(tmp_path / "s").height == 12


@pytest.mark.parametrize("selector", ["source", "batch", "annotator"])
def test_forget_and_its_undo_give_back_the_earlier_version(tmp_path: Path, selector: str) -> None:
    one = mapped(survey(tmp_path / "one.csv"), RIGHT)
    two = survey(tmp_path / "two.csv")
    two.write_text(two.read_text().replace("item", "thing").replace("mia", "ben"))
    both = refreshed(tmp_path, tmp_path / "s", one, mapped(two, RIGHT, "other"))
    digest = batches.open_batches(tmp_path / "s").digest
    name = {"source": "other", "batch": "0002", "annotator": "ben"}[selector]
    change = forget(tmp_path / "s", **{selector: name})
    assert (change.votes_before, change.votes_after, change.still_in) == (24, 12, (both["version"],))
    fewer = refreshed(tmp_path, tmp_path / "s", one, mapped(two, RIGHT, "other"))
    assert fewer["stats"]["counts"]["votes"] == 12 and fewer["ingested"][1]["batch"] is None
    if selector != "annotator":  # whose comparisons stay, without a vote
        refreshed(tmp_path, tmp_path / "fresh", one)
        assert same_version(tmp_path / "s", tmp_path / "fresh")
    back = forget(tmp_path / "s", undo=True, **{selector: name})
    assert (back.votes_before, back.votes_after) == (12, 24)
    assert batches.open_batches(tmp_path / "s").digest == digest
    assert refreshed(tmp_path, tmp_path / "s", one, mapped(two, RIGHT, "other"))["version"] == both["version"]


def test_a_forgotten_batch_supersedes_nothing(tmp_path: Path) -> None:
    path = survey(tmp_path / "survey.csv")
    first = append_batch(tmp_path / "s", [path], "survey", columns=RIGHT)
    append_batch(tmp_path / "s", [path], "survey", columns=INVERTED)
    forget(tmp_path / "s", batch="0002")
    assert batches.open_batches(tmp_path / "s").ids == [first.batch]
    forget(tmp_path / "s", batch="0002", undo=True)
    assert batches.open_batches(tmp_path / "s").ids != [first.batch]


def test_forget_and_undo_refuse_names_that_are_not_there(tmp_path: Path) -> None:
    append_batch(tmp_path / "s", [survey(tmp_path / "survey.csv")], "survey", columns=RIGHT)
    for selector in ({"source": "surwey"}, {"annotator": "\udc80"}, {"comparison": "abc"}):
        with pytest.raises(DataError, match="Check the spelling"):
            forget(tmp_path / "s", **selector)
    with pytest.raises(DataError, match="is no batch of"):
        forget(tmp_path / "s", batch="0007")
    with pytest.raises(DataError, match="nothing to take back"):
        forget(tmp_path / "s", source="survey", undo=True)
    assert not (tmp_path / "s" / "forgotten.jsonl").exists()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
@example(name="line\u2028separator")
@example(name="paragraph\u2029separator")
@example(name="next\x85line")
@example(name="line\nend")
@example(name='quote"\\')
def test_any_name_survives_being_forgotten_and_taken_back(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = tmp_path_factory.mktemp("s")
    (store / "forgotten.jsonl").write_text('{"annotator": "last"}', encoding="utf-8")  # without its line end
    _append(store / "forgotten.jsonl", {"annotator": name})
    assert forgotten.read(store).annotators == {"last", name}
    older = json.dumps({"annotator": name}, ensure_ascii=False)  # as earlier releases wrote it
    (store / "forgotten.jsonl").write_text(f"{older}\n", encoding="utf-8", newline="\n")
    assert forgotten.read(store).annotators == {name}
    _append(store / "forgotten.jsonl", {"undo": {"annotator": name}})
    assert forgotten.read(store) == forgotten.Forgotten()


def test_a_prompt_keeps_its_group_when_its_signed_row_is_left_out() -> None:
    known = pl.DataFrame(
        {
            "comparison_id": ["c1", "c2", "c3"],
            "prompt_hash": ["p", "p", "q"],
            "prompt_signature": [b"p", None, b"q"],
        }
    )
    signed = prompts.sign(known, known.slice(1))
    assert signed["prompt_signature"].to_list() == [b"p", b"q"]
    assert prompts.sign(known, known).equals(known)


def test_a_source_that_left_the_recipe_is_reported_with_the_command(tmp_path: Path) -> None:
    one, two = survey(tmp_path / "one.csv"), survey(tmp_path / "two.csv", 14)
    refreshed(tmp_path, tmp_path / "s", mapped(one, RIGHT, "gone"))
    summary = refreshed(tmp_path, tmp_path / "s", mapped(two, RIGHT, "stays"))
    assert summary["departed"] == [{"source": "gone", "batches": 1, "votes": 12}]
    [line] = departed_lines(summary["departed"], Path("data/store"))
    assert line.endswith("dpo forget --source gone") and any(
        "departed  gone" in said for said in refresh_lines(summary)
    )
    forget(tmp_path / "s", source="gone")
    assert refreshed(tmp_path, tmp_path / "s", mapped(two, RIGHT, "stays"))["departed"] == []


def test_a_source_under_another_name_is_reported_as_read_twice(tmp_path: Path) -> None:
    path = survey(tmp_path / "survey.csv")
    refreshed(tmp_path, tmp_path / "s", mapped(path, RIGHT))
    summary = refreshed(tmp_path, tmp_path / "s", mapped(path, RIGHT, "renamed"))
    [line] = [line for line in refresh_lines(summary) if line.startswith("twice")]
    assert summary["ingested"][0]["elsewhere"][0] in line


def test_a_store_read_in_two_ways_says_so_where_nothing_is_kept(tmp_path: Path) -> None:
    path = survey(tmp_path / "survey.csv")
    refreshed(tmp_path, tmp_path / "s", mapped(path, INVERTED))
    with path.open("a") as file:  # another name, other content: no reading supersedes the other
        file.write("One more?,x one,y two,L,mia\n")
    other = path.rename(tmp_path / "again.csv")
    with pytest.raises(DataError, match=r"read in two ways.*dpo forget --batch 0001-survey"):
        refreshed(tmp_path, tmp_path / "s", mapped(other, {**RIGHT, "annotator": None}))
    config = load(tmp_path / "recipe.yaml").curation
    decided = curate.decide(curate.measure(tmp_path / "s", config), config)
    [row] = sources.contradicted(tmp_path / "s", decided.lazy())
    assert (row.comparisons, row.of, len(row.batches)) == (12, 13, 2)


def dpo(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "flows.cli.app", *args], capture_output=True, text=True, cwd=ROOT)


def test_the_commands_list_forget_and_take_back(tmp_path: Path) -> None:
    store, path = tmp_path / "s", survey(tmp_path / "survey.csv")
    append_batch(store, [path], "survey", columns=INVERTED)
    at = ("--store", str(store))
    listed = dpo("sources", "--recipe", str(recipe(tmp_path)), *at)
    assert listed.returncode == 0, listed.stderr
    assert "winner_values" in listed.stdout and f"dpo forget --source survey --store {store}" in listed.stdout
    gone = dpo("forget", "--source", "survey", *at)
    assert "12 votes left out" in gone.stdout and f"dpo forget --source survey --undo --store {store}" in gone.stdout
    [row] = json.loads(dpo("sources", "--json", *at).stdout)["batches"]
    assert (row["state"], row["votes"], row["files"]) == ("forgotten", 12, ["survey.csv"])
    back = json.loads(dpo("forget", "--source", "survey", "--undo", "--json", *at).stdout)
    assert (back["votes_before"], back["votes_after"], back["undo"]) == (0, 12, True)
    assert dpo("forget", *at).returncode == 2
    assert readings.manifests(store)
