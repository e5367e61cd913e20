"""measure and decide on planted frames and on a store."""

import polars as pl

from dpo_data.curate import CurationConfig, decide


def planted(**columns: list[object]) -> pl.DataFrame:
    """A ledger whose rows nothing is wrong with, with the given columns planted."""
    count = len(next(iter(columns.values())))
    good: dict[str, list[object]] = {
        "comparison_id": [f"{row:032x}" for row in range(count)],
        "source": ["s"] * count,
        "votes": [3] * count,
        "votes_a": [3] * count,
        "votes_b": [0] * count,
        "votes_tie": [0] * count,
        "self_contradictions": [0] * count,
        "preferred": ["a"] * count,
        "agreement": [1.0] * count,
        "confidence": [0.95] * count,
        "prompt_hash": [f"{row:032x}" for row in range(count)],
        "prompt_group": [f"{row:032x}" for row in range(count)],
        "split_coin": [(row + 0.5) / count for row in range(count)],
        "hash_a": [f"a{row}" for row in range(count)],
        "hash_b": [f"b{row}" for row in range(count)],
        "prompt_chars": [10] * count,
        "chars_a": [20] * count,
        "chars_b": [20] * count,
        "duplicate_swapped": [False] * count,
    }
    return pl.DataFrame(good | columns)


def test_a_row_with_nothing_wrong_is_kept() -> None:
    decided = decide(planted(chars_a=[5, 6, 7]), CurationConfig())
    assert decided["reasons"].to_list() == [[], [], []]
    assert decided["weight"].to_list() == [1.0, 1.0, 1.0]


def test_a_row_carries_every_reason_that_holds() -> None:
    decided = decide(planted(chars_a=[0, 5], prompt_chars=[0, 5], confidence=[0.5, 0.9]), CurationConfig())
    assert decided["reasons"].to_list() == [["blank_prompt", "blank_response", "low_confidence"], []]


def test_what_is_not_measured_fails_no_rule() -> None:
    decided = decide(
        planted(similarity=[None, 0.99], edit_ratio=[0.01, 0.01], confidence=[None, 0.9]), CurationConfig()
    )
    assert decided["reasons"].to_list() == [[], ["responses_too_similar"]]


def test_the_survivor_of_a_cluster_is_chosen_among_the_rows_standing() -> None:
    ledger = planted(duplicate_cluster=["c", "c", "c", None], votes=[9, 3, 4, 1], chars_a=[0, 20, 20, 20])
    decided = decide(ledger, CurationConfig())
    assert decided["reasons"].to_list() == [["blank_response"], ["near_duplicate"], [], []]
    survivor = decided["comparison_id"][2]
    assert decided["duplicate_of"].to_list() == [survivor, survivor, None, None]
