"""The toy policy, its account and its retrainings without slices, in the tables that a real run writes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dpo_train.ablation.effects import compare, held_out, verdict
from dpo_train.ablation.hidden_state_similarity import cosines
from dpo_train.ablation.predictions import from_likeness, of_account
from dpo_train.attribution import tables
from dpo_train.attribution.path_integral import bucket_names
from dpo_train.slices.margin_change import Movement
from helpers.toy_policy import Network, Pairs, account, train

AXIS, BETA, GROUPS = "kind", 0.1, 8
EDGES = (4, 8, 16)


def moved(network: Network, pairs: Pairs) -> Movement:
    """What training changed on held-out pairs; every pair is a prompt of its own."""
    with torch.no_grad():
        sides = [BETA * (network(rows) - Network()(rows)).double().numpy() for rows in (pairs.chosen, pairs.rejected)]
    margin, names = sides[0] - sides[1], np.array([*pairs.slices, None], dtype=object)[:-1]
    ids = np.array([f"{place:04d}" for place in range(len(pairs))], dtype=object)
    places, none = np.arange(len(pairs)), np.zeros(len(pairs))
    return Movement("validation", (0, 1), BETA, ids, places, margin, *sides, margin, none, {AXIS: names})


def accounted(pairs: Pairs, watched: Pairs, **settings: Any) -> tuple[Movement, dict[str, Any]]:
    """One training with its ledger: what moved, and the account's tables by slice."""
    names = sorted(set(pairs.slices))
    turn = {name: np.cumsum([other == name for other in pairs.slices]) for name in names}  # groups go round in a slice
    codes = [names.index(name) * GROUPS + int(turn[name][place]) % GROUPS for place, name in enumerate(pairs.slices)]
    done = train(pairs, bucket_names(names, GROUPS), torch.tensor(codes), edges=EDGES, **settings)
    sizes = np.bincount(codes, minlength=len(names) * GROUPS)
    seen = moved(done.network, watched)
    ids = list(seen.pair_ids)
    table = tables.tabulate(account(done, watched), names, GROUPS, sizes, ids, np.ones(len(ids)))
    rows = pa.table({"pair_id": list(seen.pair_ids), AXIS: list(watched.slices)})
    return seen, tables.account(table, rows, BETA, AXIS)


def without(pairs: Pairs, gone: Sequence[str]) -> Pairs:
    """The same pairs, the named slices at weight 0."""
    kept = torch.tensor([0.0 if name in gone else 1.0 for name in pairs.slices])
    return Pairs(pairs.chosen, pairs.rejected, pairs.weights * kept, pairs.slices)


def confirm(
    pairs: Pairs, watched: Pairs, gone: Sequence[str], made: Mapping[str, Any], seeds: int = 2, **settings: Any
) -> dict[str, Any]:
    """Retrainings without the named slices, as `dpo_train.confirm` writes them; predictions are of the first one's."""
    value, masked = gone[0], sum(name in gone for name in pairs.slices)
    runs = [[moved(train(one, seed=seed, **settings).network, watched) for seed in range(seeds)]
            for one in (pairs, without(pairs, gone))]  # fmt: skip
    counts = {"train_pairs": len(pairs), "in_slice": masked, "masked": masked}
    predicted = {**of_account(made, value, 1.0), "likeness": from_likeness(_alike(pairs, watched, gone), counts)}
    found = {"axis": AXIS, "slice": value, **counts, "seeds": list(range(seeds)), "keep": 0.0}
    found["cells"] = compare(*runs, AXIS, value, predicted)
    return {**found, "verdict": verdict(found)}


def _alike(pairs: Pairs, watched: Pairs, gone: Sequence[str]) -> dict[str, float]:
    """Texts of the toy are token ids; their vector is the mean of the frozen embeddings, as far as a toy has one."""
    embedding = Network().embedding.weight.detach().double()
    here, there = (embedding[part.chosen].mean(1).numpy() for part in (pairs, watched))
    inside = np.array([name in gone for name in pairs.slices])
    return cosines(here, here[inside], there, held_out(moved(Network(), watched), AXIS, gone[0]))
