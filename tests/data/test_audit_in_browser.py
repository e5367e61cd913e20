"""The audit page in a real browser: rendered, read by keyboard, printed, and deaf to what the data would like to do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browser import WIDER_THAN_THE_WINDOW, Browser, chromium
from helpers.hostile import hostile_rows
from helpers.planted_version import config, ledger_of, many, plant_store

from dpo_data.publish import publish_version


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of a corpus in which every text and every name is hostile."""
    store = tmp_path_factory.mktemp("hostile") / "store"
    rows = [*hostile_rows(), *many(20)]
    plant_store(store, rows)
    return publish_version(store, ledger_of(rows), config()).path / "audit.html"


def test_a_page_that_does_run_ask_and_break_a_policy_is_heard_to(browser: Browser, tmp_path: Path) -> None:
    """What the other tests find nothing of can be found: a page with a dialog, a request and a forbidden style."""
    policy = "default-src 'none'; script-src 'unsafe-inline'; img-src http:"
    page = tmp_path / "loud.html"
    page.write_text(
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>p {{ color: red }}</style>'
        '<img src="http://127.0.0.1:9/pixel.png"><script>alert("heard")</script>'
    )
    browser.open(page.as_uri())
    assert browser.dialogs == ["heard"]
    assert "http://127.0.0.1:9/pixel.png" in browser.requests
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_hostile_corpus_opens_no_dialog_asks_for_nothing_and_breaks_no_policy(
    browser: Browser, page: Path, width: int
) -> None:
    browser.open(page.as_uri(), width=width)
    browser.ask("document.querySelectorAll('details').forEach(found => found.open = true)")
    assert browser.ask("document.images.length") >= 3
    assert browser.ask("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert not browser.ask(WIDER_THAN_THE_WINDOW)
    assert browser.dialogs == [] and browser.complaints == []
    assert [address for address in browser.requests if not address.startswith("data:image/svg+xml")] == [page.as_uri()]
    assert browser.ask("document.scripts.length") == 0
    assert "{{ 7 * 7 }}" in browser.ask("document.body.textContent")


def test_the_keyboard_reaches_the_answers_their_sections_and_an_example(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri())
    browser.press("Tab")
    assert browser.ask("document.activeElement.textContent") == "To the answers"
    browser.press("Tab")
    assert browser.ask("document.activeElement.textContent") == "Can I trust these pairs?"
    browser.press("Enter")
    assert browser.ask("location.hash") == "#agreement"
    browser.ask("document.querySelector('summary').focus()")
    browser.press("Enter")
    assert browser.ask("document.querySelector('details').open")
    assert browser.ask("[...document.querySelectorAll('.scroll')].every(part => part.tabIndex === 0)")


def test_print_leaves_out_what_paper_cannot_use(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri())
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert browser.ask("getComputedStyle(document.querySelector('.tiles')).display") != "none"
        assert len(browser.call("Page.printToPDF", displayHeaderFooter=False)["data"]) > 10_000
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_text_stands_out_from_its_ground_in_light_and_dark(browser: Browser, page: Path) -> None:
    """WCAG AA asks for 4.5 : 1; measured on the colours as the browser computes them."""
    contrast = """(() => {
        const light = colour => { const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = light(getComputedStyle(document.body).backgroundColor);
        return ['p', 'a[href="#now"]', '.soft', 'small', 'caption', '.flag'].map(name => document.querySelector(name))
            .filter(found => found).map(found => { const ink = light(getComputedStyle(found).color);
            return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05); });
    })()"""
    for scheme in ("light", "dark"):
        browser.open(page.as_uri())
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert min(browser.ask(contrast)) >= 4.5
    browser.call("Emulation.setEmulatedMedia", features=[])
