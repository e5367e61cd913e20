"""What must hold before a version may become current; otherwise nothing is written and the old one stays."""

import polars as pl
from pydantic import Field

from dpo_data.schema import DataError
from dpo_data.settings import Settings
from dpo_data.store.shards import KEPT


class PublishGates(Settings):
    """Gates beyond the two that always stand: something is kept, and some of it is in train."""

    max_drop: float | None = Field(default=None, ge=0, le=1)
    """Refuse when kept rows fall by more than this share against the current version. Off by default, because the
    first weeks of a project change limits daily; .1 is a sound value once a schedule publishes unwatched: the
    refreshes of a growing store add rows, so a fall of a tenth means that a source or a limit broke."""


def refuse(ledger: pl.DataFrame, kept_before: int | None, gates: PublishGates) -> None:
    """Raise `DataError` when the decided `ledger` must not become a version after one of `kept_before` rows."""
    rows = ledger.filter(KEPT)
    if rows.height == 0:
        counted = ledger["reasons"].explode().drop_nulls().value_counts(sort=True, name="rows").head(3)
        named = "; ".join(f"{reason} {count}" for reason, count in counted.iter_rows())
        raise DataError(
            f"Nothing to publish: 0 of {ledger.height} comparisons are kept (first reasons: {named or 'none'}). "
            "Look at the rejects and loosen the limits that drop most."
        )
    if rows.filter(pl.col("split") == "train").height == 0:
        raise DataError(
            f"Nothing to train on: none of the {rows.height} kept pairs is in the train split. "
            "Give train a larger share, or bring more prompts."
        )
    if gates.max_drop is not None and kept_before is not None and rows.height < kept_before * (1 - gates.max_drop):
        raise DataError(
            f"Kept rows fall from {kept_before} (current version) to {rows.height}, more than the gate "
            f"max_drop={gates.max_drop} allows. Find out why (dpo decide), or raise max_drop for this one refresh."
        )
