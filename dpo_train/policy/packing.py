"""Packing: cut an optimizer step into forward passes, and build the tensors of one pass.

The cut changes only speed and memory. All pairs of a pass are in one row without padding, each as [prefix, rest of
chosen, rest of rejected]; the prefix is the prompt and the shared opening of both responses, computed once, and
packed_attention.py masks the two branches from each other. Note: the last token of a response is never an input, since
nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpo_train.data.encoded_pair import EncodedPair, opening
from dpo_train.policy.packed_attention import Span, span
from dpo_train.statistics import Indices

CPU = torch.device("cpu")


class MicroBatch(NamedTuple):
    """Tensors of one forward pass over some pairs: all in one row, or, with `spans` None, a padded row a response.

    `rows`/`columns` say where a scored token's predicting position lies, `targets` which token it is; `chosen_of` and
    `rejected_of` list (scored token, pair) for each side; tokens of a shared opening are listed for both.
    """

    input_ids: Tensor  # (rows, length)
    position_ids: Tensor  # (rows, length)
    rows: Tensor  # (scored,)
    columns: Tensor  # (scored,)
    targets: Tensor  # (scored,)
    chosen_of: Tensor  # (2, chosen tokens)
    rejected_of: Tensor  # (2, rejected tokens)
    chosen_tokens: Tensor  # (pairs,)
    rejected_tokens: Tensor  # (pairs,)
    spans: tuple[Span, ...] | None


def cut(lengths: Indices, budget: int, beyond: npt.NDArray[np.bool_] | None = None) -> list[Indices]:
    """Positions of `lengths` in groups of at most `budget` tokens (more only where one row alone is longer).

    By falling length: the longest row comes first, so memory that is too short shows at once, and rows of a group are
    alike, which keeps padding small for a model whose rows must lie apart. A group holds pairs that are `beyond` the
    model's attention window or pairs that are not, never both.
    """
    if beyond is not None and beyond.any():
        kinds = np.flatnonzero(beyond), np.flatnonzero(~beyond)
        return [kind[group] for kind in kinds for group in cut(lengths[kind], budget)]
    groups: list[Indices] = []
    order = np.argsort(-lengths, kind="stable")
    start = total = 0
    for place, length in enumerate(lengths[order].tolist()):
        if total + length > budget and place > start:
            groups.append(order[start:place])
            start, total = place, 0
        total += length
    return [*groups, order[start:]] if len(order) else []


def collate(pairs: Sequence[EncodedPair], shared: bool = True, device: torch.device = CPU) -> MicroBatch:
    """The tensors of one forward pass; with `shared=False`, chosen and rejected get a row each (for checks)."""
    layout = _Layout()
    for index, pair in enumerate(pairs):
        if shared:
            layout.add_shared(index, pair)
        else:
            layout.add_apart(index, pair)
    return layout.tensors(pairs, device)


class _Layout:
    """Grows pair by pair; see `MicroBatch` for the meaning of what it collects."""

    def __init__(self) -> None:
        self.ids: list[list[int]] = []
        self.positions: list[list[int]] = []
        self.spans: list[tuple[int, int, int]] = []
        self.scored: list[tuple[int, int, int]] = []
        self.chosen_of: list[tuple[int, int]] = []
        self.rejected_of: list[tuple[int, int]] = []

    def add_shared(self, index: int, pair: EncodedPair) -> None:
        if not self.ids:
            self.ids, self.positions = [[]], [[]]
        start, same = len(self.ids[0]), opening(pair)
        prefix = [*pair.prompt, *pair.chosen[:same]]
        chosen, rejected = pair.chosen[same:], pair.rejected[same:]
        span = (len(prefix), max(0, len(chosen) - 1), max(0, len(rejected) - 1))
        last, chosen_start = start + len(prefix) - 1, start + len(prefix)
        rejected_start = chosen_start + span[1]
        both = self._score(0, range(start + len(pair.prompt) - 1, last), pair.chosen[:same])
        of_chosen = self._score(0, [last, *range(chosen_start, rejected_start)], chosen)
        of_rejected = self._score(0, [last, *range(rejected_start, rejected_start + span[2])], rejected)
        self.chosen_of += [(token, index) for token in (*both, *of_chosen)]
        self.rejected_of += [(token, index) for token in (*both, *of_rejected)]
        self.ids[0] += [*prefix, *chosen[:-1], *rejected[:-1]]
        self.positions[0] += [*range(span[0] + span[1]), *range(span[0], span[0] + span[2])]
        self.spans.append(span)

    def add_apart(self, index: int, pair: EncodedPair) -> None:
        for response, side in ((pair.chosen, self.chosen_of), (pair.rejected, self.rejected_of)):
            ids = [*pair.prompt, *response[:-1]]
            start = len(pair.prompt) - 1
            tokens = self._score(len(self.ids), range(start, start + len(response)), response)
            side += [(token, index) for token in tokens]
            self.ids.append(ids)
            self.positions.append(list(range(len(ids))))

    def _score(self, row: int, columns: Iterable[int], targets: Sequence[int]) -> range:
        first = len(self.scored)
        self.scored += [(row, column, target) for column, target in zip(columns, targets, strict=False)]
        return range(first, len(self.scored))

    def tensors(self, pairs: Sequence[EncodedPair], device: torch.device) -> MicroBatch:
        scored = torch.tensor(self.scored, dtype=torch.long, device=device).reshape(-1, 3)
        chosen_of, rejected_of = (
            torch.tensor(side, dtype=torch.long, device=device).reshape(-1, 2).T.contiguous()
            for side in (self.chosen_of, self.rejected_of)
        )
        return MicroBatch(
            input_ids=_padded(self.ids, device),
            position_ids=_padded(self.positions, device),
            rows=scored[:, 0],
            columns=scored[:, 1],
            targets=scored[:, 2],
            chosen_of=chosen_of,
            rejected_of=rejected_of,
            chosen_tokens=torch.tensor([len(pair.chosen) for pair in pairs], device=device),
            rejected_tokens=torch.tensor([len(pair.rejected) for pair in pairs], device=device),
            spans=tuple(span(*one, device) for one in self.spans) or None,
        )


def _padded(rows: list[list[int]], device: torch.device) -> Tensor:
    """Rows as one tensor, zeros on the right: with causal attention nothing real ever sees them."""
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.long, device=device)
