"""The review in a real browser: read by keyboard, without a script, and deaf to what the data would like to do."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from helpers.browser import WIDER_THAN_THE_WINDOW, Browser, chromium, served
from helpers.hostile import hostile_rows
from helpers.planted_version import Planted, config, ledger_of, many, plant_store
from helpers.torn_recipe import torn_recipe

from dpo_data.publish import publish_version
from dpo_data.review import queues, verdicts
from dpo_data.review.app import create_app
from dpo_data.store import versions
from flows.refresh import refresh


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def publish(store: Path, rows: list[Planted]) -> Path:
    plant_store(store, rows)
    publish_version(store, ledger_of(rows), config())
    return store


def enter(browser: Browser, address: str, name: str) -> None:
    """Type a name, press Enter: the field has the focus already."""
    browser.open(f"{address}/")
    assert browser.ask("document.activeElement.name") == "reviewer"
    for letter in name:
        browser.press(letter)
    browser.press_and_wait("Enter")
    assert browser.ask("document.querySelector('h1').textContent") == "What to read"


def heading(browser: Browser) -> str:
    return str(browser.ask("document.querySelector('h1').textContent"))


def test_a_queue_is_read_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    store = publish(tmp_path, many(8))
    ids = queues.queue(versions.open_version(store), "kept").ids
    with served(create_app(store)) as address:
        enter(browser, address, "lena")
        browser.open(f"{address}/read?q=kept")
        for key, said in (("1", "first is better"), ("2", "second is better"), ("t", "as good"), ("b", "both bad")):
            browser.press_and_wait(key)
            assert heading(browser) == f"You said: {said}"
            browser.press_and_wait("n")
        assert heading(browser).endswith("5 of 8")
        browser.press_and_wait("p")
        assert heading(browser).endswith("4 of 8")
        browser.press("n")
        assert browser.ask("document.activeElement.name") == "note"
        for letter in "t1":
            browser.press(letter)
        assert browser.ask("document.activeElement.value") == "t1"
        browser.press("Escape")
        browser.press_and_wait("2")
        assert heading(browser) == "You said: second is better"
        browser.press_and_wait("Enter")
        browser.press_and_wait("s")
        assert heading(browser) == "You said: skipped"
    said = verdicts.read(store)
    assert [verdict.comparison_id for verdict in said] == [*ids[:4], ids[3], ids[4]]
    assert said[4].again and said[4].note == "t1" and said[3].choice == "both_bad"


def test_everything_works_without_a_script(browser: Browser, tmp_path: Path) -> None:
    store = publish(tmp_path, many(3))
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        with served(create_app(store)) as address:
            enter(browser, address, "kim")
            browser.open(f"{address}/read?q=kept")
            browser.ask("document.querySelector('button[value=tie]').focus()")
            browser.press_and_wait("Enter")
            assert heading(browser) == "You said: as good"
            assert browser.ask("document.activeElement.textContent").startswith("Next")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    [line] = (store / "reviews" / "kim.jsonl").read_text().splitlines()
    assert json.loads(line)["choice"] == "tie"


def test_a_slice_is_asked_for_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    math = [Planted(f"Sum {i}?", f"Right {i}", f"Wrong {i}", category="math") for i in range(3)]
    with served(create_app(publish(tmp_path, [*many(8), *math]))) as address:
        enter(browser, address, "lena")
        browser.ask("document.querySelector('input[name=q]').focus()")
        for letter in "slice:category=math":
            browser.press(letter)
        browser.press_and_wait("Enter")
        assert heading(browser) == "category = math: 1 of 3"
        assert "Sum" in browser.ask("document.querySelector('.text').textContent")


def test_a_verdict_given_in_the_browser_changes_the_decision_at_the_next_refresh(
    browser: Browser, tmp_path: Path
) -> None:
    """Two annotators, one vote each way: set aside; the reviewer's key decides, and the row is kept."""
    recipe, store = torn_recipe(tmp_path), tmp_path / "store"
    refresh(recipe, store)
    before = versions.open_version(store)
    [torn] = queues.queue(before, "torn").ids
    with served(create_app(store)) as address:
        enter(browser, address, "lena")
        browser.open(f"{address}/read?q=torn")
        shown = browser.ask("document.querySelectorAll('.pair .text')[1].textContent")
        browser.press_and_wait("2")
        assert heading(browser) == "You said: second is better"
    refresh(recipe, store)
    after = versions.open_version(store)
    assert after.id != before.id
    [row] = after.ledger().filter(pl.col("comparison_id") == torn).collect().to_dicts()
    assert row["reasons"] == [] and row["votes"] == 3
    [pair] = after.pairs().filter(pl.col("pair_id") == torn).collect().to_dicts()
    assert pair["chosen"][-1]["content"] == shown


@pytest.mark.parametrize("width", [1280, 390])
def test_a_hostile_corpus_opens_no_dialog_asks_for_nothing_and_breaks_no_policy(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    rows = hostile_rows()[::7] + hostile_rows()[3::7]
    store = publish(tmp_path, rows)
    with served(create_app(store)) as address:
        enter(browser, address, "lena")
        for _ in rows[:10]:
            browser.open(f"{address}/read?q=kept", width=width)
            assert not browser.ask(WIDER_THAN_THE_WINDOW)
            browser.press_and_wait("1")
            assert heading(browser) == "You said: first is better"
            assert not browser.ask(WIDER_THAN_THE_WINDOW)
            assert browser.dialogs == [] and browser.complaints == []
            assert {request.startswith(address) for request in browser.requests} == {True}
        for page in ("/", "/findings", "/read?q=nothing"):
            browser.open(f"{address}{page}", width=width)
            assert not browser.ask(WIDER_THAN_THE_WINDOW)
            assert browser.dialogs == []
