"""Measured and cached tables of a store: swept where a killed process left them, removed where they are damaged.

Everything here can be made again from the batches, so a table that cannot be read is no reason to stop: it is removed,
reported and measured again.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import polars as pl

from dpo_data.schema import DataError
from dpo_data.store import lock
from dpo_data.store.atomic import PARTIAL, discard
from dpo_data.text import static_embeddings

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_BATCH = frozenset(("comparisons", "votes", "thumbs", "rejects"))  # tables that no refresh can make again
# Numbered folders only: those of appends come and go without the lock of the store.
_PARTS = "batches/[0-9]*/.*-????????????????-*"  # blocks of a table that is not finished: text/blocks.py
_LEFT = (
    f"batches/[0-9]*/.*{PARTIAL}",
    f"batches/[0-9]*/.*-????????????????-*/.*{PARTIAL}",
    f"cache/embeddings/*/.*{PARTIAL}",
    f"cache/near/.*{PARTIAL}",
    "cache/static/.table-*",
    # Names of earlier releases.
    f"batches/[0-9]*/*{PARTIAL}",
    "batches/[0-9]*/.*-????????????????-*/[0-9]*.[0-9]*",
    "cache/embeddings/*/*.[0-9]*",
    f"cache/near/*{PARTIAL}",
)


def measuring(work: Callable[Concatenate[Path, P], R]) -> Callable[Concatenate[Path, P], R]:
    """`work(store, …)` under the store's lock; where a damaged table made it fail, without that table once more."""

    @wraps(work)
    def run(store: Path, /, *args: P.args, **more: P.kwargs) -> R:
        with lock.hold(store):
            sweep(store)
            try:
                return work(store, *args, **more)
            except DataError:
                raise
            except Exception as problem:
                if isinstance(problem, OSError) and problem.errno:  # of the disk, not of a table
                    raise
                if not (removed := drop_damaged(store)):
                    raise
                logger.warning(
                    "%s could not be read (%s) and will be measured again.", ", ".join(map(str, removed)), problem
                )
                return work(store, *args, **more)

    return run


def sweep(store: Path) -> None:
    """Remove unfinished files of processes that were killed. Call it under the store's lock only."""
    for pattern in _LEFT:
        for path in store.glob(pattern):
            discard(path)


def sweep_parts(store: Path) -> None:
    """Remove blocks that no table waits for. Call it under the store's lock, when every table is finished."""
    for path in store.glob(_PARTS):
        discard(path)


def drop_damaged(store: Path) -> list[Path]:
    """Remove every measured or cached table that cannot be read to its end, and what is being made; what was removed.

    Reads all of them, so it is for a refresh that failed.
    """
    damaged = [path for path in _tables(store) if _columns(path) is None]
    for folder in store.glob("cache/embeddings/*"):
        kinds = {path: _columns(path) for path in folder.glob("*.parquet")}
        usual = Counter(str(kind) for kind in kinds.values() if kind is not None).most_common(1)
        damaged += [path for path, kind in kinds.items() if kind is None or str(kind) != usual[0][0]]
    damaged += [folder for folder in store.glob("cache/static/*") if not _opens(folder)]
    damaged += store.glob(_PARTS)
    for path in damaged:
        discard(path)
    return damaged


def _tables(store: Path) -> Iterator[Path]:
    yield from store.glob("cache/near/*.parquet")
    for path in store.glob("batches/[0-9]*/*.parquet"):
        if path.stem not in _BATCH:
            yield path


def _columns(path: Path) -> dict[str, Any] | None:
    """Column types of a table that can be read to its end, null of one that cannot."""
    try:
        return dict(pl.read_parquet(path, glob=False).schema)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    except OSError as problem:
        if problem.errno:
            raise
        return None


def _opens(folder: Path) -> bool:
    try:
        static_embeddings.read(folder)
    except Exception:  # of numpy and of tokenizers, which raises a plain Exception
        return False
    return True
