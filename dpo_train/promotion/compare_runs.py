"""Two runs on the same held-out pairs: what each made of every pair, aligned by pair id.

Only what a β, a learning rate or another reference cannot inflate is compared: whether the margin points the right way
(ties half), and the log-loss against the votes after each run's margins were given their own temperature. Raw margins
never are. The temperature is fitted on one half of the prompts and used on the other, so it cannot flatter its run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from dpo_train.config import TrainError
from dpo_train.data.axes import Columns, columns_of
from dpo_train.slices.margin_change import at_step, check_log, hits, splits_of, steps_of
from dpo_train.statistics import Bools, Floats, Ints

REFERENCE = "the untrained reference"


class Contender(NamedTuple):
    """One run's evaluation of one split with the weights it kept; columns as logged, (pairs,), sorted by pair id."""

    name: str
    step: int
    digest: str  # SHA-256 of its pair log
    rows: dict[str, npt.NDArray[Any]]
    trained_on: frozenset[str]  # prompts of its training probe


class HeadToHead(NamedTuple):
    """The pairs that both runs held out, arrays (pairs,) in order of pair id."""

    split: str
    champion: Contender
    challenger: Contender
    pair_ids: npt.NDArray[Any]
    groups: Ints  # code of the prompt
    champion_margin: Floats
    challenger_margin: Floats
    columns: Columns  # metadata of the challenger's version, with tokens as the challenger saw them
    only_champion: int
    only_challenger: int
    trained_on: int  # shared pairs left out because the prompt is in a training probe


def choose_split(champion: Path | None, challenger: Path, wanted: str | None) -> str:
    """`wanted`, or else test where both runs logged it, or else validation."""
    logged = [set(splits_of(_pair_log(run))) for run in (champion, challenger) if run is not None]
    shared = set.intersection(*logged)
    candidates = ["test", "validation"] if wanted is None else [wanted]
    for split in candidates:
        if split in shared:
            return split
    names = ", ".join(run.name for run in (champion, challenger) if run is not None)
    found = ", ".join(sorted(shared)) or "nothing"
    raise TrainError(
        f"{names}: no rows of split {' or '.join(candidates)} in every pair_log.parquet; in common is {found}. "
        "Evaluate both runs on the same held-out pairs first."
    )


def meet(champion: Path | None, challenger: Path, split: str) -> HeadToHead:
    """Read both runs with the weights they kept; without a champion the challenger meets the reference itself.

    Pairs whose prompt stands in the training probe of either run are left out and counted.
    """
    right = _contender(challenger, split)
    left = _contender(champion, split) if champion is not None else _reference(right)
    shared, at_left, at_right = np.intersect1d(
        left.rows["pair_id"].astype(str), right.rows["pair_id"].astype(str), assume_unique=True, return_indices=True
    )
    prompts = right.rows["prompt_id"][at_right].astype(str)
    fair = np.array([prompt not in left.trained_on | right.trained_on for prompt in prompts], dtype=np.bool_)
    at_left, at_right, prompts = at_left[fair], at_right[fair], prompts[fair]
    _, groups = np.unique(prompts, return_inverse=True)
    columns = _metadata(challenger, right.rows, at_right)
    return HeadToHead(
        split=split,
        champion=left,
        challenger=right,
        pair_ids=shared[fair],
        groups=groups.astype(np.intp),
        champion_margin=left.rows["margin"][at_left],
        challenger_margin=right.rows["margin"][at_right],
        columns=columns,
        only_champion=len(left.rows["pair_id"]) - len(shared),
        only_challenger=len(right.rows["pair_id"]) - len(shared),
        trained_on=int((~fair).sum()),
    )


def scores(met: HeadToHead, metric: str) -> tuple[Floats, Floats]:
    """(champion, challenger) score of each pair, (pairs,), higher is better: hits for accuracy, −nats for log_loss."""
    margins = (met.champion_margin, met.challenger_margin)
    if metric == "accuracy":
        return hits(margins[0]), hits(margins[1])
    votes = vote_share(met.columns, len(met.pair_ids))
    half = prompt_halves(met)
    return log_scores(margins[0], votes, half), log_scores(margins[1], votes, half)


def vote_share(columns: Columns, pairs: int) -> Floats:
    """Share of the votes for chosen, (pairs,); 1 where no votes are recorded."""
    if not {"votes_chosen", "votes_rejected"} <= columns.keys():
        return np.ones(pairs)
    total = columns["votes_chosen"] + columns["votes_rejected"]
    known = total > 0
    return np.where(known, columns["votes_chosen"] / np.where(known, total, 1), 1.0)


def prompt_halves(met: HeadToHead) -> Bools:
    """True for the pairs of about half of the prompts, by the hash of the first pair id of each prompt."""
    _, first = np.unique(met.groups, return_index=True)
    coins = [hashlib.blake2b(str(met.pair_ids[row]).encode(), digest_size=1).digest()[0] % 2 == 0 for row in first]
    return np.array(coins, dtype=np.bool_)[met.groups]


def log_scores(margin: Floats, share: Floats, half: Bools) -> Floats:
    """q log σ(s m) + (1−q) log σ(−s m) of each pair, nats; s is fitted on the other half of the prompts."""
    found = np.empty(len(margin))
    for side in (half, ~half):
        scaled = fit_scale(margin[~side], share[~side]) * margin[side]
        found[side] = -share[side] * np.logaddexp(0, -scaled) - (1 - share[side]) * np.logaddexp(0, scaled)
    return found


def fit_scale(margin: Floats, share: Floats) -> float:
    """The s ≥ 0 that maximises the mean of q log σ(s m) + (1−q) log σ(−s m): 1/temperature, by bisection.

    0 where the margins are no better than a coin. Where they are never wrong, at most 50 over the median margin's size.
    """

    def slope(s: float) -> float:
        return float(np.mean(margin * (share - 0.5 * (1 + np.tanh(s * margin / 2))))) if len(margin) else 0.0

    if not slope(0.0) > 0:
        return 0.0
    low, high = 0.0, 50 / float(np.median(np.abs(margin[margin != 0])))
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


def _pair_log(run: Path) -> Any:
    file = run / "pair_log.parquet"
    if not file.is_file():
        raise TrainError(f"run {run.name} has no pair_log.parquet: name the folder of a finished run.")
    table = pq.read_table(file)
    check_log(table)
    return table


def _contender(run: Path, split: str) -> Contender:
    log = _pair_log(run)
    step = _kept_step(run, steps_of(log, split))
    probe = frozenset(
        prompt
        for prompt, where in zip(log["prompt_id"].to_pylist(), log["split"].to_pylist(), strict=True)
        if where == "train_probe"
    )
    digest = hashlib.sha256((run / "pair_log.parquet").read_bytes()).hexdigest()
    return Contender(run.name, step, digest, at_step(log, split, step), probe)


def _kept_step(run: Path, logged: list[int]) -> int:
    """The step whose weights the run kept, by its summary.json; without one, the last evaluated."""
    file = run / "summary.json"
    if not file.is_file():
        return logged[-1]
    kept = json.loads(file.read_text(encoding="utf-8")).get("best_step")
    if kept not in logged:
        raise TrainError(
            f"run {run.name} kept the weights of step {kept}, but this split was evaluated at steps "
            f"{', '.join(map(str, logged))}: evaluate it with the kept weights first."
        )
    return int(kept)


def _reference(challenger: Contender) -> Contender:
    """A policy that has not moved: every margin 0, every pair a tie."""
    rows = dict(challenger.rows)
    rows["margin"] = np.zeros(len(rows["margin"]))
    return Contender(REFERENCE, 0, "", rows, frozenset())


def _metadata(
    run: Path, rows: dict[str, npt.NDArray[Any]], wanted: npt.NDArray[np.intp]
) -> dict[str, npt.NDArray[Any]]:
    """Columns of the run's pairs.parquet for the wanted rows, with the logged sums and token counts."""
    file = run / "pairs.parquet"
    if not file.is_file():
        raise TrainError(
            f"run {run.name} has no pairs.parquet, which tells the slice of every pair: finish the run first."
        )
    columns = columns_of(pq.read_table(file))
    place = {pair_id: index for index, pair_id in enumerate(columns["pair_id"])}
    unknown = [pair_id for pair_id in rows["pair_id"][wanted] if pair_id not in place]
    if unknown:
        raise TrainError(
            f"run {run.name}: pairs.parquet has no row for {len(unknown)} logged pairs, first {unknown[0]}; "
            "it must come from the same run as pair_log.parquet."
        )
    order = np.array([place[pair_id] for pair_id in rows["pair_id"][wanted]], dtype=np.intp)
    found = {name: values[order] for name, values in columns.items()}
    logged = ("tokens_chosen", "tokens_rejected", "logp_chosen", "ref_logp_chosen")
    return found | {name: rows[name][wanted] for name in logged}
