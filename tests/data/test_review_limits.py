"""The review under names at the limit of a file name, floods of requests without a cookie, and many verdicts."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.planted_version import config, ledger_of, many, plant_store
from helpers.reviewer import AT_HOME, NOON, client, enter, fields, judge
from starlette.testclient import TestClient

from dpo_data.publish import publish_version
from dpo_data.review import verdicts
from dpo_data.review.app import create_app
from dpo_data.review.verdict_log import VerdictLog
from dpo_data.review.verdicts import Verdict

TEXT = {"prompt": [], "response_a": "x", "response_b": "y"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = plant_store(tmp_path / "store", many(30))
    publish_version(store, ledger_of(many(30)), config())
    return store


def given(number: int, annotator: str = "kim", version: str = "v", at: str = "2026-01-01") -> Verdict:
    return Verdict(f"{number:032x}", "a", annotator, at, "a", version, "kept", "a", ())


@pytest.mark.parametrize("letter", ["a", "é", "字", "\U00020000"])
@pytest.mark.parametrize("length", [1, 50, 64, 65])
def test_a_name_that_is_let_in_can_give_every_verdict(store: Path, letter: str, length: int) -> None:
    name = letter * length
    fits = length <= 64 and len(name.encode()) <= 200
    with client(store) as browser:
        answer = enter(browser, name)
        assert answer.status_code == (200 if fits else 403)
        if not fits:
            assert "at most 64" in answer.text and not (store / "reviews").exists()
            return
        for said in ("first", "skip"):
            _, after = judge(browser, "kept", said)
            assert after.status_code == 200 and after.url.path == "/story"
    assert [verdict.annotator for verdict in verdicts.read(store)] == [name, name]


def test_requests_without_a_cookie_end_no_reviewers_session(store: Path) -> None:
    served = create_app(store, now=lambda: NOON)
    with TestClient(served, base_url=AT_HOME) as lena, TestClient(served, base_url=AT_HOME) as stranger:
        enter(lena, "lena")
        form = fields(lena.get("/read", params={"q": "kept"}).text)
        first = fields(stranger.get("/").text)["form_token"]
        for _ in range(1100):
            stranger.cookies.clear()
            stranger.get("/")
        after = lena.post("/verdict", data={**form, "said": "first", "note": "kept after the flood"})
        assert after.status_code == 200 and after.url.path == "/story"
        assert stranger.post("/enter", data={"form_token": first, "reviewer": "eve"}).status_code == 403
        lena.post("/leave", data={"form_token": fields(lena.get("/").text)["form_token"]})
        assert lena.get("/read", params={"q": "kept"}).url.path == "/"
    assert [verdict.note for verdict in verdicts.read(store)] == ["kept after the flood"]


def test_the_bytes_read_for_a_verdict_do_not_grow_with_their_number(store: Path) -> None:
    served = create_app(store, now=lambda: NOON)
    log: VerdictLog = served.routes[0].endpoint.__self__.said  # type: ignore[attr-defined]
    with TestClient(served, base_url=AT_HOME) as lena:
        enter(lena, "lena")

        def bytes_of_a_verdict() -> int:
            before = log.bytes_read
            assert judge(lena, "kept", "first")[1].url.path == "/story"
            lena.get("/")
            return log.bytes_read - before

        few = bytes_of_a_verdict()
        path = verdicts.append(store, given(0), TEXT)
        line = {**asdict(given(0)), **TEXT}
        with path.open("a") as file:  # as many as a campaign brings, by another process
            for number in range(1, 5000):
                file.write(json.dumps({**line, "comparison_id": f"{number:032x}"}) + "\n")
        lena.get("/")
        assert log.bytes_read > 1_000_000
        many = [bytes_of_a_verdict() for _ in range(3)]
    assert 0 < few < 2000 and max(many) < 2 * few


def test_the_log_and_the_files_agree_whatever_was_added_and_by_whom(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path)
    assert log.all() == verdicts.read(tmp_path) == [] and log.reviewers() == []
    for number, (who, version, at) in enumerate(
        [("kim", "v", "2"), ("lena", "v", "1"), ("kim", "w", "1"), ("kim", "v", "3"), ("lena", "w", "2")]
    ):
        verdicts.append(tmp_path, given(number % 4, who, version, at), TEXT)
        if number % 2:
            assert log.all() == verdicts.read(tmp_path)
    assert log.all() == verdicts.read(tmp_path) and log.reviewers() == ["kim", "lena"]
    assert {len(own) for own in log.of("kim").values()} == {1} and len(log.of("kim")) == 3
    assert log.of("eve") == {}
    assert log.judged_elsewhere("v") == {given(2).comparison_id, given(0).comparison_id}
    assert log.judged_elsewhere("v") is log.judged_elsewhere("v")
    verdicts.append(tmp_path, given(9, "kim", "w"), TEXT)
    assert given(9).comparison_id in log.judged_elsewhere("v")


def test_the_log_waits_for_the_end_of_a_line_and_follows_a_file_that_shrank(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path)
    path = verdicts.append(tmp_path, given(1), TEXT)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(whole[:40])
    assert len(log.all()) == 1
    with path.open("ab") as file:
        file.write(whole[40:])
    assert len(log.all()) == len(verdicts.read(tmp_path)) == 2
    with path.open("ab") as file:
        file.write(b'null\n[1]\n{"annotator": 3}\n' + whole[:-1])
    assert len(log.all()) == len(verdicts.read(tmp_path)) == 3
    path.write_bytes(whole)
    assert log.all() == verdicts.read(tmp_path) and len(log.all()) == 1
    path.unlink()
    assert log.all() == [] and log.reviewers() == []
