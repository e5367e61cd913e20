"""The published sets beside the project: every count equals facts.json exactly.

The figures are taken from what the readers yield, with the texts as published, which is how facts.json counts
(lengths in code points, words split on white space, `p_longer` over decided rows). PandaLM's six JSON `true` count as
the four characters that JSON writes. Agreement is held to facts.json by the tests of agreement.
"""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dpo_data.formats import READERS
from dpo_data.formats.detect import detect
from dpo_data.ingest.append import append_batch
from dpo_data.ingest.paths import find
from dpo_data.reading.records import BinaryRating, Item, NonText, Reject, Vote
from dpo_data.store.batches import open_batches

pytestmark = pytest.mark.real

# set -> (folder or file, the format it must be recognised as)
SETS = {
    "hh-rlhf-harmless": ("hh-rlhf-harmless", "hh_rlhf"),
    "ukpconvarg1": ("ukpconvarg1", "ukpconvarg"),
    "llmfao": ("llmfao/crowd-comparisons.csv", "llmfao"),
    "pandalm": ("pandalm/testset-v1.json", "pandalm"),
    "qlora-vicuna-gpt4": ("qlora-vicuna-gpt4", "qlora_judge"),
    "squality-human-eval": ("squality-human-eval", "squality"),
    "oasst-en100": ("oasst-en100", "oasst"),
    "llamafactory-dpo_en": ("llamafactory-demo/dpo_en_demo.json", "sharegpt_dpo"),
    "llamafactory-dpo_zh": ("llamafactory-demo/dpo_zh_demo.json", "sharegpt_dpo"),
}


@pytest.fixture(scope="module")
def facts(real_data: Path) -> Any:
    return json.loads((real_data / "facts.json").read_text())


@cache
def items(where: Path) -> tuple[Item, ...]:
    return tuple(item for path in find(where) for item in READERS[detect(path)].read(path))


def votes(where: Path) -> list[Vote]:
    return [item for item in items(where) if isinstance(item, Vote)]


def prompt_of(vote: Vote) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in vote.prompt)


def sizes(ours: list[tuple[str, str]], measure: Any) -> dict[str, Any]:
    gaps = [measure(chosen) - measure(rejected) for chosen, rejected in ours]
    longer = sum(gap > 0 for gap in gaps)
    return {
        "chosen_longer": longer,
        "shorter": sum(gap < 0 for gap in gaps),
        "equal": sum(gap == 0 for gap in gaps),
        "p_longer": round(longer / len(gaps), 4),
    }


def counted(found: tuple[Item, ...]) -> dict[str, Any]:
    """The block `pairs` of facts.json, from what a reader yields."""
    said = [item for item in found if isinstance(item, Vote)]
    decided = [vote for vote in said if vote.choice != "tie"]
    pairs = [(v.first, v.second) if v.choice == "first" else (v.second, v.first) for v in decided]
    texts = Counter((prompt_of(vote), *pair) for vote, pair in zip(decided, pairs, strict=True))
    return {
        "rows": len(found),
        "ties": len(said) - len(decided),
        "no_label": sum(isinstance(item, Reject) for item in found),
        "decided": len(decided),
        "first_wins": sum(vote.choice == "first" for vote in decided),
        "unique_prompts": len({prompt_of(vote) for vote in said}),
        "exact_duplicate_rows_same_direction": sum(times - 1 for times in texts.values()),
        "contradictory_text_pairs": sum((p, r, c) in texts for p, c, r in texts if c < r),
        "identical_responses_rows": sum(vote.first == vote.second for vote in said),
        "chosen_equals_rejected": sum(chosen == rejected for chosen, rejected in pairs),
        "blank_response_rows": sum(not vote.first.strip() or not vote.second.strip() for vote in said),
        "blank_prompt_rows": sum(not any(text.strip() for _, text in prompt_of(vote)) for vote in said),
        "chars": sizes(pairs, len),
        "words": sizes(pairs, lambda text: len(text.split())),
    }


@pytest.mark.parametrize("name", SETS)
def test_the_rows_of_a_set_are_those_of_facts_json(name: str, real_data: Path, facts: Any) -> None:
    folder, format = SETS[name]
    where = real_data / folder
    assert {detect(path) for path in find(where)} == {format}
    expected = facts[name]["pairs"]
    for size in ("chars", "words"):
        expected[size] = {key: expected[size][key] for key in ("chosen_longer", "shorter", "equal", "p_longer")}
    assert counted(items(where)) == expected


@pytest.mark.parametrize("name", ["ukpconvarg1", "llmfao", "pandalm", "squality-human-eval"])
def test_the_labels_and_annotators_of_a_set_are_those_of_facts_json(name: str, real_data: Path, facts: Any) -> None:
    said, expected = votes(real_data / SETS[name][0]), facts[name]["agreement"]
    sides = {"first": "a", "second": "b", "tie": "tie"}
    assert Counter(sides[vote.choice] for vote in said) == expected["label_counts"]
    assert len({vote.annotator for vote in said}) == expected["annotators"]


def test_the_human_turns_of_hh_are_those_of_facts_json(real_data: Path, facts: Any) -> None:
    # Turns of the whole chosen transcript: those of the prompt, and of the response where the pair parts early.
    turns = Counter(
        str(sum(role == "user" for role, _ in prompt_of(vote)) + vote.first.count("\n\nHuman: "))
        for vote in votes(real_data / "hh-rlhf-harmless")
    )
    assert turns == facts["hh-rlhf-harmless"]["human_turns"]


def test_the_four_pairs_of_hh_that_part_early_say_so(real_data: Path) -> None:
    assert sum("diverges" in vote.attributes for vote in votes(real_data / "hh-rlhf-harmless")) == 4


def test_the_model_judges_of_llmfao_said_what_facts_json_says(real_data: Path, facts: Any) -> None:
    sides = {"first": "a", "second": "b", "tie": "tie"}
    for judge in ("gpt3", "gpt4"):
        said = votes(real_data / "llmfao" / f"{judge}-crowd-comparisons.csv")
        assert Counter(sides[vote.choice] for vote in said) == facts["llmfao"][f"{judge}_judge"]["labels"]
        assert {(vote.annotator, vote.annotator_kind) for vote in said} == {(judge, "model")}


def test_the_first_and_last_votes_of_ukpconvarg_are_dated_as_published(real_data: Path, facts: Any) -> None:
    times = [vote.at for vote in votes(real_data / "ukpconvarg1") if vote.at is not None]
    dated = [f"{time:%Y-%m-%d %H:%M:%S}.0 UTC" for time in (min(times), max(times))]
    assert dated == [facts["ukpconvarg1"]["first_vote"], facts["ukpconvarg1"]["last_vote"]]


def test_six_responses_of_pandalm_are_no_text(real_data: Path, facts: Any, tmp_path: Path) -> None:
    where = real_data / "pandalm" / "testset-v1.json"
    odd = {v.records for v in votes(where) if isinstance(v.first, NonText) or isinstance(v.second, NonText)}
    assert len(odd) == facts["pandalm"]["non_string_responses"]
    # The six rows repeat: in the store they are two comparisons, and each names the side that was no text.
    append_batch(tmp_path, [where], "pandalm")
    named = pl.col("attributes").list.eval(pl.element().struct.field("key")).list.contains("non_text_response")
    rows = open_batches(tmp_path).comparisons().filter(named).collect().to_dicts()
    assert len(rows) == 2
    for row in rows:
        side = next(fact["value"] for fact in row["attributes"] if fact["key"] == "non_text_response")
        assert row[f"response_{side}"] == "true"


def test_the_thumbs_of_the_kto_demo_are_those_of_facts_json(real_data: Path, facts: Any, tmp_path: Path) -> None:
    where = real_data / "llamafactory-demo" / "kto_en_demo.json"
    expected = facts["llamafactory-kto_en"]
    thumbs = [item for item in items(where) if isinstance(item, BinaryRating)]
    assert len(thumbs) == expected["rows"]
    assert Counter(str(thumb.label).lower() for thumb in thumbs) == {
        "true": expected["true"],
        "false": expected["false"],
    }
    assert Counter(str(len(thumb.prompt) + 1) for thumb in thumbs) == expected["turn_counts"]
    # One prompt has an opposite pair of thumbs: a comparison; the other 298 stay thumbs.
    found = append_batch(tmp_path, [where], "kto")
    assert (found.voted, found.thumbs, found.comparisons) == (2, 298, 1)


@pytest.mark.parametrize("folder", ["llmfao", "pandalm", "ukpconvarg1", "qlora-vicuna-gpt4", "squality-human-eval"])
def test_a_whole_folder_goes_in_with_its_companions(folder: str, real_data: Path, tmp_path: Path) -> None:
    found = append_batch(tmp_path, find(real_data / folder), folder)
    assert found.records == found.voted + found.rejected and found.thumbs == 0
    assert found.rejected == {"pandalm": 25, "qlora-vicuna-gpt4": 13}.get(folder, 0)


# Comparisons after canonical text and merged sides: the store's own convention, beside that of facts.json (items).
STORED = {"hh-rlhf-harmless": 1177, "pandalm": 863, "llamafactory-dpo_en": 295, "llamafactory-dpo_zh": 289}


@pytest.mark.parametrize("name", STORED)
def test_repeated_comparisons_merge_in_the_store(name: str, real_data: Path, tmp_path: Path) -> None:
    found = append_batch(tmp_path, find(real_data / SETS[name][0]), name)
    assert found.comparisons == STORED[name]
