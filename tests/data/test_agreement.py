"""Votes to preferences: what counts as a vote, what a contradiction does, and what the posterior knows."""

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.published_votes import golds, tables
from helpers.vote_tables import swapped, votes
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data import schema
from dpo_data.votes import agreement as ag
from dpo_data.votes.annotator_model import ReliabilityLimits
from dpo_data.votes.dawid_skene import estimate

LAW = settings(deadline=None, derandomize=True)
ROWS = st.lists(
    st.tuples(st.sampled_from("xyzw"), st.sampled_from(["p", "q", "r", None]), st.sampled_from(["a", "b", "tie"])),
    min_size=1,
    max_size=30,
)


def decided(frame: pl.DataFrame, limits: ag.AgreementLimits | None = None) -> dict[str, dict[str, object]]:
    """Every comparison of `frame` by id, with its measures and the reasons against it."""
    limits = limits or ag.AgreementLimits()
    measured = ag.measure(frame.select("comparison_id").unique().sort("comparison_id"), frame, limits)
    reasons = [pl.when(rule.fill_null(False)).then(pl.lit(name)) for name, rule in ag.rules(limits).items()]
    rows = measured.with_columns(reasons=pl.concat_list(reasons).list.drop_nulls()).iter_rows(named=True)
    return {row["comparison_id"]: row for row in rows}


def test_one_vote_has_no_agreement_and_the_prior_as_confidence() -> None:
    row = decided(votes([("x", "p", "a")]))["x"]
    assert (row["preferred"], row["agreement"], row["votes"], row["reasons"]) == ("a", None, 1, [])
    assert row["confidence"] == pytest.approx(2 / 3)  # the mean of Beta(20, 10), whatever the number of such votes
    many = decided(votes([(f"x{i}", "p", "a") for i in range(500)]))
    assert many["x7"]["confidence"] == pytest.approx(2 / 3)


def test_agreement_is_the_share_of_all_votes_ties_included() -> None:
    row = decided(votes([("x", "p", "b"), ("x", "q", "b"), ("x", "r", "tie"), ("x", "s", "a")]))["x"]
    assert (row["preferred"], row["agreement"], row["annotators"]) == ("b", 0.5, 4)
    assert (row["votes_a"], row["votes_b"], row["votes_tie"]) == (1, 2, 1)


def test_equal_votes_both_ways_are_quarantined_and_not_settled() -> None:
    row = decided(votes([("x", "p", "a"), ("x", "q", "b")]))["x"]
    assert (row["preferred"], row["confidence"], row["agreement"]) == (None, None, None)
    assert row["reasons"] == ["contradictory_votes"]


def test_more_ties_than_votes_for_a_side_prefer_nothing() -> None:
    row = decided(votes([("x", "p", "a"), ("x", "q", "tie"), ("x", "r", "tie")]))["x"]
    assert (row["preferred"], row["reasons"]) == (None, ["tie"])


def test_a_comparison_without_votes_says_so() -> None:
    ledger = pl.DataFrame({"comparison_id": ["x", "y"]})
    row = ag.measure(ledger, votes([("x", "p", "a")])).row(1, named=True)
    assert (row["votes"], row["preferred"], row["agreement"], row["source"]) == (0, None, None, None)
    assert pl.DataFrame([row]).select(ag.rules(ag.AgreementLimits())["no_votes"]).item()


def test_an_empty_vote_table_is_no_error() -> None:
    measured = ag.measure(pl.DataFrame({"comparison_id": ["x"]}), schema.empty(schema.VOTES))
    assert measured.row(0, named=True)["votes"] == 0


def test_the_latest_dated_vote_of_a_person_wins() -> None:
    days = pl.Series(["2026-01-02", "2026-01-05", None, "2026-01-01"]).str.to_datetime(time_zone="UTC")
    frame = votes([("x", "p", "a"), ("x", "p", "b"), ("x", "p", "a"), ("x", "p", "a")]).with_columns(at=days)
    row = ag.tally(frame).row(0, named=True)
    assert (row["votes"], row["votes_b"], row["self_contradictions"]) == (1, 1, 0)


def test_undated_contradiction_of_oneself_is_a_tie_and_is_counted() -> None:
    row = decided(votes([("x", "p", "a"), ("x", "p", "b"), ("x", "p", "b")]))["x"]
    assert (row["votes"], row["votes_tie"], row["self_contradictions"]) == (1, 1, 1)
    assert row["reasons"] == ["contradictory_votes"]


def test_a_judge_asked_in_both_orders_wins_only_when_both_agree() -> None:
    days = pl.Series(["2026-01-01", "2026-01-02"] * 3).str.to_datetime(time_zone="UTC")
    rows = [("same", "j", "a"), ("same", "j", "a"), ("flip", "j", "a"), ("flip", "j", "b")]
    rows += [("half", "j", "b"), ("half", "j", "tie")]
    frame = votes(rows, annotator_kind="model", shown_first=["a", "b"] * 3).with_columns(at=days)
    table = {row["comparison_id"]: row for row in ag.tally(frame).iter_rows(named=True)}
    assert [table[key]["votes_a"] for key in ("same", "flip", "half")] == [1, 0, 0]
    assert [table[key]["votes_tie"] for key in ("same", "flip", "half")] == [0, 1, 1]
    assert [table[key]["self_contradictions"] for key in ("same", "flip", "half")] == [0, 1, 0]


def test_a_later_snapshot_of_anonymous_votes_is_not_counted_twice() -> None:
    rows = [("x", None, "a")] * 2 + [("x", None, "a")] * 3 + [("x", None, "b")]
    row = ag.tally(votes(rows, batch=["1", "1", "2", "2", "2", "1"])).row(0, named=True)
    assert (row["votes_a"], row["votes_b"], row["annotators"]) == (3, 1, 1)


def test_the_same_anonymous_pair_both_ways_is_a_contradiction() -> None:
    assert decided(votes([("x", None, "a"), ("x", None, "b")]))["x"]["reasons"] == ["contradictory_votes"]


def test_the_source_with_most_votes_names_the_comparison() -> None:
    frame = votes([("x", "p", "a"), ("x", "q", "a"), ("x", "p", "a")], source=["z", "z", "b"])
    assert ag.tally(frame).row(0, named=True)["source"] == "z"
    assert ag.tally(frame)["votes"].item() == 3  # p of one source is not p of another


def test_a_stronger_vote_counts_more() -> None:
    frame = votes([("x", "p", "a"), ("x", "q", "b")], strength=[0.9, 0.3])
    row = decided(frame)["x"]
    assert row["preferred"] == "a"
    assert row["reasons"] == ["contradictory_votes"]  # one against one stays a contradiction of votes
    assert decided(frame, ag.AgreementLimits(settle_contradictions_above=0.55))["x"]["reasons"] == []


def test_strength_counts_against_the_usual_strength_of_its_source() -> None:
    frame = votes([(str(i), "p", "a") for i in range(5)], strength=[0.1, 0.2, 0.2, 0.2, 0.8])
    rows = decided(frame)
    odds = [np.log(rows[str(i)]["confidence"] / (1 - rows[str(i)]["confidence"])) for i in (0, 1, 4)]
    assert odds == pytest.approx([np.log(2) / 2, np.log(2), 2 * np.log(2)], rel=1e-5)


@LAW
@given(ROWS, st.randoms(use_true_random=False))
def test_row_order_is_of_no_account(rows: list[tuple[str, str | None, str]], shuffle: random.Random) -> None:
    frame = votes(rows, strength=[(i % 4) / 4 for i in range(len(rows))], batch=[str(i % 2) for i in range(len(rows))])
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    ledger = frame.select("comparison_id").unique().sort("comparison_id")
    assert ag.measure(ledger, frame).equals(ag.measure(ledger, frame[order]), null_equal=True)


@LAW
@given(ROWS)
def test_swapping_the_sides_swaps_the_preference_and_nothing_else(rows: list[tuple[str, str | None, str]]) -> None:
    frame = votes(rows, shown_first=[("a", "b", None)[i % 3] for i in range(len(rows))])
    one, two = decided(frame), decided(swapped(frame))
    for key, row in one.items():
        other = two[key]
        assert (row["votes_a"], row["votes_b"]) == (other["votes_b"], other["votes_a"])
        assert row["preferred"] == {"a": "b", "b": "a", None: None}[other["preferred"]]
        assert row["confidence"] == pytest.approx(other["confidence"], abs=1e-6)
        assert row["p_equal"] == pytest.approx(other["p_equal"], abs=1e-6)
        assert row["reasons"] == other["reasons"]


@LAW
@given(ROWS)
def test_measure_only_adds_columns(rows: list[tuple[str, str | None, str]]) -> None:
    frame = votes(rows)
    ledger = pl.DataFrame({"comparison_id": ["w", "nobody", "x"], "fact": [1, 2, 3]})
    measured = ag.measure(ledger, frame)
    assert measured.select("comparison_id", "fact").equals(ledger)
    kinds = {name: measured.schema[name] for name in schema.LEDGER if name in measured.columns}
    assert kinds == {name: schema.LEDGER[name] for name in kinds}
    assert set(kinds) >= {"source", "votes", "votes_a", "annotators", "preferred", "agreement", "confidence", "p_equal"}


def three_states(count: int, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """`count` comparisons with three votes each, and the truth: 1 a better, -1 b, 0 neither (a quarter of them).

    Ten annotators are right in 65 to 95 %, say tie in 70 % where neither is better and in 10 % where one is.
    """
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(count) < 0.25, 0, rng.integers(0, 2, count) * 2 - 1)
    rows = []
    for i, better in enumerate(truth):
        for j in rng.choice(10, 3, replace=False):
            side = better * (1 if rng.random() < 0.65 + j / 30 else -1) or rng.integers(0, 2) * 2 - 1
            tie = rng.random() < (0.1 if better else 0.7)
            rows.append((f"{i:05}", f"{j}", "tie" if tie else "a" if side > 0 else "b"))
    return votes(rows), truth


def test_em_ends_at_the_top_of_the_posterior() -> None:
    """At the estimate the gradient of log P(votes, parameters) vanishes: checked by finite differences."""
    limits = ReliabilityLimits(tolerance=1e-10, tolerance_neither=1e-10, iterations=3000)
    coded, _, people = ag.code(ag.collapse(three_states(400, seed=3)[0]), limits)
    found = estimate(coded, limits)
    assert found.converged
    tie, item, who = coded.direction == 0, coded.item, coded.annotator
    share, m, n = tie.mean(), found.skills.right[0], limits.prior_votes
    at = np.concatenate(
        [
            found.skills.weights.side,  # the logit of the skill
            np.log(found.skills.readiness),
            [np.log(odds[0]) for odds in found.skills.tie_odds],
            [found.prior_neither[0]],
        ]
    )

    def posterior(values: np.ndarray) -> float:
        weight, (log_neither, log_side, neither) = values[:10], values[20:]
        readiness, skill = np.exp(values[10:20]), 1 / (1 + np.exp(-weight))
        total = (n * m * np.log(skill) + n * (1 - m) * np.log(1 - skill)).sum()
        total += (n * share * (np.log(readiness) - readiness)).sum()
        states = []
        for z, log_odds, prior in (
            (1, log_side, (1 - neither) / 2),
            (-1, log_side, (1 - neither) / 2),
            (0, log_neither, neither),
        ):
            odds = (readiness * np.exp(log_odds))[who]
            right = np.where(z == 0, 0.5, np.where(coded.direction == z, skill[who], 1 - skill[who]))
            vote = np.log(np.where(tie, odds, right) / (1 + odds))
            states.append(np.log(prior) + np.bincount(item, vote))
        total += np.logaddexp.reduce(states).sum()
        words = limits.prior_ties
        for log_odds, usual in ((log_neither, limits.prior_tie_neither), (log_side, limits.prior_tie_side)):
            total += words * (usual * log_odds - (1 - usual) * np.exp(log_odds))
        return float(total + words * (share * np.log(neither) + (1 - share) * np.log(1 - neither)))

    for place in range(len(at)):
        step = np.eye(len(at))[place] * 1e-5
        gradient = (posterior(at + step) - posterior(at - step)) / 2e-5
        assert gradient == pytest.approx(0, abs=0.02), place
    assert people.height == 10


def test_planted_neither_is_found_and_a_confidence_means_what_it_says() -> None:
    frame, truth = three_states(4000, seed=5)
    posterior, found = ag.posteriors(ag.collapse(frame), ReliabilityLimits())
    assert found.prior_neither[0] == pytest.approx(0.25, abs=0.03)
    better = posterior.select(pl.max_horizontal("better_a", "better_b")).to_series().to_numpy()
    right = np.where(posterior["better_a"] > posterior["better_b"], 1, -1) == truth
    for probability, happened in ((better, right), (posterior["p_equal"].to_numpy(), truth == 0)):
        for low, high in ((0, 0.5), (0.5, 1.01)):
            at = (probability >= low) & (probability < high)
            assert at.sum() > 400 and happened[at].mean() == pytest.approx(probability[at].mean(), abs=0.05)


def test_ties_and_split_votes_speak_for_neither() -> None:
    asked = [("one mind", who, "a") for who in "pqr"] + [("a tie", who, "a") for who in "pq"] + [("a tie", "r", "tie")]
    asked += [("split", who, "a") for who in "pq"] + [("split", "r", "b")]
    rest, _ = three_states(500, seed=1)
    rows = decided(pl.concat([rest, votes(asked)]))
    assert rows["one mind"]["p_equal"] < rows["split"]["p_equal"] / 2
    assert rows["split"]["p_equal"] < rows["a tie"]["p_equal"] / 2
    assert rows["one mind"]["confidence"] > rows["a tie"]["confidence"] > 0.5


def test_without_a_tie_in_the_source_neither_cannot_be_told_and_is_nought() -> None:
    rows = [("x", "p", "a"), ("x", "q", "a"), ("x", "r", "b"), ("y", "p", "b")]
    assert {row["p_equal"] for row in decided(votes(rows)).values()} == {0.0}
    other = votes([(f"z{i}", "p", "tie") for i in range(9)], source="elsewhere")
    table = decided(pl.concat([votes(rows), other]))
    assert table["x"]["p_equal"] == 0.0 and table["z1"]["p_equal"] > 0.5


def test_copies_of_anonymous_ties_teach_nothing_about_their_source() -> None:
    few = [(f"{i}", None, "tie" if i % 4 == 0 else "a") for i in range(20)]
    _, one = ag.posteriors(ag.collapse(votes(few)), ReliabilityLimits())
    _, many = ag.posteriors(ag.collapse(votes(few * 50)), ReliabilityLimits())
    assert many.prior_neither[0] == one.prior_neither[0] == pytest.approx(0.25)
    assert many.skills.tie_odds[0][0] == pytest.approx(one.skills.tie_odds[0][0])


@pytest.mark.real
def test_the_posterior_meets_published_gold_at_least_as_often_as_the_majority(real_data: Path) -> None:
    """By record, as the gold is: a repeated comparison has a gold label for each record."""
    frame, _ = tables(real_data, "ukpconvarg1")
    by_record = frame.with_columns(comparison_id=pl.col("origin"))
    golden = golds(real_data)
    posterior, _ = ag.posteriors(ag.collapse(by_record), ReliabilityLimits())
    table = ag.tally(by_record).join(posterior, on="comparison_id").join(golden, on="comparison_id")
    table = table.filter(pl.col("gold").is_in(["a", "b"]) & (pl.col("votes_a") != pl.col("votes_b")))
    majority = pl.when(pl.col("votes_a") > pl.col("votes_b")).then(pl.lit("a")).otherwise(pl.lit("b"))
    believed = pl.when(pl.col("better_a") > pl.col("better_b")).then(pl.lit("a")).otherwise(pl.lit("b"))
    gold = pl.col("gold")
    by_majority, by_posterior = table.select(m=(majority == gold).mean(), p=(believed == gold).mean()).row(0)
    print(f"UKPConvArg1 against MACE gold, n={len(table)}: majority {by_majority:.4f}, posterior {by_posterior:.4f}")
    assert len(table) > 6000
    assert by_posterior >= by_majority


@pytest.mark.real
def test_published_tallies_by_plurality_are_reproduced(real_data: Path) -> None:
    """PandaLM: 472, 422 and 105 of 999 records; ours merge repeated comparisons, so records are the key here."""
    frame, _ = tables(real_data, "pandalm", as_stored=True)
    by_record = frame.with_columns(comparison_id=pl.col("origin"))
    measured = ag.measure(by_record.select("comparison_id").unique().sort("comparison_id"), by_record)
    assert measured["preferred"].value_counts().sort("preferred").rows() == [(None, 105), ("a", 422), ("b", 472)]
