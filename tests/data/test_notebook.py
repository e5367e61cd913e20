"""The notebook runs as it is, cell by cell, on a version of the sample, and its numbers are those of the audit.

Its cells are plain Python, so they are executed here and now: a kernel would cost seconds and a dozen packages, and
would test Jupyter.
"""

import ast
import json
from pathlib import Path
from typing import Any

import altair as alt
import datasets
import polars as pl
import pytest
from helpers.sample_store import embed_by_chance, store_of

from dpo_data import curate
from dpo_data.config import CurationConfig
from dpo_data.publish import publish_version
from dpo_data.store import versions

NOTEBOOK = Path(__file__).resolve().parents[2] / "data" / "notebooks" / "ask_a_version.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def run(source: str, names: dict[str, Any]) -> Any:
    """Execute a cell; the value of its last line, which a notebook would show."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    return eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names) if last else None


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> versions.Version:
    store = embed_by_chance(store_of(tmp_path_factory.mktemp("notebook"), "studio.csv"))
    config = CurationConfig(tokenizer=None, slices=("category",))
    return publish_version(store, curate.decide(curate.measure(store, config), config), config)


def test_every_cell_runs_and_what_it_shows_agrees_with_the_audit(
    version: versions.Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPO_STORE", str(version.path.parents[1]))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    names: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), names) for cell in CELLS if cell["cell_type"] == "code"]
    assert all(value is not None for value in shown)
    stats = version.stats
    assert names["trust"]["pairs"].sum() == stats["counts"]["kept"]
    assert names["trust"]["expected_wrong"].sum() == pytest.approx(stats["trust"]["expected_wrong"])
    assert {(row["reason"], row["rows"], row["sole_rows"]) for row in stats["reasons"]} == set(names["dropped"].rows())
    after = {row["value"]: row["p_longer"] for row in stats["length_bias"]["after"] if row["slice"] == "source"}
    assert dict(names["longer"].select("source", "chosen_is_longer").rows()) == pytest.approx(after)
    assert names["torn"].height == names["ledger"].filter((pl.col("votes_a") > 0) & (pl.col("votes_b") > 0)).height > 0
    charts = [value for value in shown if isinstance(value, alt.TopLevelMixin)]
    assert len(charts) == 2
    for chart in charts:  # each draws its rows: altair checks the specification, and no point is without a place
        [*rows] = chart.to_dict()["datasets"].values()
        assert len(rows[0]) > 3
    assert names["places"].height == names["ledger"].filter(pl.col("prompt_chars") > 0).height


def test_the_notebook_is_kept_without_outputs() -> None:
    for cell in CELLS:
        assert set(cell) >= {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
