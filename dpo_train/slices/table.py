"""On which pairs did the margins move: one row per axis, slice and split, with intervals clustered by prompt.

This describes; it does not say whose gradients did it (`attribution`) or what a retraining without the slice would
give. A slice with fewer than ten prompts keeps its row and says "too small to say"; from ten to 29 prompts it is
marked "few prompts". The shrunken value is the one to rank by, the raw one is what was observed.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from dpo_train.data.axes import ALL, FEW, FEW_PROMPTS, FEWEST, MEASURED, SLICES, TOO_SMALL, Axis, label
from dpo_train.slices.adjusted import adjusted_effects
from dpo_train.slices.margin_change import Movement, check_log, hits, movement, splits_of
from dpo_train.statistics import (
    Bools,
    Estimate,
    Floats,
    benjamini_hochberg,
    bootstrap_counts,
    clustered_mean,
    contrast,
    contrast_p,
    detectable,
    familywise,
    p_value,
    percentile_interval,
    shrink,
    slope,
    t_quantile,
    weighted_medians,
)

__all__ = ["COLUMNS", "SLICES", "describe"]

DRAWS = 2000  # of the joint bootstrap over prompts

# Quantities with an interval: `name`, `name_low`, `name_high`. Margins and rewards in units of beta * nats.
WITH_INTERVAL = (
    "movement",  # mean change of the margin, last step minus first
    "median",  # median change of the margin
    "accuracy",  # share of pairs with margin > 0 at the last step, ties half
    "chosen_reward",  # mean change of the chosen side's reward
    "rejected_reward",
    "displaced",  # share of pairs whose chosen log-probability fell, among those whose margin grew
    "share",  # of the total movement; null where the total's own interval covers 0
    "length_slope",  # margin per 100 tokens by which chosen is longer, within the slice
    "contrast",  # movement of the slice minus movement of all other pairs
    "adjusted",  # the same, with every other axis held fixed
    "chosen_contrast",  # chosen reward of the slice minus that of all other pairs: the second declared family
)
COLUMNS = pa.schema(
    [
        ("axis", pa.string()),
        ("slice", pa.string()),
        ("split", pa.string()),
        ("from_step", pa.int64()),
        ("to_step", pa.int64()),
        ("status", pa.string()),
        ("pairs", pa.int64()),
        ("prompts", pa.int64()),
        ("pairs_share", pa.float64()),
        *((f"{name}{end}", pa.float64()) for name in WITH_INTERVAL for end in ("", "_low", "_high")),
        ("movement_all_low", pa.float64()),  # the movements of all slices of the split lie in these at once, 95 %
        ("movement_all_high", pa.float64()),
        ("length_only_accuracy", pa.float64()),  # of the rule "longer wins"
        ("p", pa.float64()),  # of the contrast
        ("p_adjusted", pa.float64()),  # Benjamini-Hochberg over all slices of the split
        ("p_family", pa.float64()),  # max-t: that any slice of the split would show such a contrast by chance
        ("chosen_p_adjusted", pa.float64()),  # of the chosen contrast, in its own family
        ("shrunken", pa.float64()),  # contrast, drawn to 0 by as much as it is uncertain
        ("detectable", pa.float64()),  # smallest contrast that would have been found four times in five
    ]
)


def _spread(row: dict[str, Any], name: str, found: Estimate) -> None:
    row[name], row[f"{name}_low"], row[f"{name}_high"] = found.value, found.low, found.high


def _rate(found: Estimate) -> Estimate:
    """A share stays between 0 and 1, and so do its ends."""
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0)) if found.error >= 0 else found


def _measured(row: dict[str, Any], moved: Movement, members: Bools) -> None:
    """Means of one slice with their clustered intervals."""
    groups = moved.groups[members]
    mean = clustered_mean(moved.margin[members], groups)
    _spread(row, "movement", mean)
    row |= {"movement_error": mean.error, "movement_freedom": mean.freedom, "p_movement": p_value(mean)}
    _spread(row, "accuracy", _rate(clustered_mean(hits(moved.final[members]), groups)))
    _spread(row, "chosen_reward", clustered_mean(moved.chosen[members], groups))
    _spread(row, "rejected_reward", clustered_mean(moved.rejected[members], groups))
    grew = members & (moved.margin > 0)
    _spread(row, "displaced", _rate(clustered_mean((moved.chosen[grew] < 0).astype(float), moved.groups[grew])))
    _spread(row, "length_slope", slope(moved.margin[members], moved.gap[members] / 100, groups))
    row["length_only_accuracy"] = float(hits(moved.gap[members]).mean())
    if members.all():
        return
    found = contrast(moved.margin, members, moved.groups)
    _spread(row, "contrast", found)
    row |= {"p": contrast_p(moved.margin, members, moved.groups), "detectable": detectable(found), "error": found.error}
    fell = contrast(moved.chosen, members, moved.groups)
    _spread(row, "chosen_contrast", fell)
    row["chosen_p"] = contrast_p(moved.chosen, members, moved.groups)


def _row(moved: Movement, axis: str, level: str, members: Bools) -> dict[str, Any]:
    prompts = len(np.unique(moved.groups[members]))
    status = TOO_SMALL if prompts < FEWEST else FEW_PROMPTS if prompts < FEW else MEASURED
    row = {
        "axis": axis,
        "slice": level,
        "split": moved.split,
        "from_step": moved.steps[0],
        "to_step": moved.steps[1],
        "status": status,
        "pairs": int(members.sum()),
        "prompts": prompts,
        "pairs_share": float(members.mean()),
    }
    if status != TOO_SMALL:
        _measured(row, moved, members)
    return row


def _membership(moved: Movement, axes: dict[str, Axis]) -> Iterator[tuple[str, str, Bools]]:
    yield ALL, ALL, np.ones(len(moved.margin), dtype=bool)
    for name, axis in axes.items():
        for code, level in enumerate(axis.levels):
            yield name, level, axis.codes == code


def _bootstrap(rows: list[dict[str, Any]], moved: Movement, members: list[Bools], draws: int) -> None:
    """Medians, shares of the total, and what holds for all slices at once, from one joint bootstrap over prompts."""
    prompts = int(moved.groups.max()) + 1
    told = [index for index, row in enumerate(rows) if row["status"] != TOO_SMALL]
    if prompts < FEWEST or not told:
        return
    sums = np.stack(
        [np.bincount(moved.groups[members[i]], moved.margin[members[i]], minlength=prompts) for i in told], axis=1
    )
    sizes = np.stack([np.bincount(moved.groups[members[i]], minlength=prompts) for i in told], axis=1)
    total = clustered_mean(moved.margin, moved.groups)
    drawn_sums: list[Floats] = []
    drawn_sizes: list[Floats] = []
    drawn_medians: list[list[Floats]] = [[] for _ in told]
    block = max(1, min(250, 4_000_000 // len(moved.margin)))  # about 32 MB at a time
    for counts in bootstrap_counts(prompts, draws, block=block):
        drawn_sums.append(np.column_stack([counts @ sums, counts @ np.bincount(moved.groups, moved.margin)]))
        drawn_sizes.append(np.column_stack([counts @ sizes, counts @ np.bincount(moved.groups)]))
        for place, index in enumerate(told):
            inside = members[index]
            drawn_medians[place].append(weighted_medians(moved.margin[inside], counts[:, moved.groups[inside]]))
    all_sums = np.concatenate(drawn_sums)
    _at_once([rows[index] for index in told], all_sums, np.concatenate(drawn_sizes))
    for place, index in enumerate(told):
        row = rows[index]
        row["median"] = float(np.median(moved.margin[members[index]]))
        row["median_low"], row["median_high"] = percentile_interval(np.concatenate(drawn_medians[place]))
        if total.low > 0 or total.high < 0:
            row["share"] = float(moved.margin[members[index]].sum() / moved.margin.sum())
            row["share_low"], row["share_high"] = percentile_interval(all_sums[:, place] / all_sums[:, -1])


def _at_once(rows: list[dict[str, Any]], sums: Floats, sizes: Floats) -> None:
    """Bands and p-values that hold for all slices of the split at once; `sums`, `sizes` (draws, slices + the whole)."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw without a prompt of the slice, or of the others
        movements = sums[:, :-1] / sizes[:, :-1]
        contrasts = movements - (sums[:, -1:] - sums[:, :-1]) / (sizes[:, -1:] - sizes[:, :-1])
    adjusted, _ = familywise(contrasts, np.array([row.get("p", math.nan) for row in rows]))
    _, level = familywise(movements, np.array([row["p_movement"] for row in rows]))
    for row, p in zip(rows, adjusted, strict=True):
        reach = t_quantile(1 - level / 2, row["movement_freedom"]) * row["movement_error"]
        row |= {
            "p_family": p,
            "movement_all_low": row["movement"] - reach,
            "movement_all_high": row["movement"] + reach,
        }


def _families(rows: list[dict[str, Any]]) -> None:
    """Adjusted p and shrunken contrasts over the declared families: every slice of one split that can be judged."""
    for name in ("p", "chosen_p"):
        p = np.array([row.get(name, math.nan) for row in rows])
        for row, adjusted in zip(rows, benjamini_hochberg(p), strict=True):
            row[f"{name}_adjusted"] = adjusted
    values = np.array([row.get("contrast", math.nan) for row in rows])
    errors = np.array([row.get("error", math.nan) for row in rows])
    for row, value in zip(rows, shrink(values, errors, centre=0.0), strict=True):
        row["shrunken"] = value


def describe_split(moved: Movement, axes: dict[str, Axis], draws: int = DRAWS) -> list[dict[str, Any]]:
    """The rows of one split; the first is the split as a whole."""
    named = list(_membership(moved, axes))
    rows = [_row(moved, axis, level, members) for axis, level, members in named]
    _bootstrap(rows, moved, [members for _, _, members in named], draws)
    for (axis, level), found in adjusted_effects(moved, axes).items():
        row = next(row for row in rows if (row["axis"], row["slice"]) == (axis, level))
        if row["status"] != TOO_SMALL:
            _spread(row, "adjusted", found)
    _families(rows)
    return rows


def describe(pair_log: pa.Table, pairs: pa.Table, draws: int = DRAWS) -> pa.Table:
    """The slice table (schema `COLUMNS`) of every split in the log, from its first logged step to its last.

    `pair_log` as the trainer writes it, `pairs` with `pair_id` and any metadata columns. Raises `TrainError` where
    columns are missing, pairs were logged twice, or a split was not evaluated on the same pairs throughout.
    """
    check_log(pair_log)
    rows: list[dict[str, Any]] = []
    for split in splits_of(pair_log):
        moved = movement(pair_log, pairs, split)
        rows += describe_split(moved, label(moved.columns), draws)
    names = COLUMNS.names
    return pa.Table.from_pylist(
        [{name: _known(row.get(name)) for name in names} for row in rows],
        schema=COLUMNS,
    )


def _known(value: Any) -> Any:
    """NaN is written as null: not measured."""
    return None if isinstance(value, float) and math.isnan(value) else value
