"""The update ledger in a real run: which buckets, when an interval ends, what is written, and how it resumes.

`open_account` says what it costs before the first step, and stays silent (None and a note) where the run cannot be
accounted for. The account listens through `observe`, `step` and `look`; it draws no random number and puts every
weight back, so the run is the one it would have been without it. Written: attribution.parquet, one row a held-out pair
and account, in nats, from which every table of the report follows.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dpo_train.attribution.intervals import IntervalScheduler
from dpo_train.attribution.path_integral import OUTER, Attributed, attribute, bucket_names, closure, refine
from dpo_train.attribution.stratified_sample import draw
from dpo_train.attribution.tables import tabulate
from dpo_train.attribution.update_ledger import Interval, UpdateLedger, cannot_book, plan
from dpo_train.checkpoints import LEDGER
from dpo_train.data.axes import UNKNOWN
from dpo_train.data.pairs import PairSet
from dpo_train.logs.pair_log import replace_table
from dpo_train.setup import TrainingRun
from dpo_train.statistics import Floats, Indices

logger = logging.getLogger(__name__)
MOST_SLICES = 12  # the largest; the rest share one bucket, "other"
OTHER = "other"
# Of every pair's gradient into its bucket, of every step among the buckets, and of the held-out pairs at each chord.
COSTS = ("booking", "splitting", "attributing")


class Account:
    """One run's ledger, the held-out pairs it is evaluated on, and what has been attributed so far."""

    def __init__(self, job: TrainingRun, names: list[str], codes: Tensor, groups: int, ledger: UpdateLedger) -> None:
        self.job, self.names, self.codes, self.groups, self.ledger = job, names, codes, groups, ledger
        watched, column = job.watched["validation"], job.config.attribution.by
        assert column is not None  # or there would be no account
        self.pairs = watched.pairs
        values = np.array(_words(self.pairs, column), dtype=object)[watched.indices]
        identities = [self.pairs.pair_ids[int(index)] for index in watched.indices]
        self.drawn = draw(list(values), identities, job.config.attribution.pairs)
        self.indices = watched.indices[self.drawn.places]
        drawn = values[self.drawn.places]
        self.slices = [drawn == value for value in dict.fromkeys(drawn)]  # of the pairs looked at
        self.pace = IntervalScheduler(
            job.total, job.config.attribution.intervals, job.config.attribution.max_closure_error
        )
        self.edge = self._evaluated() if watched.last is not None else None
        self.total: Attributed | None = None
        self.chords, self.gradients = 0, 0  # intervals so far, and points at which all pairs' gradients were taken
        self.seconds = dict.fromkeys(COSTS, 0.0)  # spent since this process began, as the run's own speed is told

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - started

    def observe(self, pairs: PairSet, places: Indices) -> None:
        """The gradient of these pairs has just been added."""
        with self._timed("booking"):
            self.ledger.book(self.codes[torch.from_numpy(places)].tolist(), pairs.lengths[places].tolist())

    def step(self, norm: float) -> None:
        """The optimizer has just stepped; gradients are still there."""
        with self._timed("splitting"):
            self.ledger.step(norm, self.job.accelerator)

    def look(self, step: int, last: bool) -> None:
        """At an evaluation: end the interval where one is due, and attribute it."""
        assert self.edge is not None  # a resumed run has taken it from its checkpoint
        evaluated = self._evaluated()
        due = self.pace.due(self.ledger.first_step, step, evaluated - self.edge)
        if not (due or last) or self.ledger.steps == self.ledger.first_step:
            return
        with self._timed("attributing"), self.ledger.silence():
            found = self._split(self.ledger.close(), evaluated - self.edge)
        self.edge = evaluated
        self.total = found if self.total is None else self.total.add(found)

    def _split(self, interval: Interval, observed: Floats) -> Attributed:
        """The account of one interval; two more gradients a pair where one leaves too wide a gap."""
        found = attribute(self._score, len(self.indices), self.job.parameters, interval, observed)
        gap = max(closure(found, members) for members in self.slices)
        self.pace.learn(gap)
        self.chords, self.gradients = self.chords + 1, self.gradients + 1
        if gap <= self.pace.target:
            return found
        self.gradients += len(OUTER)
        return refine(found, self._score, self.job.parameters, interval)

    def _evaluated(self) -> Floats:
        """(2, pairs): chosen and rejected log-probabilities of the account's pairs as the run has just seen them."""
        watched = self.job.watched["validation"]
        assert watched.last is not None
        places = np.searchsorted(watched.indices, self.indices)
        return np.stack([watched.last.logp_chosen[places], watched.last.logp_rejected[places]])

    def _score(self, index: int) -> tuple[Tensor, Tensor]:
        sums = self.job.policy.score(self.pairs.encoded([int(self.indices[index])]))
        return sums.chosen[0], sums.rejected[0]

    def table(self) -> pa.Table:
        """attribution.parquet: one row a held-out pair and account."""
        sizes = np.bincount(self.codes.numpy(), minlength=len(self.names) * self.groups)
        identities = [self.pairs.pair_ids[int(index)] for index in self.indices]
        return tabulate(self.total, self.names, self.groups, sizes, identities, self.drawn.stands_for)

    def write(self, path: Path) -> None:
        """Write attribution.parquet; what the account cost (seconds, chords, gradients) is in its metadata."""
        spent = {"seconds": self.seconds, "chords": self.chords, "gradients": self.gradients}
        replace_table(self.table().replace_schema_metadata({k: json.dumps(v) for k, v in spent.items()}), path)

    def state(self) -> dict[str, Tensor]:
        """What `resume` needs, as the tensors of a checkpoint's file."""
        tensors = {f"ledger|{name}": value for name, value in self.ledger.state().items()}
        tensors["edge"] = torch.from_numpy(self.edge)
        standing = [self.pace.reach, self.pace.moved, self.chords, self.gradients]
        tensors["standing"] = torch.tensor(standing, dtype=torch.float64)
        if self.total is not None:
            tensors |= {f"total|{name}": torch.from_numpy(value) for name, value in self.total._asdict().items()}
        return {name: value.cpu() for name, value in tensors.items()}

    def resume(self, checkpoint: Path) -> bool:
        """Take over the account of a checkpoint; False where there is none, and the run goes on without."""
        from safetensors.torch import load_file

        path = checkpoint / f"{LEDGER}.safetensors"
        if not path.is_file():
            return False
        kept = load_file(path)
        self.ledger.resume(
            {name.partition("|")[2]: value for name, value in kept.items() if name.startswith("ledger|")}
        )
        parts = {name.partition("|")[2]: value.numpy() for name, value in kept.items() if name.startswith("total|")}
        self.total = Attributed(**parts) if parts else None
        self.edge = kept["edge"].numpy()
        self.pace.reach, self.pace.moved, chords, gradients = kept["standing"].tolist()
        self.chords, self.gradients = int(chords), int(gradients)
        return True


def open_account(job: TrainingRun) -> Account | None:
    """The account of a run that is ready to start, or None with the reason in the run's notes."""
    column = job.config.attribution.by
    reason = _impossible(job)
    if column is None:
        return None
    if reason is None:
        names, slices = _slices(job.training, column)
        weights = sum(parameter.numel() for parameter in job.parameters.values())
        planned = plan(weights, len(names), int(job.config.attribution.memory_gb * 2**30))
        if planned.groups:
            groups = torch.tensor([_group(prompt, planned.groups) for prompt in job.training.prompts])
            codes = slices * planned.groups + groups
            buckets = bucket_names(names, planned.groups)
            ledger = UpdateLedger(job.policy.network, job.parameters, job.optimizer, buckets, job.config.max_grad_norm)
            logger.info("update ledger: %d buckets, %.2f GiB", len(buckets), planned.bytes / 2**30)
            return Account(job, names, codes, planned.groups, ledger)
        reason = (
            f"its ledger needs {planned.bytes / 2**30:.1f} GiB, "
            f"attribution.memory_gb allows {job.config.attribution.memory_gb}"
        )
    job.notes.append(f"margins are described but not accounted for: {reason}")
    return None


def _impossible(job: TrainingRun) -> str | None:
    column = job.config.attribution.by
    if column is not None and column not in job.training.rows.column_names:
        return f"the training pairs have no column {column}"
    if not len(job.watched["validation"].pairs):
        return "there are no validation pairs"
    if job.policy.sharded is not None:
        return "the weights lie in shards (fsdp), and it reads each pair's gradient twice off one forward pass"
    return cannot_book(job.policy.network, job.parameters)


def _slices(pairs: PairSet, column: str) -> tuple[list[str], Tensor]:
    """Names of the slices, largest first, and the code of every training pair."""
    words = _words(pairs, column)
    ordered = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    names = [name for name, _ in ordered[:MOST_SLICES]] + ([OTHER] if len(ordered) > MOST_SLICES else [])
    place = {name: code for code, name in enumerate(names)}
    return names, torch.tensor([place.get(word, len(names) - 1) for word in words])


def _words(pairs: PairSet, column: str) -> Sequence[str]:
    """The value of a column for every pair, as a slice is called."""
    if column not in pairs.rows.column_names:
        return [UNKNOWN] * len(pairs)
    values = pairs.rows.data.column(column).take(pa.array(pairs.kept)).to_pylist()
    return [UNKNOWN if value is None else str(value) for value in values]


def _group(prompt: str, groups: int) -> int:
    return int.from_bytes(blake2b(prompt.encode(), digest_size=8).digest(), "big") % groups
