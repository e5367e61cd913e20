"""A run folder with known movements: what the trainer writes, without a model.

Movements are planted: +1 a pair, a prompt effect and noise on top; pairs of source "flipped" move by -1 instead,
long chosen answers move no more than others. `rows` order is shuffled, since no number may depend on it.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_train.logs.pair_log import with_beta

BETA = 0.1
STEPS = (0, 5, 10)


def tables(prompts: int = 120, seed: int = 0, splits: tuple[str, ...] = ("validation",)) -> tuple[pa.Table, pa.Table]:
    """(pair_log, pairs): one to three pairs a prompt, three sources, "flipped" with a quarter of the prompts."""
    generator = np.random.default_rng(seed)
    log: dict[str, list[object]] = {}
    meta: dict[str, list[object]] = {}
    for split in splits:
        for prompt in range(prompts):
            source = ("flipped", "forum", "judges", "forum")[prompt % 4]
            shared = generator.normal(0, 0.3)
            for place in range(1 + prompt % 3):
                identity = f"{split}-{prompt:05d}-{place}"
                target = (-1.0 if source == "flipped" else 1.0) + shared + generator.normal(0, 0.5)
                rejected_fall = generator.uniform(0.5, 1.5)
                tokens = [int(generator.integers(5, 150)) for _ in range(2)]
                votes = int(generator.integers(2, 6))
                agreeing = int(generator.integers(votes // 2 + 1, votes + 1))
                _append(
                    meta,
                    pair_id=identity,
                    source=source,
                    confidence=float(generator.uniform(0.6, 1)),
                    votes_chosen=agreeing,
                    votes_rejected=votes - agreeing,
                    weight=1.0,
                    similarity=float(generator.uniform(0.2, 1)),
                    turns=1 + prompt % 5,
                    language=("en", "de", None)[prompt % 3],
                    prompt=f"Question {prompt}?",
                    chosen=f"Yes, because of {prompt}.",
                    rejected="No.",
                )
                for step in STEPS:
                    done = step / STEPS[-1]
                    rejected = -40.0 - done * rejected_fall / BETA
                    chosen = -50.0 + done * (target - rejected_fall) / BETA
                    _append(
                        log,
                        pair_id=identity,
                        prompt_id=f"{split}-{prompt}",
                        step=step,
                        split=split,
                        logp_chosen=chosen,
                        logp_rejected=rejected,
                        ref_logp_chosen=-50.0,
                        ref_logp_rejected=-40.0,
                        tokens_chosen=tokens[0],
                        tokens_rejected=tokens[1],
                        margin=BETA * ((chosen + 50) - (rejected + 40)),
                        weight=1.0,
                    )
    pair_log, pairs = pa.table(log), pa.table(meta)
    pair_log = with_beta(pair_log.take(generator.permutation(pair_log.num_rows)), BETA)
    return pair_log, pairs.take(generator.permutation(pairs.num_rows))


def _append(columns: dict[str, list[object]], **row: object) -> None:
    for name, value in row.items():
        columns.setdefault(name, []).append(value)


def write_run(folder: Path, pair_log: pa.Table, pairs: pa.Table) -> Path:
    """The run folder as the trainer leaves it, as far as the report reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pair_log, folder / "pair_log.parquet")
    pq.write_table(pairs, folder / "pairs.parquet")
    (folder / "config.json").write_text(json.dumps({"beta": BETA, "loss_type": "sigmoid"}))
    (folder / "summary.json").write_text(json.dumps({"stop_reason": "margins flat"}))
    return folder
