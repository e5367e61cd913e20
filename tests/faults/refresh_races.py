"""2, 4 and 8 refreshes of one store at once, by every executor, with and without a kill -9 of the one at work."""

import importlib.util
import sys
import tempfile
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.refresh_trials import begin, cut, environment_of_workers, fresh, kill_holder, problems, recipe_file
from result import Result


def run(seed: int) -> Result:
    """One trial per executor, number of processes, kind of sources and kill; the order of things is the system's."""
    environment_of_workers()
    result = Result()
    kinds = ["inline", "processes", *(["ray"] if importlib.util.find_spec("ray") else [])]
    with tempfile.TemporaryDirectory() as folder:
        for trial, (kind, count, other, kill) in enumerate(product(kinds, (2, 4, 8), (False, True), (False, True))):
            result.record(_trial(Path(folder) / f"{seed}-{trial}", kind, count, other, kill))
    return result


def _trial(folder: Path, kind: str, count: int, other: bool, kill: bool) -> str | None:
    files = cut(folder / "votes", count)
    sources = {path.stem: path for path in files} if other else {"votes": folder / "votes"}
    whole = recipe_file(folder / "whole.yaml", sources, kind)
    expected = fresh(recipe_file(folder / "fresh.yaml", sources), folder / "fresh")
    recipes = [whole] * count
    if other:
        parts = (recipe_file(folder / f"{name}.yaml", {name: path}, kind) for name, path in sources.items())
        recipes = [whole, *parts][:count]
    running = [begin(recipe, folder / "store") for recipe in recipes]
    killed = [kill_holder(folder / "store", running)] if kill else []
    found = list(problems(folder / "store", whole, expected, running, killed))
    return f"{kind}, {count} at once, other={other}, kill={kill}: {'; '.join(found)}" if found else None
