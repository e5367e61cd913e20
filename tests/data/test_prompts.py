"""Prompt groups and the cap on them."""

import polars as pl

from dpo_data.measures import prompts
from dpo_data.measures.prompts import PromptLimits
from dpo_data.text import minhash as near
from dpo_data.text.token_hashes import tokens

EMPTY = pl.DataFrame(schema={"left": pl.String, "right": pl.String})


def ledger_of(
    hashes: list[str], openings: list[str | None] | None = None, exchanges: list[str | None] | None = None
) -> pl.DataFrame:
    nothing: list[str | None] = [None] * len(hashes)
    return pl.DataFrame(
        {"prompt_hash": hashes, "opening_hash": openings or nothing, "exchange_hash": exchanges or nothing},
        schema_overrides={"opening_hash": pl.String, "exchange_hash": pl.String},
    )


def test_equal_prompts_share_a_group_and_others_do_not() -> None:
    ledger = ledger_of(["b", "a", "b", "c"])
    assert prompts.measure(ledger, EMPTY)["prompt_group"].to_list() == ["b", "a", "b", "c"]


def test_a_group_is_a_connected_component_named_by_its_smallest_hash() -> None:
    ledger = ledger_of(["d", "b", "c", "a", "e"])
    edges = pl.DataFrame({"left": ["b", "c"], "right": ["d", "d"]})
    assert prompts.measure(ledger, edges)["prompt_group"].to_list() == ["b", "b", "b", "a", "e"]


def test_near_prompts_are_proposed_and_verified() -> None:
    words = [f"word{number}" for number in range(30)]
    texts = pl.DataFrame(
        {
            "prompt_hash": ["p", "q", "r"],
            "prompt": [" ".join(words), " ".join([*words, "more"]), "something else entirely"],
        }
    )
    signed = texts.with_columns(signature=near.sign(near.shingles(tokens(texts["prompt"]).words())))
    found = prompts.verify(prompts.proposals(signed.select("prompt_hash", "signature")), texts)
    assert found.rows() == [("p", "q", 28 / 29)]


def test_prompts_of_one_topic_and_of_near_topics_are_joined() -> None:
    topics = pl.DataFrame({"prompt_hash": ["p", "q", "r", "s"], "topic_hash": ["t", "t", "u", "v"]})
    near = pl.DataFrame({"left": ["t"], "right": ["u"]})
    assert prompts.same_topic(topics, near).rows() == [("p", "q"), ("p", "r")]


def test_prompts_of_one_conversation_share_a_group() -> None:
    # a asks alone what c and d begin with; c and d go on from the same reply, e from another; b is another question
    ledger = ledger_of(["a", "b", "c", "d", "e"], [None, None, "a", "a", "x"], [None, None, "y", "y", "z"])
    assert prompts.measure(ledger, EMPTY)["prompt_group"].to_list() == ["a", "b", "a", "a", "e"]


def capped(limit: int | None) -> list[list[str]]:
    ledger = pl.DataFrame(
        {
            "comparison_id": ["1", "2", "3", "4", "5"],
            "prompt_group": ["g", "g", "g", "g", "h"],
            "confidence": [0.7, 0.9, 0.99, 0.9, 0.6],
            "reasons": pl.Series([[], [], ["tie"], [], []], dtype=pl.List(pl.String)),
        }
    )
    found = prompts.cap(ledger, PromptLimits(max_per_group=limit))
    assert found["group_rank"].to_list() == ([3, 1, None, 2, 1] if limit else [None] * 5)
    return found["reasons"].to_list()


def test_the_cap_keeps_the_most_confident_standing_rows_of_a_group() -> None:
    assert capped(1) == [["over_prompt_cap"], [], ["tie"], ["over_prompt_cap"], []]
    assert capped(2) == [["over_prompt_cap"], [], ["tie"], [], []]


def test_without_a_cap_no_prompt_is_too_common() -> None:
    assert capped(None) == [[], [], ["tie"], [], []]
