"""How pairs fall into slices: one entry of `SLICES` per axis of the report.

An axis is a function from the columns of the logged pairs to levels and codes; it returns None where its columns
are absent. Bins have names that a reader understands, and null is a level of its own ("not measured"), so that no
pair leaves the table silently. Any further text column of the shards with few values becomes an axis by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Columns = Mapping[str, npt.NDArray[Any]]  # text: object arrays with None; numbers: float64 with NaN

ALL = "all"  # axis and slice of a split as a whole
UNKNOWN = "not measured"
FEWEST = 10  # prompts, below which nothing is said
FEW = 30  # prompts, below which an interval is shown greyed: Student's t is at its limits
TOO_SMALL, FEW_PROMPTS, MEASURED = "too small to say", "few prompts", "measured"
MOST_LEVELS = 40  # a text column with more values names its pairs more than it groups them
# Identities, texts and bookkeeping: never an axis of their own.
NOT_AXES = {"pair_id", "comparison_id", "prompt_id", "prompt_group", "prompt_hash", "last_turn_hash", "split"} | {
    *("prompt", "prompt_text", "chosen", "rejected", "duplicate_of", "duplicate_cluster", "duplicate_method"),
}


class Axis(NamedTuple):
    """Every pair has exactly one level: `levels[codes[i]]`."""

    levels: tuple[str, ...]
    codes: npt.NDArray[np.intp]


Labeller = Callable[[Columns], Axis | None]


def columns_of(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """The flat columns of a table as numpy arrays: numbers as float64 (null is NaN), text as objects (null is None).

    Nested columns (message lists) are not slices and are left out; booleans become "yes" and "no".
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = column.type
        if pa.types.is_boolean(kind):
            words = {True: "yes", False: "no", None: None}
            found[name] = np.array([words[value] for value in column.to_pylist()] + [None], dtype=object)[:-1]
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            found[name] = column.cast(pa.float64()).to_numpy()
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            found[name] = np.array([*column.to_pylist(), None], dtype=object)[:-1]
    return found


def _compact(levels: Sequence[str], codes: npt.NDArray[np.intp]) -> Axis:
    """Only the levels that some pair has, in the given order."""
    used, compacted = np.unique(codes, return_inverse=True)
    return Axis(tuple(levels[code] for code in used), compacted)


def by_name(values: npt.NDArray[Any]) -> Axis:
    """One level per distinct text, in alphabetical order, "not measured" last."""
    names = sorted({value for value in values if value is not None})
    place = {name: index for index, name in enumerate(names)}
    codes = np.array([place.get(value, len(names)) for value in values], dtype=np.intp)
    return _compact([*names, UNKNOWN], codes)


def by_bins(values: npt.NDArray[Any], edges: Sequence[float], names: Sequence[str]) -> Axis:
    """Level i holds edges[i-1] <= value < edges[i]; `names` has one more entry than `edges`."""
    codes = np.searchsorted(np.asarray(edges), values, side="right").astype(np.intp)
    return _compact([*names, UNKNOWN], np.where(np.isnan(values), len(names), codes))


# Edges and names of bins: engineering defaults, wide enough that a few hundred pairs fill them; change them here.
Bins = tuple[tuple[float, ...], tuple[str, ...]]
AGREEMENT: Bins = ((0.65, 0.85, 1.0), ("under 65 %", "65–85 %", "85–99 %", "unanimous"))
VOTES: Bins = ((2, 4, 6), ("1", "2–3", "4–5", "6 or more"))
BINS: dict[str, Bins] = {
    "confidence": ((0.7, 0.9, 0.99), ("under 0.7", "0.7–0.9", "0.9–0.99", "0.99 and over")),
    "similarity": ((0.5, 0.7, 0.85), ("under 0.5", "0.5–0.7", "0.7–0.85", "0.85 and over")),
    "turns": ((2, 4), ("1", "2–3", "4 or more")),
}


def named(column: str) -> Labeller:
    """The values of a text column as they stand."""
    return lambda columns: by_name(columns[column]) if column in columns and columns[column].dtype == object else None


def binned(column: str, edges: Sequence[float], names: Sequence[str]) -> Labeller:
    """A numeric column in bins with names."""
    return lambda columns: by_bins(columns[column], edges, names) if _numeric(columns, column) else None


def _numeric(columns: Columns, *names: str) -> bool:
    return all(name in columns and columns[name].dtype == np.float64 for name in names)


def _agreement(columns: Columns) -> Axis | None:
    """Share of the votes for the chosen side; from the vote counts where the shards carry no such column."""
    if _numeric(columns, "agreement"):
        share = columns["agreement"]
    elif _numeric(columns, "votes_chosen", "votes_rejected"):
        votes = columns["votes_chosen"] + columns["votes_rejected"]
        share = np.where(votes >= 2, columns["votes_chosen"] / np.maximum(votes, 1), np.nan)
    else:
        return None
    return by_bins(share, *AGREEMENT)


def _votes(columns: Columns) -> Axis | None:
    if not _numeric(columns, "votes_chosen", "votes_rejected"):
        return None
    return by_bins(columns["votes_chosen"] + columns["votes_rejected"], *VOTES)


def _length_gap(columns: Columns) -> Axis | None:
    """Chosen minus rejected, in tokens as trained (after truncation)."""
    if not _numeric(columns, "tokens_chosen", "tokens_rejected"):
        return None
    if not (columns["tokens_chosen"].all() and columns["tokens_rejected"].all()):
        return None  # single responses have no other side
    names = ("shorter by 50+", "shorter by 10–50", "within 10", "longer by 10–50", "longer by 50+")
    return by_bins(columns["tokens_chosen"] - columns["tokens_rejected"], (-49.5, -9.5, 9.5, 49.5), names)


SLICES: dict[str, Labeller] = {
    "source": named("source"),
    "agreement": _agreement,
    "confidence": binned("confidence", *BINS["confidence"]),
    "votes": _votes,
    "length gap": _length_gap,
    "similarity": binned("similarity", *BINS["similarity"]),
    "turns": binned("turns", *BINS["turns"]),
    "language": named("language"),
    "category": named("category"),
}


def _further(columns: Columns) -> list[str]:
    """Text columns that no entry of SLICES uses."""
    return sorted(
        name
        for name, values in columns.items()
        if values.dtype == object and name not in SLICES and name not in NOT_AXES and not name.startswith("hash")
    )


def label(columns: Columns) -> dict[str, Axis]:
    """Every axis that these columns can show, in the order of SLICES, further text columns behind.

    An axis on which all pairs share one level says nothing and is left out, as are text columns with more than
    `MOST_LEVELS` values; `left_out` names both.
    """
    found = {name: labeller(columns) for name, labeller in SLICES.items()}
    for name in _further(columns):
        if len(set(columns[name])) <= MOST_LEVELS:
            found[name] = by_name(columns[name])
    return {name: axis for name, axis in found.items() if axis is not None and len(axis.levels) > 1}


def left_out(columns: Columns) -> dict[str, str]:
    """Axes that are not in the table, each with the reason in words."""
    reasons: dict[str, str] = {}
    for name, labeller in SLICES.items():
        axis = labeller(columns)
        if axis is None:
            reasons[name] = "the shards carry no such column"
        elif len(axis.levels) == 1:
            reasons[name] = f"all pairs are {axis.levels[0]}"
    for name in _further(columns):
        values = set(columns[name])
        if len(values) > MOST_LEVELS:
            reasons[name] = f"{len(values)} different values, more than {MOST_LEVELS}"
        elif len(values) == 1:
            reasons[name] = f"all pairs are {next(iter(values)) or UNKNOWN}"
    return reasons
