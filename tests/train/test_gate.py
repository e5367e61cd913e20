"""The promotion gate on planted runs: what must pass passes, what must not does not, at the stated level."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_train.config import TrainError
from dpo_train.promotion.compare_runs import fit_scale, log_scores
from dpo_train.promotion.gate import Decision, GateSettings, gate
from dpo_train.promotion.paired_tests import Question, paired_bounds, paired_test

law = settings(max_examples=50, deadline=None, derandomize=True)


def write_run(
    folder: Path,
    margin: list[float],
    *,
    prompts: list[str] | None = None,
    source: list[str] | None = None,
    ids: list[str] | None = None,
    votes: list[tuple[int, int]] | None = None,
    split: str = "test",
    step: int = 40,
    chosen_logratio: float = 0.0,
    tokens: list[tuple[int, int]] | None = None,
    probe: tuple[str, ...] = (),
) -> Path:
    """A run's folder with the two tables the gate reads; margins are those of the last step."""
    count = len(margin)
    ids = ids or [f"pair{index:04d}" for index in range(count)]
    prompts = prompts or [f"prompt of {name}" for name in ids]
    tokens = tokens or [(10, 10)] * count
    rows = [
        {
            "pair_id": ids[index],
            "prompt_id": prompts[index],
            "step": at,
            "split": split,
            "logp_chosen": -20.0 + chosen_logratio * (at > 0),
            "logp_rejected": -20.0,
            "ref_logp_chosen": -20.0,
            "ref_logp_rejected": -20.0,
            "tokens_chosen": tokens[index][0],
            "tokens_rejected": tokens[index][1],
            "margin": margin[index] if at else 0.0,
            "weight": 1.0,
        }
        for at in (0, step)
        for index in range(count)
    ]
    rows += [rows[0] | {"pair_id": f"probe {name}", "prompt_id": name, "split": "train_probe"} for name in probe]
    metadata: dict[str, Any] = {"pair_id": ids, "source": source or ["one"] * count}
    if votes is not None:
        metadata |= {"votes_chosen": [won for won, _ in votes], "votes_rejected": [lost for _, lost in votes]}
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "pair_log.parquet")
    pq.write_table(pa.table(metadata), folder / "pairs.parquet")
    return folder


def margins(right: int, wrong: int) -> list[float]:
    return [1.0] * right + [-1.0] * wrong


def judge(tmp_path: Path, champion: list[float], challenger: list[float], **knobs: Any) -> Decision:
    shared = {name: knobs.pop(name) for name in ("prompts", "source", "votes", "tokens", "split") if name in knobs}
    old = write_run(tmp_path / "champion", champion, **shared)
    new = write_run(tmp_path / "challenger", challenger, **shared)
    return gate(old, new, GateSettings(**knobs))


def test_a_challenger_that_is_better_everywhere_is_promoted(tmp_path: Path) -> None:
    found = judge(tmp_path, margins(240, 160), margins(300, 100))
    assert found.decision == "promote"
    primary = found.tests[0]
    assert (primary.champion, primary.challenger, primary.difference) == (0.6, 0.75, pytest.approx(0.15))
    # 60 of 400 differ, all for the challenger; Agresti–Min: centre 60/402, squares Σ(d − centre)² + 1 + 2 centre²
    centre = 60 / 402
    squares = 60 * (1 - centre) ** 2 + 340 * centre**2 + 1 + 2 * centre**2
    error = math.sqrt(400 / 399 * squares) / 402
    assert primary.low == pytest.approx(centre - 1.64868 * error, abs=1e-6)  # t at .95, 399 degrees of freedom
    assert primary.p is not None and primary.p < 1e-6
    assert "75.0%" in found.because and "400 prompts" in found.because


def test_a_challenger_that_is_worse_is_rejected(tmp_path: Path) -> None:
    found = judge(tmp_path, margins(300, 100), margins(240, 160))
    assert found.decision == "reject"
    assert "-15.0 points" in found.because


def test_the_same_policy_again_is_no_decision_but_passes_as_not_worse(tmp_path: Path) -> None:
    again = margins(300, 100)
    assert judge(tmp_path, again, again).decision == "no decision"
    (tmp_path / "refresh").mkdir()
    refresh = judge(tmp_path / "refresh", again, again, question="non-inferiority", allowed_loss=0.02)
    assert refresh.decision == "promote"


def test_scaling_all_margins_changes_nothing(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    champion, challenger = generator.normal(0.3, 1, (2, 300))
    for metric in ("accuracy", "log_loss"):
        folders = [tmp_path / f"{metric}{scale}" for scale in (1, 50)]
        for folder in folders:
            folder.mkdir()
        plain = judge(folders[0], champion.tolist(), challenger.tolist(), metric=metric)
        inflated = judge(folders[1], champion.tolist(), (50 * challenger).tolist(), metric=metric)
        assert inflated.decision == plain.decision
        for one, other in zip(plain.tests, inflated.tests, strict=True):
            assert one.difference == pytest.approx(other.difference, abs=1e-9)
            assert one.low == pytest.approx(other.low, abs=1e-9)


def test_a_protected_slice_that_got_worse_rejects_a_challenger_that_is_better_overall(tmp_path: Path) -> None:
    source = ["large"] * 800 + ["small"] * 200
    champion = margins(480, 320) + margins(160, 40)
    challenger = margins(640, 160) + margins(120, 80)
    found = judge(tmp_path, champion, challenger, source=source)
    verdicts = {test.slice: test.verdict for test in found.tests}
    assert verdicts == {"all held-out pairs": "passed", "large": "passed", "small": "failed"}
    assert found.decision == "reject"
    assert found.because.startswith("source small: ")


def test_a_slice_that_may_have_got_worse_holds_the_promotion_back(tmp_path: Path) -> None:
    source = ["large"] * 800 + ["small"] * 120
    flipped = [1.0 if index % 2 else -1.0 for index in range(120)]
    found = judge(
        tmp_path,
        margins(480, 320) + flipped,
        margins(640, 160) + [-value for value in flipped],
        source=source,
    )
    assert {test.slice: test.verdict for test in found.tests}["small"] == "undecided"
    assert found.decision == "no decision"
    assert "a loss is not excluded" in found.because


def test_a_small_slice_is_not_tested_and_never_passed(tmp_path: Path) -> None:
    source = ["large"] * 400 + ["small"] * 40
    found = judge(tmp_path, margins(240, 160) + margins(40, 0), margins(320, 80) + margins(0, 40), source=source)
    small = found.tests[-1]
    assert (small.slice, small.verdict, small.prompts) == ("small", "not tested", 40)
    assert "not tested, 40 prompts of the 100 needed" in small.sentence
    assert found.decision == "promote"  # every pair of it is lost: the sentence is all that shows it
    assert any("not tested" in sentence for sentence in found.sentences)


def test_pairs_of_one_prompt_count_as_one_voice(tmp_path: Path) -> None:
    # Ten answers to each of 40 prompts, right or wrong together: 40 observations, not 400.
    prompts = [f"p{index // 10}" for index in range(400)]
    champion, challenger = margins(200, 200), margins(280, 120)
    clustered = judge(tmp_path, champion, challenger, prompts=prompts).tests[0]
    (tmp_path / "apart").mkdir()
    apart = judge(tmp_path / "apart", champion, challenger).tests[0]
    assert (clustered.pairs, clustered.prompts, apart.prompts) == (400, 40, 400)
    widths = [test.high - test.low for test in (clustered, apart) if test.high is not None and test.low is not None]
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(10), rel=0.05)


def test_a_run_is_judged_by_the_weights_it_kept_and_not_by_its_last_step(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", margins(240, 160))
    new = write_run(tmp_path / "new", margins(300, 100), step=20)
    log = pq.read_table(new / "pair_log.parquet").to_pylist()
    worse = [row | {"step": 40, "margin": -1.0} for row in log if row["step"] == 20]
    pq.write_table(pa.Table.from_pylist(log + worse), new / "pair_log.parquet")
    assert gate(old, new, GateSettings()).decision == "reject"
    (new / "summary.json").write_text('{"best_step": 20}')
    found = gate(old, new, GateSettings())
    assert (found.decision, found.challenger.step) == ("promote", 20)
    (new / "summary.json").write_text('{"best_step": 30}')
    with pytest.raises(TrainError, match="step 30, but this split was evaluated at steps 0, 20, 40"):
        gate(old, new, GateSettings())


def test_only_pairs_that_both_hold_out_are_compared_whatever_their_order(tmp_path: Path) -> None:
    ids = [f"pair{index:04d}" for index in range(300)]
    old = write_run(tmp_path / "old", margins(100, 100), ids=ids[:200])
    new = write_run(tmp_path / "new", margins(150, 50)[::-1], ids=ids[100:][::-1])
    found = gate(old, new, GateSettings())
    assert (found.pairs, found.only_champion, found.only_challenger) == (100, 100, 100)
    assert found.tests[0].champion == 0.0  # pairs 100–199: the champion's wrong half
    assert found.tests[0].challenger == 1.0  # ids from 100 on, right first
    assert "Compared on the 100 test pairs" in found.notes[0]


def test_runs_without_a_common_pair_are_no_decision(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", margins(40, 0), ids=[f"a{index}" for index in range(40)])
    new = write_run(tmp_path / "new", margins(40, 0), ids=[f"b{index}" for index in range(40)])
    found = gate(old, new, GateSettings())
    assert (found.decision, found.pairs, found.tests[0].verdict) == ("no decision", 0, "not tested")


def test_pairs_whose_prompt_one_run_trained_on_are_left_out_and_counted(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", margins(100, 100))
    new = write_run(tmp_path / "new", margins(150, 50), probe=("prompt of pair0000", "prompt of pair0001"))
    found = gate(old, new, GateSettings())
    assert (found.trained_on, found.pairs) == (2, 198)
    assert any("2 shared pairs were left out" in note for note in found.notes)


def test_without_a_champion_the_challenger_meets_the_untrained_reference(tmp_path: Path) -> None:
    found = gate(None, write_run(tmp_path / "first", margins(150, 50)), GateSettings())
    assert found.decision == "promote"
    assert (found.tests[0].champion, found.tests[0].challenger) == (0.5, 0.75)


def test_ties_count_half(tmp_path: Path) -> None:
    found = judge(tmp_path, [0.0] * 100, [1e-9] * 50 + [1.0] * 50)
    assert (found.tests[0].champion, found.tests[0].challenger) == (0.5, 0.75)


def test_validation_is_used_where_there_is_no_test_set_and_the_decision_says_so(tmp_path: Path) -> None:
    found = judge(tmp_path, margins(240, 160), margins(300, 100), split="validation")
    assert found.split == "validation"
    assert any("chose where training stopped" in note for note in found.notes)


def test_a_gain_within_the_noise_of_retraining_is_no_decision(tmp_path: Path) -> None:
    found = judge(tmp_path, margins(240, 160), margins(300, 100), seed_sd=0.1)
    assert found.decision == "no decision"
    assert "+" not in found.because and "15.0 points is within two standard deviations" in found.because


def test_a_challenger_with_margins_that_are_no_numbers_is_rejected(tmp_path: Path) -> None:
    found = judge(tmp_path, margins(50, 50), [math.nan, *margins(98, 1)])
    assert found.decision == "reject"
    assert "1 of the challenger's 100 margins" in found.because


def test_a_policy_that_ran_away_from_its_reference_is_rejected_though_it_ranks_better(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", margins(240, 160))
    new = write_run(tmp_path / "new", margins(300, 100), chosen_logratio=-3.0)  # ten tokens: −.3 nats a token
    found = gate(old, new, GateSettings())
    assert found.decision == "reject"
    assert "-0.300 nats a token" in found.because


def test_longer_winners_ranked_better_and_better_turn_a_guard_amber(tmp_path: Path) -> None:
    tokens = [(20, 10)] * 200 + [(10, 20)] * 200
    champion = margins(120, 80) + margins(120, 80)
    challenger = margins(200, 0) + margins(120, 80)
    found = judge(tmp_path, champion, challenger, tokens=tokens, protected=())
    guard = next(guard for guard in found.guards if guard.name == "length gap")
    assert (guard.level, guard.champion, guard.challenger) == ("amber", 0.0, pytest.approx(0.4))
    assert found.decision == "promote"


def test_log_loss_sees_confidence_that_accuracy_cannot(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    truth = generator.normal(0.8, 1.5, 1000)
    won = generator.random(1000) < 1 / (1 + np.exp(-truth))
    votes = [(1, 0) if each else (0, 1) for each in won]
    blunt = np.sign(truth)
    found = judge(tmp_path, blunt.tolist(), truth.tolist(), votes=votes, metric="log_loss")
    (tmp_path / "same").mkdir()
    same = judge(tmp_path / "same", blunt.tolist(), truth.tolist(), votes=votes)
    assert (found.decision, same.decision) == ("promote", "no decision")
    assert found.tests[0].difference is not None and found.tests[0].difference > 0


def test_the_temperature_of_calibrated_margins_is_one() -> None:
    margin = np.linspace(-4, 4, 2001)
    assert fit_scale(margin, 1 / (1 + np.exp(-margin))) == pytest.approx(1)
    assert fit_scale(3 * margin, 1 / (1 + np.exp(-margin))) == pytest.approx(1 / 3)
    assert fit_scale(-margin, 1 / (1 + np.exp(-margin))) == 0  # worse than a coin: a coin's log-loss, ln 2
    half = np.arange(2001) % 2 == 0
    assert log_scores(-margin, 1 / (1 + np.exp(-margin)), half) == pytest.approx(-math.log(2))


def test_the_decision_is_plain_json_that_reads_back(tmp_path: Path) -> None:
    found = judge(tmp_path, margins(240, 160), margins(300, 100))
    plain = json.loads(json.dumps(found.model_dump(mode="json"), allow_nan=False))
    assert Decision.model_validate(plain) == found
    assert found.sentences[0].startswith("Promote: ")
    assert len(found.challenger.pair_log_sha256) == 64


def test_any_axis_of_the_slice_report_can_be_protected(tmp_path: Path) -> None:
    tokens = [(80, 10)] * 200 + [(10, 80)] * 200
    champion, challenger = margins(100, 100) + margins(160, 40), margins(200, 0) + margins(120, 80)
    found = judge(tmp_path, champion, challenger, tokens=tokens, protected=("length gap", "source"))
    verdicts = {(test.axis, test.slice): test.verdict for test in found.tests[1:]}
    # All pairs have one source, which the test over all pairs covers.
    assert verdicts == {("length gap", "shorter by 50+"): "failed", ("length gap", "longer by 50+"): "passed"}
    assert found.decision == "reject"


def test_a_protected_axis_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    source = ["one", "two"] * 100
    with pytest.raises(TrainError, match=r"'flavour'.*source"):
        judge(tmp_path, margins(100, 100), margins(150, 50), source=source, protected=("flavour",))


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing has no pair_log"):
        gate(None, tmp_path / "nothing", GateSettings())


def test_a_split_that_one_run_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", margins(5, 5), split="validation")
    new = write_run(tmp_path / "new", margins(5, 5))
    with pytest.raises(TrainError, match="no rows of split test or validation"):
        gate(old, new, GateSettings())


def test_a_challenger_no_better_is_promoted_about_as_often_as_the_stated_level_allows() -> None:
    """Three answers a prompt, correlated; the true difference is zero, so 5 % of 2,000 tests may pass (± 1.5 %)."""
    generator = np.random.default_rng(7)
    groups = np.repeat(np.arange(150), 3)
    passed = 0
    for _ in range(2000):
        by_prompt = generator.random((150, 2)) < 0.65
        own = generator.random((450, 2)) < 0.65
        shared = generator.random((450, 1)) < 0.5
        champion, challenger = np.where(shared, by_prompt[groups], own).astype(float).T
        passed += paired_bounds(challenger - champion, groups, 0.95, bounded=True)[2] > 0
    assert abs(passed / 2000 - 0.05) < 0.015


def test_a_slice_at_the_edge_of_what_is_allowed_passes_about_as_often_as_stated_where_a_plain_bound_is_too_sure() -> (
    None
):
    """100 prompts, 3 % of them lost and none won: the true difference is −.03, the limit itself."""
    generator = np.random.default_rng(8)
    passed = {True: 0, False: 0}
    for _ in range(2000):
        difference = np.where(generator.random(100) < 0.03, -1.0, 0.0)
        for bounded in passed:
            passed[bounded] += paired_bounds(difference, np.arange(100), 0.95, bounded)[2] > -0.03
    assert passed[True] / 2000 < 0.065
    assert passed[False] / 2000 > 0.15


@law
@given(hits=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_exchanging_the_runs_mirrors_the_bounds(hits: list[tuple[bool, bool]]) -> None:
    first, second = np.array(hits, dtype=np.float64).T
    groups = np.arange(len(hits)) // 2
    there = paired_bounds(second - first, groups, 0.9, bounded=True)
    back = paired_bounds(first - second, groups, 0.9, bounded=True)
    if len(hits) > 2:
        assert (there[2], there[3]) == pytest.approx((-back[3], -back[2]))


@law
@given(allowed=st.floats(0.001, 0.2), more=st.floats(0.001, 0.2))
def test_allowing_a_larger_loss_never_turns_a_pass_into_a_fail(allowed: float, more: float) -> None:
    generator = np.random.default_rng(3)
    champion, challenger = (generator.random((2, 120)) < 0.6).astype(float)
    order = ["failed", "undecided", "passed"]
    verdicts = []
    for limit in (allowed, allowed + more):
        asked = Question("source", "x", "non-inferiority", "accuracy", -limit, 30, 0.95)
        verdicts.append(paired_test(asked, champion, challenger, np.arange(120)).verdict)
    assert order.index(verdicts[1]) >= order.index(verdicts[0])
