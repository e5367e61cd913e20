"""The traps of published preference sets, one test each; the texts are the samples' (tests/formats)."""

from pathlib import Path
from typing import Any

import pytest
from helpers.read_samples import items, read

from dpo_data.formats import READERS
from dpo_data.formats.trl import implicit
from dpo_data.reading.records import BinaryRating, NonText, Reject, Vote


def votes(name: str) -> list[Vote]:
    return [item for item in items(name) if isinstance(item, Vote)]


def said(prompt: list[Any]) -> list[str]:
    return [f"{message['role']}: {message['content']}" for message in prompt]


def test_hh_prompts_are_cut_by_turn_and_answers_keep_their_common_opening() -> None:
    first = votes("hh_rlhf")[0]
    assert said(first.prompt) == ["user: Where do swifts sleep?"]
    assert (first.first, first.second) == ("They sleep on the wing.", "They sleep in nests.")


def test_hh_blank_finals_stay_as_blank_responses() -> None:
    second = votes("hh_rlhf")[1]
    assert said(second.prompt) == ["user: Hello.", "assistant: Hello! What is it?", "user: How deep is a well?"]
    assert (second.first, second.second) == ("That depends on the water.", "")


def test_hh_consecutive_human_turns_stay_two_turns() -> None:
    assert said(votes("hh_rlhf")[2].prompt) == ["user: One more thing.", "user: Is slate a rock?"]


def test_hh_pairs_that_differ_early_keep_the_whole_rest_and_say_so() -> None:
    early = votes("hh_rlhf")[3]
    assert said(early.prompt) == ["user: Name a river."]
    assert early.first == "The Elbe.\n\nHuman: Another?\n\nAssistant: The Oder."
    assert early.attributes == {"diverges": "before the last turn"}


def test_hh_pairs_whose_human_turns_differ_are_rejected() -> None:
    assert [item.reason for item in items("hh_rlhf") if isinstance(item, Reject)] == [
        "The conversations differ in turn 1, which is not a response: they answer different prompts."
    ]


def test_identical_conversations_are_a_comparison_of_identical_responses(tmp_path: Path) -> None:
    text = "\n\nHuman: Why?\n\nAssistant: So."
    (vote,) = read(tmp_path, "hh_rlhf", {"chosen": text, "rejected": text})
    assert (said(vote.prompt), vote.first, vote.second) == (["user: Why?"], "So.", "So.")


def test_trl_takes_a_prompt_that_is_repeated_inside_the_answers_off() -> None:
    repeated = votes("trl")[3]
    assert (said(repeated.prompt), repeated.first, repeated.second) == (
        ["user: What melts?"],
        "Ice melts.",
        "Oak melts.",
    )


def test_trl_implicit_prompts_end_at_the_turn_not_inside_a_shared_opening() -> None:
    plain = votes("trl")[4]
    assert said(plain.prompt) == ["user: Question: What rusts?\nAnswer:"]
    assert (plain.first, plain.second) == (" Iron rusts in rain.", " Iron never rusts.")


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("Line one.\nThe sea is wide.", "Line one.\nThe sea is salt.", "Line one.\n"),
        ("Why? The sea is wide.", "Why? The sea is wild.", "Why? The sea is "),
        ("wide", "wild", ""),
    ],
)
def test_implicit_prompts_back_off_to_a_line_then_to_a_word(chosen: str, rejected: str, prompt: str) -> None:
    turns, first, second = implicit(chosen, rejected)
    assert "".join(turn["content"] for turn in turns) == prompt
    assert (prompt + first, prompt + second) == (chosen, rejected)


def test_trl_tool_calls_and_thinking_stay_in_the_text() -> None:
    call = votes("trl")[5]
    assert call.first == '<tool_call>\n{"name":"weather","arguments":{"city":"Ulm"}}\n</tool_call>'
    assert call.second == "<think>\nI guess.\n</think>\n\nSunny."


def test_alpaca_style_pairs_take_the_instruction_and_its_input_as_the_prompt(tmp_path: Path) -> None:
    record = {
        "instruction": "Translate.",
        "input": "Haus",
        "chosen": "house",
        "rejected": "home",
        "system": "Be brief.",
    }
    (vote,) = read(tmp_path, "trl", record)
    assert said(vote.prompt) == ["system: Be brief.", "user: Translate.\n\nHaus"]


def test_a_response_that_is_no_text_is_kept_as_json_writes_it_and_marked() -> None:
    odd = votes("pandalm")[3]
    assert odd.first == "true" and isinstance(odd.first, NonText) and not isinstance(odd.second, NonText)


def test_a_null_response_is_rejected_not_invented(tmp_path: Path) -> None:
    (item,) = read(tmp_path, "trl", {"prompt": "p", "chosen": None, "rejected": "r"})
    assert item.reason == "Field 'chosen' is null, expected text."


def test_pandalm_zero_is_a_tie_and_the_input_is_part_of_the_prompt() -> None:
    first = votes("pandalm")[0]
    assert said(first.prompt) == ["user: Shorten the sentence.\n\nIt is in fact raining at the present time."]
    assert [(vote.annotator, vote.choice) for vote in votes("pandalm")[:3]] == [
        ("annotator1", "first"),
        ("annotator2", "first"),
        ("annotator3", "tie"),
    ]


def test_ultrafeedback_takes_the_mean_of_text_ratings_and_never_the_overall_score() -> None:
    one, two, three = votes("ultrafeedback")
    # fir 4.75, oak (1 + 2 + 1) / 3 with overall 10, elm 4.75
    assert (one.first, one.second, one.choice) == ("Blue.", "A colour.", "first")
    assert one.strength == pytest.approx((4.75 - 4 / 3) / 4)
    assert two.choice == "tie" and three.choice == "second"


def test_ultrafeedback_completions_without_any_rating_join_no_pair() -> None:
    assert [item.records for item in items("ultrafeedback") if isinstance(item, Reject)] == [(2,)]


def test_equal_scores_of_a_binarised_set_are_ties_and_scores_against_the_label_are_marked() -> None:
    first, equal, against, plain = votes("binarized")
    assert (first.choice, equal.choice, plain.choice) == ("first", "tie", "first")
    assert (against.choice, against.attributes["label_against_scores"]) == ("first", "true")
    assert (against.of_first["score"], against.of_second["score"]) == ("3.5", "4.0")


def test_distilabel_null_ratings_join_no_pair() -> None:
    assert [(vote.first, vote.second) for vote in votes("distilabel")] == [("Sage.", "Mint."), ("Zinc.", "Stone.")]


def test_mt_bench_turn_one_cuts_the_conversation_after_the_judged_turn() -> None:
    one, two = votes("arena")[1:3]
    assert (said(one.prompt), one.first, one.second) == (["user: Why snow?"], "Cold.", "Frost.")
    assert two.first == "Cold.\n\nHuman: And hail?\n\nAssistant: Updrafts."
    assert (one.annotator_kind, two.annotator_kind) == ("human", "model")


def test_both_bad_is_a_tie_with_an_attribute() -> None:
    assert votes("arena")[3].attributes["both_bad"] == "true"
    assert votes("arena_140k")[1].attributes["both_bad"] == "true"


def test_kaggle_cells_hold_json_lists_with_null_turns() -> None:
    multi, null, _ = votes("arena_55k")
    assert said(multi.prompt) == ["user: Why dew?", "assistant: Cool grass.", "user: And frost?"]
    assert (multi.first, multi.second, null.first) == ("Colder grass.", "Ice.", "")


def test_arena_140k_takes_its_context_from_the_full_conversation() -> None:
    second = votes("arena_140k")[1]
    assert said(second.prompt) == ["user: What is peat?", "assistant: Moss.", "user: Where from?"]
    assert (second.first, second.second) == ("Bogs.", "Fens.")


def test_shp_label_one_means_a_and_zero_means_b() -> None:
    assert [vote.choice for vote in votes("shp")] == ["second", "first"]
    assert votes("shp")[0].attributes["score_ratio"] == "3.33"


def test_helpsteer_negative_strength_means_response_one() -> None:
    first = votes("helpsteer3")[0]
    assert (first.first, first.choice, first.strength) == ("A plant fibre.", "first", 1.0)
    assert [vote.choice for vote in votes("helpsteer3")] == ["first", "first", "tie", "second"]


def test_helpsteer2_ratings_pair_consecutive_rows_and_a_row_alone_is_a_reject() -> None:
    one, tie = votes("helpsteer2")
    assert (one.records, tie.records, tie.choice) == ((1, 2), (3, 4), "tie")
    # 3 * .65 + 3 * .8 + 1 * .45 + 0 * .55 + 1 * .4 over 4 * 2.85
    assert one.strength == pytest.approx(5.2 / 11.4)


def test_helpsteer2_minus_100_is_no_preference() -> None:
    rejected = [item for item in items("helpsteer2_preference") if isinstance(item, Reject)]
    assert rejected[0].reason.startswith("An annotator found neither response valid")


def test_oasst_skips_deleted_and_unranked_replies_and_keeps_the_path_as_prompt() -> None:
    root = votes("oasst")
    assert {text for vote in root for text in (vote.first, vote.second)}.isdisjoint({"Deleted.", "No rank."})
    assert said(root[-1].prompt)[:2] == ["user: How do bees dance?", "assistant: In figures of eight."]
    assert (root[-1].first, root[-1].choice) == ("To show the way.", "second")


def test_alpaca_preferences_between_one_and_two_lean_by_their_distance() -> None:
    hard, soft, draw, zero, human = votes("alpaca_eval")
    assert [hard.strength, soft.strength, draw.strength] == pytest.approx([1.0, 0.8, 0.0])
    assert (zero.choice, zero.annotator, human.annotator_kind) == ("tie", "14", "human")


def test_nectar_rank_one_is_best_and_an_answer_with_human_in_it_stays_whole() -> None:
    one, two, three = votes("nectar")
    assert (one.second, one.choice, three.choice) == ("Human: It rains.", "first", "second")
    assert said(two.prompt) == ["user: Write a line of dialogue."]


def test_webgpt_score_zero_is_a_tie() -> None:
    assert [(vote.choice, vote.strength) for vote in votes("webgpt")] == [("first", 0.5), ("tie", 0.0)]


def test_prism_keeps_what_went_on_apart_from_the_higher_score() -> None:
    one, two, three, four = votes("prism_utterances")
    assert (two.first, two.second, two.choice) == ("It can be both.", "Yes.", "second")
    assert (two.of_first["went_on"], two.of_second["went_on"]) == ("true", "false")
    assert said(four.prompt) == ["user: Is art work?", "assistant: It can be both.", "user: Paid work?"]
    assert (one.records, three.records, four.choice, four.annotator) == ((1, 2), (2, 3), "tie", "user7")


def test_argilla_drafts_are_no_votes_and_suggestions_are_a_models() -> None:
    assert [(vote.annotator, vote.annotator_kind, vote.choice) for vote in votes("argilla")[:3]] == [
        ("u1", "human", "first"),
        ("u3", "human", "tie"),
        ("ash-judge", "model", "first"),
    ]


def test_label_studio_cancelled_annotations_are_no_votes() -> None:
    assert [vote.annotator for vote in votes("label_studio")] == ["4", "ben@example.org", "4", "4"]
    assert votes("label_studio")[3].strength == pytest.approx(0.75)


def test_nemo_rl_rank_zero_is_best() -> None:
    assert [(vote.first, vote.choice) for vote in votes("nemo_rl")] == [("Milk.", "second"), ("Rye.", "first")]


def test_llmfao_blank_outputs_stay_and_judges_are_told_by_the_files_name() -> None:
    tie, left, right, judge = votes("llmfao")
    assert (tie.annotator, left.choice, right.first, judge.annotator) == ("58", "first", "", "gpt4")
    assert (left.annotator_kind, judge.annotator_kind) == ("human", "model")


def test_the_gold_label_is_no_vote_but_an_attribute_that_names_a_side() -> None:
    assert len(votes("ukpconvarg")) == 3
    assert votes("ukpconvarg")[0].sided == {"gold": "first"}
    assert votes("ukpconvarg")[0].at is not None


def test_squality_ranks_decide_and_ratings_give_the_strength() -> None:
    first = votes("squality")[0]
    assert (first.choice, first.annotator) == ("first", "3")
    assert first.strength == pytest.approx(0.3)
    assert said(first.prompt) == ["user: What is the plot?\n\n(Project Gutenberg passage 101)"]


def test_qlora_answers_are_the_generation_where_there_is_one() -> None:
    first = votes("qlora_judge")[0]
    assert (first.first, first.second, first.shown_first) == ("The end of twilight.", "Evening.", "first")
    assert (first.annotator, said(first.prompt)) == ("ash-4", ["user: What is dusk?"])


def test_thumbs_keep_conversations_up_to_the_last_answer() -> None:
    thumbs = [item for item in items("kto") if isinstance(item, BinaryRating)]
    assert [(said(thumb.prompt)[-1], thumb.completion, thumb.label) for thumb in thumbs[2:]] == [
        ("user: Say goodbye.", "Goodbye!", True),
        ("user: Count to two.", "One, two.", True),
    ]


def test_ids_past_two_to_the_53_stay_what_they_were(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    record = '{"prompt": "p", "response_a": "a", "response_b": "b", "winner": "a", "annotator": %s}\n'
    path.write_text(record % "9007199254740993" + record % "123456789012345678901234")
    annotators = [item.annotator for item in READERS["ab_table"].read(path) if isinstance(item, Vote)]
    assert annotators == ["9007199254740993", "123456789012345678901234"]


def test_a_field_that_is_filled_only_late_in_the_file_is_read(tmp_path: Path) -> None:
    record = {"prompt": "p", "response_a": "a", "response_b": "b", "winner": "a", "annotator": None}
    found = read(tmp_path, "ab_table", *[record] * 5000, {**record, "annotator": "mia", "at": "2026-01-01T00:00:00Z"})
    assert [vote.annotator for vote in found[-2:]] == [None, "mia"]


def test_a_winner_given_as_a_bare_number_is_not_guessed(tmp_path: Path) -> None:
    record = {"prompt": "p", "response_a": "a", "response_b": "b"}
    found = read(tmp_path, "ab_table", *({**record, "winner": value} for value in (1, "0", "2", 0.0)))
    assert all("the number" in item.reason for item in found)


def test_null_columns_of_a_wider_table_count_as_absent(tmp_path: Path) -> None:
    record = {"prompt": None, "instruction": "Name a hat.", "chosen": "Cap.", "rejected": "Hat.", "score_chosen": None}
    assert READERS["trl"].detect(record) and not READERS["binarized"].detect(record)
    (vote,) = read(tmp_path, "trl", record)
    assert said(vote.prompt) == ["user: Name a hat."]


def test_trl_prompts_that_are_transcripts_become_turns(tmp_path: Path) -> None:
    prompt = "\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHuman: What floats?\n\nAssistant:"
    (vote,) = read(tmp_path, "trl", {"prompt": prompt, "chosen": " Cork.", "rejected": " Lead."})
    assert said(vote.prompt) == ["user: Hello.", "assistant: Hello!", "user: What floats?"]


@pytest.mark.parametrize("inside", [True, False])
def test_a_system_message_in_the_prompt_or_in_the_answers_only_is_kept(inside: bool, tmp_path: Path) -> None:
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What floats?"}
    cork, lead = ({"role": "assistant", "content": text} for text in ("Cork.", "Lead."))
    context, prompt = ([system, user], [user]) if inside else ([user], [system, user])
    record = {"prompt": prompt, "chosen": [*context, cork], "rejected": [*context, lead]}
    (vote,) = read(tmp_path, "trl", record)
    assert said(vote.prompt) == ["system: Be brief.", "user: What floats?"]
    assert (vote.first, vote.second) == ("Cork.", "Lead.")
