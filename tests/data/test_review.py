"""The review by HTTP: blind, safe from strangers, and heard at the next refresh."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import polars as pl
import pytest
from helpers.hostile import hostile_rows
from helpers.planted_version import Planted, config, ledger_of, many, plant_store
from helpers.reviewer import AT_HOME, NOON, client, enter, fields, judge
from helpers.torn_recipe import torn_recipe
from starlette.testclient import TestClient

from dpo_data.formats.dpo_review import parse
from dpo_data.publish import publish_version
from dpo_data.review import queues, verdicts
from dpo_data.review.app import create_app
from dpo_data.review.results import findings
from dpo_data.review.verdicts import Verdict
from dpo_data.schema import DataError
from dpo_data.store import versions
from flows.refresh import refresh


def rows() -> list[Planted]:
    """Thirty kept, two torn, ten ties."""
    torn = [
        Planted(f"Torn {i}?", f"One {i}", f"Two {i}", ("contradictory_votes",), votes=2, against=2) for i in range(2)
    ]
    ties = [Planted(f"Tie {i}?", f"Good {i}", f"Bad {i}!!", ("tie",), category="math") for i in range(10)]
    return [*many(30), *torn, *ties]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = plant_store(tmp_path_factory.mktemp("published") / "store", rows())
    publish_version(store, ledger_of(rows()), config())
    return store


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "store"))


@pytest.fixture
def lena(store: Path) -> Iterator[TestClient]:
    with client(store) as browser:
        enter(browser, "lena")
        yield browser


def test_a_comparison_is_shown_blind_and_its_story_only_after_the_verdict(store: Path, lena: TestClient) -> None:
    page = lena.get("/read", params={"q": "torn"})
    shown = page.text
    assert "Torn" in shown and "ann-0" not in shown and "contradictory_votes" not in shown and "planted" not in shown
    found = fields(shown)["id"]
    early = lena.get("/story", params={"q": "torn", "id": found})
    assert early.url.path == "/read"
    _, after = judge(lena, "torn", "first", note="the second is rude")
    assert after.url.path == "/story" and "ann-0" in after.text and "contradictory_votes" in after.text


def test_places_are_a_fair_coin_of_reviewer_and_comparison_and_stay_when_reloaded(lena: TestClient) -> None:
    names = [row.id for row in many(400)]
    first = [verdicts.first_shown("lena", name) for name in names]
    assert 160 < first.count("a") < 240  # 200 expected, sd 10
    assert first != [verdicts.first_shown("kim", name) for name in names]
    assert lena.get("/read", params={"q": "kept"}).text == lena.get("/read", params={"q": "kept"}).text


@pytest.mark.parametrize("said", verdicts.SAID)
def test_every_verdict_is_written_for_the_side_that_was_meant(store: Path, lena: TestClient, said: str) -> None:
    found, _ = judge(lena, "kept", said, note="  why\nnot  ")
    passed = said in verdicts.PASSED
    path = store / "reviews" / ("passed" if passed else "") / "lena.jsonl"
    [record] = [json.loads(line) for line in path.read_text().splitlines()]
    first = verdicts.first_shown("lena", found)
    other = "b" if first == "a" else "a"
    assert record["choice"] == {"first": first, "second": other}.get(said, said)
    assert (record["annotator"], record["shown_first"], record["note"]) == ("lena", first, "why\nnot")
    assert record["at"] == "2026-01-02T12:00:00.000000+00:00"
    if not passed:
        [vote] = parse(record)
        side = {"a": "first", "b": "second"}  # of the record: response_a is its first
        assert vote.choice == side.get(record["choice"], "tie") and vote.shown_first == side[first]
        assert vote.attributes.get("both_bad") == ("true" if said == "both_bad" else None)


def test_a_queue_goes_on_where_it_was_left_and_back_leads_to_the_row_before(store: Path, lena: TestClient) -> None:
    entry = queues.queue(versions.open_version(store), "kept")
    done = [judge(lena, "kept", "first")[0] for _ in range(3)]
    assert done == list(entry.ids[:3])
    with client(store) as later:
        enter(later, "lena")
        page = later.get("/read", params={"q": "kept"}).text
        assert "4 of 30" in page and fields(page)["id"] == entry.ids[3]
        back = unescape(re.search(r'data-key="p" href="([^"]+)"', page)[1])  # type: ignore[index]
        earlier = later.get(back).text
        assert fields(earlier)["id"] == entry.ids[2] and "You have judged this one before" in earlier
    with client(store) as other:
        enter(other, "kim")
        assert fields(other.get("/read", params={"q": "kept"}).text)["id"] == entry.ids[0]


def test_a_queue_that_is_read_says_so(lena: TestClient) -> None:
    for said in ("first", "skip"):
        judge(lena, "torn", said)
    assert "You have read all 2 rows" in lena.get("/read", params={"q": "torn"}).text


def test_queues_hold_what_they_say(store: Path) -> None:
    version = versions.open_version(store)
    known = {entry.name: entry for entry in queues.standard(version)}
    assert len(known["torn"].ids) == 2 and len(known["reason:tie"].ids) == 10 and known["kept"].of == 30
    assert set(queues.queue(version, "slice:category=math").ids) == {row.id for row in rows() if row.category == "math"}
    assert "79 % and 96 %" in queues.can_show(50, 51)
    judged = known["kept"].ids[0]
    assert judged not in queues.queue(version, "kept", {judged}).ids
    for wrong in ("nothing", "reason:nothing", "slice:votes=3", "slice:category=none", "run:none", "slice:category"):
        with pytest.raises(DataError):
            queues.queue(version, wrong)


def test_the_worst_margins_of_a_run_come_first(store: Path) -> None:
    kept = [row.id for row in many(3)]
    log = pl.DataFrame({"pair_id": kept * 2, "step": [0] * 3 + [5] * 3, "margin": [9.0, -9.0, 0.0, 0.3, 0.2, -0.4]})
    (store / "runs" / "abc").mkdir(parents=True)
    log.write_parquet(store / "runs" / "abc" / "pair_log.parquet")
    found = queues.queue(versions.open_version(store), "run:abc")
    assert found.ids == (kept[2], kept[1], kept[0])  # by step 5: -0.4, 0.2, 0.3


def test_a_run_that_logged_nothing_of_the_version_says_so(store: Path) -> None:
    (store / "runs" / "abc").mkdir(parents=True)
    log = pl.DataFrame({"pair_id": ["0" * 32], "step": [5], "margin": [0.1]})
    log.write_parquet(store / "runs" / "abc" / "pair_log.parquet")
    with pytest.raises(DataError, match="logged no pair of version"):
        queues.queue(versions.open_version(store), "run:abc")


def said_of(row: str, queue: str, choice: str, preferred: str | None, version: str, **more: Any) -> Verdict:
    return Verdict(row, choice, more.pop("by", "lena"), NOON.isoformat(), "a", version, queue, preferred, (), **more)


def test_precision_and_false_drops_are_those_of_the_random_samples(store: Path) -> None:
    version = versions.open_version(store)
    text = {"prompt": [], "response_a": "x", "response_b": "y"}
    kept, tie = (queues.queue(version, name) for name in ("kept", "reason:tie"))
    preferred = dict(version.ledger().select("comparison_id", "preferred").collect().iter_rows())
    other = {"a": "b", "b": "a"}
    for place, name in enumerate(kept.ids[:10]):  # 8 agree, 1 the other side, 1 tie
        choice = preferred[name] if place < 8 else other[preferred[name]] if place == 8 else "tie"
        verdicts.append(store, said_of(name, "kept", choice, preferred[name], version.id), text)
    verdicts.append(store, said_of(kept.ids[20], "kept", "a", "b", version.id), text)  # met out of turn: not counted
    for place, name in enumerate(tie.ids[:4]):  # one clear preference of three votes, one pass
        choice = ("a", "tie", "both_bad", "skip")[place]
        verdicts.append(store, said_of(name, "reason:tie", choice, None, version.id), text)
    found = findings(store, version)
    assert {name: found["kept"][name] for name in ("read", "verdicts", "agree", "contrary", "neither")} == {
        **{"read": 10, "verdicts": 10, "agree": 8, "contrary": 1, "neither": 1},
    }
    assert (found["kept"]["share"], round(found["kept"]["low"], 3), round(found["kept"]["high"], 3)) == (
        0.8,
        0.49,
        0.943,
    )
    verdicts.append(store, said_of(kept.ids[25], "kept", "a", "a", "older"), text)
    assert findings(store, version)["elsewhere"] == [{"version": "older", "verdicts": 1}]
    [drops] = found["reasons"]
    assert (drops["reason"], drops["verdicts"], drops["passed"], drops["share"]) == ("tie", 3, 1, pytest.approx(1 / 3))


def test_second_thoughts_count_as_votes_but_not_as_findings(store: Path, lena: TestClient) -> None:
    found, _ = judge(lena, "kept", "first")
    hidden = fields(lena.get("/read", params={"q": "kept", "id": found}).text)
    lena.post("/verdict", data={**hidden, "said": "second"})
    first, second = verdicts.read(store)
    assert (first.again, second.again) == (False, True) and first.choice != second.choice
    [reviewer] = findings(store, versions.open_version(store))["reviewers"]
    assert reviewer["verdicts"] == 1


def test_two_reviewers_are_held_against_one_another(store: Path) -> None:
    version, text = versions.open_version(store), {"prompt": [], "response_a": "x", "response_b": "y"}
    names = queues.queue(version, "kept").ids[:4]
    for by, choices in (("kim", "aabb"), ("lena", "aaba")):
        for name, choice in zip(names, choices, strict=True):
            verdicts.append(store, said_of(name, "kept", choice, "a", version.id, by=by), text)
    found = findings(store, version)
    [pair] = found["agreement"]
    assert (pair["one"], pair["other"], pair["both"], pair["same"], pair["share"]) == ("kim", "lena", 4, 3, 0.75)
    assert (round(pair["low"], 3), round(pair["high"], 3)) == (0.301, 0.954)  # Wilson's interval of 3 of 4
    # Side a stood first on every page: kim chose the first place twice of four times, lena thrice.
    assert [(row["reviewer"], row["decided"], row["share"]) for row in found["reviewers"]] == [
        ("kim", 4, 0.5),
        ("lena", 4, 0.75),
    ]
    with client(store) as browser:
        enter(browser, "kim")
        assert "kim and lena say the same on 3 of 4 comparisons" in browser.get("/findings").text


def test_a_line_that_a_crash_cut_off_spoils_no_other(store: Path) -> None:
    text = {"prompt": [], "response_a": "x", "response_b": "y"}
    path = verdicts.append(store, said_of("1", "kept", "a", "a", "v"), text)
    with path.open("a") as file:
        file.write('{"comparison_id": "2", "cho')
    verdicts.append(store, said_of("3", "kept", "b", "a", "v"), text)
    assert [verdict.comparison_id for verdict in verdicts.read(store)] == ["1", "3"]


@pytest.mark.parametrize("name", ["", "../../etc/x", "a/b", ".hidden", "a b", "x" * 65, "n\n", "<b>"])
def test_a_name_that_is_no_file_is_refused_with_a_sentence(store: Path, name: str) -> None:
    with client(store) as browser:
        assert enter(browser, name).status_code == (403 if name.strip() != "n" else 200)
    assert not (store / "reviews").exists()


def test_forms_from_elsewhere_hosts_from_elsewhere_and_huge_forms_are_refused(store: Path, lena: TestClient) -> None:
    hidden = fields(lena.get("/read", params={"q": "kept"}).text)
    forged = {**hidden, "form_token": "x", "said": "first"}
    assert lena.post("/verdict", data=forged).status_code == 403
    assert lena.post("/verdict", data={**hidden, "said": "first", "note": "n" * 100_000}).status_code == 413
    assert lena.post("/verdict", data={**hidden, "said": "everything"}).status_code == 400
    assert lena.post("/verdict", data={**hidden, "id": "0" * 32, "said": "first"}).status_code == 400
    assert lena.get("/verdict").status_code == 405
    for host in ("evil.invalid", "evil.invalid:8765", "127.0.0.1.evil.invalid", ""):
        assert lena.get("/", headers={"Host": host}).status_code == 421
    assert lena.get("/", headers={"Host": "localhost:1"}).status_code == 200
    assert verdicts.read(store) == []
    with client(store) as stranger:
        assert stranger.get("/read", params={"q": "kept"}).url.path == "/"
        assert stranger.post("/verdict", data={**hidden, "said": "first"}).status_code == 403


def test_every_answer_carries_the_policy_and_no_origin_is_let_in(lena: TestClient) -> None:
    for address in ("/", "/findings", "/read?q=kept", "/read?q=nothing", "/nowhere"):
        answer = lena.get(address, headers={"Origin": "http://evil.invalid"})
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY" and answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    [cookie] = lena.cookies.jar
    assert cookie.has_nonstandard_attr("HttpOnly") and cookie.get_nonstandard_attr("SameSite") == "strict"


def test_beyond_the_loopback_a_token_is_demanded_and_asked_for(store: Path) -> None:
    with pytest.raises(DataError, match="needs --token"):
        create_app(store, host="0.0.0.0")
    with pytest.raises(DataError, match="at least 16"):
        create_app(store, host="0.0.0.0", token="short")
    secret = "correct horse battery"
    with TestClient(create_app(store, host="0.0.0.0", token=secret), base_url="http://192.0.2.7:8765") as browser:
        assert enter(browser, "lena").status_code == 403
        assert enter(browser, "lena", token="wrong horse battery").status_code == 403
        assert browser.get("/read", params={"q": "kept"}).url.path == "/"
        assert enter(browser, "lena", token=secret).status_code == 200
        assert browser.get("/read", params={"q": "kept"}).url.path == "/read"
        assert browser.get("/", headers={"Host": "rebound.invalid"}).status_code == 421


def test_markup_of_the_data_is_text_of_every_page(tmp_path: Path) -> None:
    plant_store(tmp_path, hostile_rows())
    publish_version(tmp_path, ledger_of(hostile_rows()), config())
    with client(tmp_path) as browser:
        enter(browser, "lena")
        for _ in range(12):
            page = browser.get("/read", params={"q": "kept"}).text
            _, story = judge(browser, "kept", "first", note="<script>alert(1)</script>")
            for text in (page, story.text):
                assert len(re.findall("<script", text)) == 1 and not re.search(r"<[^>]*\son\w+=", text)
                assert not set(re.findall(r"<([a-zA-Z]+)", text)) & {"iframe", "img", "svg", "object", "base", "link"}
                assert "\x1b" not in text and "\u202e" not in text


def test_a_verdict_changes_the_decision_at_the_next_refresh_and_a_second_one_turns_it(tmp_path: Path) -> None:
    """Two annotators, one vote each way: set aside. A reviewer decides, and the row is kept; again, and it turns."""
    loaded, store = torn_recipe(tmp_path), tmp_path / "store"
    before = refresh(loaded, store)
    [torn] = queues.queue(versions.open_version(store), "torn").ids
    with client(store) as browser:
        enter(browser, "lena")
        found, _ = judge(browser, "torn", "first")
    assert found == torn
    chosen = verdicts.first_shown("lena", torn)
    after = refresh(loaded, store)
    assert after["created"] and after["version"] != before["version"]
    assert [batch["source"] for batch in after["ingested"]] == ["studio", "reviews"]

    def row() -> dict[str, Any]:
        return versions.open_version(store).ledger().filter(pl.col("comparison_id") == torn).collect().to_dicts()[0]

    decided = row()
    assert decided["reasons"] == [] and decided["preferred"] == chosen and decided["votes"] == 3
    assert decided["source"] == "studio"
    again = refresh(loaded, store)
    assert not again["created"] and again["version"] == after["version"]
    with TestClient(create_app(store, now=lambda: datetime(2026, 1, 3, tzinfo=UTC)), base_url=AT_HOME) as browser:
        enter(browser, "lena")
        query = {"q": "contradictions", "id": torn}
        hidden = fields(browser.get("/read", params=query).text)
        browser.post("/verdict", data={**hidden, "said": "second"})
    refresh(loaded, store)
    decided = row()
    assert decided["preferred"] == ("b" if chosen == "a" else "a") and decided["votes"] == 3


def dpo(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli.app", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)


def test_the_command_serves_until_it_is_stopped_and_refuses_an_open_door(store: Path) -> None:
    refused = dpo("review", "--store", str(store), "--host", "0.0.0.0")
    assert refused.returncode == 1 and "needs --token" in refused.stderr and "Traceback" not in refused.stderr
    command = [sys.executable, "-m", "flows.cli.app", "review", "--store", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        assert server.stdout is not None
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]  # type: ignore[index]
            with urlopen(address, timeout=30) as page:
                assert "Who is reading?" in page.read().decode()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)


def test_the_findings_and_an_export_are_a_command_away(store: Path, lena: TestClient, tmp_path: Path) -> None:
    judge(lena, "kept", "tie")
    told = dpo("review", "--store", str(store), "--findings", "--json")
    assert json.loads(told.stdout)["kept"]["neither"] == 1
    assert "right in 0.0 %" in dpo("review", "--store", str(store), "--findings").stdout
    out = tmp_path / "ties.jsonl"
    done = dpo("export", str(out), "--store", str(store), "--where", "list_contains(reasons, 'tie')", "--json")
    assert json.loads(done.stdout)["comparisons"] == 10 == len(out.read_text().splitlines())
    wrong = dpo("export", str(out), "--store", str(store), "--format", "xls")
    assert wrong.returncode == 1 and "label_studio" in wrong.stderr
