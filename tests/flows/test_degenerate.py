"""Refresh and everything that reads a version, on sets in which some statistic has nothing to measure."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.degenerate_sets import CURATION, SETS, essays, letters, read_all, recipe_of, thumbs
from helpers.planted_version import ledger_of, many, votes_of

from dpo_data import schema
from dpo_data.analysis import thresholds
from dpo_data.analysis.stats import stats
from dpo_data.config import CurationConfig
from dpo_data.measures.style_bias import logistic
from dpo_data.schema import DataError
from dpo_data.votes.annotators import annotators
from flows.refresh import refresh

# The whole grid is a group of the fault campaign (tests/faults/degenerate.py).
CASES = [(name, "defaults") for name in SETS] + [("letters and essays", name) for name in CURATION]
CASES += [("one row", "by category"), ("always longer", "drop")]


@pytest.mark.parametrize(("rows", "settings"), CASES)
def test_a_set_with_nothing_to_measure_is_published_and_read(rows: str, settings: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    summary = refresh(recipe_of(tmp_path, SETS[rows], thumbs(4), **CURATION[settings]), store)
    read_all(store, summary)


def test_letters_are_kept_with_null_coefficients(tmp_path: Path) -> None:
    found = refresh(recipe_of(tmp_path, letters(4), []), tmp_path / "store")["stats"]
    assert found["counts"]["kept"] == 4
    for when in ("before", "after"):
        assert len(found["style_bias"][when]) == 4
        assert {(row["coefficient"], row["low"], row["style_auc"]) for row in found["style_bias"][when]} == {
            (None, None, None)
        }
        assert found["length_bias"][when][0]["p_longer"] is None


def test_letters_stay_where_the_rebalance_drops_all_essays(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, [*letters(4), *essays(4)], [], **CURATION["drop"])
    found = refresh(recipe, tmp_path / "store")["stats"]
    assert found["counts"]["kept"] == 4
    assert found["style_bias"]["before"][0]["coefficient"] is not None
    assert found["style_bias"]["after"][0]["coefficient"] is None


def test_a_regression_without_a_covariate_has_no_coefficient() -> None:
    beta, error = logistic(np.zeros((3, 0)), np.ones(3, bool), np.ones(3), np.arange(3))
    assert beta.shape == error.shape == (0,)


@pytest.mark.parametrize("kept", ["no rows", "all dropped", "one", "all tied", "no groups"])
def test_every_number_of_stats_is_defined(kept: str) -> None:
    rows = many({"no rows": 0, "one": 1}.get(kept, 6))
    ledger, votes = ledger_of(rows), votes_of(rows)
    if kept == "all dropped":
        ledger = ledger.with_columns(reasons=pl.lit(["tie"], pl.List(pl.String)))
    if kept == "all tied":
        ledger = ledger.with_columns(preferred=pl.lit(None, pl.String), votes_a=pl.lit(0, pl.UInt32))
    if kept == "no groups":
        ledger = ledger.with_columns(pl.lit(None, pl.String).alias(name) for name in ("prompt_group", "source"))
    found = stats(
        ledger,
        votes,
        annotators=annotators(votes),
        rejects=schema.empty(schema.REJECTS),
        slices=("category",),
        limits=thresholds.of(CurationConfig().model_dump(mode="json")),
        targets={"category": {"chat": 3}},
    )
    assert found["counts"]["kept"] == {"one": 1, "no groups": 6}.get(kept, 0)
    assert [row["kept"] for row in found["splits"]].count(0) >= 1 or kept == "no groups"
    assert found["targets"][0]["short"] == 3 - min(3, found["counts"]["kept"])


def test_no_row_to_publish_is_an_error_of_the_data(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, SETS["always longer"], [], **CURATION["drop"])
    with pytest.raises(DataError, match=r"6 x length_rebalanced \(setting: curation\.length_bias\.rebalance\)"):
        refresh(recipe, tmp_path / "store")
