"""Copy a version with one slice's weights set to 0.

No trainer change is needed, because weights are a column: the slice's pairs keep their places in the batches and
contribute no gradient.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_train.config import TrainError
from dpo_train.data.axes import columns_of, label
from dpo_train.slices.topics import TOPIC, assign, find
from dpo_train.statistics import Bools


def slug(axis: str, value: str, keep: float) -> str:
    """A file name for a slice: readable, and different for different slices whatever characters they hold."""
    name = f"{axis}={value}"
    readable = re.sub(r"[^\w-]+", "_", name)[:60]
    return f"{readable}-{blake2b(name.encode(), digest_size=4).hexdigest()}-keep{round(100 * keep)}"


def mask(
    version: Path, scratch: Path, axis: str, value: str, keep: float, watched: pa.Table | None = None
) -> tuple[Path, dict[str, int]]:
    """A copy of a version in which the slice weighs nothing, and how many pairs that is; other splits are links.

    `watched` (the run's pairs.parquet) is where prompt topics were found. The store's cache (model, log-probabilities
    of the starting weights) is shared; tokens are encoded again.
    """
    folder = scratch / "versions" / f"{version.name}-{slug(axis, value, keep)}"
    (folder / "pairs").mkdir(parents=True)
    (scratch / "cache").mkdir()
    for part in (version.parent.parent / "cache").glob("*") if version.parent.name == "versions" else ():
        if part.name not in ("shards", "tokens"):
            (scratch / "cache" / part.name).symlink_to(part.resolve())
    shards = {path: pq.read_table(path) for path in sorted((version / "pairs").glob("*.parquet"))}
    train = {path: table for path, table in shards.items() if path.name.startswith("train-")}
    for path in shards.keys() - train.keys():
        (folder / "pairs" / path.name).symlink_to(path.resolve())
    whole = pa.concat_tables(list(train.values()), promote_options="default")
    members = _members(whole if watched is None else _on_topics(whole, watched), axis, value)
    hidden = members & np.array([_coin(name) >= keep for name in whole["pair_id"].to_pylist()])
    known = whole["weight"].to_numpy() if "weight" in whole.column_names else np.ones(whole.num_rows)
    weights = np.where(hidden, 0.0, known)
    start = 0
    for path, table in train.items():
        column = pa.array(weights[start : start + table.num_rows])
        start += table.num_rows
        at = table.column_names.index("weight") if "weight" in table.column_names else table.num_columns
        table = table.remove_column(at) if at < table.num_columns else table
        pq.write_table(table.add_column(at, "weight", column), folder / "pairs" / path.name)
    return folder, {"train_pairs": whole.num_rows, "in_slice": int(members.sum()), "masked": int(hidden.sum())}


def _on_topics(train: pa.Table, watched: pa.Table) -> pa.Table:
    """The training pairs with the topics that the report found in the prompts of the run."""
    topics = find(watched["prompt"].to_pylist()) if "prompt" in watched.column_names else None
    if topics is None:
        return train
    return train.append_column(TOPIC, pa.array(assign(topics, train["prompt"].to_pylist()), pa.string()))


def _members(train: pa.Table, axis: str, value: str) -> Bools:
    """Training pairs of the slice, by the report's own axes."""
    axes = label(columns_of(train))
    if axis not in axes:
        raise TrainError(f"no axis {axis!r} among the training pairs; there are {', '.join(axes) or 'none'}.")
    if value not in axes[axis].levels:
        raise TrainError(f"axis {axis} has no slice {value!r} in training; it has {', '.join(axes[axis].levels)}.")
    return np.asarray(axes[axis].codes == axes[axis].levels.index(value))


def _coin(name: str) -> float:
    """A number in [0, 1) that belongs to the pair."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"confirm").digest(), "big") / 2**64
