"""What the store must forget: comparisons, annotators, batches and sources that no future version may hold.

`forgotten.jsonl` only ever grows; an undo is a further line. Batches stay as they were ingested; whoever opens them
sees them without what is listed here, so the next version is made as if it had never come. Note: forgetting an
annotator takes away votes, and a comparison that loses its last vote stays in the ledger with the reason `no_votes`;
what was in a forgotten batch or source alone is in no ledger.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from dpo_data.schema import DataError

NAME = "forgotten.jsonl"
KINDS = ("annotator", "comparison", "source", "batch")


@dataclass(frozen=True)
class Forgotten:
    """Names and ids to leave out; empty in a store that forgot nothing."""

    annotators: frozenset[str] = frozenset()
    comparisons: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    batches: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.annotators or self.comparisons or self.sources or self.batches)

    @property
    def digest(self) -> str:
        """Hex hash of what is forgotten, empty for nothing; part of the digest of a store's inputs."""
        if not self:
            return ""
        names = [sorted(self.annotators), sorted(self.comparisons)]
        if self.sources or self.batches:
            names += [sorted(self.sources), sorted(self.batches)]
        return blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()

    def has(self, kind: str, name: str) -> bool:
        """Whether this annotator, comparison, source or batch is forgotten."""
        listed = (self.annotators, self.comparisons, self.sources, self.batches)
        return name in dict(zip(KINDS, listed, strict=True))[kind]

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
    listed: dict[str, set[str]] = {kind: set() for kind in KINDS}
    # Lines end at "\n" alone: a name may hold U+2028, U+0085 and others at which str.splitlines cuts.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            _apply(json.loads(line), listed)
        except (ValueError, KeyError, AttributeError) as error:
            shown = line[:80].decode("utf-8", "replace")
            raise DataError(
                f'{path}:{number}: found {shown!r}, expected {{"annotator": name}}, {{"comparison": id}}, '
                '{"source": name} or {"batch": id}, or one of these under "undo". Correct the line by hand; nothing is '
                "read until then, so that nothing forgotten comes back."
            ) from error
    return Forgotten(*(frozenset(listed[kind]) for kind in KINDS))


def _apply(entry: Any, listed: Mapping[str, set[str]]) -> None:
    [(kind, name)] = entry.items()
    if kind == "undo":
        [(kind, name)] = name.items()
        listed[kind].discard(str(name))
    else:
        listed[kind].add(str(name))
