"""Tokens of a pair: where the response begins, what ends it, and what is dropped for which reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny

from dpo_train.config import TrainError
from dpo_train.data.encoding import Encoded, Encoder, tokenizer_fingerprint
from dpo_train.data.pairs import open_pairs
from dpo_train.data.preflight import preflight, sentences


def encode(chosen: str, rejected: str, prompt: str = "Hi", template: str = tiny.CHATML, **changes: Any) -> Encoded:
    encoder = Encoder(tiny.tokenizer(template), **{"max_length": 200, "truncation_mode": "drop", **changes})
    messages = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
    return encoder.encode([[{"role": "user", "content": prompt}]], [messages[0]], [messages[1]])[0]


def text(ids: Any) -> str:
    return str(tiny.tokenizer().decode(ids))


def test_the_prompt_ends_with_the_assistants_header_and_the_response_with_its_end_of_turn() -> None:
    found = encode("Yes.", "No.")
    assert text(found.pair.prompt) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert text(found.pair.chosen) == "Yes.<|im_end|>"  # and not the newline that the template writes behind it
    assert text(found.pair.rejected) == "No.<|im_end|>"
    assert found.end_chosen and found.end_rejected and not found.merged_boundary and found.reason is None


def test_no_special_token_is_written_twice() -> None:
    prompt = encode("Yes.", "No.").pair.prompt
    assert list(prompt).count(256) == 2  # one <|im_start|> a turn, none of the tokenizer's own in front


def test_a_prompt_whose_rendering_differs_inside_the_conversation_is_split_at_the_common_tokens() -> None:
    thinking = tiny.CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>{% endif %}")
    found = encode("Yes.", "No.", template=thinking)
    assert found.merged_boundary
    assert text(found.pair.prompt).endswith("assistant\n")
    assert text(found.pair.chosen) == "Yes.<|im_end|>"


def test_words_of_an_end_of_turn_inside_the_answer_do_not_cut_it() -> None:
    found = encode("a<|im_end|>b", "No.")
    assert text(found.pair.chosen) == "a<|im_end|>b<|im_end|>"


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "reason"),
    [
        ("x" * 300, "No.", "Hi", "chosen_too_long"),
        ("Yes.", "x" * 300, "Hi", "rejected_too_long"),
        ("x" * 300, "y" * 300, "Hi", "both_too_long"),
        ("Yes.", "No.", "x" * 300, "prompt_too_long"),
        ("Same.", "Same.", "Hi", "identical_after_truncation"),
    ],
)
def test_what_cannot_train_is_named(chosen: str, rejected: str, prompt: str, reason: str) -> None:
    assert encode(chosen, rejected, prompt).reason == reason


def test_keep_start_cuts_counts_the_tokens_and_forges_no_end() -> None:
    found = encode("x" * 300, "No.", truncation_mode="keep_start")
    assert found.reason is None
    assert len(found.pair.prompt) + len(found.pair.chosen) == 200
    assert found.cut_chosen == 301 - len(found.pair.chosen)
    assert found.cut_rejected == 0
    assert not found.end_chosen and found.end_rejected


def test_answers_that_differ_only_behind_the_cut_are_identical() -> None:
    found = encode("x" * 300 + "a", "x" * 300 + "b", truncation_mode="keep_start")
    assert found.reason == "identical_after_truncation"


def test_a_pair_that_the_template_refuses_is_left_out_with_its_words() -> None:
    strict = "{% if messages[0]['role'] == 'user' %}{{ raise_exception('no users here') }}{% endif %}"
    found = encode("a", "b", template=strict)
    assert found.reason == "refused_by_template" and "no users here" in found.refusal
    assert found.pair == ((), (), ())


def test_another_template_is_another_fingerprint() -> None:
    assert tokenizer_fingerprint(tiny.tokenizer()) == tokenizer_fingerprint(tiny.tokenizer())
    assert tokenizer_fingerprint(tiny.tokenizer()) != tokenizer_fingerprint(tiny.tokenizer(tiny.CHATML + " "))


def test_pre_flight_counts_every_pair_once(tmp_path: Path) -> None:
    long = [{"role": "assistant", "content": "x" * 900}]
    rows = [
        tiny.row(0),
        tiny.row(1, chosen=long),
        tiny.row(2, rejected=long),
        tiny.row(3, chosen=tiny.row(3)["rejected"]),
    ]
    version = tiny.write_version(tmp_path / "versions" / "v", {"train": rows})
    pairs = open_pairs(version, "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "cache")
    told = preflight([pairs])["train"]
    assert (told["pairs"], told["kept"]) == (4, 1)
    assert told["dropped"] == {"chosen_too_long": 1, "identical_after_truncation": 1, "rejected_too_long": 1}
    assert pairs.pair_ids == ["train-0000"]
    assert pairs.metadata([0])["chosen"].to_pylist() == ["Yes, 0."]


def test_pre_flight_says_which_side_and_which_slice_a_cut_takes_from(tmp_path: Path) -> None:
    long = [{"role": "assistant", "content": "x" * 900}]
    # every third row is of category "code": there rejected answers are long, and one chosen
    rows = [tiny.row(k, **({"rejected": long} if k % 3 == 2 else {})) for k in range(30)]
    rows[2] |= {"chosen": [{"role": "assistant", "content": "y" * 900}]}
    version = tiny.write_version(tmp_path / "v", {"train": rows})
    told = {}
    for mode in ("drop", "keep_start"):
        pairs = open_pairs(version, "train", Encoder(tiny.tokenizer(), 400, mode), tmp_path / "cache")
        told[mode] = preflight([pairs])
    cut = told["keep_start"]["train"]
    assert cut["cut"] == {"chosen": 1, "rejected": 10} == cut["without_end_of_turn"]
    worst = {"axis": "category", "slice": "code", "pairs": 10, "dropped": 0, "cut_chosen": 1, "cut_rejected": 10}
    assert cut["slices"][0] == worst
    (said,) = sentences(told["keep_start"], 400)
    assert "chosen 1, rejected 10 responses are cut" in said and "most in category = code (10 of 10)" in said
    (said,) = sentences(told["drop"], 400)
    assert "10 of 30 pairs are left out (both too long 1, rejected too long 9)" in said
    assert "most in category = code (10 of 10)" in said


def test_pre_flight_names_a_pair_whose_border_a_token_spans_and_is_silent_about_a_sound_set(tmp_path: Path) -> None:
    thinking = tiny.CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>{% endif %}")
    version = tiny.version(tmp_path)
    for template, count in ((tiny.CHATML, 0), (thinking, 1)):
        encoder = Encoder(tiny.tokenizer(template), 400, "drop")
        said = sentences(preflight([open_pairs(version, "train", encoder, tmp_path / "cache")]), 400)
        assert len(said) == count
    assert "in 24 of 24 pairs a token spans the border" in said[0] and "(pair train-0000)" in said[0]


def test_tokens_are_made_once_for_the_same_shards_and_settings(tmp_path: Path) -> None:
    version = tiny.version(tmp_path)
    cache = tmp_path / "cache"
    encoder = Encoder(tiny.tokenizer(), 400, "drop")
    first = open_pairs(version, "train", encoder, cache)
    again = open_pairs(version, "train", encoder, cache)
    assert len(list((cache / "tokens").glob("*.arrow"))) == 1
    assert first.encoded(range(24)) == again.encoded(range(24))
    open_pairs(version, "train", Encoder(tiny.tokenizer(), 300, "drop"), cache)
    assert len(list((cache / "tokens").glob("*.arrow"))) == 2


def test_a_probe_is_the_same_for_the_same_pairs_and_spread_over_sources(tmp_path: Path) -> None:
    pairs = open_pairs(tiny.version(tmp_path), "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "cache")
    probe = pairs.probe(8)
    assert np.array_equal(probe, pairs.probe(8))
    assert sorted(pairs.metadata(probe.tolist())["source"].to_pylist()) == ["forum"] * 4 + ["judged"] * 4


def test_shards_without_a_needed_column_are_refused_by_name(tmp_path: Path) -> None:
    row = tiny.row(0)
    del row["rejected"]
    version = tiny.write_version(tmp_path / "v", {"train": [row]})
    with pytest.raises(TrainError, match="column rejected missing"):
        open_pairs(version, "train", Encoder(tiny.tokenizer(), 400, "drop"), tmp_path / "cache")
