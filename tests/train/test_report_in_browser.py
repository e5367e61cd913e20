"""The report in a real browser: the explorer re-scores, nothing scrolls sideways, and hostile data stays text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import synthetic_run
from helpers.browser import WIDER_THAN_THE_WINDOW, Browser, chromium
from helpers.hostile_run import hostile_run

from dpo_train.report import page as report

SAID, ROWS = "document.getElementById('said').textContent", "document.querySelectorAll('#list tr').length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(hostile_run(tmp_path_factory.mktemp("hostile") / "run"))


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_data_stays_text_and_nothing_scrolls_sideways(browser: Browser, hostile: Path, width: int) -> None:
    browser.open(hostile.as_uri(), width=width)
    browser.ask("document.querySelectorAll('details').forEach(found => found.open = true)")
    assert browser.ask("document.title").startswith("Margins by slice")
    assert browser.ask("document.documentElement.dataset.ready") == "yes"  # by report.js: the policy lets it run
    assert browser.ask("document.querySelectorAll('iframe, object, base, link').length") == 0
    assert browser.ask("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert not browser.ask(WIDER_THAN_THE_WINDOW)
    assert browser.dialogs == [] and browser.complaints == []
    assert [address for address in browser.requests if not address.startswith("data:image/svg+xml")] == [
        hostile.as_uri()
    ]
    assert "<script>document.title='taken'</script>" in browser.ask("document.body.textContent")
    whole = browser.ask(SAID)
    browser.ask("document.getElementById('level').focus()")
    browser.press("ArrowDown")
    assert browser.ask("document.getElementById('level').value") != "all" and browser.ask(SAID) != whole
    assert browser.dialogs == [] and browser.complaints == []


def test_the_explorer_rescores_filters_and_shows_the_text(browser: Browser, tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", *synthetic_run.tables(prompts=60))
    browser.open(report.write(run).as_uri())

    def move(name: str, value: str, event: str = "input") -> None:
        browser.ask(f"{{ const one = document.getElementById('{name}'); one.value = '{value}';"
                    f" one.dispatchEvent(new Event('{event}')); }}")  # fmt: skip

    def first(cell: int) -> str:
        return str(browser.ask(f"document.querySelector('#list tr').children[{cell}].textContent"))

    start, margin = browser.ask(SAID), float(first(0).replace("−", "-"))
    move("beta", "0.2")
    assert float(first(0).replace("−", "-")) == pytest.approx(2 * margin, abs=0.02)
    assert browser.ask(SAID).split(" · ")[:3] == start.split(" · ")[:3]  # who is right cannot change
    assert browser.ask(SAID) != start  # the loss does
    move("alpha", "0.02")
    assert browser.ask(SAID).split(" · ")[0] != start.split(" · ")[0]
    move("axis", "source", "change")
    move("level", "flipped", "change")
    assert browser.ask(SAID).split(" · ")[0].endswith("of 30") and browser.ask(ROWS) == 30
    browser.ask("document.querySelectorAll('#list tr')[3].click()")
    shown = browser.ask("document.getElementById('text-prompt').textContent")
    assert shown.startswith("Question ") and " · loss " in browser.ask(
        "document.getElementById('text-said').textContent"
    )
    move("beta", "0.1")
    assert browser.ask("document.getElementById('text-prompt').textContent") == shown  # the pair stays
