"""The audit's numbers, held to a set small enough to count by hand."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.planted_version import Planted, comparisons_of, config, ledger_of, many, plant_store, votes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data import schema
from dpo_data.analysis import thresholds, yield_curves
from dpo_data.analysis.stats import example_ids, funnel, reason_pairs, reasons, stats
from dpo_data.config import CurationConfig
from dpo_data.publish import publish_version
from dpo_data.votes.annotators import annotators


def eight() -> list[Planted]:
    """Eight comparisons of two sources: five kept (2, 2 and 1 of the splits), three dropped for four reasons in all."""

    def row(name: str, *why: str, **more: Any) -> Planted:
        return Planted(f"Question {name}?", f"Good {name}", f"Bad {name}!!", tuple(why), **more)

    return [
        row("one", category="math"),
        row("two", category="math", votes=2, against=1),
        row("three", split="validation"),
        row("four", split="validation", source="other", votes=1),
        row("five", split="test", source="other", votes=1),
        row("six", "tie", "low_agreement"),
        row("seven", "tie"),
        row("eight", "low_agreement", source="other", votes=2, against=2),
    ]


def numbers(rows: list[Planted], **more: Any) -> dict[str, Any]:
    votes = votes_of(rows)
    return stats(ledger_of(rows), votes, annotators=annotators(votes), slices=("category",), **more)


def test_counts_splits_and_sources_add_up_to_what_was_planted() -> None:
    found = numbers(eight())
    assert found["counts"] == {
        **{"comparisons": 8, "kept": 5, "dropped": 3, "decided": 8, "prompts": 8, "rejected_records": 0},
        **{"votes": 3 + 3 + 3 + 1 + 1 + 3 + 3 + 4, "vote_records": 21, "annotators": 4},
    }
    assert {row["split"]: (row["kept"], row["of"], row["prompt_groups"]) for row in found["splits"]} == {
        "train": (2, 5, 2),
        "validation": (2, 5, 2),
        "test": (1, 5, 1),
    }
    sources = {row["source"]: row for row in found["sources"]}
    assert (sources["planted"]["comparisons"], sources["planted"]["kept"], sources["planted"]["votes"]) == (5, 3, 15)
    # Five rows of three votes: 3 pairs each, all agree but in `two`, where 1 pair of 3 does: 13 of 15.
    assert sources["planted"]["agreement"] == pytest.approx(13 / 15)
    assert sources["planted"]["vote_pairs"] == 15 and sources["planted"]["alpha_comparisons"] == 5
    # Of `other` only `eight` (2 : 2) has several votes: 2 agreeing pairs of 6.
    assert found["trust"]["agreement"] == pytest.approx((13 + 2) / 21) and found["trust"]["vote_pairs"] == 21
    assert sources["other"]["agreement"] == pytest.approx(2 / 6) and sources["other"]["vote_pairs"] == 6
    assert found["contradictions"] | {"examples": []} == {
        **{"rows": 2, "of": 6, "share": pytest.approx(1 / 3), "quarantined": 0, "examples": []}
    }


def test_reasons_count_rows_sole_rows_and_pairs_and_the_funnel_closes_on_the_kept() -> None:
    rows = eight()
    found = numbers(rows)
    assert [(r["reason"], r["rows"], r["sole_rows"], r["of"]) for r in found["reasons"]] == [
        ("low_agreement", 2, 1, 8),
        ("tie", 2, 1, 8),
    ]
    assert set(found["reasons"][1]["examples"]) == {rows[5].id, rows[6].id}
    assert found["reason_pairs"] == [{"reason": "low_agreement", "with": "tie", "rows": 1}]
    assert found["reason_funnel"] == [
        {"reason": "low_agreement", "drops": 2, "left": 6},
        {"reason": "tie", "drops": 1, "left": 5},
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.sampled_from(["tie", "low_agreement", "near_duplicate"])), min_size=1, max_size=15))
def test_funnel_and_reasons_close_whatever_reasons_the_rows_have(fates: list[set[str]]) -> None:
    rows = many(len(fates))
    for row, fate in zip(rows, fates, strict=True):
        row.reasons = tuple(sorted(fate))
    ledger = ledger_of(rows).with_columns(kept=pl.col("reasons").list.len() == 0)
    steps = funnel(ledger)
    kept = sum(not fate for fate in fates)
    assert sum(step["drops"] for step in steps) == len(fates) - kept
    assert not steps or steps[-1]["left"] == kept
    assert {r["reason"]: r["rows"] for r in reasons(ledger)} == {
        name: n for name in ("tie", "low_agreement", "near_duplicate") if (n := sum(name in fate for fate in fates))
    }
    assert sum(r["sole_rows"] for r in reasons(ledger)) == sum(len(fate) == 1 for fate in fates)
    both = {(r["reason"], r["with"]): r["rows"] for r in reason_pairs(ledger)}
    assert both.get(("low_agreement", "tie"), 0) == sum({"tie", "low_agreement"} <= fate for fate in fates)


def test_length_bias_is_told_before_and_after_with_its_n() -> None:
    found = numbers(eight())
    before, after = (found["length_bias"][name][0] for name in ("before", "after"))
    assert (before["n"], before["longer"]) == (8, 0) and (after["n"], after["longer"]) == (5, 0)
    assert after["p_longer"] == 0 and 0 < after["p_high"] < 1
    math = next(r for r in found["length_bias"]["after"] if (r["slice"], r["value"]) == ("category", "math"))
    assert math["n"] == 2


def test_slices_splits_and_groups_come_with_their_denominators() -> None:
    found = numbers(eight())
    by = {(r["slice"], r["value"]): (r["comparisons"], r["kept"]) for r in found["slices"]}
    assert by[("category", "math")] == (2, 2) and by[("category", "chat")] == (6, 3)
    assert by[("source", "other")] == (3, 2) and by[("language", "not measured")] == (8, 5)
    assert found["prompts"]["groups"] == 8 and found["prompts"]["groups_in_two_splits"] == 0


def test_a_yield_curve_counts_what_each_limit_alone_would_keep() -> None:
    rows = many(10)
    for i, row in enumerate(rows[:8]):
        row.measures = {"similarity": 0.6 + 0.05 * i}
    rows[7].reasons = ("responses_too_similar",)
    rows[6].reasons = ("tie",)
    ledger = ledger_of(rows).with_columns(kept=pl.col("reasons").list.len() == 0)
    [curve] = yield_curves.yield_curve(ledger, "similarity", [])
    # .60 .65 .70 .75 .80 .85 (.90 is a tie) .95 and two not measured
    at = dict(zip(curve["limits"], curve["kept"], strict=True))
    assert (curve["of"], curve["measured"]) == (9, 7)
    assert (at[0.5], at[0.6], at[0.7], at[0.8], at[0.86], at[0.94], at[0.96]) == (2, 3, 5, 7, 8, 8, 9)


def test_borderline_rows_are_the_closest_to_a_limit_on_either_side() -> None:
    rows = many(6)
    for row, value in zip(rows, [0.97, 0.96, 0.5, 0.975, 0.999, 0.99], strict=True):
        row.measures = {"similarity": value, "edit_ratio": 0.05}
        row.reasons = ("responses_too_similar",) if value > 0.97 else ()
    rows[1].measures["edit_ratio"] = 0.5  # saved by the other limit, so not on the border
    table = thresholds.of({"similarity": {"responses": {"cosine": 0.97, "edit_ratio": 0.1}}})
    ledger = ledger_of(rows).with_columns(kept=pl.col("reasons").list.len() == 0)
    found = {(r["measure"], r["side"]): r for r in yield_curves.borderline(ledger, table)}
    assert found[("similarity", "kept")]["examples"] == [rows[0].id, rows[2].id]
    assert found[("similarity", "dropped")]["examples"] == [rows[3].id, rows[5].id, rows[4].id]
    assert found[("similarity", "dropped")]["of"] == 3


def test_every_limit_that_can_drop_a_row_is_in_the_table_with_a_column_of_the_ledger() -> None:
    settings = {
        "similarity": {"min_prompt_cosine": 0.1, "by_slice": {"category": {"code": {"cosine": 0.99}, "math": None}}},
        "sizes": {"max_response_tokens": 100},
        "prompts": {"max_per_group": 3},
    }
    table = thresholds.of(CurationConfig.model_validate(settings).model_dump(mode="json"))
    assert {row["setting"] for row in table} >= {
        "similarity.responses.unless_confidence",
        "similarity.by_slice.category.code.cosine",
        "duplicates.part_jaccard",
        "contamination.min_share",
        "contamination.min_cosine",
        "prompts.max_per_group",
        "sizes.max_length",
    }
    assert {row["measure"] for row in table} <= set(schema.LEDGER)
    assert not [row for row in table if ".math." in row["setting"]]
    alike = next(row for row in table if row["setting"] == "similarity.responses.cosine")
    assert [other["measure"] for other in alike["unless"]] == ["edit_ratio", "confidence"]
    rows = pl.DataFrame({"category": ["code", "math", "chat", None]})
    applying = {row["setting"]: rows.filter(thresholds.applies(row))["category"].to_list() for row in table}
    assert applying["similarity.responses.cosine"] == ["chat", None]
    assert applying["similarity.by_slice.category.code.cosine"] == ["code"]
    assert applying["prompts.max_per_group"] == ["code", "math", "chat", None]


def test_comparisons_that_hold_benchmark_items_are_listed_with_the_item() -> None:
    rows = many(4)
    rows[0].reasons, rows[0].measures = ("contaminated",), {"benchmark_overlap": 0.8, "benchmark_item": "b.jsonl:3"}
    reworded = {"benchmark_overlap": 0.0, "benchmark_similarity": 0.91, "benchmark_neighbour": "b.jsonl:7"}
    rows[1].reasons, rows[1].measures = ("contaminated_in_other_words",), reworded
    rows[2].measures = {"benchmark_overlap": 0.1, "benchmark_item": "b.jsonl:3", "benchmark_similarity": 0.2}
    found = numbers(rows, benchmark_items={"b.jsonl:7": "How deep is the sea?"})["contamination"]
    assert (found["measured"], found["compared"], found["by_words"], found["by_meaning"]) == (3, 2, 1, 1)
    assert [(row["comparison_id"], row["item"], row["text"]) for row in found["rows"]] == [
        (rows[0].id, "b.jsonl:3", ""),
        (rows[1].id, "b.jsonl:7", "How deep is the sea?"),
    ]


def test_rejects_are_counted_by_reason_and_shown_cut() -> None:
    unread = pl.DataFrame(
        [(f"f.jsonl:{i}", "not JSON", "x" * 900, "planted") for i in range(3)], schema=schema.REJECTS, orient="row"
    )
    [found] = numbers(eight(), rejects=unread)["rejects"]
    assert (found["reason"], found["records"], found["origins"]) == ("not JSON", 3, [f"f.jsonl:{i}" for i in range(3)])
    assert [len(raw) for raw in found["raw"]] == [200, 200, 200]


def test_stats_do_not_depend_on_row_order_and_hold_no_nan() -> None:
    rows = many(30)
    rows[3].reasons, rows[4].reasons = ("tie",), ("tie", "low_agreement")
    one, two = numbers(rows), numbers(rows[::-1])
    assert json.dumps(one, sort_keys=True, allow_nan=False) == json.dumps(two, sort_keys=True, allow_nan=False)


def test_every_example_named_in_stats_has_its_text_in_the_version(tmp_path: Path) -> None:
    rows = many(30)
    rows[3].reasons, rows[4].reasons = ("tie",), ("low_agreement",)
    version = publish_version(plant_store(tmp_path, rows), ledger_of(rows), config())
    named = example_ids(version.stats)
    assert {rows[3].id, rows[4].id} <= named
    shown = pl.read_parquet(version.path / "examples.parquet")
    assert set(shown["comparison_id"]) == named
    texts = {row["comparison_id"]: row for row in comparisons_of(rows).to_dicts()}
    assert all(row["response_a"] == texts[row["comparison_id"]]["response_a"] for row in shown.to_dicts())


def test_a_ledger_so_large_that_threads_share_it_has_the_stats_of_its_rows() -> None:
    """Polars cuts frames of some 50,000 rows among its threads, and then refuses what it took for fewer."""
    table = thresholds.of(CurationConfig().model_dump(mode="json"))
    small, times = ledger_of(eight()), 8_000
    large = pl.concat([small] * times).with_columns(comparison_id=pl.int_range(len(small) * times).cast(pl.String))
    votes = schema.empty(schema.VOTES)
    one, many_times = (stats(ledger, votes, slices=("category",), limits=table) for ledger in (small, large))
    assert many_times["counts"]["kept"] == times * one["counts"]["kept"]
    assert {row["reason"]: row["rows"] for row in many_times["reasons"]} == {
        row["reason"]: times * row["rows"] for row in one["reasons"]
    }
    assert [row["of"] for row in many_times["borderline"]] == [times * row["of"] for row in one["borderline"]]


def test_an_empty_ledger_has_stats_too() -> None:
    ledger = ledger_of(many(1)).clear()
    found = stats(ledger, schema.empty(schema.VOTES))
    assert found["counts"]["comparisons"] == 0 and found["reasons"] == []


def test_slices_are_held_against_their_targets_and_tell_what_they_lost() -> None:
    wanted = {"category": {"math": 2, "chat": 5, "poems": 3}, "source": {"other": 1}}
    found = numbers(eight(), targets=wanted)["targets"]
    # chat: six comparisons, three kept; six and seven are ties, six and eight lack agreement.
    assert [(row["value"], row["target"], row["kept"], row["comparisons"], row["short"]) for row in found] == [
        ("poems", 3, 0, 0, 3),
        ("chat", 5, 3, 6, 2),
        ("math", 2, 2, 2, 0),
        ("other", 1, 2, 3, 0),
    ]
    assert found[1]["dropped_for"] == [{"reason": "low_agreement", "rows": 2}, {"reason": "tie", "rows": 2}]
    assert numbers(eight())["targets"] == []


def test_a_target_for_what_is_no_slice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no slice desk; slices are source, language, category"):
        CurationConfig(slices=("category",), targets={"desk": {"north": 10}})
    with pytest.raises(ValueError, match="greater than 0"):
        CurationConfig(targets={"language": {"de": 0}})
