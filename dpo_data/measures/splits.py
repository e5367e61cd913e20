"""Train, validation or test, from the prompt group's own coin.

A group lies on one side as a whole, so no prompt leaks, and its side is a function of the group alone: adding data
moves no row, unless a new prompt ties two groups together; `moved` counts those.
"""

import polars as pl
from pydantic import Field, model_validator

from dpo_data.ids import coin
from dpo_data.settings import Settings

_SALT = "split"  # fixed: another salt would reshuffle every published split


class SplitShares(Settings):
    """Expected shares of the prompt groups; small sets differ by chance."""

    train: float = Field(default=0.9, ge=0, le=1)
    validation: float = Field(default=0.05, ge=0, le=1)
    test: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitShares":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test is {total:g}, expected 1: change one of the shares")
        return self


def measure(ledger: pl.DataFrame) -> pl.DataFrame:
    """Add `split_coin`, the group's number in [0, 1); a comparison without a group stands for itself."""
    key = pl.coalesce("prompt_group", "prompt_hash", "comparison_id")
    groups = ledger.select(key.alias("group")).unique()
    coins = groups.with_columns(
        split_coin=pl.Series([coin(group, _SALT) for group in groups["group"]], dtype=pl.Float64)
    )
    return (
        ledger.drop("split_coin", strict=False)
        .with_columns(group=key)
        .join(coins, on="group", how="left", maintain_order="left")
        .drop("group")
    )


def assign(ledger: pl.DataFrame, shares: SplitShares) -> pl.DataFrame:
    """Add `split`."""
    number = pl.col("split_coin")
    side = (
        pl.when(number < shares.test)
        .then(pl.lit("test"))
        .when(number < shares.test + shares.validation)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )
    return ledger.with_columns(split=side)


def moved(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Comparisons of both ledgers whose split changed: `comparison_id, split_old, split_new`."""
    columns = ["comparison_id", "split"]
    both = old.select(columns).join(new.select(columns), on="comparison_id", suffix="_new")
    return both.rename({"split": "split_old"}).filter(pl.col("split_old") != pl.col("split_new")).sort("comparison_id")
