"""The style regression: planted coefficients come back, the sides have no order, and clusters widen the intervals."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.published_votes import tables
from scipy import optimize

from dpo_data.measures.length_bias import LengthLimits, rebalance
from dpo_data.measures.style_bias import COVARIATES, logistic, regression
from dpo_data.text import style
from dpo_data.votes import agreement

TRUE = {"length": 0.8, "headers": 0.0, "lists": 0.4, "bold": -0.3}


def planted(rows: int = 4000, seed: int = 0) -> pl.DataFrame:
    """Comparisons whose preferred side follows TRUE on the normalised, scaled differences; ten to a prompt."""
    rng = np.random.default_rng(seed)
    counts = {"chars": (50, 2000), "headers": (0, 4), "lists": (0, 12), "bold": (0, 6)}
    columns = {f"{name}_{side}": rng.integers(*span, rows) for name, span in counts.items() for side in "ab"}
    score = np.zeros(rows)
    for name, covariate in zip(counts, COVARIATES, strict=True):
        a, b = columns[f"{name}_a"], columns[f"{name}_b"]
        d = (a - b) / (a + b + 1)
        score += TRUE[covariate] * d / np.sqrt((d**2).mean())
    chosen = rng.random(rows) < 1 / (1 + np.exp(-score))
    prompt = [f"{i // 10}" for i in range(rows)]
    return pl.DataFrame(columns).with_columns(
        comparison_id=pl.Series([f"{i:05}" for i in range(rows)]),
        preferred=pl.Series(np.where(chosen, "a", "b")),
        prompt_hash=pl.Series(prompt),
        source=pl.Series(["even" if i // 10 % 2 else "odd" for i in range(rows)]),
    )


def by_covariate(table: pl.DataFrame) -> dict[str, dict[str, float]]:
    return {row["covariate"]: row for row in table.filter(pl.col("slice") == "all").iter_rows(named=True)}


def test_planted_coefficients_lie_in_their_intervals() -> None:
    held = 0
    for seed in range(10):
        rows = by_covariate(regression(planted(seed=seed)))
        held += sum(rows[name]["low"] <= value <= rows[name]["high"] for name, value in TRUE.items())
    assert held >= 34  # of 40, at 95 % each


def test_the_sides_have_no_order() -> None:
    frame = planted(500)
    other = {f"{name}_{x}": f"{name}_{y}" for name in ("chars", *COVARIATES[1:]) for x, y in ("ab", "ba")}
    turned = frame.rename(other).with_columns(pl.col("preferred").replace({"a": "b", "b": "a"}))
    one, two = regression(frame), regression(turned)
    for name in ("coefficient", "low", "high", "mean_difference", "style_auc"):
        np.testing.assert_allclose(one[name].to_numpy(), two[name].to_numpy(), rtol=1e-9)


def test_the_fit_is_the_top_of_the_penalised_likelihood() -> None:
    rng = np.random.default_rng(2)
    design, hit = rng.normal(size=(200, 3)), rng.random(200) < 0.6
    weight = rng.uniform(0.5, 2, 200)

    def loss(beta: np.ndarray) -> float:
        return float((weight * np.logaddexp(0, np.where(hit, -1, 1) * (design @ beta))).sum() + 0.25 * beta @ beta)

    beta, _ = logistic(design, hit, weight, np.arange(200))
    np.testing.assert_allclose(beta, optimize.minimize(loss, np.zeros(3), tol=1e-12).x, atol=1e-5)


def test_copies_of_rows_within_prompts_make_no_interval_narrower() -> None:
    frame = planted(600)
    once = by_covariate(regression(frame))["length"]
    thrice = by_covariate(regression(pl.concat([frame] * 3)))["length"]
    assert thrice["n"] == 3 * once["n"]
    assert thrice["high"] - thrice["low"] == pytest.approx(once["high"] - once["low"], rel=0.02)


def test_what_never_differs_or_was_not_measured_has_no_coefficient() -> None:
    frame = planted(200).with_columns(bold_a=pl.lit(2), bold_b=pl.lit(2)).drop("headers_a", "headers_b")
    rows = by_covariate(regression(frame))
    assert rows["bold"]["coefficient"] is None and rows["bold"]["mean_difference"] == 0
    assert rows["headers"]["coefficient"] is None and rows["headers"]["mean_difference"] is None
    assert rows["length"]["coefficient"] > 0.4


def test_slices_are_fitted_apart_and_an_empty_frame_is_no_error() -> None:
    table = regression(planted(1000), ["source"])
    assert table.select("slice", "value", "n").unique(maintain_order=True).rows() == [
        ("all", "all", 1000),
        ("source", "even", 500),
        ("source", "odd", 500),
    ]
    assert regression(planted(10).clear())["coefficient"].null_count() == 4


def test_separated_data_stay_finite() -> None:
    frame = planted(50).with_columns(
        preferred=pl.when(pl.col("chars_a") > pl.col("chars_b")).then(pl.lit("a")).otherwise(pl.lit("b"))
    )
    assert by_covariate(regression(frame))["length"]["coefficient"] < 20


@pytest.mark.real
def test_length_speaks_in_the_judges_choices_and_hardly_after_the_rebalance(real_data: Path) -> None:
    votes, texts = tables(real_data, "qlora")
    counted = []
    for side in "ab":
        counts = style.style_counts(pl.col(f"response_{side}"))
        counted += [value.alias(f"{name}_{side}") for name, value in counts.items()]
    measured = agreement.measure(texts.with_columns(counted), votes)
    balanced = rebalance(measured, LengthLimits(rebalance="drop")).filter(~pl.col("length_rebalanced"))
    before, after = regression(measured), regression(balanced)
    with pl.Config(tbl_cols=-1, tbl_width_chars=160, tbl_hide_dataframe_shape=True):
        print(before.drop("slice", "value", "unit"), after.drop("slice", "value", "unit"))
    assert by_covariate(before)["length"]["low"] > 0.5
    assert by_covariate(before)["headers"]["coefficient"] is None  # no answer of these models has one
    assert by_covariate(after)["length"]["low"] < 0.1
