"""Schedules: refresh on a cron, and train when a refresh published something new.

Needs a Prefect server for as long as it runs; one is started here on the loopback when PREFECT_API_URL names
none. Overlapping refreshes are cancelled instead of queued: the next one finds everything anyway.
"""

import os
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


def serve(recipe: Path, store: Path, cron: str) -> None:
    """Serve both flows until interrupted; raises `DataError` when the recipe is wrong or no server answers."""
    from flows.recipe import load, train_config

    train_config(load(recipe), str(recipe))  # a wrong recipe is told now and not at five in the morning
    prepare(store)
    with _server():
        from prefect import serve as serve_deployments

        aside.print(f"refresh on cron {cron!r}, train after each new version; stop with Ctrl-C", markup=False)
        serve_deployments(*deployments(recipe.resolve(), store.resolve(), cron))


def deployments(recipe: Path, store: Path, cron: str) -> tuple[Any, Any]:
    """The refresh on its cron, and the training that its event starts, as Prefect deployments."""
    from prefect.events import DeploymentEventTrigger

    from flows.served import refresh_on_schedule, train_on_publish

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
def _server() -> Iterator[None]:
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        _wait_for(port, server)
        yield
    finally:
        server.terminate()
        server.wait()


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
