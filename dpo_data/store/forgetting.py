"""What the store must forget: comparisons and annotators that no future version may hold.

`forgotten.jsonl` only ever grows. Batches stay as they were ingested; whoever opens them sees them without what is
listed here, so the next version is made as if it had never come. The surprise: forgetting an annotator takes away
votes, and a comparison that loses its last vote stays in the ledger with the reason `no_votes`.
"""

import json
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import polars as pl

from dpo_data.schema import DataError
from dpo_data.store import lock

NAME = "forgotten.jsonl"


@dataclass(frozen=True)
class Forgotten:
    """Names and ids to leave out; empty in a store that forgot nothing."""

    annotators: frozenset[str] = frozenset()
    comparisons: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.annotators or self.comparisons)

    @property
    def digest(self) -> str:
        """Hex hash of what is forgotten, empty for nothing; part of the digest of a store's inputs."""
        if not self:
            return ""
        names = json.dumps([sorted(self.annotators), sorted(self.comparisons)])
        return blake2b(names.encode(), digest_size=16).hexdigest()

    def leave_out(self, table: pl.LazyFrame) -> pl.LazyFrame:
        """The table without forgotten rows; works on any table with comparison_id or annotator."""
        names = table.collect_schema().names()
        if self.comparisons and "comparison_id" in names:
            table = table.filter(~pl.col("comparison_id").is_in(sorted(self.comparisons)))
        if self.annotators and "annotator" in names:
            table = table.filter(~pl.col("annotator").is_in(sorted(self.annotators)).fill_null(False))
        return table


def read(store: Path) -> Forgotten:
    """What the store forgot. `DataError` names a line that cannot be read."""
    path = store / NAME
    if not path.exists():
        return Forgotten()
    found: dict[str, set[str]] = {"annotator": set(), "comparison": set()}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            [(kind, name)] = entry.items()
            found[kind].add(str(name))
        except (ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f'{path}:{number}: found {line[:80]!r}, expected {{"annotator": name}} or {{"comparison": id}}. '
                "Mend the line by hand; nothing is read until then, so that nothing forgotten comes back."
            ) from error
    return Forgotten(frozenset(found["annotator"]), frozenset(found["comparison"]))


def forget(store: Path, *, annotator: str | None = None, comparison: str | None = None) -> list[str]:
    """Take an annotator's votes or a comparison out of every future version; the versions that still hold them.

    Raises `DataError` when the store has no such annotator or comparison, so that a slip of the pen is noticed.
    """
    from dpo_data import batches, versions  # both read this module

    if (annotator is None) == (comparison is None):
        raise DataError("Forget either an annotator (by name) or a comparison (by its whole id), one at a time.")
    kind, name = ("annotator", annotator) if annotator is not None else ("comparison", comparison or "")
    known = read(store)
    if name not in (known.annotators if kind == "annotator" else known.comparisons):
        column = "annotator" if kind == "annotator" else "comparison_id"
        if batches.open_batches(store).votes().filter(pl.col(column) == name).head(1).collect().is_empty():
            raise DataError(f"No vote of {store} has {kind} {name!r}, so nothing was forgotten. Check the spelling.")
        with lock.hold(store), (store / NAME).open("a", encoding="utf-8") as file:  # not between a decision and its id
            file.write(json.dumps({kind: name}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return [path.name for path in versions.list_versions(store) if _holds(path, kind, name)]


def _holds(version: Path, kind: str, name: str) -> bool:
    table, column = ("ledger", "comparison_id") if kind == "comparison" else ("annotators", "annotator")
    rows = pl.scan_parquet(version / f"{table}.parquet", glob=False).filter(pl.col(column) == name)
    return not rows.head(1).collect().is_empty()
