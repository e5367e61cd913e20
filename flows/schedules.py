"""Schedules: refresh on a cron, and train when a refresh published something new.

Needs a Prefect server for as long as it runs; one is started here on the loopback when PREFECT_API_URL names
none. Overlapping refreshes are cancelled instead of queued: the next one finds everything anyway.
"""

import asyncio
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dpo_data.schema import DataError
from flows.environment import prepare
from flows.output import aside

_START_SECONDS = 120  # a first start migrates its database


def serve(recipe: Path, store: Path, cron: str, port: int = 4200) -> int:
    """Serve both flows until interrupted; the exit code, 143 where SIGTERM ended it.

    Raises `DataError` when the recipe is wrong, the port is in use, or no server answers.
    """
    from flows.recipe import load, train_config

    train_config(load(recipe), str(recipe))  # a wrong recipe is reported now and not at five in the morning
    prepare(store)
    with _server(port) as api:
        from prefect.runner import Runner

        runner = Runner(pause_on_shutdown=True)
        for deployment in deployments(recipe.resolve(), store.resolve(), cron):
            runner.add_deployment(deployment)
        for line in started_lines(api, cron):
            aside.print(line, markup=False)
        return _run(runner)


def started_lines(api: str, cron: str) -> list[str]:
    """What is served, where its page is, and the whole command that starts a refresh at once."""
    lines = [f"refresh on cron {cron!r}, train after each new version; stop with Ctrl-C"]
    if api.endswith("/api"):  # Prefect Cloud's page is elsewhere
        lines.append(f"page      {api.removesuffix('/api')}/deployments")
    return [*lines, f"trigger   PREFECT_API_URL={shlex.quote(api)} prefect deployment run 'refresh/scheduled'"]


def _run(runner: Any) -> int:
    """Run until Ctrl-C (0) or SIGTERM (143), both with the same orderly end.

    Prefect's own handler of SIGTERM calls a coroutine from inside the running loop and never awaits it.
    """
    received: list[int] = []

    def terminate(*_: object) -> None:
        received.append(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    runner.handle_sigterm = terminate
    try:
        asyncio.run(runner.start())
    except KeyboardInterrupt:
        aside.print("stopped", markup=False)
    return 143 if received else 0


def deployments(recipe: Path, store: Path, cron: str) -> tuple[Any, Any]:
    """The refresh on its cron, and the training that its event starts, as Prefect deployments."""
    from prefect.events import DeploymentEventTrigger

    from flows.deployments import refresh_on_schedule, train_on_publish

    where = {"recipe": str(recipe), "store": str(store)}
    return (
        refresh_on_schedule.to_deployment(name="scheduled", cron=cron, parameters=where, concurrency_limit=1),
        train_on_publish.to_deployment(
            name="on-publish",
            parameters=where,
            triggers=[
                DeploymentEventTrigger(
                    expect={"dpo.version.published"},
                    parameters={**where, "version": "{{ event.payload.version }}"},
                )
            ],
        ),
    )


def awaited(store: Path) -> dict[str, str]:
    """Versions that a training of this store's own Prefect waits for or works on, each with a word that says so.

    Read from Prefect's database: asking its server would start one. A server elsewhere (PREFECT_API_URL) is not seen.
    """
    database = store / "prefect" / "prefect.db"
    if not database.exists():
        return {}
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as opened:
        rows = opened.execute(
            "select name, json_extract(parameters, '$.version') from flow_run "
            "where state_type in ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')"
        ).fetchall()
    return {str(version): f"scheduled training {name} names it" for name, version in rows if version is not None}


@contextmanager
def _server(port: int) -> Iterator[str]:
    """The address of the API: of the server that PREFECT_API_URL names, or of one that is started on this port."""
    if os.environ.get("PREFECT_API_URL"):
        yield os.environ["PREFECT_API_URL"]
        return
    port = _free(port)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        _wait_for(port, server)
        yield os.environ["PREFECT_API_URL"]
    finally:
        server.terminate()
        server.wait()


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port just left is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DataError(
                f"127.0.0.1 port {port}: {error.strerror}. Choose another with --port (0: any free), or set "
                "PREFECT_API_URL if a Prefect server has it."
            ) from None
        bound: int = probe.getsockname()[1]
    return bound


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise DataError(
        f"The Prefect server on 127.0.0.1:{port} did not answer within {_START_SECONDS} s. "
        "Start one by hand (prefect server start) and set PREFECT_API_URL."
    )
