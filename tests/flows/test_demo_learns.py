"""What `make demo` shows, held by a test: SmolLM2 learns the sample's preference, the report finds the flipped desk.

A real training, cut down to what the claim needs: eight steps, a sample of the held-out pairs seen at the start and
at the end, nothing held out for later.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dpo_data.measures.splits import SplitShares
from dpo_train.config import AttributionSettings
from flows.recipe import load, train_config
from flows.retrain import retrain

pytestmark = pytest.mark.models

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"
FLIPPED: dict[str, Any] = json.loads((SAMPLE / "truth.json").read_text())["plants"]["flipped_slice"]
STEPS = 8
HELD_OUT = 104  # pairs, so that the flipped desk has its ten prompts and more among them


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder after refresh, training and report on the whole sample."""
    recipe = load(SAMPLE / "recipe.yaml")
    shares = SplitShares(train=0.7, validation=0.3, test=0.0)
    curation = recipe.curation.model_copy(update={"embedding_model": None, "splits": shares})
    fewer = {
        "max_steps": STEPS,
        "eval_steps": STEPS,
        "probe_pairs": 0,
        "max_eval_pairs": HELD_OUT,
        "attribution": AttributionSettings(),
    }
    config = train_config(recipe, "recipe.yaml").model_copy(update={**fewer, "use_cpu": True})
    started = time.perf_counter()
    summary = retrain(recipe.model_copy(update={"curation": curation}), config, tmp_path_factory.mktemp("store"))
    print(f"refresh, {STEPS} steps of {config.pairs_per_step} pairs and report: {time.perf_counter() - started:.0f} s")
    return Path(summary["train"]["path"])


@pytest.fixture(scope="module")
def slices(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of the slice report on the validation pairs, by (axis, slice)."""
    rows = pq.read_table(run / "slices.parquet").to_pylist()
    return {(row["axis"], row["slice"]): row for row in rows if row["split"] == "validation"}


def told(row: dict[str, Any]) -> str:
    return (
        f"{row['axis']} = {row['slice']}: margin {row['movement']:+.3f} "
        f"[{row['movement_low']:+.3f}, {row['movement_high']:+.3f}], {row['prompts']} prompts"
    )


def test_margins_start_at_zero_and_the_loss_at_ln_2(run: Path) -> None:
    log = pq.read_table(run / "pair_log.parquet").to_pylist()
    start = [row["margin"] for row in log if row["step"] == 0]
    assert len(start) == HELD_OUT
    assert max(map(abs, start)) < 1e-5
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    first = next(line for line in lines if line["kind"] == "train")
    assert first["step"] == 1
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_the_held_out_margins_grow_clear_of_zero(slices: dict[tuple[str, str], dict[str, Any]]) -> None:
    row = slices["all", "all"]
    print(told(row), f"accuracy {row['accuracy']:.2f}")
    assert row["movement_low"] > 0
    assert row["accuracy"] > 0.55


def test_the_flipped_desk_falls_while_the_rest_grows_and_is_named_first(
    run: Path, slices: dict[tuple[str, str], dict[str, Any]]
) -> None:
    row = slices[FLIPPED["slice"], FLIPPED["value"]]
    first = json.loads((run / "report.json").read_text(encoding="utf-8"))["headline"]
    print(told(row))
    print(f"against the rest {row['contrast']:+.3f} [{row['contrast_low']:+.3f}, {row['contrast_high']:+.3f}]")
    print(first["fix"])
    assert row["movement"] < 0
    assert row["contrast_high"] < 0
    assert (first["row"]["axis"], first["row"]["slice"]) == (FLIPPED["slice"], FLIPPED["value"])
