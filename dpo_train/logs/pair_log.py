"""Log one row per pair per evaluation; all margin reports are computed from it.

The same frozen pairs are logged at every evaluation, step 0 included, so that movements are paired. Rows are kept in
memory and the file is rewritten whole, by rename, so that a reader never sees half of it. A resumed run
drops the rows after its checkpoint, which it is about to write again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_train.atomic import replacing
from dpo_train.config import TrainError
from dpo_train.data.pairs import PairSet
from dpo_train.logs.metrics import PairMetrics
from dpo_train.statistics import Indices

SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_id", pa.string()),  # prompt group: the unit of every interval
        ("step", pa.int64()),
        ("split", pa.string()),  # validation, train_probe or test
        ("logp_chosen", pa.float64()),  # sums over the response tokens, nats
        ("logp_rejected", pa.float64()),
        ("ref_logp_chosen", pa.float64()),
        ("ref_logp_rejected", pa.float64()),
        ("tokens_chosen", pa.int64()),
        ("tokens_rejected", pa.int64()),
        ("margin", pa.float64()),  # beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        ("weight", pa.float64()),
    ]
)


BETA = b"beta"  # key of the schema metadata


class PairLog:
    """The rows of one run, and its file."""

    def __init__(self, path: Path, beta: float) -> None:
        self.path = path
        self.beta = beta
        self.table = SCHEMA.empty_table()

    def readable(self) -> bool:
        """Whether the file that an interrupted run left, if any, can be read."""
        try:
            return not self.path.exists() or pq.read_table(self.path).schema.equals(SCHEMA)
        except (OSError, pa.ArrowException):
            return False

    def resume(self, step: int) -> None:
        """Take over the rows up to `step` of an interrupted run; test rows are logged again when it ends."""
        if self.path.exists():
            table = pq.read_table(self.path).cast(SCHEMA)
            at_end = pc.and_(pc.equal(table["split"], "test"), pc.greater(table["step"], 0))
            self.table = table.filter(pc.and_(pc.less_equal(table["step"], step), pc.invert(at_end)))

    def add(self, split: str, step: int, pairs: PairSet, indices: Indices, values: PairMetrics) -> None:
        """Add one evaluation; `values` in the order of `indices`."""
        ratio = (values.logp_chosen - values.ref_chosen) - (values.logp_rejected - values.ref_rejected)
        count = len(indices)
        rows = {
            "pair_id": [pairs.pair_ids[int(place)] for place in indices],
            "prompt_id": [pairs.prompts[int(place)] for place in indices],
            "step": np.full(count, step),
            "split": [split] * count,
            "logp_chosen": values.logp_chosen,
            "logp_rejected": values.logp_rejected,
            "ref_logp_chosen": values.ref_chosen,
            "ref_logp_rejected": values.ref_rejected,
            "tokens_chosen": values.tokens_chosen.astype(np.int64),
            "tokens_rejected": values.tokens_rejected.astype(np.int64),
            "margin": self.beta * ratio,
            "weight": values.weight,
        }
        self.table = pa.concat_tables([self.table, pa.table(rows, schema=SCHEMA)])

    def write(self) -> None:
        """Replace the file; its schema metadata has the beta of the margins."""
        replace_table(with_beta(self.table, self.beta), self.path)


def with_beta(table: pa.Table, beta: float) -> pa.Table:
    """The log with the beta of its margins in the schema metadata; `beta_of` reads it."""
    return table.replace_schema_metadata({BETA: repr(beta)})


def beta_of(pair_log: pa.Table) -> float:
    """The beta that the margins were logged with. Raises `TrainError` where the log does not have it."""
    metadata = pair_log.schema.metadata or {}
    if BETA not in metadata:
        raise TrainError(
            "pair_log: found no beta in the schema metadata, expected the beta of the margins. The log was written by "
            "an older release: train the run again."
        )
    return float(metadata[BETA])


def write_metadata(path: Path, parts: list[tuple[PairSet, Indices]]) -> None:
    """pairs.parquet: every column of the logged pairs, texts included, one row per pair."""
    tables = [
        pairs.metadata(indices.tolist()).append_column("prompt_id", pa.array([pairs.prompts[int(k)] for k in indices]))
        for pairs, indices in parts
        if len(indices)
    ]
    if not tables:  # nothing is watched: no validation or test pairs, and no probe was asked for
        tables = [pa.table({"pair_id": pa.array([], pa.string()), "prompt_id": pa.array([], pa.string())})]
    replace_table(pa.concat_tables(tables, promote_options="permissive"), path)


def replace_table(table: pa.Table, path: Path) -> None:
    """Put a table in place of another: whole, and on the disk when this returns."""
    with replacing(path) as partial:
        pq.write_table(table, partial)
