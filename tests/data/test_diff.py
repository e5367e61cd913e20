"""What changed between two ledgers, with the reason why; and what would change under other limits."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.planted_version import FACTS, Planted, config, ledger_of, many, plant_store
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_data import curate
from dpo_data.analysis import diff
from dpo_data.analysis.what_if import decide_again, merged
from dpo_data.config import CurationConfig
from dpo_data.publish import publish_version
from dpo_data.schema import DataError
from dpo_data.store import versions
from flows.cli.text import diff_lines, what_if_lines


def row(name: str, **more: object) -> Planted:
    return Planted(f"Question {name}?", f"Good {name}", f"Bad {name}", **more)  # type: ignore[arg-type]


def why(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {r["comparison_id"]: (r["change"], ", ".join(r["why"])) for r in rows}


def test_entered_left_flipped_and_re_split_are_told_apart_and_say_why() -> None:
    before = [
        row("same"),
        row("dropped"),
        row("saved", reasons=("low_agreement",)),
        row("flips"),
        row("moves"),
        row("forgotten"),
    ]
    turned = Planted("Question flips?", "Bad flips", "Good flips", votes=4, against=3)
    after = [
        row("same"),
        row("dropped", reasons=("responses_too_similar", "tie")),
        row("saved"),
        turned,
        row("moves", split="test", measures={"prompt_group": "joined"}),
        row("fresh"),
        row("fresh but tied", reasons=("tie",)),
    ]
    assert turned.id == before[3].id
    found = diff.compare_ledgers(ledger_of(before), ledger_of(after))
    assert why(found.rows.to_dicts()) == {
        before[1].id: ("left", "now responses_too_similar, now tie"),
        before[2].id: ("entered", "no longer low_agreement"),
        before[3].id: ("flipped", "new votes"),
        before[4].id: ("re_split", "prompt groups joined or parted"),
        before[5].id: ("left", "comparison gone"),
        after[5].id: ("entered", "new comparison"),
    }
    summary = found.summary
    assert (summary["entered"], summary["left"], summary["flipped"], summary["re_split"]) == (2, 2, 1, 1)
    assert (summary["kept_before"], summary["kept"]) == (5, 5)
    assert {r["reason"]: (r["appeared"], r["vanished"]) for r in summary["reasons"]} == {
        "low_agreement": (0, 1),
        "responses_too_similar": (1, 0),
        "tie": (1, 0),
    }
    [planted] = summary["by"]
    assert planted == {
        **{"slice": "source", "value": "planted", "entered": 2, "left": 2, "flipped": 1, "re_split": 1},
        **{"kept_before": 5, "kept": 5},
    }


def test_a_flip_without_new_votes_is_laid_to_the_annotators_reliability() -> None:
    before = row("torn", votes=2, against=1)
    turned = Planted("Question torn?", "Bad torn", "Good torn", votes=1, against=2)
    found = diff.compare_ledgers(ledger_of([before]), ledger_of([turned]))
    assert why(found.rows.to_dicts()) == {before.id: ("flipped", "reliability of the annotators")}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_kept_rows_always_balance_and_the_row_order_is_of_no_account(
    fates: list[tuple[bool, bool, bool]], luck: object
) -> None:
    rows = many(len(fates))
    before = [
        Planted(r.prompt, r.better, r.worse, ("tie",) if d else ()) for r, (d, _, _) in zip(rows, fates, strict=True)
    ]
    kept_after = [(r, d) for r, (_, d, gone) in zip(rows, fates, strict=True) if not gone]
    after = [Planted(r.prompt, r.better, r.worse, ("tie",) if d else ()) for r, d in kept_after]
    found = diff.compare_ledgers(ledger_of(before), ledger_of(after))
    s = found.summary
    assert s["kept_before"] + s["entered"] - s["left"] == s["kept"]
    shuffled = diff.compare_ledgers(ledger_of(before[::-1]), ledger_of(after[::-1]))
    assert shuffled.rows.equals(found.rows) and shuffled.summary == s


def test_a_ledger_against_itself_has_no_changes() -> None:
    ledger = ledger_of(many(20))
    found = diff.compare_ledgers(ledger, ledger)
    assert found.rows.is_empty() and all(found.summary[kind] == 0 for kind in diff.KINDS)


def test_diff_opens_versions_by_prefix_and_names_both(tmp_path: Path) -> None:
    rows = many(20)
    store = plant_store(tmp_path, rows)
    first = publish_version(store, ledger_of(rows), config())
    rows[0].reasons = ("tie",)
    second = publish_version(store, ledger_of(rows), config())
    found = diff.compare_versions(store, first.id[:8])
    assert (found["old"], found["new"]) == (first.id, second.id)
    assert why(found["sample"]) == {rows[0].id: ("left", "now tie")}
    told = "\n".join(diff_lines(found))
    assert re.search(rf"^ +{rows[0].id} +left +now tie$", told, re.M)
    assert re.search(r"^ +category = chat +20 +19 +0 +1$", told, re.M)
    stats = second.stats
    assert stats["changes"]["old"] == first.id and stats["changes"]["left"] == 1
    assert first.stats["changes"] is None


def published(tmp_path: Path) -> versions.Version:
    """Ten unanimous comparisons, four of 2 : 1 (agreement 2/3), one near pair of responses (similarity .99)."""
    rows = [row(f"clear {i}", votes=3) for i in range(10)]
    rows += [row(f"torn {i}", votes=2, against=1) for i in range(4)]
    rows += [row("alike", measures={"similarity": 0.99, "edit_ratio": 0.05})]
    config = CurationConfig(tokenizer=None, embedding_model=None)
    facts = ledger_of(rows).drop("category", "split", "weight", "reasons", "duplicate_of")
    decided = curate.decide(facts.with_columns(FACTS).sort("comparison_id"), config)
    return publish_version(plant_store(tmp_path, rows), decided, config)


def test_what_if_with_nothing_changed_changes_nothing(tmp_path: Path) -> None:
    version = published(tmp_path)
    found = decide_again(tmp_path, version.id, {})
    assert found["sample"] == [] and found["kept_before"] == found["kept"] == 14


def test_what_if_tells_who_leaves_and_who_enters_under_other_limits(tmp_path: Path) -> None:
    version = published(tmp_path)
    strict = decide_again(tmp_path, "current", {"agreement.min_agreement": 0.7})
    assert (strict["left"], strict["entered"], strict["kept"]) == (4, 0, 10)
    assert strict["left_by_reason"] == [{"reason": "low_agreement", "rows": 4}]
    assert len(strict["sample"]) == 4
    told = "\n".join(what_if_lines(strict))
    assert re.search(r"^ +source = planted +14 +10 +0 +4$", told, re.M) and told.count("now low_agreement") == 4
    assert re.search(r"of 14 \(95 % .* now, .* of 10 \(95 % .* then$", told, re.M)
    assert [strict[name][0]["n"] for name in ("length_bias_before", "length_bias")] == [14, 10]
    loose = decide_again(tmp_path, "current", {"similarity.responses.cosine": 0.995})
    assert (loose["left"], loose["entered"]) == (0, 1)
    assert loose["entered_by_reason"] == [{"reason": "responses_too_similar", "rows": 1}]
    assert versions.list_versions(tmp_path) == [version.path]


def test_what_if_refuses_unknown_names_and_settings_of_measuring(tmp_path: Path) -> None:
    published(tmp_path)
    with pytest.raises(DataError, match=r"agreement\.min_agrement"):
        decide_again(tmp_path, "current", {"agreement.min_agrement": 0.7})
    with pytest.raises(DataError, match="less than or equal to 1"):
        decide_again(tmp_path, "current", {"agreement.min_agreement": 7})
    with pytest.raises(DataError, match="measured"):
        decide_again(tmp_path, "current", {"duplicates.jaccard": 0.7})


@pytest.mark.parametrize("older", [{"agreement": {"nosuch_limit": 1}}, {"nosuch_group": {"x": 1}}])
def test_a_version_of_an_older_release_is_named_and_not_the_users_setting(
    tmp_path: Path, older: dict[str, Any]
) -> None:
    rows = many(20)
    version = publish_version(plant_store(tmp_path, rows), ledger_of(rows), config())
    manifest = version.path / "manifest.json"
    written = json.loads(manifest.read_text(encoding="utf-8"))
    written["config"] = merged(written["config"], older)
    manifest.write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(DataError, match=rf"(?s){version.id} was decided by an older release; refresh first.*nosuch"):
        decide_again(tmp_path, "current", {"agreement.min_agreement": 0.7})
