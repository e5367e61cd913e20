"""Agreement coefficients: by hand, against the krippendorff package, and against the published sets' true figures."""

import json
import math
from pathlib import Path

import krippendorff
import numpy as np
import polars as pl
import pytest
from helpers.published_votes import tables
from helpers.vote_tables import votes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpo_data.ingest.append import append_batch
from dpo_data.store.batches import open_batches
from dpo_data.votes import agreement_coefficients as co

LAW = settings(deadline=None, derandomize=True)
TABLES = hnp.arrays(np.int64, st.tuples(st.integers(2, 12), st.just(3)), elements=st.integers(0, 4))


def test_alpha_and_kappa_of_a_table_worked_by_hand() -> None:
    # Items (a, tie, b): 2-0-0, 1-0-1, 0-0-2. Coincidences aa 2, ab 1, ba 1, bb 2; n = 6, D_o = 2/6, D_e = 18/30.
    table = np.array([[2, 0, 0], [1, 0, 1], [0, 0, 2]])
    assert co.coincidences(table).tolist() == [[2, 0, 1], [0, 0, 0], [1, 0, 2]]
    assert co.alpha(table, symmetric=False) == pytest.approx(1 - (2 / 6) / (18 / 30))
    assert co.raw_agreement(table) == pytest.approx(4 / 6)
    # AC1: P_a = 2/3, shares 1/2, 0, 1/2, P_e = (1/4 + 0 + 1/4) / 2 = 1/4.
    assert co.gwet_ac1(table) == pytest.approx((2 / 3 - 1 / 4) / (3 / 4))
    # Two annotators: agree on 3 of 4, margins 3/4, 1/4 and 1/2, 1/2: chance 1/2.
    one, two = np.array([0, 0, 0, 2]), np.array([0, 0, 2, 2])
    assert co.cohen_kappa(one, two, symmetric=False) == pytest.approx(0.5)
    # In both side orders every margin is 1/2 and so is chance: 2 x 3/4 - 1.
    assert co.cohen_kappa(one, two) == pytest.approx(0.5)


def test_chosen_always_stored_first_makes_plain_alpha_meaningless_and_symmetric_alpha_not() -> None:
    table = np.array([[3, 0, 0]] * 9 + [[2, 0, 1]])
    assert co.alpha(table, symmetric=False) < 0.01
    # Both orders: 27 + 27 like pairs of 30 items ... D_o = 2/30, D_e = 30 30 2 / (60 59)
    assert co.alpha(table) == pytest.approx(1 - (2 / 30) / (2 * 30 * 30 / (60 * 59)))


def test_ties_are_left_out_of_decided_agreement() -> None:
    table = np.array([[2, 3, 1]])
    assert co.decided_agreement(table) == pytest.approx(2 / 6)
    assert co.raw_agreement(table) == pytest.approx((2 + 6) / 30)


def test_nothing_to_compare_is_not_measured() -> None:
    single = np.array([[1, 0, 0], [0, 0, 1]])
    for figure in (co.alpha(single), co.raw_agreement(single), co.gwet_ac1(single), co.decided_agreement(single)):
        assert math.isnan(figure)


@pytest.mark.parametrize("metric", ["nominal", "ordinal"])
def test_alpha_equals_the_krippendorff_package_on_random_tables(metric: co.Metric) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        table = rng.integers(0, 4, (30, 3))
        expected = krippendorff.alpha(value_counts=table, value_domain=[-1, 0, 1], level_of_measurement=metric)
        assert co.alpha(table, metric, symmetric=False) == pytest.approx(expected, abs=1e-12)
        both = np.concatenate([table, table[:, ::-1]])
        expected = krippendorff.alpha(value_counts=both, value_domain=[-1, 0, 1], level_of_measurement=metric)
        assert co.alpha(table, metric) == pytest.approx(expected, abs=1e-12)


@LAW
@given(TABLES, st.sampled_from(["nominal", "ordinal"]), st.data())
def test_symmetric_alpha_does_not_know_which_side_is_stored_first(
    table: np.ndarray, metric: co.Metric, data: st.DataObject
) -> None:
    flip = data.draw(hnp.arrays(np.bool_, len(table)))
    turned = np.where(flip[:, None], table[:, ::-1], table)
    assert co.alpha(turned, metric) == pytest.approx(co.alpha(table, metric), nan_ok=True)


@LAW
@given(TABLES, TABLES)
def test_coincidences_of_two_batches_add_up(one: np.ndarray, two: np.ndarray) -> None:
    np.testing.assert_allclose(
        co.coincidences(one) + co.coincidences(two), co.coincidences(np.concatenate([one, two])), atol=1e-9
    )


def test_counts_are_by_comparison_or_by_record() -> None:
    frame = votes([("x", "1", "a"), ("x", "2", "b"), ("x", "3", "a")], origin=["r:1", "r:1", "r:2"])
    assert co.counts(frame).tolist() == [[2, 0, 1]]
    assert sorted(co.counts(frame, "origin").tolist()) == [[1, 0, 0], [1, 0, 1]]


def test_pairwise_kappa_lists_every_two_annotators_once() -> None:
    frame = votes([(str(i), who, c) for who, row in {"p": "aabb", "q": "aaab"}.items() for i, c in enumerate(row)])
    frame = pl.concat([frame, votes([("0", "r", "a")])])
    table = co.pairwise_kappa(frame, least=2)
    assert table.rows() == [("p", "q", 4, 0.75, pytest.approx(0.5), pytest.approx(0.5))]


REAL = {"pandalm": "pandalm", "llmfao": "llmfao", "ukpconvarg1": "ukpconvarg1", "squality": "squality-human-eval"}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_published_agreement_figures_are_reproduced_by_record(name: str, real_data: Path) -> None:
    truth = json.loads((real_data / "facts.json").read_text())[REAL[name]]["agreement"]
    frame, _ = tables(real_data, name)
    table = co.counts(frame, "origin")
    found = {
        "items": len(table),
        "raw_agreement": co.raw_agreement(table),
        "decided_agreement": co.decided_agreement(table),
        "alpha_nominal_side_symmetric": co.alpha(table),
        "alpha_ordinal_side_symmetric": co.alpha(table, "ordinal"),
    }
    print(name, {key: round(value, 4) for key, value in found.items()}, "AC1", round(co.gwet_ac1(table), 4))
    for key, value in found.items():
        assert value == pytest.approx(truth[key], abs=1e-4), key


@pytest.mark.real
def test_published_kappas_of_pandalm_are_reproduced(real_data: Path) -> None:
    truth = json.loads((real_data / "facts.json").read_text())["pandalm"]["cohen_kappa"]
    frame, _ = tables(real_data, "pandalm", as_stored=True)
    table = co.pairwise_kappa(frame, "origin")
    found = {
        f"{row['annotator_1']}-{row['annotator_2']}": row["kappa_as_stored"] for row in table.iter_rows(named=True)
    }
    assert found == {key: pytest.approx(value, abs=1e-4) for key, value in truth.items()}
    # The side order is the file's own choice; ours depends on none, and differs in the fourth digit.
    print(table)
    assert table["kappa"].to_list() == pytest.approx(list(truth.values()), abs=1e-3)
    ours, _ = tables(real_data, "pandalm")
    assert co.pairwise_kappa(ours, "origin")["kappa"].to_list() == pytest.approx(table["kappa"].to_list())


FILES = {
    "pandalm": ("pandalm", "testset-v1.json"),
    "ukpconvarg1": ("ukpconvarg1", "*.jsonl"),
    "squality": ("squality-human-eval", "all-responses.jsonl"),
}


@pytest.mark.real
@pytest.mark.parametrize("name", FILES)
def test_the_store_gives_the_published_figures_too(name: str, real_data: Path, tmp_path: Path) -> None:
    """Read, hashed, sides sorted and stored: the side-symmetric figures by record do not move."""
    truth = json.loads((real_data / "facts.json").read_text())[REAL[name]]["agreement"]
    folder, pattern = FILES[name]
    append_batch(tmp_path, sorted((real_data / folder).glob(pattern)), name)
    table = co.counts(open_batches(tmp_path).votes().collect(), ["origin", "comparison_id"])
    assert len(table) == truth["items"]
    assert co.raw_agreement(table) == pytest.approx(truth["raw_agreement"], abs=1e-4)
    assert co.decided_agreement(table) == pytest.approx(truth["decided_agreement"], abs=1e-4)
    assert co.alpha(table) == pytest.approx(truth["alpha_nominal_side_symmetric"], abs=1e-4)
    assert co.alpha(table, "ordinal") == pytest.approx(truth["alpha_ordinal_side_symmetric"], abs=1e-4)
