"""A refresh with nothing to publish says what was read, what was rejected or dropped and why, and what to change."""

from pathlib import Path
from typing import Any

import pytest
from helpers.degenerate_sets import essays, letters, recipe_of, thumbs, written

from dpo_data.analysis.sql import query
from dpo_data.formats.ab_table import unknown_winner, winner
from dpo_data.reading.records import UnreadableError
from dpo_data.schema import DataError
from dpo_data.store import versions
from flows.recipe import Recipe
from flows.refresh import refresh

TABLE = {"prompt": "prompt", "first": "response_a", "second": "response_b"}


def mapped(folder: Path, rows: list[dict[str, Any]], winner: str) -> Recipe:
    columns = {**TABLE, "winner": winner}
    source = {"name": "survey", "path": written(folder / "survey.jsonl", rows), "columns": columns}
    curation = {"tokenizer": None, "embedding_model": None}
    return Recipe.model_validate({"sources": [source], "curation": curation})


def test_a_misspelled_column_is_named_with_its_counts_and_example(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        refresh(mapped(tmp_path, essays(3), "winer"), tmp_path / "store")
    said = str(raised.value).splitlines()
    assert said[0] == "Nothing to publish: 0 of 0 comparisons are kept."
    assert said[1] == "survey: 3 records read, 3 rejected"
    assert "3 x Column 'winer' is missing; the record has prompt, " in said[2]
    assert "(first: survey.jsonl:1)" in said[2]
    assert said[-1] == 'List the rejects: dpo sql "from rejects"'
    assert "setting" not in str(raised.value)


def test_the_rejects_can_be_queried_before_the_first_version(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(DataError, match="Nothing to publish"):
        refresh(mapped(tmp_path, essays(3), "winer"), store)
    rows = query(store, "from rejects")
    assert len(rows) == 3 and {row["source"] for row in rows} == {"survey"}
    with pytest.raises(
        DataError, match=r"(?s)ledger.*Views: votes, comparisons, thumbs, rejects; .*no current version"
    ):
        query(store, "from ledger")
    with pytest.raises(DataError, match="no version"):
        query(store, "from rejects", "0123")


def test_a_store_without_batches_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no version and no batches.*dpo refresh"):
        query(tmp_path, "from rejects")


def test_unknown_winners_come_with_the_line_to_add(tmp_path: Path) -> None:
    rows = [dict(one, winner=name) for one, name in zip(essays(3), ("Answer 2", "Answer 2", "No 'one'"), strict=True)]
    with pytest.raises(DataError) as raised:
        refresh(mapped(tmp_path, rows, "winner"), tmp_path / "store")
    said = str(raised.value)
    assert "2 x The winner is 'Answer 2'" in said and "under columns of source survey" in said
    assert """winner_values: {"Answer 2": first|second|tie, "No 'one'": first|second|tie}""" in said


@pytest.mark.parametrize("value", ["Answer 2", "x'y", 'say "b"', 1, "2", 2.0])
def test_the_unknown_value_is_read_off_the_sentence_of_its_reject(value: object) -> None:
    with pytest.raises(UnreadableError) as raised:
        winner(value)
    assert unknown_winner(str(raised.value)) == str(value)


def test_a_missing_winner_is_no_unknown_value() -> None:
    for arguments in ((None,), ("",), (None, False), ([],)):
        with pytest.raises(UnreadableError) as raised:
            winner(*arguments)
        assert unknown_winner(str(raised.value)) is None


def test_what_dropped_comparisons_is_counted_and_ties_need_no_setting(tmp_path: Path) -> None:
    rows = [
        *(dict(one, winner="tie") for one in essays(3)),
        *(dict(one, response_a="Same", response_b="Same") for one in letters(2)),
    ]
    with pytest.raises(DataError) as raised:
        refresh(recipe_of(tmp_path, rows, []), tmp_path / "store")
    said = str(raised.value)
    assert said.startswith("Nothing to publish: 0 of 5 comparisons are kept.\nvotes: 5 records read, 0 rejected")
    assert "3 x tie\n" in said and "2 x identical_responses" in said and "from rejects" not in said


def test_a_version_of_pairs_is_not_replaced_by_thumbs_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = refresh(recipe_of(tmp_path, letters(4), thumbs(5)), store)
    strict = recipe_of(tmp_path, letters(4), thumbs(5), agreement={"min_confidence": 1.0})
    with pytest.raises(DataError, match=r"Kept pairs fall from 4 .* only 5 lone thumbs.*low_confidence 4"):
        refresh(strict, store)
    assert versions.open_version(store).id == first["version"]


def test_thumbs_that_are_not_written_are_nothing_to_publish(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, [], thumbs(5))
    recipe = recipe.model_copy(update={"shards": recipe.shards.model_copy(update={"unpaired": False})})
    with pytest.raises(DataError, match=r"(?s)thumbs: 5 records read, 0 rejected.*set shards\.unpaired to true"):
        refresh(recipe, tmp_path / "store")
