"""Ids in raw files: there twice, missing, of an odd kind, in the file itself or in one that is read with it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.format_samples import MESSAGES, SAMPLES
from helpers.read_samples import read

from dpo_data.formats import READERS
from dpo_data.reading.records import NonText, Reject, Vote


def lines(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def reasons(items: list[Any]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Reject)]


def test_a_message_that_is_in_a_flat_export_twice_is_one_reject(tmp_path: Path) -> None:
    turns = [{**turn, "parent_id": parent} for parent, turn in MESSAGES]
    items = read(tmp_path, "oasst_messages", *turns, turns[0], turns[2] | {"text": "Another text."})
    assert reasons(items)[:2] == [
        "The message k1 is in the file twice, first in line 1.",
        "The message k3 is in the file twice, first in line 3.",
    ]
    (vote,) = [item for item in items if isinstance(item, Vote)]
    assert vote.records == (1, 3, 2)


def test_a_prism_utterance_that_is_there_twice_is_one_reject(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (SAMPLES / "prism_utterances" / "utterances.jsonl").read_text().splitlines()]
    once, twice = read(tmp_path, "prism_utterances", *rows), read(tmp_path, "prism_utterances", *rows, *rows)
    assert [item for item in twice if isinstance(item, Vote)] == [item for item in once if not reasons([item])]
    assert reasons(twice).count("The utterance ut00 is in the file twice, first in line 1.") == 1


def test_prism_rows_without_a_conversation_are_no_conversation(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (SAMPLES / "prism_utterances" / "utterances.jsonl").read_text().splitlines()]
    items = read(tmp_path, "prism_utterances", *(row | {"conversation_id": None} for row in rows))
    assert set(reasons(items)) == {"Field 'conversation_id' is null, expected an id."} and len(items) == len(rows)


def test_a_prism_answer_that_is_a_long_number_is_kept_with_its_digits(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (SAMPLES / "prism_utterances" / "utterances.jsonl").read_text().splitlines()]
    items = read(tmp_path, "prism_utterances", rows[0] | {"model_response": 10**29 + 1}, *rows[1:])
    assert items[0].first == str(10**29 + 1) and isinstance(items[0].first, NonText)


def test_two_equal_prism_answers_keep_their_own_went_on(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (SAMPLES / "prism_utterances" / "utterances.jsonl").read_text().splitlines()]
    same = [row | {"model_response": "same", "if_chosen": index == 0} for index, row in enumerate(rows[:2])]
    (vote,) = read(tmp_path, "prism_utterances", *same)
    assert (vote.of_first["went_on"], vote.of_second["went_on"]) == ("true", "false")


def test_a_worker_who_reviews_a_squality_system_twice_is_one_reject(tmp_path: Path) -> None:
    (record,) = [json.loads(x) for x in (SAMPLES / "squality" / "all-responses.jsonl").read_text().splitlines()][:1]
    reviews = next(iter(record["questions"]["0"].values()))["reviews"]
    reviews.append(reviews[0] | {"overall-rank": 99})
    (tmp_path / "questions.jsonl").write_bytes((SAMPLES / "squality" / "questions.jsonl").read_bytes())
    items = list(READERS["squality"].read(lines(tmp_path / "all-responses.jsonl", record)))
    assert len(reasons(items)) == 1 and "reviews fir twice" in reasons(items)[0]


@pytest.mark.parametrize(
    ("ids", "order"), [(["x", "x"], ["x", "y"]), (["x", "y"], ["x", "x"]), (["x", "y"], ["x", "y", "x"])]
)
def test_a_ranking_that_names_an_item_twice_is_one_reject(tmp_path: Path, ids: list[str], order: list[str]) -> None:
    data = {"prompt": "p", "items": [{"id": key, "body": f"text {n}"} for n, key in enumerate(ids)]}
    result = [{"type": "ranker", "value": {"ranker": {"all": order}}}]
    items = read(tmp_path, "label_studio", {"data": data, "annotations": [{"result": result, "completed_by": 1}]})
    assert len(items) == 1 and "twice" in reasons(items)[0]


def test_two_label_studio_ratings_of_one_response_are_one_reject(tmp_path: Path) -> None:
    result = [{"type": "rating", "to_name": f"response_{n}", "value": {"rating": n}} for n in (1, 2, 1)]
    data = {"prompt": "p", "response_1": "a", "response_2": "b"}
    items = read(tmp_path, "label_studio", {"data": data, "annotations": [{"result": result, "completed_by": 1}]})
    assert reasons(items) == ["An annotation rates response_1 twice."] and len(items) == 1


@pytest.mark.parametrize(("users", "who"), [(["u", "u"], "User u rated"), (None, "More than one anonymous user may")])
def test_argilla_ratings_of_one_response_by_one_user_are_one_reject(
    tmp_path: Path, users: list[str] | None, who: str
) -> None:
    record = {"prompt": "p", "response_1": "a", "response_2": "b"}
    record |= {"quality_response_1.responses": [1, 5], "quality_response_2.responses": [2, 3]}
    if users:
        record |= {f"quality_response_{n}.responses.users": users for n in (1, 2)}
    (item,) = read(tmp_path, "argilla", record)
    assert isinstance(item, Reject) and item.reason.startswith(who) and "response_1 twice" in item.reason


@pytest.mark.parametrize("scale", [[5, 1], [3, 3], ["nan", 5]])
def test_a_scale_without_a_width_is_one_reject(tmp_path: Path, scale: list[Any]) -> None:
    responses = [{"text": "a", "rating": 1}, {"text": "b", "rating": 2}]
    (item,) = read(tmp_path, "ratings", {"prompt": "p", "responses": responses, "scale": scale})
    assert isinstance(item, Reject) and "scale" in item.reason


# companions: rows that are broken, missing or there twice cost the records that need them

JUDGED = {"instruction": "i", "response1": "x", "response2": "y"}
ODD_IDS: list[Any] = [[1], {"a": 1}, None, True, ""]


@pytest.mark.parametrize("odd", ODD_IDS)
def test_an_id_that_is_none_costs_the_pandalm_verdicts_that_need_it(tmp_path: Path, odd: Any) -> None:
    pairs = [JUDGED | {"idx": odd}, JUDGED | {"idx": 1}]
    (tmp_path / "testset-v1.json").write_text(json.dumps(pairs))
    verdicts = lines(tmp_path / "j-testset-v1.jsonl", *({"idx": idx, "j_result": "1"} for idx in (0, 1, odd)))
    lost, vote, unread = READERS["pandalm_judge"].read(verdicts)
    assert isinstance(vote, Vote) and isinstance(lost, Reject) and isinstance(unread, Reject)
    assert lost.reason.startswith("Pair 0 is not in testset-v1.json (1 of its records cannot be read, the first in ")
    assert "line 1: Field 'idx' is " in lost.reason and "expected an id" in unread.reason


def test_a_companion_row_that_is_there_twice_counts_where_it_is_equal(tmp_path: Path) -> None:
    pairs = [JUDGED | {"idx": 0}, JUDGED | {"idx": 1}, JUDGED | {"idx": 0}, JUDGED | {"idx": 1, "response1": "z"}]
    (tmp_path / "testset-v1.json").write_text(json.dumps(pairs))
    verdicts = lines(tmp_path / "j-testset-v1.jsonl", *({"idx": idx, "j_result": "1"} for idx in (0, 1)))
    vote, lost = READERS["pandalm_judge"].read(verdicts)
    assert isinstance(vote, Vote) and isinstance(lost, Reject)
    assert lost.reason == "Pair 1: testset-v1.json has it twice with different content, in lines 2 and 4."


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question_number": 1}, "questions.jsonl, line 1: Field 'question_text' is missing"),
        ({"question_number": None, "question_text": "q"}, "Field 'question_number' is null, expected a number"),
        ({"question_number": "x", "question_text": "q"}, "Field 'question_number' is 'x', expected a number"),
        ({"question_number": 1.5, "question_text": "q"}, "is 1.5, expected a whole number"),
        ({"question_number": 1, "question_text": ["q"]}, "Field 'question_text' is a list"),
        ([], "The record is a list"),
    ],
)
def test_a_broken_squality_question_costs_the_passages_that_need_it(tmp_path: Path, row: Any, said: str) -> None:
    record = json.loads((SAMPLES / "squality" / "all-responses.jsonl").read_text().splitlines()[0])
    lines(tmp_path / "questions.jsonl", row | {"passage_id": record["passage-id"]} if row else row)
    items = list(READERS["squality"].read(lines(tmp_path / "all-responses.jsonl", record)))
    assert len(items) == 1 and said in reasons(items)[0]


@pytest.mark.parametrize("name", ["vicuna_questions.jsonl", "generations/fir-7b.jsonl"])
@pytest.mark.parametrize("odd", [*ODD_IDS, "not an object"])
def test_a_broken_row_beside_qlora_costs_the_reviews_that_need_it(tmp_path: Path, name: str, odd: Any) -> None:
    shutil.copytree(SAMPLES / "qlora_judge", tmp_path, dirs_exist_ok=True)
    rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    at = next(index for index, row in enumerate(rows) if row["question_id"] == 1)
    rows[at] = odd if odd == "not an object" else rows[at] | {"question_id": odd}
    lines(tmp_path / name, *rows)
    items = list(READERS["qlora_judge"].read(next(tmp_path.glob("pairwise/*"))))
    numbers = {number for item in items for number in item.records}
    assert numbers == {1, 2, 3} and any(Path(name).name in reason for reason in reasons(items))
