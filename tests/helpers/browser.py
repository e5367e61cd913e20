"""A headless Chromium driven over the DevTools protocol, for the tests that look at pages as a browser does.

Only what is asked of a page here: open it, ask it a question in JavaScript, press keys, and hear of every dialog,
request and complaint. The tests are skipped where there is no Chromium.
"""

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from websockets.sync.client import ClientConnection, connect

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--remote-debugging-port=0"),
)
KEYS = {"Tab": 9, "Enter": 13, "Space": 32, "ArrowDown": 40}

WIDER_THAN_THE_WINDOW = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


class Browser:
    """One tab. `requests`, `dialogs` and `complaints` (console, policy violations, errors) since the last `open`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.number = socket, 0
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.complaints: list[str] = []
        self.loaded = False
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer, hearing events meanwhile."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        mine = self.number
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == mine:
                assert "error" not in message, message
                return dict(message["result"])
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        name, params = message.get("method"), message.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif name == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])
            self.number += 1
            accept = {"id": self.number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            self.socket.send(json.dumps(accept))
        elif name == "Page.loadEventFired":
            self.loaded = True
        elif name in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded"):
            self.complaints.append(json.dumps(params)[:500])

    def wait(self, seconds: float = 30) -> None:
        """Until the page has loaded."""
        until = time.monotonic() + seconds
        while not self.loaded and time.monotonic() < until:
            self.ask("1")
            time.sleep(0.02)
        assert self.loaded

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Go to a page and wait until it has loaded; what was heard before is forgotten."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.requests, self.dialogs, self.complaints, self.loaded = [], [], [], False
        self.call("Page.navigate", url=url)
        self.wait()

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression in the page (the page's own policy does not bind it)."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def press(self, key: str) -> None:
        """One key as a keyboard gives it."""
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r", "Space": " "}.get(key, key if len(key) == 1 else "")
        name = {"Space": " "}.get(key, key)
        kind = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)

    def press_and_wait(self, key: str) -> None:
        """A key that leads to another page."""
        self.loaded = False
        self.press(key)
        self.wait()


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser of its own with `folder` as its profile; skips the test where none is installed."""
    if BINARY is None:
        pytest.skip("no Chromium here")
    process = subprocess.Popen(
        [BINARY, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(folder, process)
        with _tab(port) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _port(folder: Path, process: "subprocess.Popen[bytes]") -> int:
    file = folder / "DevToolsActivePort"
    for _ in range(600):
        assert process.poll() is None, "Chromium ended before it opened its port"
        if file.exists() and file.read_text().strip():
            return int(file.read_text().split()[0])
        time.sleep(0.05)
    raise AssertionError("Chromium opened no port")


def _tab(port: int) -> ClientConnection:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
        tabs = json.load(answer)
    address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return connect(address, max_size=None, open_timeout=20)


@contextmanager
def served(page: Starlette) -> Iterator[str]:
    """The application on a free port of the loopback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        server = uvicorn.Server(uvicorn.Config(page, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
