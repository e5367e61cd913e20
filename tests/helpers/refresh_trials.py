"""Refreshes as processes of their own, for tests that race and kill them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dpo_data.store import versions
from flows.recipe import load
from flows.refresh import refresh

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample"
Process = subprocess.Popen[str]

AIMED = """
    import os, signal, sys
    store, last, seen = sys.argv.pop(1), int(sys.argv.pop(1)), 0
    CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}

    def kill_before_a_change(event, args):
        global seen
        changes = event in CHANGES or event == "open" and isinstance(args[1], str) and args[1][0] in "wxa"
        if changes and args and str(args[0]).startswith(store):
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill_before_a_change)
    from flows.cli.app import main
    main()
"""


def cut(folder: Path, files: int) -> list[Path]:
    """The sample's judged votes dealt to some files."""
    folder.mkdir(parents=True)
    lines = (SAMPLE / "judged.jsonl").read_bytes().splitlines(keepends=True)
    paths = [folder / f"votes-{index}.jsonl" for index in range(files)]
    for index, path in enumerate(paths):
        path.write_bytes(b"".join(lines[index::files]))
    return paths


def recipe_file(path: Path, sources: Mapping[str, Path | str], kind: str = "inline") -> Path:
    """A recipe that needs neither model."""
    text = {
        "sources": [{"name": name, "path": str(where)} for name, where in sources.items()],
        "curation": {"tokenizer": None, "embedding_model": None},
        "executor": {"kind": kind, "workers": 2},
    }
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return path


def begin(recipe: Path, store: Path, program: Sequence[str] = ("-m", "flows.cli.app")) -> Process:
    """Start `dpo refresh` without Prefect."""
    command = [sys.executable, *program, "refresh", "--recipe", str(recipe), "--store", str(store), "--no-prefect"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def begin_aimed(recipe: Path, store: Path, change: int) -> Process:
    """The same, killed with SIGKILL just before its n-th change of a file or folder of the store."""
    return begin(recipe, store, ("-c", textwrap.dedent(AIMED), str(store), str(change)))


def kill_holder(store: Path, processes: Sequence[Process]) -> Process:
    """Kill with SIGKILL the process that has the store's lock, as soon as one has it."""
    while True:
        pid = (store / ".lock").read_text() if (store / ".lock").exists() else ""
        for process in processes:
            if pid == str(process.pid):
                process.kill()
                return process
        assert any(process.poll() is None for process in processes), "no process ever had the lock"
        time.sleep(0.002)


def sealed(store: Path) -> tuple[str, Any]:
    """Id of the current version, and name, rows and hash of every sealed file."""
    current = versions.open_version(store)
    assert versions.verify(current) == []
    return current.id, current.manifest["files"]


def fresh(recipe: Path, store: Path) -> tuple[str, Any]:
    """The same of a store that nothing disturbs."""
    refresh(load(recipe), store)
    return sealed(store)


def problems(
    store: Path, recipe: Path, expected: tuple[str, Any], processes: Sequence[Process], killed: Sequence[Process] = ()
) -> Iterator[str]:
    """What is wrong after the processes: an exit code, the version, a further refresh that is no no-op, litter."""
    for process in processes:
        output, _ = process.communicate()
        wanted = -signal.SIGKILL if process in killed else 0
        if process.returncode != wanted or "Traceback" in output:
            yield f"exit code {process.returncode}, expected {wanted}: {output[-500:]}"
    again = refresh(load(recipe), store)
    if not killed and (again["created"] or again["became_current"] or any(again["measured"].values())):
        yield f"a further refresh did something: {again['version']}, {again['measured']}"
    if sealed(store) != expected:
        yield f"version {sealed(store)[0]}, expected {expected[0]} with the same bytes"
    if left := litter(store):
        yield f"left behind: {', '.join(left)}"


def litter(store: Path) -> list[str]:
    """Hidden files and folders that no lock is."""
    hidden = [path for path in store.rglob(".*") if path.name != ".lock"]
    return sorted(path.relative_to(store).as_posix() for path in hidden)


def environment_of_workers() -> None:
    """Let the refreshes of a campaign find this project, and be quiet."""
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
