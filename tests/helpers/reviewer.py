"""A reviewer in a browser: enter, read, judge."""

import re
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from dpo_data.review.app import create_app

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


AT_HOME = "http://127.0.0.1:8765"


def client(store: Path, **more: Any) -> TestClient:
    return TestClient(create_app(store, now=lambda: NOON, **more), base_url=AT_HOME)


def fields(page: str) -> dict[str, str]:
    """The hidden fields of the last form of a page."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: unescape(value) for name, value in found}


def enter(browser: TestClient, name: str, **more: str) -> Any:
    token = fields(browser.get("/").text)["form_token"]
    return browser.post("/enter", data={"form_token": token, "reviewer": name, **more})


def judge(browser: TestClient, queue: str, said: str, **more: str) -> tuple[str, Any]:
    """Read the next comparison of a queue and say a verdict; its id and the page that follows."""
    page = browser.get("/read", params={"q": queue})
    assert page.status_code == 200
    hidden = fields(page.text)
    return hidden["id"], browser.post("/verdict", data={**hidden, "said": said, **more})
