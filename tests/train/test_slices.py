"""The slice table on runs whose movements were planted, and on runs where nothing was."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers import synthetic_run

from dpo_train.config import TrainError
from dpo_train.data.axes import columns_of, label, left_out
from dpo_train.logs.pair_log import beta_of
from dpo_train.report.table import render
from dpo_train.slices import table as slices
from dpo_train.slices.adjusted import adjusted_effects, rank_axes
from dpo_train.slices.margin_change import movement


def rows_of(pair_log: pa.Table, pairs: pa.Table, draws: int = 300) -> dict[tuple[str, str, str], dict[str, object]]:
    table = slices.describe(pair_log, pairs, draws=draws)
    return {(row["split"], row["axis"], row["slice"]): row for row in table.to_pylist()}


@pytest.fixture(scope="module")
def planted() -> tuple[pa.Table, pa.Table]:
    return synthetic_run.tables(prompts=200, splits=("validation", "train_probe"))


def test_the_flipped_slice_stands_out_with_its_sign_and_its_share(planted: tuple[pa.Table, pa.Table]) -> None:
    rows = rows_of(*planted)
    flipped, total = rows["validation", "source", "flipped"], rows["validation", "all", "all"]
    assert flipped["movement_high"] < 0 < total["movement_low"]
    assert flipped["p_adjusted"] < 0.001 and flipped["shrunken"] < -1.5
    assert flipped["share"] < 0 and flipped["share_low"] < flipped["share"] < flipped["share_high"]
    assert abs(flipped["movement"] - -1) < 0.2 and flipped["prompts"] == 50


def test_shares_of_an_axis_add_to_one_and_movements_to_the_whole(planted: tuple[pa.Table, pa.Table]) -> None:
    rows = rows_of(*planted)
    total = rows["validation", "all", "all"]
    for axis in ("source", "agreement", "length gap", "language"):
        here = [row for (split, name, _), row in rows.items() if split == "validation" and name == axis]
        assert sum(row["pairs"] for row in here) == total["pairs"]
        if all(row["share"] is not None for row in here):
            assert sum(row["share"] for row in here) == pytest.approx(1)
            parts = sum(row["pairs_share"] * row["movement"] for row in here)
            assert parts == pytest.approx(total["movement"])


def test_one_slice_is_what_a_few_lines_of_numpy_say(planted: tuple[pa.Table, pa.Table]) -> None:
    pair_log, pairs = planted
    row = rows_of(pair_log, pairs)["validation", "source", "forum"]
    forum = {one["pair_id"] for one in pairs.to_pylist() if one["source"] == "forum"}
    end = [one for one in pair_log.to_pylist() if one["step"] == 10 and one["split"] == "validation"]
    here = [one for one in end if one["pair_id"] in forum]
    margins = np.array([one["margin"] for one in here])
    chosen = np.array([synthetic_run.BETA * (one["logp_chosen"] - one["ref_logp_chosen"]) for one in here])
    assert row["movement"] == pytest.approx(margins.mean()) and row["median"] == pytest.approx(np.median(margins))
    assert row["accuracy"] == pytest.approx((margins > 0).mean())
    assert row["chosen_reward"] == pytest.approx(chosen.mean())
    assert row["displaced"] == pytest.approx((chosen[margins > 0] < 0).mean())


def test_no_number_depends_on_the_order_of_the_rows(planted: tuple[pa.Table, pa.Table]) -> None:
    pair_log, pairs = planted
    generator = np.random.default_rng(1)
    again = (table.take(generator.permutation(table.num_rows)) for table in planted)
    assert slices.describe(pair_log, pairs, draws=100).equals(slices.describe(*again, draws=100))


def test_slices_under_ten_prompts_keep_their_row_and_say_so() -> None:
    rows = rows_of(*synthetic_run.tables(prompts=20))
    small = rows["validation", "source", "flipped"]
    assert (small["status"], small["prompts"], small["pairs"]) == ("too small to say", 5, 9)
    assert all(small[name] is None for name in ("movement", "accuracy", "contrast", "p", "shrunken", "share"))
    assert rows["validation", "source", "forum"]["status"] == "few prompts"


def test_the_share_is_withheld_where_the_total_may_be_zero() -> None:
    pair_log, pairs = synthetic_run.tables(prompts=60)
    sign = np.where([int(name.split("-")[1]) % 2 for name in pair_log["prompt_id"].to_pylist()], 1.0, -1.0)
    turned = pair_log.set_column(
        pair_log.column_names.index("margin"), "margin", pa.array(sign * np.abs(pair_log["margin"].to_numpy()))
    )
    rows = rows_of(turned, pairs)
    total = rows["validation", "all", "all"]
    assert total["movement_low"] < 0 < total["movement_high"]
    assert all(row["share"] is None for row in rows.values())


def test_at_step_zero_every_margin_is_a_tie_and_counts_half() -> None:
    pair_log, pairs = synthetic_run.tables(prompts=30)
    rows = rows_of(pair_log.filter(pc.equal(pair_log["step"], 0)), pairs)
    total = rows["validation", "all", "all"]
    assert (total["accuracy"], total["movement"], total["displaced"]) == (0.5, 0.0, None)


def test_shuffled_slice_names_are_flagged_at_the_nominal_rate() -> None:
    generator = np.random.default_rng(2)
    prompts, tests, low, any_flag, times = 90, 0, 0, 0, 150
    pair_log, pairs = synthetic_run.tables(prompts=prompts)
    moved = movement(pair_log, pairs, "validation")
    for _ in range(times):
        names = np.array(["a", "b", "c", "d"], dtype=object)[generator.integers(0, 4, size=prompts)]
        axes = label({"source": names[moved.groups]})
        rows = slices.describe_split(moved, axes, draws=2)[1:]
        p = [row["p"] for row in rows if "p" in row]
        tests, low = tests + len(p), low + sum(one < 0.05 for one in p)
        any_flag += any(row["p_adjusted"] <= 0.10 for row in rows)
    print(
        f"shuffled names: {low / tests:.3f} of {tests} tests under .05; any flag in {any_flag / times:.3f} of {times}"
    )
    assert 0.02 <= low / tests <= 0.08
    assert any_flag / times <= 0.17  # q = .10, within three standard errors of 150 shuffles


def test_the_adjusted_effect_tells_length_from_the_source_that_writes_long() -> None:
    generator = np.random.default_rng(3)
    pair_log, pairs = synthetic_run.tables(prompts=300)
    moved = movement(pair_log, pairs, "validation")
    source = np.where(generator.uniform(size=len(moved.margin)) < 0.5, "wordy", "brief").astype(object)
    chance_long = np.where(source == "wordy", 0.8, 0.2)
    length = np.where(generator.uniform(size=len(source)) < chance_long, "long", "short").astype(object)
    planted = moved._replace(margin=(length == "long") + 0.1 * generator.normal(size=len(source)))
    axes = label({"source": source, "length": length})
    crude = planted.margin[source == "wordy"].mean() - planted.margin[source == "brief"].mean()
    effects = adjusted_effects(planted, axes)
    assert crude > 0.4
    assert abs(effects["source", "wordy"].value) < 0.05 and abs(effects["length", "long"].value - 1) < 0.05


def test_axes_that_cut_the_pairs_alike_get_no_adjusted_effect() -> None:
    pair_log, pairs = synthetic_run.tables(prompts=60)
    moved = movement(pair_log, pairs, "validation")
    twin = moved.columns["source"]
    assert adjusted_effects(moved, label({"source": twin, "again": twin})) == {}


def test_axes_are_ranked_by_what_they_explain(planted: tuple[pa.Table, pa.Table]) -> None:
    moved = movement(*planted, "validation")
    first, *others = rank_axes(moved, label(moved.columns))
    assert first.axis == "source" and first.omega_squared > 0.6 and first.p == 0.001
    assert all(other.omega_squared < 0.05 for other in others)


def test_beta_is_read_from_the_log(planted: tuple[pa.Table, pa.Table]) -> None:
    assert beta_of(planted[0]) == synthetic_run.BETA
    with pytest.raises(TrainError, match="found no beta in the schema metadata"):
        beta_of(planted[0].replace_schema_metadata(None))


def test_every_text_column_with_few_values_is_an_axis_and_the_rest_is_named(
    planted: tuple[pa.Table, pa.Table],
) -> None:
    _, pairs = planted
    pairs = pairs.append_column("topic", pa.array(["code", None] * (pairs.num_rows // 2)))
    pairs = pairs.append_column("author", pa.array([f"person {i}" for i in range(pairs.num_rows)]))
    columns = columns_of(pairs)
    axes = label(columns)
    assert axes["topic"].levels == ("code", "not measured")
    assert "author" not in axes and "different values" in left_out(columns)["author"]
    assert left_out(columns)["category"] == "the shards carry no such column"


def test_a_pair_logged_twice_is_an_error_that_names_it() -> None:
    pair_log, pairs = synthetic_run.tables(prompts=12)
    with pytest.raises(TrainError, match="logged twice"):
        slices.describe(pa.concat_tables([pair_log, pair_log.slice(0, 1)]), pairs)


def test_pairs_missing_from_an_evaluation_are_an_error() -> None:
    pair_log, pairs = synthetic_run.tables(prompts=12)
    last = pc.and_(pc.equal(pair_log["step"], 10), pc.equal(pair_log["pair_id"], "validation-00003-0"))
    with pytest.raises(TrainError, match="one frozen set"):
        slices.describe(pair_log.filter(pc.invert(last)), pairs)


def test_pairs_of_another_run_are_an_error() -> None:
    pair_log, pairs = synthetic_run.tables(prompts=12)
    with pytest.raises(TrainError, match="no row for"):
        slices.describe(pair_log, pairs.slice(3))


def test_the_printed_table_names_the_slice_to_fix_and_every_slice(planted: tuple[pa.Table, pa.Table]) -> None:
    printed = render(slices.describe(*planted, draws=50))
    assert "Fix first: source = flipped. Its margins fell" in printed
    for row in ("source = judges", "language = not measured", "all pairs"):
        assert row in printed
