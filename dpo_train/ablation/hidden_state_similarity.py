"""How alike the texts of a training slice are to those of each held-out slice, told from the base model itself.

A training box has no embedding model, but it has the policy before training: a pair's vector is the mean of its last
hidden states over prompt and chosen response. Such vectors all point much the same way, so their common mean over the
training pairs is taken away before cosines are. At most `MOST` pairs a side are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from dpo_train.config import TrainConfig
from dpo_train.data.pairs import PairSet, open_pairs
from dpo_train.policy.architecture import position_limit
from dpo_train.policy.load import open_policy
from dpo_train.policy.policy import Policy
from dpo_train.progress import quiet_bars
from dpo_train.setup import cache_of, encoder_of
from dpo_train.slices.margin_change import Movement
from dpo_train.statistics import Bools, Floats, Indices

MOST = 256  # pairs of each kind; means of so many unit vectors hardly move


def vectors(policy: Policy, pairs: PairSet, indices: Indices) -> Floats:
    """Mean last hidden state over prompt and chosen response of the starting weights (pairs, width)."""
    body = getattr(policy.network, policy.network.base_model_prefix)
    limit = position_limit(policy.network)  # a pair that just fits ends with a token that is never an input elsewhere
    found = []
    with policy.as_reference():
        for one in pairs.encoded(indices):
            tokens = torch.tensor([[*one.prompt, *one.chosen][:limit]], device=policy.device)
            hidden = body(input_ids=tokens, use_cache=False).last_hidden_state
            found.append(hidden[0].double().mean(0).cpu().numpy())
    return np.array(found)


def cosines(everyone: Floats, inside: Floats, held_out: Floats, parts: Mapping[str, Bools]) -> dict[str, float]:
    """Mean cosine of two pairs, one of `inside` and one of each held-out part, around the mean of `everyone`."""
    centre = everyone.mean(axis=0)
    here, there = (_unit(part - centre) for part in (inside, held_out))
    return {name: float(here.mean(axis=0) @ there[members].mean(axis=0)) for name, members in parts.items()}


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def likeness(config: TrainConfig, masked: Path, moved: Movement, parts: Mapping[str, Bools]) -> dict[str, float]:
    """Held-out slice -> mean cosine with the training pairs that weigh nothing in the version `masked`.

    `parts` says which of the held-out pairs of `moved` make each slice; slices of which no pair was read are left out.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not config.use_cpu else "cpu")
    cache = cache_of(masked, masked)
    with quiet_bars():
        policy = open_policy(config, cache, device)
        encoder = encoder_of(policy, config)
        training, watched = (open_pairs(masked, split, encoder, cache) for split in ("train", "validation"))
    place = {name: index for index, name in enumerate(watched.pair_ids)}
    gone, seen = _spread(np.flatnonzero(training.weights == 0)), _spread(np.arange(len(moved.pair_ids)))
    if not len(gone):
        return {}
    return cosines(
        vectors(policy, training, training.probe(MOST)),
        vectors(policy, training, gone),
        vectors(policy, watched, np.array([place[str(moved.pair_ids[i])] for i in seen])),
        {name: members[seen] for name, members in parts.items() if members[seen].any()},
    )


def _spread(indices: Indices) -> Indices:
    """At most `MOST` of them, evenly spread."""
    return indices[np.linspace(0, len(indices) - 1, min(MOST, len(indices))).round().astype(np.int64)]
