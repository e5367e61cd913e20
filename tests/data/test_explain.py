"""The story of a comparison: found by id, prefix or text; whole; and inert when printed."""

import json
from pathlib import Path

import polars as pl
import pytest
from helpers.planted_version import Planted, config, ledger_of, many, plant_store

from dpo_data.analysis.explain import explain, render, word_changes
from dpo_data.publish import publish_version
from dpo_data.schema import DataError


def planted(tmp_path: Path) -> tuple[Path, list[Planted]]:
    """Twenty plain comparisons and two near duplicates of one another, the second dropped for the first."""
    rows = many(20)
    twin = "0" * 32
    one = Planted("How high is the tower?", "It is 324 metres high.", "Very high.", votes=2, against=1)
    two = Planted("How high is the tower?", "It is 330 metres high.", "Very high.", reasons=("near_duplicate",))
    for row in (one, two):
        row.measures = {"duplicate_cluster": twin, "duplicate_similarity": 0.9, "similarity": 0.4}
    two.measures["duplicate_of"] = one.id
    return plant_store(tmp_path, [*rows, one, two]), [*rows, one, two]


def test_a_comparison_is_found_by_id_prefix_or_a_piece_of_its_text(tmp_path: Path) -> None:
    store, rows = planted(tmp_path)
    publish_version(store, ledger_of(rows), config())
    one = rows[-2]
    for query in (one.id, one.id[:10], one.id[:10].upper(), "It is 324", " 324 metres ", "it IS 324"):
        assert explain(store, query)["comparison_id"] == one.id


def test_an_ambiguous_query_lists_its_candidates_and_an_unknown_one_says_so(tmp_path: Path) -> None:
    store, rows = planted(tmp_path)
    publish_version(store, ledger_of(rows), config())
    with pytest.raises(DataError, match="matches 2 comparisons") as caught:
        explain(store, "high is the tower")
    assert all(row.id in str(caught.value) for row in rows[-2:])
    assert "How high is the tower?" in str(caught.value)
    with pytest.raises(DataError, match="matches 22 comparisons") as caught:
        explain(store, "?")
    assert "and 12 more" in str(caught.value)
    with pytest.raises(DataError, match="No comparison"):
        explain(store, "no such words")
    with pytest.raises(DataError, match="Nothing to look for"):
        explain(store, "  ")


def test_the_story_has_votes_measures_limits_reasons_and_twins(tmp_path: Path) -> None:
    store, rows = planted(tmp_path)
    version = publish_version(store, ledger_of(rows), config())
    one, two = rows[-2:]
    story = explain(store, two.id)
    assert (story["version"], story["kept"], story["reasons"]) == (version.id, False, ["near_duplicate"])
    assert story["duplicate_of"] == one.id and story["split"] == "train"
    assert [vote["annotator"] for vote in story["votes"]] == ["ann-0", "ann-1", "ann-2"]
    assert all(vote["choice"] == two.preferred and vote["counts"] for vote in story["votes"])
    assert all(vote["accuracy"] is not None and vote["shown_first"] == "a" for vote in story["votes"])
    measures = {row["measure"]: row for row in story["measures"]}
    assert measures["similarity"]["value"] == 0.4
    assert [bound["reason"] for bound in measures["agreement"]["limits"]] == ["low_agreement"]
    [twin] = story["twins"]
    assert (twin["comparison_id"], twin["relation"], twin["kept"]) == (one.id, "near duplicate", True)
    side = f"response_{two.preferred}"
    assert twin["differences"] == [{"part": side, "here": "330", "there": "324"}]
    json.dumps({**story, "votes": None})


def test_history_follows_the_versions_and_margins_come_from_the_runs_that_logged_it(tmp_path: Path) -> None:
    store, rows = planted(tmp_path)
    first = publish_version(store, ledger_of(rows), config())
    rows[0].reasons = ("low_agreement",)
    second = publish_version(store, ledger_of(rows), config())
    third = publish_version(store, ledger_of(rows[1:]), config())
    run = store / "runs" / "run-1"
    run.mkdir(parents=True)
    log = {
        "pair_id": [rows[0].id, rows[0].id, "other"],
        "step": [20, 0, 0],
        "split": "validation",
        "margin": [0.5, 0, 1],
    }
    pl.DataFrame(log, strict=False).write_parquet(run / "pair_log.parquet")
    story = explain(store, rows[0].id)
    assert [(h["version"], h["kept"]) for h in story["history"]] == [
        (first.id, True),
        (second.id, False),
        (third.id, None),
    ]
    assert not story["known"] and story["version"] == third.id
    assert [(m["run"], m["step"], m["margin"]) for m in story["margins"]] == [("run-1", 0, 0.0), ("run-1", 20, 0.5)]
    assert "not in version" in render(story)
    assert explain(store, rows[0].id, first.id)["kept"]


def test_the_rendered_story_names_everything_and_moves_no_terminal(tmp_path: Path) -> None:
    hostile = Planted("Say \x1b[31mred\x1b[0m \u202eabc", "ok\x07", "no\x9b2J", votes=2)
    rows = [*many(5), hostile]
    version = publish_version(plant_store(tmp_path, rows), ledger_of(rows), config())
    text = render(explain(tmp_path, hostile.id))
    for part in (
        hostile.id,
        version.id,
        "kept",
        "ann-0",
        "chosen",
        "rejected",
        "kept if >=",
        "history:",
        "margins",
    ):
        assert part in text
    assert not any(mark in text for mark in "\x1b\x07\x9b\u202e\r")
    assert "\N{REPLACEMENT CHARACTER}[31mred" in text


def test_word_changes_are_the_words_that_differ_and_stay_few_on_long_texts() -> None:
    assert word_changes("a b c d", "a x c") == [{"here": "b", "there": "x"}, {"here": "d", "there": ""}]
    assert len(word_changes("one two " * 5000, "three four " * 5000)) <= 20
