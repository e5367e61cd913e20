"""What a user's mistake looks like: one sentence, at once, with and without Prefect, and nothing kept of it."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpo_data.schema import DataError
from flows import steps
from flows.recipe import load

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample"
CURATION = "curation: {tokenizer: null, embedding_model: null}\n"


def dpo(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "DPO_DEBUG": "", **environment}
    command = [sys.executable, "-m", "flows.cli.app", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=settings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 5_000, "nested too deeply"),
        (b"2020-13-45: x", "month"),
        (b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(8)), "aliases"),
        (b"a: &a [*a]", "aliases"),
        (b"- 1", "found list"),
        (b"just words", "found str"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"a: \x00", "YAML"),
        (b"a: {b", "line 1"),
        (b"x: " + b"1" * 5_000, "YAML"),
        (b"!!python/object/apply:os.getcwd []", "python"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_used_is_one_sentence_with_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        load(path)
    assert str(path) in str(raised.value) and says in str(raised.value) and len(str(raised.value)) < 1_000
    with pytest.raises(DataError, match=r"--set training\.x"):
        load(SAMPLE / "recipe.yaml", ["training.x=" + "[" * 5_000])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{name: x, path: nowhere.jsonl}", "no such file"),
        ("{name: x, path: odd.jsonl}", "no known format"),
        ("{name: x, path: odd.jsonl, format: columns, columns: {nosuch: 1}}", "mapping of columns"),
    ],
)
def test_a_wrong_source_is_reported_before_prefect_starts(tmp_path: Path, source: str, says: str) -> None:
    (tmp_path / "odd.jsonl").write_text('{"k\\u001b[31m\\u001b]0;own\\u0007\\u009b\\u202e": 1}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"sources: [{source}]\n{CURATION}")
    args = ("refresh", "--recipe", str(recipe), "--store", str(tmp_path / "store"))
    under, without = dpo(*args), dpo(*args, "--no-prefect")
    assert under.returncode == without.returncode == 1
    assert says in under.stderr and not (tmp_path / "store" / "prefect").exists()
    assert [line for line in without.stderr.splitlines() if line.startswith("dpo: ")] == under.stderr.splitlines()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]|Traceback", under.stderr + without.stderr)


def test_a_failure_inside_a_flow_is_one_sentence_and_prefect_keeps_no_secret(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"sources: [{{name: x, path: 'nosuch://user:S3CR3T@host/a.jsonl'}}]\n{CURATION}")
    store = tmp_path / "store"
    done = dpo("refresh", "--recipe", str(recipe), "--store", str(store))
    said = [line for line in done.stderr.splitlines() if "refresh …" not in line]
    assert done.returncode == 1 and len(said) == 1 and said[0].startswith("dpo: nosuch://***@host/a.jsonl")
    assert (store / "prefect" / "prefect.db").exists()
    kept = [path for path in store.rglob("*") if path.is_file() and b"S3CR3T" in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError("reset"), True),
        (TimeoutError("late"), True),
        (OSError(errno.EIO, "disk"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (FileNotFoundError("gone"), False),
        (PermissionError("closed"), False),
        (DataError("wrong"), False),
        (KeyError("fault"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    assert steps._can_retry(None, None, SimpleNamespace(data=steps.StageError(error))) is again
    wrapped = DataError("cannot be read")
    wrapped.__cause__ = error
    assert steps._can_retry(None, None, SimpleNamespace(data=steps.StageError(wrapped))) is again


def test_the_page_of_a_schedule_finds_its_server_and_sigterm_ends_it(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"sources: [{{name: studio, path: {SAMPLE / 'studio.csv'}}}]\n{CURATION}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "flows.cli.app",
        "serve",
        "--recipe",
        str(recipe),
        "--store",
        str(tmp_path / "store"),
    ]
    log = tmp_path / "log"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    with log.open("w") as stream:
        server = subprocess.Popen(
            [*command, "--port", str(port)], cwd=ROOT, env=environment, stdout=stream, stderr=stream
        )
    try:
        while server.poll() is None and "trigger" not in log.read_text():
            time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings") as page:
            assert b'"api_url":"/api"' in page.read()
        assert (
            f"PREFECT_API_URL=http://127.0.0.1:{port}/api prefect deployment run 'refresh/scheduled'" in log.read_text()
        )
        time.sleep(3)  # the runner sets its own handler of the signal once its loop runs
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 143
    finally:
        server.kill()
        server.wait()
    assert "Warning" not in log.read_text() and "Traceback" not in log.read_text()


def test_a_port_in_use_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = dpo("serve", "--recipe", str(SAMPLE / "recipe.yaml"), "--store", str(tmp_path), "--port", str(port))
    assert done.returncode == 1 and f"port {port}" in done.stderr and "--port" in done.stderr
