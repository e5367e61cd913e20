"""The audit page as a document: what it says first, that its lines work, and that it stays small, still and inert."""

import re
import shlex
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.hostile import NAMES, TEXTS, hostile_rows
from helpers.planted_version import FACTS, Planted, config, ledger_of, many, plant_store

from dpo_data import curate
from dpo_data.analysis.sql import query
from dpo_data.analysis.what_if import decide_again
from dpo_data.audit import page, wording
from dpo_data.audit.summary import answers
from dpo_data.audit.text_diff import pieces
from dpo_data.config import CurationConfig
from dpo_data.publish import publish_version
from dpo_data.review import queues
from dpo_data.store import versions
from dpo_data.text.escape import short, visible


def publish(store: Path, rows: list[Planted], **more: Any) -> versions.Version:
    plant_store(store, rows, **more)
    return publish_version(store, ledger_of(rows), config())


def some() -> list[Planted]:
    """Forty kept, some dropped for one or two reasons, a torn one, a slice of two categories."""
    torn = Planted("Torn?", "One way", "Another way", ("contradictory_votes", "low_agreement"), votes=2, against=2)
    dropped = [Planted(f"Tie {i}?", f"Good {i}", f"Bad {i}!!", ("tie",), category="math") for i in range(5)]
    return [*many(40), torn, *dropped]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> versions.Version:
    return publish(tmp_path_factory.mktemp("audit") / "store", some())


@pytest.fixture(scope="module")
def text(version: versions.Version) -> str:
    return (version.path / "audit.html").read_text(encoding="utf-8")


def lines(text: str) -> list[str]:
    """Every line for the terminal that a page prints."""
    return [unescape(found) for found in re.findall(r"<code>(dpo [^<]*)</code>", text)]


def test_the_first_screen_answers_the_six_questions_with_counts(version: versions.Version) -> None:
    found = {entry.question: entry.answer for entry in answers(version.stats, None)}
    assert len(found) == 6
    assert "40 of 40 kept pairs have several annotators, 0 a single vote" in found["Can I trust these pairs?"]
    # Three votes to none: (3 + 1) / (3 + 2) sure, so a fifth of forty is expected to be wrong.
    assert "about 8 of 40 (20.0 %)" in found["Can I trust these pairs?"]
    assert found["What was dropped, and was that right?"].startswith("6 of 46 comparisons (13 %)")
    assert found["What changed since the last version?"] == "This is the first version of its store."
    assert "1 comparison with as many votes" in "".join(task.sentence for task in wording.tasks(version.stats))


def test_every_sql_line_of_the_page_runs_and_every_reason_line_lists_its_rows(
    version: versions.Version, text: str
) -> None:
    store = version.path.parents[1]
    asked = [shlex.split(line)[2] for line in lines(text) if line.startswith("dpo sql")]
    assert len(asked) > 15
    for sql in asked:
        query(store, sql)
    for row in version.stats["reasons"]:
        sql = shlex.split(wording.reason_query(row["reason"]))[2]
        assert len(query(store, sql)) == row["rows"]
    for row in version.stats["slices"]:
        sql = shlex.split(wording.slice_query(row["slice"], row["value"]))[2]
        assert len(query(store, sql)) == row["comparisons"]


def test_every_other_line_of_the_page_is_a_command_of_the_program(text: str) -> None:
    known = {"sql", "explain", "decide", "diff", "review"}
    assert {line.split()[1] for line in lines(text)} <= known


def test_the_same_version_gives_the_same_page_byte_by_byte(version: versions.Version, text: str) -> None:
    assert page.write(version.path).read_text(encoding="utf-8") == text


def test_headings_step_down_one_level_at_a_time_and_every_link_has_its_place(text: str) -> None:
    levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = set(re.findall(r'id="([^"]+)"', text))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= ids
    assert all(address.startswith("#") for address in re.findall(r'href="([^"]*)"', text))
    assert all("alt=" in image for image in re.findall(r"<img[^>]*>", text))


def test_a_version_after_another_tells_what_changed(tmp_path: Path) -> None:
    rows = many(20)
    publish(tmp_path, rows)
    more = [*rows, *[Planted(f"New {i}?", f"Yes {i}", f"No, not {i}") for i in range(3)]]
    second = _again(tmp_path, more)
    text = (second.path / "audit.html").read_text(encoding="utf-8")
    assert "3 new comparisons, 3 pairs entered, 0 left" in text
    assert f"dpo diff {second.stats['changes']['old']} {second.id}" in lines(text)


def _again(store: Path, rows: list[Planted]) -> versions.Version:
    plant_store(store, rows[20:], batch="0002-later")
    return publish_version(store, ledger_of(rows), config())


def test_markup_of_the_data_is_text_of_the_page(tmp_path: Path) -> None:
    version = publish(tmp_path, hostile_rows())
    text = (version.path / "audit.html").read_text(encoding="utf-8")
    tags = set(re.findall(r"<([a-zA-Z][a-zA-Z0-9]*)", text))
    assert not tags & {"script", "iframe", "object", "embed", "form", "input", "link", "svg", "base", "b-o-o-m"}
    assert not re.search(r"<[^>]*\son\w+=", text)
    for mark in ("\x1b", "\u202e", "\u2067", "\u200b", "\x07"):
        assert mark not in text
    assert "␛[31m" in text and "⟨U+202E⟩" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_line_with_a_hostile_name_is_one_harmless_word_for_the_shell(tmp_path: Path, name: str) -> None:
    for line in (wording.votes_query(name), wording.slice_query("source", name), wording.slice_query(name, "x")):
        assert visible(line) == line
        inner = line.removeprefix('dpo sql "').removesuffix('"')
        assert not re.search(r'[$`!\n]|(?<!\\)"|\\(?!")', inner)
        assert shlex.split(line)[:2] == ["dpo", "sql"] and len(shlex.split(line)) == 3


def test_a_hostile_name_is_found_by_its_line(tmp_path: Path) -> None:
    publish(tmp_path, hostile_rows())
    for name in NAMES:
        [row] = query(
            tmp_path, "select count(*) as n from (" + shlex.split(wording.slice_query("source", name))[2] + ")"
        )
        assert row["n"] == len(TEXTS), name


def test_a_page_of_the_longest_texts_stays_under_three_megabytes(tmp_path: Path) -> None:
    why = [*wording.REASONS]
    rows = [
        Planted(
            f"{i} " + "& < " * 20_000, f"{i} " + "<b>a& " * 20_000, f"{i} " + '"b>& ' * 20_000, (why[i % len(why)],)
        )
        for i in range(6 * len(why))
    ]
    version = publish(tmp_path, [*rows, *many(20)])
    assert (version.path / "audit.html").stat().st_size < 3_000_000


def test_pieces_join_to_the_texts_and_mark_only_what_differs() -> None:
    left, right, compared = pieces("the old red house", "the new red house")
    assert compared
    assert left == [("the ", False), ("old ", True), ("red house", False)]
    assert right == [("the ", False), ("new ", True), ("red house", False)]
    assert pieces("It depends on you.", "Answer: hammer.") == (
        [("It depends on you.", False)],
        [("Answer: hammer.", False)],
        False,
    )
    for first, second in (("", "x"), ("same", "same"), ("a  b\n\nc", "a b\n c"), ("word " * 3000, "other " * 3000)):
        found = pieces(first, second)
        assert ["".join(text for text, _ in side) for side in found[:2]] == [first, second]
    assert not pieces("word " * 3000, "other " * 3000)[2]


def test_hidden_signs_become_visible_and_plain_text_stays() -> None:
    assert visible("plain äöü 漢字 👩‍👩‍👧\n\tcode") == "plain äöü 漢字 👩‍👩‍👧\n\tcode"
    assert visible("a\x1b[31mb\u202ec\x7f") == "a␛[31mb⟨U+202E⟩c␡"
    assert short("  two\n words " * 50, 12) == "two words t…"


def test_the_sets_of_reasons_add_up_to_the_dropped_rows_and_the_rebalance_is_silent_when_it_did_nothing(
    version: versions.Version,
) -> None:
    stats = version.stats
    assert stats["reason_sets"] == [
        {"reasons": ["tie"], "rows": 5},
        {"reasons": ["contradictory_votes", "low_agreement"], "rows": 1},
    ]
    assert sum(row["rows"] for row in stats["reason_sets"]) == stats["counts"]["dropped"]
    assert stats["rebalance"] == []
    assert [row["covariate"] for row in stats["style_bias"]["after"]] == ["length", "headers", "lists", "bold"]


def test_a_slice_that_is_short_of_its_target_needs_a_human(tmp_path: Path) -> None:
    plant_store(tmp_path, some())
    wanted = {"category": {"math": 4, "chat": 40, "poems": 9}}
    version = publish_version(tmp_path, ledger_of(some()), config(targets=wanted))
    told = [task for task in wording.tasks(version.stats) if "pairs wanted" in task.sentence]
    assert [task.sentence for task in told] == [
        "category poems holds 0 of 9 pairs wanted, 9 short: only 0 comparisons came in, so collect more.",
        "category math holds 0 of 4 pairs wanted, 4 short: of 5 comparisons, most dropped because the votes call it a "
        "tie (5).",
    ]
    assert len(query(tmp_path, shlex.split(told[1].command)[2])) == 5
    assert "Against the targets of the recipe" in (version.path / "audit.html").read_text("utf-8")
    # Deciding again finds no tie in these votes, so math has its pairs; a target can be tried like a limit.
    again = decide_again(tmp_path, "current", {"targets.category.chat": 50})
    assert {row["value"]: row["short"] for row in again["targets"]} == {"chat": 10, "poems": 9, "math": 0}


def test_every_reason_there_can_be_has_its_words_and_no_other_has() -> None:
    everything = {
        "sizes": {"max_response_tokens": 100, "max_length": 100},
        "similarity": {"min_prompt_cosine": 0.1, "same_language": True},
    }
    of_rows = curate.row_rules(CurationConfig.model_validate(everything))
    assert {*of_rows, "near_duplicate", "over_prompt_cap", "length_rebalanced"} == wording.REASONS.keys()


def test_a_twin_that_says_the_opposite_needs_a_human(tmp_path: Path) -> None:
    """Decided by the rules themselves: the name under which the twins are asked for is the one they are dropped by."""
    rows = [*many(10), *(Planted(f"Where{sign}", "In the north.", "In the south.") for sign in "?!")]
    plant_store(tmp_path, rows)
    against = pl.when(pl.col("comparison_id").is_in([row.id for row in rows[10:]])).then(3).cast(pl.UInt32)
    ledger = ledger_of(rows).drop(curate.DECIDED).with_columns(FACTS)
    decided = curate.decide(ledger.with_columns(twin_votes_against=against, twin_votes_for=against), config())
    version = publish_version(tmp_path, decided, config())
    [task] = [task for task in wording.tasks(version.stats) if "near twin" in task.sentence]
    assert task.sentence.startswith("2 comparisons with a near twin that prefers the other side")
    found = {row["comparison_id"] for row in query(tmp_path, shlex.split(task.command)[2])}
    assert found == set(queues.queue(version, "twins").ids) == {row.id for row in rows[10:]}


def test_twins_stand_side_by_side_with_their_sides_matched(tmp_path: Path) -> None:
    shared = "I forgot where it is."
    first, second = (Planted("Where?", f"It is in the {word}.", shared) for word in ("north", "east"))
    assert first.sides.index(shared) == 0 and second.sides.index(shared) == 1  # hashes put the shared one elsewhere
    first.measures = {"duplicate_cluster": first.id, "duplicate_swapped": False}
    second.measures = {"duplicate_cluster": first.id, "duplicate_swapped": True}
    second.reasons = ("near_duplicate",)
    version = publish(tmp_path, [*many(10), first, second])
    text = unescape((version.path / "audit.html").read_text("utf-8")).split("Duplicates and contradictions</h2>")[1]
    assert "The same prompt in both." in text and "The same response a in both." in text
    assert "It is in the <mark>north</mark>." in text and "It is in the <mark>east</mark>." in text


def test_what_the_rebalance_cost_is_told_by_slice(tmp_path: Path) -> None:
    rows = [*many(20), *[Planted(f"Long {i}?", f"Yes {i}", f"No {i}", ("length_rebalanced",)) for i in range(5)]]
    version = publish(tmp_path, rows)
    whole, *_ = version.stats["rebalance"]
    assert (whole["n_before"], whole["n_after"], whole["kept"]) == (25, 20, pytest.approx(0.8))
    assert "where few stay, the domain pays for the balance" in (version.path / "audit.html").read_text("utf-8")
