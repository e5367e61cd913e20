"""Kill -9 of a refresh before each change of a file, and at random moments; the rerun gives the same id and bytes."""

import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.refresh_trials import begin, begin_aimed, cut, environment_of_workers, fresh, problems, recipe_file
from result import Result

RANDOM = 20


def run(seed: int) -> Result:
    """Every change of an inline refresh, then random moments of one with worker processes, up to three in a row."""
    environment_of_workers()
    result, luck = Result(), random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cut(folder / "votes", 3)
        recipe = recipe_file(folder / "recipe.yaml", {"votes": folder / "votes"})
        start = time.perf_counter()
        expected = fresh(recipe, folder / "fresh")
        lasts = time.perf_counter() - start + 2  # of a process: its imports too
        change, died = 1, True
        while died:
            store = folder / f"change-{change}"
            process = begin_aimed(recipe, store, change)
            died = process.wait() != 0
            found = list(problems(store, recipe, expected, [process], [process] if died else []))
            result.record(f"killed before change {change}: {'; '.join(found)}" if found else None)
            change += 1
        workers = recipe_file(folder / "workers.yaml", {"votes": folder / "votes"}, "processes")
        for trial in range(RANDOM):
            store, moments = folder / f"random-{trial}", [luck.uniform(0, lasts) for _ in range(luck.randint(1, 3))]
            for moment in moments:
                process = begin(workers, store)
                time.sleep(moment)
                process.kill()
                process.communicate()
            found = list(problems(store, recipe, expected, [begin(workers, store)]))
            result.record(f"killed after {moments}: {'; '.join(found)}" if found else None)
    return result
