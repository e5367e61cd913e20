"""Margin change per pair, from its first logged evaluation to its last, read from `pair_log.parquet`.

Everything in the slice report is computed from these columns. Pairs are sorted by id on reading, so no number depends
on the order in which a run wrote its rows. beta comes from the log itself, not from the run's settings.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dpo_train.config import TrainError
from dpo_train.data.axes import Columns, columns_of
from dpo_train.logs.pair_log import beta_of
from dpo_train.statistics import Bools, Floats, Ints

LOGPS = ("logp_chosen", "logp_rejected", "ref_logp_chosen", "ref_logp_rejected")
LOGGED = ("pair_id", "prompt_id", "step", "split", *LOGPS, "tokens_chosen", "tokens_rejected", "margin")
PER_PAIR = ("pair_ids", "groups", "margin", "chosen", "rejected", "final", "gap")
TIE = 1e-6  # margins closer to 0 than this are ties and count half in an accuracy


class Movement(NamedTuple):
    """Per-pair arrays (pairs,) of one split between two steps; rewards and margins in units of beta * nats."""

    split: str
    steps: tuple[int, int]
    beta: float
    pair_ids: npt.NDArray[Any]
    groups: Ints  # code of the prompt
    margin: Floats  # change of the margin
    chosen: Floats  # change of the chosen reward
    rejected: Floats  # change of the rejected reward
    final: Floats  # margin at the last step
    gap: Floats  # tokens chosen - tokens rejected
    columns: Columns  # metadata, same rows


def check_log(pair_log: pa.Table) -> None:
    """Raise `TrainError` where columns are missing or a pair was logged twice at one step of one split."""
    missing = [name for name in LOGGED if name not in pair_log.column_names]
    if missing:
        raise TrainError(f"pair_log: column {', '.join(missing)} missing; found {', '.join(pair_log.column_names)}.")
    counts = pair_log.group_by(["split", "step", "pair_id"]).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if twice.num_rows:
        row = twice.slice(0, 1).to_pylist()[0]
        raise TrainError(
            f"pair_log: {twice.num_rows} pairs are logged twice, first {row['pair_id']} at step {row['step']} of "
            f"{row['split']}; a resumed run must drop the rows after its checkpoint before it appends."
        )


def splits_of(pair_log: pa.Table) -> list[str]:
    """The splits in the log: validation first, then the training probe, then the rest."""
    order = {"validation": 0, "train_probe": 1, "test": 2}
    return sorted(pc.unique(pair_log["split"]).to_pylist(), key=lambda name: (order.get(name, 3), name))


def steps_of(pair_log: pa.Table, split: str) -> list[int]:
    """The steps at which a split was evaluated, ascending."""
    return sorted(pc.unique(pair_log.filter(pc.equal(pair_log["split"], split))["step"]).to_pylist())


def at_step(pair_log: pa.Table, split: str, step: int) -> dict[str, npt.NDArray[Any]]:
    """The log's columns at one step of one split, sorted by pair id."""
    here = pc.and_(pc.equal(pair_log["split"], split), pc.equal(pair_log["step"], step))
    rows = columns_of(pair_log.select(LOGGED).filter(here))
    order = np.argsort(rows["pair_id"].astype(str), kind="stable")
    return {name: values[order] for name, values in rows.items()}


def metadata_of(pairs: pa.Table, wanted: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Metadata of the wanted pairs, in their order."""
    columns = columns_of(pairs)
    place = {name: index for index, name in enumerate(columns["pair_id"])}
    unknown = [name for name in wanted if name not in place]
    if unknown:
        raise TrainError(
            f"pairs.parquet has no row for {len(unknown)} of {len(wanted)} logged pairs, first {unknown[0]}; "
            "it must come from the same run as pair_log.parquet."
        )
    rows = np.array([place[name] for name in wanted], dtype=np.intp)
    return {name: values[rows] for name, values in columns.items()}


def movement(
    pair_log: pa.Table, pairs: pa.Table, split: str, first: int | None = None, last: int | None = None
) -> Movement:
    """Change of every pair of `split` from step `first` to step `last` (default: first and last logged).

    Pairs that are not logged at both steps are an error: movement is paired within a pair.
    """
    steps = steps_of(pair_log, split)
    if not steps:
        raise TrainError(f"pair_log holds no rows of split {split!r}; it has {', '.join(splits_of(pair_log))}.")
    ends = (steps[0] if first is None else first, steps[-1] if last is None else last)
    start, end = at_step(pair_log, split, ends[0]), at_step(pair_log, split, ends[1])
    if not np.array_equal(start["pair_id"], end["pair_id"]):
        raise TrainError(
            f"pair_log, split {split}: {len(start['pair_id'])} pairs at step {ends[0]}, {len(end['pair_id'])} at step "
            f"{ends[1]}, not the same ones; evaluate one frozen set from step 0 on."
        )
    beta = beta_of(pair_log)
    metadata = metadata_of(pairs, end["pair_id"])
    metadata |= {name: end[name] for name in ("tokens_chosen", "tokens_rejected")}
    _, groups = np.unique(end["prompt_id"].astype(str), return_inverse=True)

    def reward(side: str) -> Floats:
        now, before = (rows[f"logp_{side}"] - rows[f"ref_logp_{side}"] for rows in (end, start))
        return np.asarray(beta * (now - before), dtype=np.float64)

    return Movement(
        split=split,
        steps=ends,
        beta=beta,
        pair_ids=end["pair_id"],
        groups=groups.astype(np.intp),
        margin=end["margin"] - start["margin"],
        chosen=reward("chosen"),
        rejected=reward("rejected"),
        final=end["margin"],
        gap=end["tokens_chosen"] - end["tokens_rejected"],
        columns=metadata,
    )


def hits(margin: Floats) -> Floats:
    """1 where the margin is positive, 1/2 where it is a tie, 0 where it is negative."""
    return np.where(np.abs(margin) < TIE, 0.5, (margin > 0).astype(np.float64))


def subset(moved: Movement, keep: Bools) -> Movement:
    """The same movement on some of the pairs."""
    return moved._replace(
        **{
            name: getattr(moved, name)[keep]
            for name in ["pair_ids", "groups", "margin", "chosen", "rejected", "final", "gap"]
        },
        columns={name: values[keep] for name, values in moved.columns.items()},
    )
