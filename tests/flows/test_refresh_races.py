"""Refreshes of one store at the same time, some of them killed: one version, that of a store that nobody disturbed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import refresh_trials
from helpers.refresh_trials import SAMPLE, begin, begin_aimed, cut, fresh, kill_holder, problems, recipe_file

from dpo_data.ingest import staging
from dpo_data.text import repair
from flows.cli.text import refresh_lines
from flows.recipe import load
from flows.refresh import refresh
from flows.steps import prefect_step

OTHERS = {"chats": SAMPLE / "chats.jsonl", "forum": SAMPLE / "forum.jsonl", "judged": SAMPLE / "judged.jsonl"}

KINDS = ("inline", "processes")
COUNTED = "from flows.cli.app import app\napp(standalone_mode=False)\nprint(seen, file=sys.stderr)"


@pytest.fixture(autouse=True)
def project_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(refresh_trials.ROOT))


@pytest.mark.parametrize("count", [2, 8])
def test_refreshes_of_the_same_source_at_once_give_one_version(tmp_path: Path, count: int) -> None:
    """The second one has worker processes, which other processes' temporary files could disturb too."""
    cut(tmp_path / "votes", 2)
    recipes = [recipe_file(tmp_path / f"{kind}.yaml", {"votes": tmp_path / "votes"}, kind) for kind in KINDS]
    expected = fresh(recipes[0], tmp_path / "fresh")
    store = tmp_path / "store"
    running = [begin(recipes[number == 1], store) for number in range(count)]
    assert list(problems(store, recipes[0], expected, running)) == []


@pytest.mark.parametrize("kill", [False, True])
def test_refreshes_of_other_sources_at_once_end_in_one_version(tmp_path: Path, kill: bool) -> None:
    whole = recipe_file(tmp_path / "whole.yaml", OTHERS)
    expected = fresh(whole, tmp_path / "fresh")
    store = tmp_path / "store"
    recipes = [recipe_file(tmp_path / f"{name}.yaml", {name: path}) for name, path in OTHERS.items()]
    running = [begin(recipe, store) for recipe in (*recipes, whole)]
    killed = [kill_holder(store, running)] if kill else []
    assert list(problems(store, whole, expected, running, killed)) == []


def changes_of_a_refresh(tmp_path: Path, recipe: Path) -> int:
    """How many changes of files one refresh makes."""
    counting = textwrap.dedent(refresh_trials.AIMED).replace("from flows.cli.app import main\nmain()", COUNTED)
    arguments = ["refresh", "--recipe", str(recipe), "--store", str(tmp_path / "counted"), "--no-prefect"]
    command = [sys.executable, "-c", counting, str(tmp_path / "counted"), "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=refresh_trials.ROOT)
    return int(done.stderr.splitlines()[-1])


def test_a_refresh_killed_before_a_change_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "recipe.yaml", {"chats": SAMPLE / "chats.jsonl"})
    expected = fresh(recipe, tmp_path / "fresh")
    changes = changes_of_a_refresh(tmp_path, recipe)
    assert changes > 20
    for change in (3, 5, changes // 2, changes - 3):
        store = tmp_path / str(change)
        died = begin_aimed(recipe, store, change)
        assert list(problems(store, recipe, expected, [died], [died])) == []


def test_a_version_that_a_killed_refresh_wrote_is_announced_by_the_rerun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load(recipe_file(tmp_path / "recipe.yaml", {"chats": SAMPLE / "chats.jsonl"}))
    store = tmp_path / "store"
    first = refresh(recipe, store)
    (store / "current.json").unlink()  # as if killed between the version's rename and the pointer's
    sent: list[dict[str, str]] = []
    monkeypatch.setattr("prefect.task", lambda work, **_: work)  # Prefect itself would need half a minute
    monkeypatch.setattr("prefect.artifacts.create_table_artifact", lambda **_: None)
    monkeypatch.setattr("prefect.artifacts.create_link_artifact", lambda **_: None)
    monkeypatch.setattr("prefect.events.emit_event", lambda payload, **_: sent.append(payload))
    again: Any = refresh(recipe, store, prefect_step)
    assert (again["created"], again["became_current"]) == (False, True)
    assert sent == [{"version": first["version"]}]
    shown = "\n".join(refresh_lines(again))
    assert "now current" in shown and "(up to date)" not in shown
    assert refresh(recipe, store, prefect_step)["became_current"] is False
    assert len(sent) == 1


def test_litter_of_killed_processes_goes_also_when_no_file_is_new(tmp_path: Path) -> None:
    recipe = load(recipe_file(tmp_path / "recipe.yaml", {"chats": SAMPLE / "chats.jsonl"}))
    store = tmp_path / "store"
    refresh(recipe, store)
    batch = next((store / "batches").glob("[0-9]*"))
    left = [
        store / "batches" / ".incoming-abc" / "part-000000.comparisons.parquet",  # killed before its .alive, once
        store / "batches" / ".incoming-def.alive",
        store / "batches" / ".incoming-ghi" / "x",
        store / "batches" / ".incoming-ghi.alive",
        batch / "measures.partial",
        batch / ".measures.parquet.1-00ff.partial",
        batch / ".measures-0123456789abcdef-4096" / "000000000000.parquet",
        store / "cache" / "near" / "comparisons.partial",
        store / "cache" / "near" / ".comparisons.parquet.1-00ff.partial",
        store / "cache" / "embeddings" / "model" / "0a.123",
        store / "cache" / "static" / ".table-x" / "table" / "vectors.npy",
        store / "versions" / ".publishing-x" / "ledger.parquet",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    refresh(recipe, store)
    assert refresh_trials.litter(store) == []
    assert not [path for path in left if path.exists()]


def test_a_living_append_keeps_its_folder_while_others_sweep(tmp_path: Path) -> None:
    with staging.incoming(tmp_path) as mine:
        staging.sweep(tmp_path)
        with staging.incoming(tmp_path) as other:
            assert mine.is_dir() and other.is_dir() and mine != other
        assert mine.is_dir() and not other.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_refresh_leaves_the_folders_of_living_appends_alone(tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    with staging.incoming(tmp_path / "batches") as mine:
        files = [mine / ".measures.parquet.1-00ff.partial", mine / "measures.partial"]
        for file in files:
            file.touch()
        repair.sweep(tmp_path)
        repair.sweep_parts(tmp_path)
        assert repair.drop_damaged(tmp_path) == []
        assert all(file.exists() for file in files)


ALONE = """
    import sys, time
    from dpo_data.executor import Processes
    from pathlib import Path

    if __name__ == "__main__":
        pool = Processes(2)
        print(*pool.map(__import__("executor_jobs").pid, range(8)), flush=True)
        time.sleep(600)
"""


def test_workers_end_when_their_parent_is_killed_alone(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(textwrap.dedent(ALONE))
    (tmp_path / "executor_jobs.py").write_text("import os\ndef pid(number):\n    return os.getpid()\n")
    paths = os.pathsep.join([str(tmp_path), str(refresh_trials.ROOT)])
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert parent.stdout is not None
    workers = {int(pid) for pid in parent.stdout.readline().split()} - {parent.pid}
    assert workers and all(is_running(pid) for pid in workers)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 60
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < end, f"still running: {workers}"
        time.sleep(0.05)
    parent.stdout.close()


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
