"""What must hold for every ledger: the laws of measure and decide, and a row loop that says the same."""

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.config import CurationConfig
from dpo_data.curate import decide
from dpo_data.ids import text_hash
from dpo_data.measures import duplicates
from dpo_data.measures.duplicates import DuplicateLimits
from dpo_data.measures.length_bias import LengthLimits
from dpo_data.measures.lengths import SizeLimits
from dpo_data.measures.prompts import PromptLimits
from dpo_data.measures.similarity import SimilarityLimits, SimilarPairLimits
from dpo_data.votes.agreement import AgreementLimits

MAYBE = st.one_of(st.none(), st.floats(0, 1))
ROW = st.fixed_dictionaries(
    {
        "votes_a": st.integers(0, 3),
        "votes_b": st.integers(0, 3),
        "preferred": st.sampled_from(["a", "b", None]),
        "agreement": MAYBE,
        "confidence": st.one_of(st.none(), st.floats(0.5, 1)),
        "prompt_hash": st.sampled_from(["p", "q", "r"]),
        "hash_a": st.sampled_from(["x", "y"]),
        "hash_b": st.sampled_from(["y", "z"]),
        "prompt_chars": st.integers(0, 3),
        "chars_a": st.integers(0, 9),
        "chars_b": st.integers(0, 9),
        "similarity": MAYBE,
        "edit_ratio": MAYBE,
        "duplicate_cluster": st.sampled_from([None, "c", "d"]),
        "duplicate_swapped": st.booleans(),
        "cycle_edge": st.sampled_from([None, True, False]),
    }
)
ROWS = st.lists(ROW, min_size=1, max_size=14)
KINDS = {
    "preferred": pl.String,
    "duplicate_cluster": pl.String,
    "agreement": pl.Float64,
    "confidence": pl.Float64,
    "similarity": pl.Float64,
    "edit_ratio": pl.Float64,
    "cycle_edge": pl.Boolean,
    "votes_a": pl.UInt32,
    "votes_b": pl.UInt32,
    "chars_a": pl.UInt32,
    "chars_b": pl.UInt32,
}
LIMITS = CurationConfig(
    agreement=AgreementLimits(min_agreement=0.5, min_confidence=0.6),
    similarity=SimilarityLimits(responses=SimilarPairLimits(cosine=0.6, edit_ratio=0.5)),
    prompts=PromptLimits(max_per_group=3),
    sizes=SizeLimits(max_length=None),
)


def ledger_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema_overrides=KINDS)
    frame = frame.with_columns(
        comparison_id=pl.Series([text_hash(str(row)) for row in range(len(rows))]),
        source=pl.lit("s"),
        votes=pl.col("votes_a") + pl.col("votes_b"),
        self_contradictions=pl.lit(0),
        prompt_group="prompt_hash",
        split_coin=pl.lit(0.5),
    )
    return duplicates.measure_votes(frame)


def reasons(frame: pl.DataFrame) -> dict[str, list[str]]:
    return dict(frame.select("comparison_id", "reasons").iter_rows())


def in_a_loop(rows: list[dict[str, Any]], config: CurationConfig) -> dict[str, list[str]]:
    """The decision row by row, without polars: what `decide` must equal."""
    found: dict[str, list[str]] = {}
    for row in rows:
        own = {
            "blank_prompt": row["prompt_chars"] == 0,
            "blank_response": row["chars_a"] == 0 or row["chars_b"] == 0,
            "identical_responses": row["hash_a"] == row["hash_b"],
            "contradictory_votes": row["votes_a"] == row["votes_b"] > 0,
            "no_votes": row["votes"] == 0,
            "tie": row["votes"] > 0 and row["preferred"] is None and row["votes_a"] != row["votes_b"],
            "low_agreement": row["agreement"] is not None and row["agreement"] < 0.5,
            "low_confidence": row["confidence"] is not None and row["confidence"] < 0.6,
            "responses_too_similar": None not in (row["similarity"], row["edit_ratio"])
            and row["similarity"] > 0.6
            and row["edit_ratio"] < 0.5
            and (row["confidence"] is None or row["confidence"] < 0.95),
            "contradicted_by_twin": bool(row["twin_votes_against"])
            and row["twin_votes_against"] >= row["twin_votes_for"],
            "preference_cycle": bool(row["cycle_edge"]),
        }
        found[row["comparison_id"]] = sorted(name for name, holds in own.items() if holds)

    def best(row: dict[str, Any]) -> tuple[float, float, str]:
        return (-row["votes"], 1 if row["confidence"] is None else -row["confidence"], row["comparison_id"])

    for cluster in {row["duplicate_cluster"] for row in rows} - {None}:
        standing = [row for row in rows if row["duplicate_cluster"] == cluster and not found[row["comparison_id"]]]
        for row in sorted(standing, key=best)[1:]:
            found[row["comparison_id"]] = ["near_duplicate"]
    for group in {row["prompt_group"] for row in rows}:
        standing = [row for row in rows if row["prompt_group"] == group and not found[row["comparison_id"]]]
        for row in sorted(standing, key=lambda row: best(row | {"votes": 0}))[config.prompts.max_per_group :]:
            found[row["comparison_id"]] = ["over_prompt_cap"]
    return found


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_decide_equals_a_loop_over_rows(rows: list[dict[str, Any]]) -> None:
    ledger = ledger_of(rows)
    decided = {key: sorted(value) for key, value in reasons(decide(ledger, LIMITS)).items()}
    assert decided == in_a_loop(ledger.to_dicts(), LIMITS)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows: list[dict[str, Any]], random: Any) -> None:
    ledger = ledger_of(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    config = LIMITS.model_copy(update={"length_bias": LengthLimits(rebalance="drop", bins=2)})
    assert decide(ledger, config).equals(decide(ledger[order], config))


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_no_row_is_lost_and_no_fact_is_changed(rows: list[dict[str, Any]]) -> None:
    ledger = ledger_of(rows).sort("comparison_id")
    decided = decide(ledger, LIMITS)
    facts = [name for name in ledger.columns if name not in ("reasons", "weight", "split", "duplicate_of")]
    assert decided.select(facts).equals(ledger.cast({n: decided.schema[n] for n in facts}).select(facts))


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_the_mirror_image_has_the_same_reasons(rows: list[dict[str, Any]]) -> None:
    swap = {"a": "b", "b": "a", None: None}
    mirrored = [
        row
        | {"votes_a": row["votes_b"], "votes_b": row["votes_a"], "preferred": swap[row["preferred"]]}
        | {"chars_a": row["chars_b"], "chars_b": row["chars_a"], "hash_a": row["hash_b"], "hash_b": row["hash_a"]}
        for row in rows
    ]
    assert reasons(decide(ledger_of(rows), LIMITS)) == reasons(decide(ledger_of(mirrored), LIMITS))


@settings(max_examples=60, deadline=None)
@given(ROWS, st.floats(0, 1), st.floats(0, 1))
def test_a_tighter_row_rule_gives_no_dropped_row_back(rows: list[dict[str, Any]], one: float, two: float) -> None:
    def dropped(limit: float) -> set[str]:
        config = LIMITS.model_copy(
            update={
                "agreement": AgreementLimits(min_agreement=limit),
                "duplicates": DuplicateLimits(drop_near_duplicates=False),
                "prompts": PromptLimits(),
            }
        )
        return {key for key, value in reasons(decide(ledger_of(rows), config)).items() if value}

    assert dropped(min(one, two)) <= dropped(max(one, two))


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_what_was_kept_is_kept_again(rows: list[dict[str, Any]]) -> None:
    decided = decide(ledger_of(rows), LIMITS)
    kept = decided.filter(pl.col("reasons").list.len() == 0)
    assert decide(kept, LIMITS)["reasons"].list.len().sum() == 0


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_deciding_twice_is_deciding_once(rows: list[dict[str, Any]]) -> None:
    once = decide(ledger_of(rows), LIMITS)
    assert decide(once, LIMITS).equals(once)
