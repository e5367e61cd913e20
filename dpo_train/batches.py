"""Which pairs make an optimiser step, how a step is cut into forward passes, and the tensors of one pass.

A step's pairs are drawn without regard to length, so the gradient is unbiased; only inside the step are they sorted by
length and cut where the least computing is wasted on padding, which changes nothing but speed. A row holds
[prefix, rest of chosen, rest of rejected]: the prefix is the prompt and whatever both responses open with, computed
once. The surprise: the last token of a response is never an input, since nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.int64]
OVERHEAD = 24  # tokens' worth of work that one more forward pass costs to start: a guess, and only speed hangs on it


class EncodedPair(NamedTuple):
    """Token ids of one pair; the responses end with the end-of-turn token unless they were cut."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


class MicroBatch(NamedTuple):
    """Tensors of one forward pass over some pairs; rows are padded on the right.

    `rows`/`columns` say where a scored token's predicting position lies, `targets` which token it is; `chosen_of` and
    `rejected_of` list (scored token, pair) for each side; tokens of a shared opening are listed for both.
    """

    input_ids: Tensor  # (rows, length)
    position_ids: Tensor  # (rows, length)
    prefix: Tensor  # (rows,) length of what both responses see
    chosen_end: Tensor  # (rows,) where the chosen part ends, or length of the row when nothing is shared
    rows: Tensor  # (scored,)
    columns: Tensor  # (scored,)
    targets: Tensor  # (scored,)
    chosen_of: Tensor  # (2, chosen tokens)
    rejected_of: Tensor  # (2, rejected tokens)
    chosen_tokens: Tensor  # (pairs,)
    rejected_tokens: Tensor  # (pairs,)
    shared: bool

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(**moved)


def opening(pair: EncodedPair) -> int:
    """How many tokens both responses open with."""
    count = 0
    for left, right in zip(pair.chosen, pair.rejected, strict=False):
        if left != right:
            break
        count += 1
    return count


def row_length(pair: EncodedPair) -> int:
    """Input tokens of the pair's shared row: prefix + the diverging parts, without either's last token."""
    shared = opening(pair)
    inputs = len(pair.prompt) + shared
    return inputs + max(0, len(pair.chosen) - shared - 1) + max(0, len(pair.rejected) - shared - 1)


class Schedule(NamedTuple):
    """Which pairs each optimiser step takes: every epoch a new permutation by seed, the last window may be short."""

    pairs: int
    per_step: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the pairs, the uneven last one included."""
        return -(-self.pairs // self.per_step)

    def window(self, step: int) -> Indices:
        """Indices of the pairs of optimiser step `step` (from 0): a function of the seed and the step, nothing else."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.pairs)
        return order[place * self.per_step : (place + 1) * self.per_step]


def rate_factor(kind: str, step: int, total: int, warmup_ratio: float) -> float:
    """What the peak learning rate is multiplied by at optimiser step `step` (from 0) of `total`.

    transformers' schedules of these names, but for one thing: the first step of a warm-up is not spent at rate 0.
    """
    warmup = 0 if kind == "constant" else int(np.ceil(warmup_ratio * total))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    if kind == "linear":
        return 1 - done
    return float(0.5 * (1 + np.cos(np.pi * done))) if kind == "cosine" else 1.0


def cut(lengths: Indices, budget: int) -> list[Indices]:
    """Positions of `lengths` in groups, by length, none above `budget` padded tokens unless one row alone is.

    Minimises padded tokens plus `OVERHEAD` a group, exactly: with rows sorted, a best grouping is made of runs.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    best = [0.0] + [float("inf")] * len(order)
    start_of = [0] * (len(order) + 1)
    for start in range(len(order)):
        longest = int(ordered[start])
        for end in range(start + 1, len(order) + 1):
            padded = longest * (end - start)
            if padded > budget and end > start + 1:
                break
            cost = best[start] + padded + OVERHEAD
            if cost < best[end]:
                best[end], start_of[end] = cost, start
    groups: list[Indices] = []
    end = len(order)
    while end > 0:
        groups.append(order[start_of[end] : end])
        end = start_of[end]
    return groups[::-1]


def long_cut(lengths: Indices, budget: int, block: int = 256) -> Iterator[Indices]:
    """`cut` for any number of rows: sorted once, then cut in blocks, so that the work stays linear."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), block):
        rows = order[start : start + block]
        for group in cut(lengths[rows], budget):
            yield rows[group]


def collate(pairs: Sequence[EncodedPair], shared: bool = True) -> MicroBatch:
    """The tensors of one forward pass; with `shared=False`, chosen and rejected get a row each (for checks)."""
    layout = _Layout()
    for index, pair in enumerate(pairs):
        if shared:
            layout.add_shared(index, pair)
        else:
            layout.add_apart(index, pair)
    return layout.tensors(pairs, shared)


class _Layout:
    """Grows row by row; see `MicroBatch` for the meaning of what it collects."""

    def __init__(self) -> None:
        self.ids: list[list[int]] = []
        self.positions: list[list[int]] = []
        self.prefixes: list[int] = []
        self.ends: list[int] = []
        self.scored: list[tuple[int, int, int]] = []
        self.chosen_of: list[tuple[int, int]] = []
        self.rejected_of: list[tuple[int, int]] = []

    def add_shared(self, index: int, pair: EncodedPair) -> None:
        same = opening(pair)
        prefix = [*pair.prompt, *pair.chosen[:same]]
        both = self._score(len(self.ids), range(len(pair.prompt) - 1, len(prefix) - 1), pair.chosen[:same])
        chosen, rejected = pair.chosen[same:], pair.rejected[same:]
        chosen_end = len(prefix) + max(0, len(chosen) - 1)
        last = len(prefix) - 1
        of_chosen = self._score(len(self.ids), [last, *range(len(prefix), chosen_end)], chosen)
        after = range(chosen_end, chosen_end + max(0, len(rejected) - 1))
        of_rejected = self._score(len(self.ids), [last, *after], rejected)
        self.chosen_of += [(token, index) for token in (*both, *of_chosen)]
        self.rejected_of += [(token, index) for token in (*both, *of_rejected)]
        positions = [*range(chosen_end), *range(len(prefix), len(prefix) + len(after))]
        self._row([*prefix, *chosen[:-1], *rejected[:-1]], positions, len(prefix), chosen_end)

    def add_apart(self, index: int, pair: EncodedPair) -> None:
        for response, side in ((pair.chosen, self.chosen_of), (pair.rejected, self.rejected_of)):
            ids = [*pair.prompt, *response[:-1]]
            start = len(pair.prompt) - 1
            tokens = self._score(len(self.ids), range(start, start + len(response)), response)
            side += [(token, index) for token in tokens]
            self._row(ids, list(range(len(ids))), len(ids), len(ids))

    def _score(self, row: int, columns: Iterable[int], targets: Sequence[int]) -> range:
        first = len(self.scored)
        self.scored += [(row, column, target) for column, target in zip(columns, targets, strict=False)]
        return range(first, len(self.scored))

    def _row(self, ids: list[int], positions: list[int], prefix: int, chosen_end: int) -> None:
        self.ids.append(ids)
        self.positions.append(positions)
        self.prefixes.append(prefix)
        self.ends.append(chosen_end)

    def tensors(self, pairs: Sequence[EncodedPair], shared: bool) -> MicroBatch:
        scored = torch.tensor(self.scored, dtype=torch.long).reshape(-1, 3)
        return MicroBatch(
            input_ids=_padded(self.ids),
            position_ids=_padded(self.positions),
            prefix=torch.tensor(self.prefixes),
            chosen_end=torch.tensor(self.ends),
            rows=scored[:, 0],
            columns=scored[:, 1],
            targets=scored[:, 2],
            chosen_of=torch.tensor(self.chosen_of, dtype=torch.long).reshape(-1, 2).T.contiguous(),
            rejected_of=torch.tensor(self.rejected_of, dtype=torch.long).reshape(-1, 2).T.contiguous(),
            chosen_tokens=torch.tensor([len(pair.chosen) for pair in pairs]),
            rejected_tokens=torch.tensor([len(pair.rejected) for pair in pairs]),
            shared=shared,
        )


def _padded(rows: list[list[int]]) -> Tensor:
    """Rows as one tensor, zeros on the right: with causal attention nothing real ever sees them."""
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.long)


def attention_mask(batch: MicroBatch, dtype: torch.dtype) -> Tensor | None:
    """(rows, 1, length, length) to add to attention scores: causal, and rejected tokens do not see chosen ones.

    None where nothing is shared: plain causal attention, which needs no mask.
    """
    if not batch.shared:
        return None
    length = batch.input_ids.shape[1]
    at = torch.arange(length, device=batch.input_ids.device)
    query, key = at[None, :, None], at[None, None, :]
    end, prefix = batch.chosen_end[:, None, None], batch.prefix[:, None, None]
    hidden = (key > query) | ((query >= end) & (key >= prefix) & (key < end))
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None]
