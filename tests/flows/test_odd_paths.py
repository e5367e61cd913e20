"""A project and a store under paths that would be patterns elsewhere, and what the system refuses in words."""

import ast
import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.refresh_trials import ROOT, SAMPLE
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from flows.cli.app import app
from flows.environment import prepare
from flows.output import failure

ODD = ["br[1]ack", "st*r", "wh?t", "open[", "quote's", "per%20cent #1"]


@pytest.mark.parametrize("name", ODD)
def test_refresh_audit_and_sql_work_under_a_path_with_marks_of_patterns(tmp_path: Path, name: str) -> None:
    for other in ("br1ack", "star", "what", name):  # those that the name would match, were it a pattern
        (tmp_path / other / "raw").mkdir(parents=True)
        content = (SAMPLE / "chats.jsonl").read_bytes() if other == name else b'{"not": "read"}\n'
        (tmp_path / other / "raw" / "chats.jsonl").write_bytes(content)
    project, store = tmp_path / name, tmp_path / name / "store"
    (tmp_path / "bench[1]").mkdir()
    (tmp_path / "bench[1]" / "items.csv").write_text("question\nWhat is asked in this one item of a benchmark?\n")
    recipe = {
        "sources": [{"name": "chats", "path": "raw/*.jsonl"}],
        "curation": {
            "tokenizer": None,
            "embedding_model": None,
            "contamination": {"benchmarks": [str(tmp_path / "bench[1]" / "items.csv")]},
        },
    }
    (project / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    at = ["--store", str(store)]

    def answer(*command: str) -> dict[str, object]:
        done = CliRunner().invoke(app, [*command, *at, "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return dict(json.loads(done.stdout))

    made = answer("refresh", "--recipe", str(project / "recipe.yaml"), "--no-prefect")
    assert made["created"] is True
    assert answer("refresh", "--recipe", str(project / "recipe.yaml"), "--no-prefect")["created"] is False
    assert answer("audit")["version"] == made["version"]
    tables = ("ledger", "votes", "pairs", "comparisons")
    counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in tables)
    [row] = answer("sql", f"SELECT {counts}")["rows"]  # type: ignore[attr-defined]
    assert all(row.values()) and row["ledger"] == row["comparisons"]
    answer("explain", answer("sql", "SELECT comparison_id AS id FROM ledger LIMIT 1")["rows"][0]["id"])  # type: ignore[index]
    answer("diff", "current")
    answer("decide", "--set", "agreement.min_agreement=0.9")
    answer("versions")


def test_the_database_of_prefect_stays_in_a_store_with_a_question_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    prepare(tmp_path / "wh?t")
    address = os.environ["PREFECT_API_DATABASE_CONNECTION_URL"].replace("+aiosqlite", "")
    engine = create_engine(address)
    with engine.connect() as connection:
        connection.execute(text("create table t (x)"))
    engine.dispose()
    assert (tmp_path / "wh?t" / "prefect" / "prefect.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == ["wh?t"]


def test_every_read_of_a_known_file_takes_its_path_as_it_is() -> None:
    """Polars expands a path as a pattern unless it is asked not to."""
    readers = {"scan_parquet", "read_parquet", "scan_csv", "read_csv", "scan_ndjson"}
    calls = []
    for package in ("dpo_data", "flows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in readers:
                    calls.append((f"{path.relative_to(ROOT)}:{node.lineno}", [word.arg for word in node.keywords]))
    assert len(calls) > 20
    assert [place for place, words in calls if "glob" not in words] == []


@pytest.mark.parametrize("more", [["--no-prefect"], []])
def test_a_limit_on_the_size_of_files_is_explained_and_the_rerun_is_whole(tmp_path: Path, more: list[str]) -> None:
    recipe = {
        "sources": [{"name": "chats", "path": str(SAMPLE / "chats.jsonl")}],
        "curation": {"tokenizer": None, "embedding_model": None},
        "executor": {"kind": "inline"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "flows.cli.app", "refresh", "--recipe", str(tmp_path / "recipe.yaml")]
    command += ["--store", str(tmp_path / "store")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "DPO_DEBUG": ""}

    def refresh(limit: int, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more],
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )

    refused = refresh(4096, *more)
    assert refused.returncode == 1
    assert "a file would be larger than this process may write" in refused.stderr and "ulimit -f" in refused.stderr
    assert "Traceback" not in refused.stderr and "fault of the program" not in refused.stderr
    done = refresh(resource.RLIM_INFINITY, "--no-prefect")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("number", "first", "advice"),
    [
        (errno.ENOSPC, "no space is left", "--prune"),
        (errno.EDQUOT, "no space is left", "--prune"),
        (errno.EFBIG, "larger than this process may write", "ulimit -f"),
        (errno.EROFS, "read-only", "--store"),
        (errno.EACCES, "may not read or write", "permissions"),
        (errno.EPERM, "may not read or write", "permissions"),
        (errno.ENOENT, "is not there", "dpo refresh"),
        (errno.EMFILE, "too many files", "executor.workers"),
    ],
)
def test_what_the_system_refuses_is_a_sentence_with_the_place_and_advice(number: int, first: str, advice: str) -> None:
    """Raised by Python, by polars and by pyarrow, which give the number in words only."""
    words = os.strerror(number)
    for error in (
        OSError(number, words, "/store/x"),
        RuntimeError(f"{words} (os error {number}): /store/x"),
        RuntimeError(f"Failed to open /store/x. Detail: [errno {number}] {words}"),
    ):
        lines = failure(error)
        assert len(lines) == 2 and first in lines[0] and "/store/x" in lines[0] and advice in lines[1], lines


def test_an_error_that_the_system_did_not_raise_is_no_refusal() -> None:
    assert failure(KeyError("x"))[0].startswith("a fault of the program")
