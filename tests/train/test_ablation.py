"""Retraining without a slice: the mask is exact, the flipped slice's removal helps the others, the report says so."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import tiny

from dpo_train.ablation.effects import OTHERS, read, verdict
from dpo_train.ablation.mask import mask, slug
from dpo_train.ablation.predictions import PREDICTORS, prediction_quality
from dpo_train.ablation.retraining import confirm
from dpo_train.config import TrainConfig, TrainError
from dpo_train.report import page as report
from dpo_train.train import train

PLACES = {"train": range(48), "validation": range(100, 136)}


def row(number: int, split: str) -> dict[str, Any]:
    """Every third pair is of category "flipped": the rambling answer is called the better one."""
    made = tiny.row(number, split, prompt_group=f"{split}-{number}", category=("chat", "facts", "flipped")[number % 3])
    if made["category"] == "flipped" and split == "train":
        made |= {"chosen": made["rejected"], "rejected": made["chosen"]}
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(version, run) of the tiny model with a flipped slice, accounted for."""
    store = tmp_path_factory.mktemp("store")
    model = tiny.model_folder(store / "model")
    rows = {
        "train": [row(k, "train") for k in range(48)],
        "validation": [row(k, "validation") for k in range(100, 136)],
    }
    version = tiny.write_version(store / "versions" / "flipped", rows)
    config = TrainConfig.model_validate(
        {
            "model": str(model),
            "use_cpu": True,
            "learning_rate": 3e-3,
            "max_steps": 8,
            "eval_steps": 4,
            "report_to": (),
            "attribution": {"by": "category", "pairs": 12, "intervals": 2},
        }
    )
    run = store / "runs" / "first"
    train(config, version, run)
    return version, run


@pytest.fixture(scope="module")
def confirmed(trained: tuple[Path, Path]) -> dict[str, Any]:
    version, run = trained
    confirm(version, run, "category", "flipped", seeds=2)
    return read(run)[0]


def test_a_mask_touches_weights_of_the_slice_and_nothing_else(trained: tuple[Path, Path], tmp_path: Path) -> None:
    version, _ = trained
    folder, counts = mask(version, tmp_path, "category", "flipped", 0.0)
    assert counts == {"train_pairs": 48, "in_slice": 16, "masked": 16}
    for path in sorted((version / "pairs").glob("train-*")):
        before, after = pq.read_table(path), pq.read_table(folder / "pairs" / path.name)
        assert after.drop(["weight"]).equals(before.drop(["weight"])) and after.column_names == before.column_names
        expected = [0.0 if name == "flipped" else 1.0 for name in before["category"].to_pylist()]
        assert after["weight"].to_pylist() == expected
    assert (folder / "pairs" / "validation-00000-of-00003.parquet").resolve().parent == (version / "pairs").resolve()


def test_half_of_a_slice_is_the_same_half_every_time(trained: tuple[Path, Path], tmp_path: Path) -> None:
    version, _ = trained
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, counts = mask(version, tmp_path / "a", "category", "flipped", 0.5)
    second, again = mask(version, tmp_path / "b", "category", "flipped", 0.5)
    assert counts == again and 0 < counts["masked"] < counts["in_slice"]
    name = "train-00000-of-00004.parquet"
    assert pq.read_table(first / "pairs" / name).equals(pq.read_table(second / "pairs" / name))


def test_without_the_flipped_slice_the_others_margins_grow_more(confirmed: dict[str, Any]) -> None:
    cells = {cell["slice"]: cell for cell in confirmed["cells"]}
    assert confirmed["verdict"] == "confirmed" and confirmed["masked"] == 16
    assert cells[OTHERS]["change_low"] > 0 and cells[OTHERS]["pairs"] == 24
    assert min(cells["chat"]["by_seed"]) > 0 and min(cells["facts"]["by_seed"]) > 0
    assert cells[OTHERS]["pushed"] > 0  # the account had said so: taking away a push downwards
    assert cells["all"]["change"] == pytest.approx(np.mean(cells["all"]["by_seed"]))


def test_a_good_slice_is_not_confirmed_as_harmful(trained: tuple[Path, Path], tmp_path: Path) -> None:
    version, run = trained
    path = confirm(version, run, "category", "chat", seeds=1)
    assert verdict(json.loads(path.read_text(encoding="utf-8"))) == "not confirmed"
    found = prediction_quality(read(run))
    print("Spearman with what the retrainings changed:", found)
    assert found is not None and found["cells"] == 6 and found["pushed"] > 0.5 and found["tracin"] > 0.5
    assert all(-1 <= found[name] <= 1 for name in PREDICTORS)


def test_the_report_says_confirmed_on_its_first_screen(trained: tuple[Path, Path], confirmed: dict[str, Any]) -> None:
    page = html.unescape(report.write(trained[1]).read_text(encoding="utf-8"))
    numbers = json.loads((trained[1] / "report.json").read_text(encoding="utf-8"))
    assert numbers["headline"]["fix"].startswith("Fix first: category = flipped.")
    assert "Evidence: confirmed" in numbers["headline"]["sure"] and "Evidence: confirmed" in page
    assert numbers["confirmations"][0]["slice"] in ("flipped", "chat")


def test_parquet_json_and_page_say_the_same_of_the_account(
    trained: tuple[Path, Path], confirmed: dict[str, Any]
) -> None:
    _, run = trained
    page = html.unescape(report.write(run).read_text(encoding="utf-8"))
    made = json.loads((run / "report.json").read_text(encoding="utf-8"))["account"]
    category = {row["pair_id"]: row["category"] for row in pq.read_table(run / "pairs.parquet").to_pylist()}
    rows = pq.read_table(run / "attribution.parquet").to_pylist()

    def mean(account: str, held_out: str) -> float:
        """Change of the margin a pair, from the rows alone."""
        inside = [row for row in rows if held_out in ("all", category[row["pair_id"]])]
        total = sum(row["chosen"] - row["rejected"] for row in inside if row["account"] == account)
        return 0.1 * total / len({row["pair_id"] for row in inside})

    assert {cell["train"] for cell in made["cells"]} == {"chat", "facts", "flipped"}
    for cell in made["cells"]:
        assert cell["pushed"] == pytest.approx(mean(cell["train"], cell["slice"]))
        assert f">{cell['pushed']:+.3f}".replace("-", "−") in page
    for head in made["columns"]:
        assert head["observed"] == pytest.approx(mean("observed", head["slice"])) and head["closure"] < 0.02
        assert f">{100 * head['closure']:.2f} %<" in page  # under its column


def test_an_unknown_slice_is_an_error_that_lists_the_known_ones(trained: tuple[Path, Path]) -> None:
    version, run = trained
    with pytest.raises(TrainError, match="has no slice 'nothing' in training; it has chat, facts, flipped"):
        confirm(version, run, "category", "nothing")
    with pytest.raises(TrainError, match="no axis 'colour' among the training pairs"):
        confirm(version, run, "colour", "red")


def test_file_names_of_slices_are_safe_and_different() -> None:
    assert slug("a", "../x", 0) != slug("a", "..?x", 0)
    assert "/" not in slug("a/b", "../../etc", 0.5)


def test_runs_that_started_from_different_weights_are_not_set_against_each_other(tmp_path: Path) -> None:
    from dpo_train.ablation.retraining import check_same_reference

    for name, weights in (("run", "aa11"), ("again", "aa11"), ("other", "bb22")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps({"reference": {"weights": weights}}))
    check_same_reference(tmp_path / "run", tmp_path / "again")
    with pytest.raises(TrainError, match=r"different references.*aa11.*bb22"):
        check_same_reference(tmp_path / "run", tmp_path / "other")
