"""What must hold before a version may become current; otherwise nothing is written and the old one stays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import Field

from dpo_data.release.shards import KEPT
from dpo_data.schema import DataError
from dpo_data.settings import Settings


class PublishGates(Settings):
    """Gates beyond the two that always hold: something can be published, and some of it is in train."""

    max_drop: float | None = Field(default=None, ge=0, le=1)
    """Refuse when kept rows fall by more than this share against the current version. Off by default, because the
    first weeks of a project change limits daily; .1 is a sound value once a schedule publishes unwatched: the
    refreshes of a growing store add rows, so a fall of a tenth means that a source or a limit broke."""


@dataclass(frozen=True)
class Rows:
    """What a version publishes: pairs, and single responses with a thumb that are not part of a pair."""

    pairs: int
    thumbs: int


def rows_of(ledger: pl.LazyFrame, stats: Mapping[str, Any]) -> Rows:
    """What a published version holds, from its ledger and its stats."""
    pairs = ledger.filter(KEPT).select(pl.len()).collect().item()
    return Rows(pairs, stats.get("lone_thumbs", {}).get("used", 0))


def anything(ledger: pl.DataFrame, thumbs: pl.DataFrame) -> bool:
    """Whether there is a row to publish: a kept pair, or (for losses that need no pairs) a lone thumb."""
    return bool(thumbs.height or ledger.select(KEPT.any()).item())


def refuse(ledger: pl.DataFrame, thumbs: pl.DataFrame, before: Rows | None, gates: PublishGates) -> None:
    """Raise `DataError` when the decided `ledger` and the lone `thumbs` must not become a version after `before`."""
    pairs = ledger.filter(KEPT)
    rows, noun = (pairs, "kept pairs") if pairs.height else (thumbs, "lone thumbs (no pair is kept)")
    if before is not None and before.pairs and not pairs.height:
        raise DataError(
            f"Kept pairs fall from {before.pairs} (current version) to 0, and only {thumbs.height} lone thumbs are "
            "left. Such a version would end every training on pairs, so the current one stays. Find out why: "
            f"{_reasons(ledger)}. To publish thumbs alone, use a store of their own (--store)."
        )
    if rows.filter(pl.col("split") == "train").height == 0:
        raise DataError(
            f"Nothing to train on: none of the {rows.height} {noun} is in the train split. "
            "Give train a larger share, or bring more prompts."
        )
    was = None if before is None else before.pairs if pairs.height else before.thumbs
    if gates.max_drop is not None and was is not None and rows.height < was * (1 - gates.max_drop):
        what = "Kept rows" if pairs.height else "Lone thumbs"
        raise DataError(
            f"{what} fall from {was} (current version) to {rows.height}, more than the gate "
            f"max_drop={gates.max_drop} allows. Find out why (dpo decide), or raise max_drop for this one refresh."
        )


def _reasons(ledger: pl.DataFrame) -> str:
    """The three most frequent reasons of the ledger, with their rows."""
    counted = ledger["reasons"].explode().drop_nulls().value_counts(sort=True, name="rows").head(3)
    return "; ".join(f"{reason} {count}" for reason, count in counted.iter_rows()) or "no comparison was read"
