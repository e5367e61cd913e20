"""One bad row never stops a run or a refresh: it is left out, counted, and named."""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers import tiny

from dpo_data.text import token_counts
from dpo_train.config import TrainConfig, TrainError
from dpo_train.plan import estimate
from dpo_train.train import RunSummary, train

settings = partial(tiny.settings, max_steps=1, probe_pairs=4)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + tiny.CHATML
)
MISTRAL = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}" + tiny.CHATML
)
SYSTEM = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Is 3 even?"}]
TWO_USERS = [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}]


def folder_of(place: Path, template: Any) -> Path:
    """A tiny model whose tokenizer has this chat template."""
    model = tiny.model_folder(place / "model")
    (model / "chat_template.jinja").unlink(missing_ok=True)
    tiny.tokenizer(template).save_pretrained(model)
    return model


def rows_of(shards: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every split of a version's shards."""
    files = sorted(shards.glob("*.parquet"))
    splits = {file.name.partition("-")[0] for file in files}
    return {
        split: [row for file in files if file.name.startswith(split) for row in pl.read_parquet(file).to_dicts()]
        for split in sorted(splits)
    }


def version_of(store: Path, bad: list[dict[str, str]], count: int = 1) -> Path:
    """40 training pairs, of which the third and following `count` have the prompt `bad`."""
    rows = {
        "train": [tiny.row(k, **({"prompt": bad} if 3 <= k < 3 + count else {})) for k in range(40)],
        "validation": [tiny.row(k, "validation") for k in range(1000, 1004)],
        "test": [tiny.row(k, "test") for k in range(2000, 2004)],
    }
    return tiny.write_version(store / "versions" / "v", rows)


@pytest.mark.parametrize(("template", "bad"), [(GEMMA, SYSTEM), (MISTRAL, TWO_USERS)], ids=["gemma", "mistral"])
def test_a_row_that_the_template_refuses_is_left_out_and_the_run_goes_on(
    tmp_path: Path, template: str, bad: list[dict[str, str]]
) -> None:
    model, version = folder_of(tmp_path, template), version_of(tmp_path, bad)
    summary: RunSummary = train(settings(model), version, tmp_path / "run")
    assert summary.pairs["train"] == 39
    checked = json.loads((tmp_path / "run" / "preflight.json").read_text())["train"]
    assert checked["dropped"] == {"refused_by_template": 1}
    assert [(row["pairs"], row["ids"]) for row in checked["refused"]] == [(1, ["train-0003"])]
    assert "the chat template refuses 1 pairs (train-0003): TemplateError" in " ".join(summary.notes)
    assert estimate(settings(model), version)["pairs"] == 39


def test_a_message_without_content_is_a_row_left_out(tmp_path: Path) -> None:
    strict = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] + '<|im_end|>' }}{% endfor %}"
    model = folder_of(tmp_path, strict)
    version = version_of(tmp_path, [{"role": "user", "content": None}], count=2)  # type: ignore[dict-item]
    assert train(settings(model), version, tmp_path / "run").pairs["train"] == 38


def test_a_run_of_which_every_row_is_refused_ends_with_the_templates_words(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('this model takes no chat') }}"
    model, version = folder_of(tmp_path, refusing), tiny.version(tmp_path)
    with pytest.raises(TrainError, match=r"no training pair can be used.*this model takes no chat"):
        train(settings(model), version, tmp_path / "run")


def test_single_responses_that_the_template_refuses_are_left_out(tmp_path: Path) -> None:
    model, version = folder_of(tmp_path, GEMMA), tiny.unpaired_version(tmp_path)
    before = train(settings(model, loss={"loss_type": "kto"}), version, tmp_path / "before")
    splits = rows_of(version / "unpaired")
    splits["train"][0]["prompt"] = SYSTEM
    other = tiny.write_version(tmp_path / "versions" / "other", splits, "unpaired")
    after = train(settings(model, loss={"loss_type": "kto"}), other, tmp_path / "after")
    assert after.pairs["train"] == before.pairs["train"] - 1


@pytest.mark.parametrize("loss", ["aot", "aot_unpaired", "sigmoid"])
def test_held_out_splits_of_one_pair_are_evaluated(tmp_path: Path, loss: str) -> None:
    model, version = tiny.model_folder(tmp_path / "model"), tiny.version(tmp_path, validation=1, test=1)
    summary = train(settings(model, loss={"loss_type": loss}), version, tmp_path / "run")
    assert set(summary.metrics) == {"validation", "test"}


LEARNED = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "max_position_embeddings": 256},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 256},
}


@pytest.mark.parametrize("family", LEARNED)
def test_pairs_longer_than_the_learned_positions_are_left_out(tmp_path: Path, family: str) -> None:
    model = tiny.model_folder(tmp_path / "model", family=family, **LEARNED[family])
    answer = [{"role": "assistant", "content": "z" * 300}]
    rows = {
        split: [tiny.row(k, split, **({"rejected": answer} if k % 4 == 0 else {})) for k in range(first, first + count)]
        for split, first, count in (("train", 0, 16), ("validation", 1000, 4))
    }
    version = tiny.write_version(tmp_path / "versions" / "v", rows)
    target = "c_attn" if family == "gpt2" else "q_proj"
    summary = train(settings(model, lora_target_modules=(target,)), version, tmp_path / "run")
    checked = json.loads((tmp_path / "run" / "preflight.json").read_text())
    assert [checked[split]["dropped"] for split in ("train", "validation")] == [
        {"longer_than_the_model": 4},
        {"longer_than_the_model": 1},
    ]
    assert summary.pairs["train"] == 12


def test_pairs_beyond_rotary_positions_train_and_are_counted(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model", max_position_embeddings=64)
    version = tiny.version(tmp_path)
    summary = train(settings(model), version, tmp_path / "run")
    assert "longer than the 64 tokens that the model was made for" in " ".join(summary.notes)
    assert summary.pairs["train"] == 24


def test_token_counts_of_a_refused_prompt_are_null_and_the_rest_unchanged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = tmp_path / "tokenizer"
    tiny.tokenizer(GEMMA).save_pretrained(tokenizer)
    prompts = [[{"role": "user", "content": "Is 2 even?"}], SYSTEM, [{"role": "user", "content": "Is 4 even?"}]]
    rows = pl.DataFrame(
        {"comparison_id": ["a", "b", "c"], "prompt": prompts, "response_a": ["Yes."] * 3, "response_b": ["No way."] * 3}
    )
    counted = token_counts.count(rows, token_counts.load(str(tokenizer)))
    rendered = len("user\nIs 2 even?\nassistant\n") + 3  # one token a byte, and three marks
    assert counted["tokens_prompt"].to_list() == [rendered, None, rendered]
    assert counted["tokens_a"].to_list() == [5, 5, 5]
    batch = tmp_path / "batch"
    batch.mkdir()
    rows.write_parquet(batch / "comparisons.parquet")
    with caplog.at_level(logging.WARNING):
        token_counts.measure_batch(batch, str(tokenizer))
        token_counts.measure_batch(batch, str(tokenizer))  # read again: nothing is counted or reported twice
    assert caplog.text.count("refuses 1 of 3 prompts") == 1


def test_a_template_that_writes_the_date_counts_the_same_on_any_day(tmp_path: Path) -> None:
    asking = "{% set today = strftime_now('%d %B %Y') if strftime_now is defined else '' %}{{ today }}" + tiny.CHATML
    written = "26 July 2024" + tiny.CHATML
    rows = pl.DataFrame(
        {
            "comparison_id": ["a"],
            "prompt": [[{"role": "user", "content": "Which day is it?"}]],
            "response_a": ["Friday."],
            "response_b": ["I do not know."],
        }
    )
    counts = []
    for name, template in (("asking", asking), ("written", written)):
        tiny.tokenizer(template).save_pretrained(tmp_path / name)
        counts.append(token_counts.count(rows, token_counts.load(str(tmp_path / name))))
    assert counts[0].equals(counts[1])
    assert TrainConfig().template_date == token_counts.TEMPLATE_DATE
