"""Edit ratio against dynamic programming, the parting sentence, the two-signal rule."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data.measures import similarity
from dpo_data.measures.similarity import SimilarityLimits, SimilarPairLimits
from dpo_data.text.edit_distance import edit_ratio

TOKENS = st.lists(st.integers(0, 4), max_size=14)


def lcs(one: list[int], two: list[int]) -> int:
    rows = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(two):
            rows[i + 1][j + 1] = rows[i][j] + 1 if left == right else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


@settings(max_examples=200, deadline=None)
@given(TOKENS, TOKENS)
def test_the_edit_ratio_is_one_minus_twice_the_common_subsequence(one: list[int], two: list[int]) -> None:
    total = len(one) + len(two)
    expected = (total - 2 * lcs(one, two)) / total if total else 0.0
    assert edit_ratio(one, two) == pytest.approx(expected)
    assert edit_ratio(two, one) == pytest.approx(expected)


def test_equal_texts_are_at_zero_and_texts_with_nothing_in_common_at_one() -> None:
    assert edit_ratio([1, 2, 3], [1, 2, 3]) == 0
    assert edit_ratio([1, 2], [3, 4, 5]) == 1
    assert edit_ratio([], [3]) == 1


def test_responses_are_compared_from_the_sentence_where_they_part() -> None:
    opening = "Both begin alike. For a while. "
    one, two = similarity.parting(opening + "The answer is four.", opening + "The answer is five.")
    assert (one, two) == ("The answer is four.", "The answer is five.")


def test_a_response_that_only_goes_on_is_compared_from_its_last_common_sentence() -> None:
    one, two = similarity.parting("First this. Then that.", "First this. Then that. And more.")
    assert (one, two) == ("Then that.", "Then that. And more.")


def holds(limits: SimilarityLimits, **columns: object) -> dict[str, bool | None]:
    row = {
        "similarity": 0.99,
        "edit_ratio": 0.05,
        "similarity_prompt_a": 0.5,
        "similarity_prompt_b": 0.5,
        "language": "en",
        "language_a": "en",
        "language_b": "en",
        "category": "chat",
        "confidence": 0.8,
    } | columns
    frame = pl.DataFrame({name: [value] for name, value in row.items()})
    return frame.select(**similarity.rules(limits)).row(0, named=True)


def test_too_similar_needs_both_signals() -> None:
    limits = SimilarityLimits()
    assert holds(limits)["responses_too_similar"]
    assert not holds(limits, edit_ratio=0.2)["responses_too_similar"]
    assert not holds(limits, similarity=0.9)["responses_too_similar"]
    assert holds(limits, confidence=None)["responses_too_similar"]
    assert holds(limits, similarity=None)["responses_too_similar"] is None


def test_a_small_difference_that_all_annotators_see_is_believed() -> None:
    assert not holds(SimilarityLimits(), confidence=0.96)["responses_too_similar"]
    limits = SimilarityLimits(responses=SimilarPairLimits(unless_confidence=None))
    assert holds(limits, confidence=0.96)["responses_too_similar"]


def test_a_slice_can_have_limits_of_its_own_or_none() -> None:
    limits = SimilarityLimits(by_slice={"category": {"maths": None, "code": SimilarPairLimits(cosine=0.995)}})
    assert holds(limits)["responses_too_similar"]
    assert not holds(limits, category="maths")["responses_too_similar"]
    assert not holds(limits, category="code")["responses_too_similar"]
    assert holds(limits, category=None)["responses_too_similar"]


def test_another_language_counts_only_where_both_are_known() -> None:
    assert "wrong_language" not in holds(SimilarityLimits())
    limits = SimilarityLimits(same_language=True)
    assert not holds(limits)["wrong_language"]
    assert holds(limits, language_b="de")["wrong_language"]
    assert holds(limits, language=None, language_b="de")["wrong_language"] is None
    assert not holds(limits, language_a=None, language_b="en")["wrong_language"]


def test_off_topic_is_off_until_a_limit_is_given() -> None:
    assert "response_off_topic" not in holds(SimilarityLimits())
    assert holds(SimilarityLimits(min_prompt_cosine=0.1), similarity_prompt_b=0.05)["response_off_topic"]


def test_pieces_leave_out_the_system_message_and_blank_texts() -> None:
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Second?"},
    ]
    frame = pl.DataFrame({"comparison_id": ["x"], "prompt": [prompt], "response_a": ["A b."], "response_b": [""]})
    row = similarity.pieces(frame).row(0, named=True)
    assert row["prompt"] == "Second?"
    assert row["topic"] == "First?\nYes.\nSecond?"
    assert row["response_b"] is None
