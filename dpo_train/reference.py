"""Log-probabilities of the starting weights: computed once a pair, kept by content, checked before the first step.

A cached value belongs to (weights, precision, way of scoring, token ids) and to nothing else: the tokens already tell
tokenizer, template and truncation apart, so β and learning-rate sweeps, resumed runs and later versions of the data
all find it. Computed by the same `Policy.score` as the policy's own. One probe batch is scored live
before the first step of every run, which catches a wrong checkpoint, dropout, adapter or precision in one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from dpo_train.config import TEMPLATE_DATE, TrainError
from dpo_train.data.encoded_pair import EncodedPair
from dpo_train.data.encoding import tokenizer_fingerprint
from dpo_train.data.pairs import PairSet, Rows
from dpo_train.distributed import gather, share
from dpo_train.losses import PairLogprobs, window_gradients
from dpo_train.losses.contract import PREFIXES, PairLoss
from dpo_train.policy.logprobs import Sums
from dpo_train.policy.packing import cut
from dpo_train.policy.policy import Policy
from dpo_train.policy.scoring_modes import tolerance
from dpo_train.progress import bar
from dpo_train.statistics import Indices

Floats = npt.NDArray[np.float64]
COLUMNS = ("chosen", "rejected", "chosen_prefix", "rejected_prefix")
PART = 2048  # pairs scored before they are written: what an interruption can lose


class Reference(NamedTuple):
    """Sums over the response tokens under the starting weights, float64, shape (pairs,) of a `PairSet`; the prefixes
    as `losses.PairLogprobs` means them. NaN: not computed, because the loss reads no reference."""

    chosen: Floats
    rejected: Floats
    chosen_prefix: Floats
    rejected_prefix: Floats

    def of(self, indices: Indices, device: torch.device) -> dict[str, torch.Tensor]:
        """The `ref_*` fields of some pairs."""
        return {
            f"ref_{name}": torch.from_numpy(column[indices]).to(device)
            for name, column in zip(COLUMNS, self, strict=True)
        }


def fingerprint(policy: Policy, day: date = TEMPLATE_DATE) -> dict[str, str]:
    """What the reference is: kept in checkpoints, compared on resume."""
    return {
        "weights": policy.weights,
        "tokenizer_and_template": tokenizer_fingerprint(policy.tokenizer, day),
        "dtype": str(policy.dtype).removeprefix("torch."),
    }


def scored(
    policy: Policy, pairs: Rows, indices: Indices, budget: int, what: str = "score"
) -> Iterator[tuple[Indices, Sums]]:
    """Log-probabilities of the pairs at `indices`, a forward pass at a time, without gradient, longest first."""
    tokens = int(pairs.lengths[indices].sum())
    with (
        torch.no_grad(),
        memory_of(pairs, indices, budget),
        bar(tokens, f"{what} {pairs.split}", "tok", stays=False) as shown,
    ):
        groups = cut(pairs.lengths[indices], budget, policy.beyond(pairs.ends[indices]))
        idle = policy.idle(len(groups), pairs)
        for group in groups:
            places = indices[group]
            sums = policy.score(pairs.encoded(places))
            _check_finite(sums, pairs, places)
            shown.update(int(pairs.lengths[places].sum()))
            yield places, sums
        for nothing in idle:
            policy.score(nothing)


def reference(policy: Policy, pairs: Rows, indices: Indices, cache: Path, budget: int, accelerator: Any) -> Reference:
    """The reference of the pairs at `indices`: from the cache where it is there, computed and kept where it is not.

    The processes share the computing; the first one keeps the cache.
    """
    folder = cache / "reference" / _folder(policy)
    folder.mkdir(parents=True, exist_ok=True)
    result = Reference(*(np.full(len(pairs), np.nan) for _ in COLUMNS))
    parts = [indices[start : start + PART] for start in range(0, len(indices), PART)]
    keys = pa.array([_key(pair) for part in parts for pair in pairs.encoded(part)], pa.binary())
    _read(folder, keys, indices, result)
    unknown = [np.flatnonzero(np.isnan(result.chosen[indices]))]
    # Another run may write to the cache meanwhile: what one process has not found, all compute.
    missing = np.unique(np.concatenate(gather(accelerator, unknown)))
    for start in range(0, len(missing), PART):
        part = indices[missing[start : start + PART]]
        _compute(policy, pairs, part, budget, accelerator, result)
        if accelerator.is_main_process:
            _write(folder, keys.take(pa.array(missing[start : start + PART])), [column[part] for column in result])
    return result


def check_start(loss: PairLoss, policy: Policy, pairs: PairSet, reference: Reference, probe: Indices) -> float:
    """Assert on a live probe batch that policy == reference; returns the largest |log-ratio| seen, in nats.

    The loss must be `loss.at_reference()` (ln 2 for sigmoid) and margins 0, within rounding; else `TrainError`.
    """
    encoded = pairs.encoded(probe)
    with torch.no_grad():
        live = policy.score(encoded)
    logps = pair_logprobs(live, reference, pairs, probe, policy.device, encoded)
    off = torch.maximum((live.chosen - logps.ref_chosen).abs(), (live.rejected - logps.ref_rejected).abs())
    dtype = torch.bfloat16 if policy.autocast else policy.dtype
    limit = tolerance(dtype, int(torch.maximum(logps.chosen_tokens, logps.rejected_tokens).max()))
    worst = float(off.max())
    if not worst <= limit:
        pair = pairs.pair_ids[int(probe[int(off.argmax())])]
        expected = loss.at_reference()
        found = float(loss(logps).mean())
        raise TrainError(
            f"Before the first step the policy must equal its reference, but log-probabilities of pair {pair} differ "
            f"by {worst:.3g} nats (rounding explains {limit:.2g}); the loss is {found:.6f}"
            + (f", expected {expected:.6f}" if expected is not None else "")
            + ". Likely causes: dropout that is active, an adapter that is not fresh or that the reference pass did "
            "not turn off, another checkpoint or precision than the cached reference's, a changed tokenizer or "
            "template. If the model is the one you mean, remove cache/reference of the store and start again."
        )
    _check_loss(loss, logps, limit)
    return worst


def _check_loss(loss: PairLoss, logps: PairLogprobs, limit: float) -> None:
    """Where policy == reference within `limit` nats, each pair's loss must be what the loss says it is there.

    Rounding of the log-probabilities is let through as far as the loss's own slopes carry it, twice over.
    """
    expected = loss.at_reference()
    if expected is None:
        return
    values, slopes = window_gradients(loss, logps)
    steepest = torch.stack([slope.abs() for slope in slopes.values()]).sum(0)
    off = (values - expected).abs()
    if not bool((off <= 1e-6 * (1 + abs(expected)) + 2 * limit * steepest).all()):
        raise TrainError(
            f"before the first step the loss must be {expected:.6f} for every pair, and it is up to "
            f"{float(off.max()):.3g} away from that although policy and reference agree: the pairs' confidence or "
            "token counts are not what the loss expects, or the loss is wrong."
        )


def per_token(pairs: PairSet, reference: Reference) -> dict[str, float | None]:
    """Mean log-probability of a response token under the starting weights, in nats, each side, over the pairs scored;
    None where no pair has that side.

    Far below minus the model's own entropy, the responses are none that it would have written, and training on them
    moves the policy off its own ground. A number to compare between data sets and models; it has no limit of its own.
    """
    known = np.flatnonzero(np.isfinite(reference.chosen))
    tokens = [pairs.tokens_of("chosen")[known].sum(), pairs.tokens_of("rejected")[known].sum()]
    sides = zip(("chosen", "rejected"), (reference.chosen, reference.rejected), tokens, strict=True)
    return {side: float(sums[known].sum() / count) if count else None for side, sums, count in sides}


def pair_logprobs(
    sums: Sums,
    reference: Reference,
    pairs: PairSet,
    indices: Indices,
    device: torch.device,
    encoded: Sequence[EncodedPair],
    neutral: float = 0.0,
) -> PairLogprobs:
    """What a loss reads, for the pairs at `indices` scored as `sums`; `neutral` is 0 where policy == reference."""
    return PairLogprobs(
        chosen=sums.chosen,
        rejected=sums.rejected,
        chosen_tokens=torch.tensor([len(pair.chosen) for pair in encoded], device=device),
        rejected_tokens=torch.tensor([len(pair.rejected) for pair in encoded], device=device),
        confidence=torch.from_numpy(pairs.confidence[indices]).to(device),
        chosen_prefix=sums.chosen_prefix,
        rejected_prefix=sums.rejected_prefix,
        chosen_collision=sums.chosen_collision,
        rejected_collision=sums.rejected_collision,
        neutral=torch.tensor(neutral, dtype=torch.float64, device=device),
        **reference.of(indices, device),
    )


def _compute(policy: Policy, pairs: Rows, indices: Indices, budget: int, accelerator: Any, into: Reference) -> None:
    needs, policy.needs = policy.needs, PREFIXES  # always with the prefixes, so that a sweep of ld_alpha finds them too
    try:
        with policy.as_reference():
            mine = scored(policy, pairs, share(indices, accelerator), budget, "reference of")
            found = [(places, _columns(sums)) for places, sums in mine]
    finally:
        policy.needs = needs
    for places, values in gather(accelerator, found):
        for column, value in zip(into, values, strict=True):
            column[places] = value


def _columns(sums: Sums) -> Floats:
    """(columns, pairs)."""
    values = [value for value in sums[: len(COLUMNS)] if value is not None]
    return torch.stack(values).double().cpu().numpy()


def _folder(policy: Policy) -> str:
    precision = "autocast" if policy.autocast else str(policy.dtype)
    text = f"{policy.weights} {precision} {policy.way} {policy.window} {policy.device.type}"
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _key(pair: EncodedPair) -> bytes:
    digest = blake2b(digest_size=16)
    for ids in pair:
        digest.update(np.asarray(ids, dtype="<i4").tobytes() + b"|")
    return digest.digest()


def _read(folder: Path, keys: pa.Array, indices: Indices, into: Reference) -> None:
    """Fill in what the cache knows of the pairs at `indices` (their keys in the same order), a file at a time."""
    first = dict(zip(keys.to_pylist(), range(len(keys)), strict=True))
    twins = np.array([first[key] for key in keys.to_pylist()], dtype=np.int64)  # pairs of equal tokens have one key
    for part in sorted(folder.glob("*.parquet")):
        table = pq.read_table(part)
        table = table.filter(pc.is_in(table["key"], value_set=keys))
        places = [first[key] for key in table.column("key").to_pylist()]
        for column, name in zip(into, COLUMNS, strict=True):
            column[indices[places]] = table.column(name).to_numpy()
    for column in into:
        column[indices] = column[indices[twins]]


def _write(folder: Path, keys: pa.Array, columns: list[Floats]) -> None:
    table = pa.table({"key": keys, **dict(zip(COLUMNS, columns, strict=True))})
    name = blake2b(b"".join(keys.to_pylist()), digest_size=8).hexdigest()
    partial = folder / f".{name}.{os.getpid()}"
    pq.write_table(table, partial)
    partial.replace(folder / f"{name}.parquet")


@contextmanager
def memory_of(pairs: Rows, indices: Indices, budget: int) -> Iterator[None]:
    """Say in words what to do where memory runs out in forward passes over these pairs; raises `TrainError`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):  # what torch says on a CPU
            raise
        longest = int(pairs.lengths[indices].max(initial=0))
        if budget > longest:
            smaller = max(longest, budget // 2)
            advice = (
                f"Set token_budget to {smaller} (of one of {budget} it ran out; with lora_dropout that starts another "
                "run), or gradient_checkpointing to true, and run the same again: it resumes from the last checkpoint"
            )
        else:
            advice = (
                f"A single row of {longest} tokens does not fit and cannot be cut: set gradient_checkpointing to true, "
                f"or max_length to {longest // 2}, which starts another run"
            )
        raise TrainError(f"{pairs.split}: memory ran out in a forward pass. {advice}. ({error})") from error


def _check_finite(sums: Sums, pairs: Rows, places: Indices) -> None:
    finite = (torch.isfinite(sums.chosen) & torch.isfinite(sums.rejected)).cpu().numpy()
    if not finite.all():
        names = ", ".join(pairs.pair_ids[int(place)] for place in places[~finite][:3])
        raise TrainError(
            f"{pairs.split}: log-probabilities of {int((~finite).sum())} pairs are not finite, first {names}. The "
            "weights have diverged (lower learning_rate) or the precision is too small (set dtype to float32)."
        )


PROBE = 4  # pairs checked live before the first step


def probe_pairs(indices: Indices, lengths: Indices) -> Indices:
    """A few of the pairs, from the shortest to the lower quartile: enough to catch a fault, cheap to score."""
    ordered = indices[np.argsort(lengths[indices], kind="stable")][: max(1, len(indices) // 4 + 1)]
    picked: Indices = ordered[np.unique(np.linspace(0, len(ordered) - 1, PROBE).astype(int))]
    return picked
