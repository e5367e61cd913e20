"""Unpaired rows: both sides of every pair, and lone thumbs by majority, on the side of their prompt's group."""

from pathlib import Path
from typing import Any

import polars as pl
from helpers.planted_version import Planted, config, ledger_of, many, plant_store

from dpo_data import schema
from dpo_data.measures.splits import SplitShares
from dpo_data.publish import publish_version
from dpo_data.release.unpaired import lone


def thumbs(*rows: tuple[str, str, bool, str | None], **more: Any) -> pl.DataFrame:
    records = [
        {
            **dict.fromkeys(schema.THUMBS),
            "prompt": [{"role": "user", "content": prompt}],
            "completion": completion,
            "label": label,
            "annotator": who,
            "source": "thumbs",
            "origin": f"thumbs.jsonl:{i}",
            **more,
        }
        for i, (prompt, completion, label, who) in enumerate(rows)
    ]
    return pl.DataFrame(records, schema=schema.THUMBS, orient="row")


def test_every_pair_gives_two_rows_and_every_lone_thumb_one(tmp_path: Path) -> None:
    rows = many(25)
    rows[0].reasons = ("tie",)
    extra = [
        {"prompt": [{"role": "user", "content": "Alone?"}], "completion": "Yes.", "label": True, "origin": "t:0"},
        {"prompt": [{"role": "user", "content": "Alone?"}], "completion": "", "label": False, "origin": "t:1"},
    ]
    store = plant_store(tmp_path, rows, thumbs=extra)
    version = publish_version(store, ledger_of(rows), config())
    found = pl.read_parquet(sorted((version.path / "unpaired").glob("*.parquet")))
    assert found.columns == list(schema.UNPAIRED)
    assert found.height == 2 * 24 + 1 and found["row_id"].is_unique().all()
    pairs = version.pairs().collect()
    for label, side in ((True, "chosen"), (False, "rejected")):
        own = found.filter(pl.col("row_id").str.ends_with(f"-{side}")).sort("row_id")
        assert own["label"].to_list() == [label] * 24
        assert own["completion"].to_list() == pairs.sort("pair_id")[side].to_list()
        assert own["split"].to_list() == pairs.sort("pair_id")["split"].to_list()
    assert version.stats["lone_thumbs"] == {
        **{"thumbs": 2, "responses": 2, "used": 1, "blank": 1, "torn": 0, "contaminated": 0}
    }


def test_the_majority_of_thumbs_counts_and_a_draw_is_left_out() -> None:
    ledger = ledger_of(many(3))
    given = thumbs(
        ("p", "two of three", True, "a"),
        ("p", "two of three", True, "b"),
        ("p", "two of three", False, "c"),
        ("p", "draw", True, "a"),
        ("p", "draw", False, "b"),
        ("p", "the same snapshot twice", False, None),
        ("p", "the same snapshot twice", False, None),
    )
    rows, counts = lone(given, ledger, SplitShares())
    labels = {row["completion"][0]["content"]: row["label"] for row in rows.to_dicts()}
    assert labels == {"two of three": True, "the same snapshot twice": False}
    assert counts == {"thumbs": 7, "responses": 3, "used": 2, "blank": 0, "torn": 1, "contaminated": 0}
    again, _ = lone(given.sample(fraction=1, shuffle=True, seed=3), ledger, SplitShares())
    assert again.equals(rows)


def test_a_thumb_follows_the_group_of_its_prompt_into_its_split() -> None:
    from dpo_data.measures import splits

    rows = [
        Planted(f"Question {i}?", f"Good {i}", f"Bad {i}", measures={"prompt_group": f"group {i}"}) for i in range(60)
    ]
    shares = SplitShares(train=0.5, validation=0.25, test=0.25)
    ledger = splits.assign(splits.measure(ledger_of(rows)), shares)
    given = thumbs(*((f"Question {i}?", "Another answer", True, "a") for i in range(60)))
    found, _ = lone(given, ledger, shares)
    of_prompt = dict(zip((f"Question {i}?" for i in range(60)), ordered(ledger, rows), strict=True))
    assert {row["prompt"][0]["content"]: row["split"] for row in found.to_dicts()} == of_prompt
    assert set(of_prompt.values()) == {"train", "validation", "test"}


def ordered(ledger: pl.DataFrame, rows: list[Planted]) -> list[str]:
    split = dict(ledger.select("comparison_id", "split").iter_rows())
    return [split[row.id] for row in rows]


def test_a_thumb_on_a_contaminated_prompt_is_left_out() -> None:
    rows = [Planted("In the benchmark?", "Good", "Bad", reasons=("contaminated",)), *many(2)]
    found, counts = lone(thumbs(("In the benchmark?", "Yes", True, "a")), ledger_of(rows), SplitShares())
    assert found.is_empty() and counts["contaminated"] == 1
