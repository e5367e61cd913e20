"""Two slices at once: found where planted, silent where the two slices add up."""

import numpy as np
import pyarrow as pa
from helpers import synthetic_run

from dpo_train.data.axes import label
from dpo_train.slices.adjusted import rank_axes
from dpo_train.slices.interactions import crossings
from dpo_train.slices.margin_change import Movement, movement


def moved(planted: float) -> Movement:
    """Movements of 300 prompts; pairs that are "forum" and "de" move by `planted` beyond the sum."""
    pair_log, pairs = synthetic_run.tables(prompts=300, seed=3)
    found = movement(pair_log, pairs, "validation")
    both = (found.columns["source"] == "forum") & (found.columns["language"] == "de")
    return found._replace(margin=found.margin + np.where(both, planted, 0.0))


def test_a_planted_crossing_is_found_with_its_numbers() -> None:
    found = moved(-1.5)
    axes = label(found.columns)
    made = crossings(found, axes, rank_axes(found, axes))
    assert "source" in made["axes"] and made["tested"] > len(made["rows"]) > 0
    first = {row["slice"]: row for row in made["rows"]}["source = forum and language = de"]
    assert first["beyond_high"] < 0 and first["movement"] < first["expected"]
    assert first["p_adjusted"] < 0.01 and first["prompts"] >= 10


def test_slices_that_only_add_up_have_no_crossing() -> None:
    found = moved(0.0)
    axes = label(found.columns)
    made = crossings(found, axes, rank_axes(found, axes))
    assert made["axes"] and not made["rows"]


def test_no_axis_no_crossing() -> None:
    pair_log, pairs = synthetic_run.tables(prompts=30)
    found = movement(pair_log, pa.table({"pair_id": pairs["pair_id"]}), "validation")
    assert crossings(found, {}, []) == {"axes": [], "tested": 0, "rows": []}
