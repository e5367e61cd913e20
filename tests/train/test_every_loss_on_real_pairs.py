"""Every loss and some mixtures, three steps each on published pairs and thumbs, from raw file to trained adapter."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers import tiny
from safetensors.torch import load_file

from dpo_data.formats import READERS
from dpo_data.reading.records import BinaryRating, Vote
from dpo_train.config import TrainConfig
from dpo_train.losses import Loss, Mixture, losses_of
from dpo_train.train import train

pytestmark = pytest.mark.real

MIXTURES = [
    {"loss_type": "mixture", "terms": [{"loss_type": name} for name in terms], "loss_weights": weights}
    for terms, weights in (
        (("sigmoid", "bco_pair", "sft"), (0.8, 0.2, 1.0)),  # MPO
        (("sigmoid", "sft"), (1.0, 0.1)),  # RPO
        (("ipo", "aot"), (1.0, 1.0)),
    )
]
SINGLE = [{"loss_type": loss.model_fields["loss_type"].default} for loss in losses_of(Loss) if loss is not Mixture]
WITH_KNOBS = [
    {"loss_type": "sigmoid", "label_smoothing": 0.1, "ld_alpha": 0.5, "length_penalty": 0.01, "use_weighting": True},
    {"loss_type": "sigmoid", "soft_labels": True},
    {"loss_type": "sigmoid", "f_divergence_type": "js_divergence"},
    {"loss_type": "bco_pair", "delta": "running_mean"},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> tuple[Path, Path]:
    """(model folder, version folder): pairs of hh-rlhf harmless, thumbs of the KTO demo, as many bytes as fit."""
    root = tmp_path_factory.mktemp("store")
    judged = READERS["hh_rlhf"].read(real_data / "hh-rlhf-harmless" / "harmless-base-test.part.jsonl")
    rows = [_pair(number, item) for number, item in enumerate(judged) if isinstance(item, Vote)]
    version = tiny.write_version(root / "versions" / "real", _split(rows, ("chosen", "rejected")))
    thumbs = READERS["kto"].read(real_data / "llamafactory-demo" / "kto_en_demo.json")
    single = [_thumb(number, item) for number, item in enumerate(thumbs) if isinstance(item, BinaryRating)]
    tiny.write_version(version, _split(single, ("completion",)), "unpaired")
    return tiny.model_folder(root / "model"), version


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _pair(number: int, vote: Vote) -> dict[str, Any]:
    sides = (vote.first, vote.second) if vote.choice == "first" else (vote.second, vote.first)
    both = {"chosen": _said(sides[0]), "rejected": _said(sides[1])}
    return {"pair_id": f"hh-{number}", "prompt": vote.prompt, **both, "weight": 1.0, "confidence": 0.8}


def _thumb(number: int, thumb: BinaryRating) -> dict[str, Any]:
    row = {"row_id": f"kto-{number}", "prompt": thumb.prompt, "completion": _said(thumb.completion)}
    return {**row, "label": thumb.label, "weight": 1.0}


def _split(rows: list[dict[str, Any]], sides: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """The shortest rows, since the model reads bytes: fifteen to train on, four to look at."""

    def size(row: dict[str, Any]) -> int:
        return sum(len(message["content"]) for name in ("prompt", *sides) for message in row[name])

    short = sorted(rows, key=size)[:19]
    return {"train": short[:15], "validation": short[15:]}


@pytest.mark.parametrize("loss", [*SINGLE, *WITH_KNOBS, *MIXTURES], ids=lambda loss: json.dumps(loss)[15:60])
def test_it_trains_from_where_it_says_it_starts(place: tuple[Path, Path], tmp_path: Path, loss: dict[str, Any]) -> None:
    model, version = place
    settings = {"model": str(model), "loss": loss, "use_cpu": True, "report_to": (), "probe_pairs": 0}
    steps = {"per_device_train_batch_size": 5, "max_steps": 3, "eval_steps": 3, "save_steps": 9, "learning_rate": 2e-3}
    config = TrainConfig.model_validate({**settings, **steps})
    summary = train(config, version, tmp_path / "run")

    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    learned = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in learned] == [1, 2, 3]
    assert all(math.isfinite(row["loss"]) and 0 < row["grad_norm"] < math.inf for row in learned)
    start = next(row for row in rows if row["kind"] == "eval")
    if config.loss.uses_reference:
        log = pq.read_table(tmp_path / "run" / "pair_log.parquet").to_pandas()
        assert (log[log["step"] == 0]["margin"] == 0).all()
        expected = config.loss.at_reference()
        if expected is not None:
            assert [start["loss"], learned[0]["loss"]] == pytest.approx([expected] * 2, rel=1e-4)
    adapter = load_file(tmp_path / "run" / "checkpoints" / "step-00000003" / "weights.safetensors")
    assert all(value.abs().max() > 0 for value in adapter.values())  # an adapter starts with every B at 0
    assert summary.pairs["train"] == 15
