"""Every degenerate set under every setting: published and read, or a sentence that says why not."""

import sys
import tempfile
from itertools import product
from pathlib import Path

from result import Result

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.degenerate_sets import CURATION, SETS, read_all, recipe_of, thumbs

from dpo_data.schema import DataError
from flows.refresh import refresh


def run(seed: int) -> Result:
    """Refresh each set with and without thumbs beside it; `seed` changes nothing, since the grid is whole."""
    result = Result()
    for rows, settings, lone in product([*SETS, "no votes"], CURATION, (0, 1, 20)):
        if rows == "no votes" and not lone:
            continue
        name = f"{rows}, {settings}, {lone} thumbs"
        result.record(_problem(name, SETS.get(rows, []), CURATION[settings], lone))
    return result


def _problem(name: str, rows: list[dict[str, object]], curation: dict[str, object], lone: int) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        try:
            read_all(store, refresh(recipe_of(Path(folder), rows, thumbs(lone), **curation), store))
        except DataError as error:
            sentence = str(error)
            return None if sentence.startswith(("Nothing to publish", "Nothing to train on")) else f"{name}: {sentence}"
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}"
    return None
