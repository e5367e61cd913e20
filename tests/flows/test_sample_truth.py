"""The pipeline is held to what was planted in the sample: every truth recovered, its figure printed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dpo_data import curate
from dpo_data.ids import text_hash
from dpo_data.ingest.append import BatchSummary, append_batch
from dpo_data.measures import length_bias
from dpo_data.store import batches
from dpo_data.votes import annotators
from flows import recipe

pytestmark = pytest.mark.models

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"
TRUTH: dict[str, Any] = json.loads((SAMPLE / "truth.json").read_text())
PLANTS: dict[str, Any] = TRUTH["plants"]


@dataclass(frozen=True)
class Curated:
    """The sample after one refresh with its recipe."""

    summaries: dict[str, BatchSummary]  # by file name
    comparisons: pl.DataFrame
    votes: pl.DataFrame
    thumbs: pl.DataFrame
    rejects: pl.DataFrame
    ledger: pl.DataFrame

    @property
    def kept(self) -> pl.DataFrame:
        return self.ledger.filter(pl.col("reasons").list.len() == 0)

    def rows(self, ids: list[str]) -> pl.DataFrame:
        """The ledger's rows of these comparisons; every one of them must be there once."""
        found = self.ledger.filter(pl.col("comparison_id").is_in(ids))
        assert len(found) == len(set(ids))
        return found

    def having(self, reason: str) -> pl.DataFrame:
        """The rows dropped for this reason (and perhaps for others)."""
        return self.ledger.filter(pl.col("reasons").list.contains(reason))

    def at(self, origin: str) -> list[str]:
        """Ids of the comparisons that the raw record at `origin` voted on."""
        return self.votes.filter(pl.col("origin") == origin)["comparison_id"].unique().to_list()

    def chosen(self) -> pl.DataFrame:
        """Kept rows with the text that is preferred, as `text`."""
        texts = self.comparisons.select("comparison_id", "response_a", "response_b")
        side = pl.when(pl.col("preferred") == "a").then("response_a").otherwise("response_b")
        return self.kept.join(texts, on="comparison_id").with_columns(text=side)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    """The sample, appended source by source, measured and decided as the recipe says."""
    store = tmp_path_factory.mktemp("store")
    told = recipe.load(SAMPLE / "recipe.yaml")
    summaries = {
        Path(source.path).name: append_batch(
            store, [Path(source.path)], source.name, source.format, source.annotator_kind
        )
        for source in told.sources
    }
    ledger = curate.decide(curate.measure(store, told.curation), told.curation)
    opened = batches.open_batches(store)
    tables = (opened.comparisons(), opened.votes(), opened.thumbs(), opened.rejects())
    comparisons, votes, thumbs, rejects = (table.collect() for table in tables)
    return Curated(summaries, comparisons, votes, thumbs, rejects, ledger)


def share(found: object, planted: int, what: str) -> float:
    """Print the figure and return it."""
    count = int(str(found))
    print(f"{what}: {count} of {planted} ({count / planted:.0%})")
    return count / planted


def test_every_raw_record_ends_in_a_vote_a_thumb_or_a_reject(sample: Curated) -> None:
    for name, file in TRUTH["files"].items():
        summary = sample.summaries[name]
        assert summary.records == file["records"], name
        assert summary.rejected == len(file["unreadable"]), name
        assert summary.voted + summary.thumbs + summary.rejected == file["records"], name
    records = sum(summary.records for summary in sample.summaries.values())
    share(records, TRUTH["records"], "raw records accounted for")


def test_exactly_the_unreadable_records_are_rejected_with_file_and_line(sample: Curated) -> None:
    planted = [bad["origin"] for file in TRUTH["files"].values() for bad in file["unreadable"]]
    found = sample.rejects["origin"].to_list()
    assert sorted(found) == sorted(planted)
    assert all(len(reason) > 20 for reason in sample.rejects["reason"].to_list())
    share(len(set(found)), len(planted), "unreadable records told by file and line")


def test_blank_and_wordless_responses_are_dropped_for_what_they_are(sample: Curated) -> None:
    for planted in PLANTS["blank"]:
        ids = [planted["comparison_id"]] if "comparison_id" in planted else sample.at(planted["origin"])
        assert len(ids) == 1, planted
        assert planted["reason"] in sample.rows(ids)["reasons"].item().to_list(), planted
    share(len(PLANTS["blank"]), len(PLANTS["blank"]), "blank or wordless records with their reason")


@pytest.mark.parametrize("plant", ["repeated_in_file", "repeated_across_files", "swapped", "both_orders"])
def test_a_comparison_told_twice_is_one_row_with_all_its_votes(plant: str, sample: Curated) -> None:
    rows = sample.rows(PLANTS[plant])
    told = sample.votes.filter(pl.col("comparison_id").is_in(PLANTS[plant])).group_by("comparison_id")
    origins = told.agg(pl.col("origin").n_unique(), pl.col("source").n_unique())
    assert (origins["origin"] >= 2).all()
    if plant == "repeated_across_files":
        assert (origins["source"] >= 2).all()
    share(len(rows), len(PLANTS[plant]), f"{plant}: merged into one comparison")


def test_a_swapped_triple_says_the_same_thing_again(sample: Curated) -> None:
    votes = sample.votes.filter((pl.col("source") == "triples") & pl.col("comparison_id").is_in(PLANTS["swapped"]))
    choices = votes.group_by("comparison_id", "annotator").agg(pl.col("choice").n_unique(), pl.len())
    assert choices["len"].to_list() == [2] * len(choices)
    assert choices["choice"].to_list() == [1] * len(choices)


def test_near_duplicates_are_found_with_their_twin_and_one_survives(sample: Curated) -> None:
    planted = {frozenset(pair) for pair in PLANTS["near_duplicates"]}
    clusters = sample.ledger.filter(pl.col("duplicate_cluster").is_not_null()).group_by("duplicate_cluster")
    found = {frozenset(ids) for ids in clusters.agg("comparison_id")["comparison_id"].to_list()}
    assert share(len(found & planted), len(planted), "near duplicates") >= 0.95
    print(f"clusters not planted: {len(found - planted)}")
    assert len(found - planted) <= 2
    for pair in planted & found:
        survivors = sample.rows(sorted(pair)).filter(~pl.col("reasons").list.contains("near_duplicate"))
        assert len(survivors) == 1


def test_contradictory_labels_are_dropped_as_contradictory(sample: Curated) -> None:
    rows = sample.rows(PLANTS["contradictory"])
    found = rows.filter(pl.col("reasons").list.contains("contradictory_votes"))
    assert share(len(found), len(rows), "contradictory pairs") == 1


def test_ties_are_dropped_as_ties(sample: Curated) -> None:
    rated = [id for planted in PLANTS["equal_ratings"] for id in sample.at(planted["origin"])]
    rows = sample.rows(PLANTS["ties"])
    assert share(rows["reasons"].list.contains("tie").sum(), len(rows), "ties") == 1
    equal = sample.rows(rated).filter(pl.col("reasons").list.contains("tie"))
    assert share(len(equal), len(PLANTS["equal_ratings"]), "equal ratings") == 1


def test_pairs_too_alike_to_teach_anything_are_dropped_and_no_others(sample: Curated) -> None:
    identical = sample.rows(PLANTS["identical"])
    assert identical["reasons"].list.contains("identical_responses").all()
    dropped = set(sample.having("responses_too_similar")["comparison_id"])
    alike = set(PLANTS["too_alike"])
    assert share(len(dropped & alike), len(alike), "pairs too alike") >= 0.9
    others = dropped - alike - set(PLANTS["identical"])
    print(f"dropped as too alike but not planted: {len(others)}")
    assert len(others) <= 3


def test_the_annotators_reliability_is_found_and_the_random_and_inverted_one_named(sample: Curated) -> None:
    table = annotators.annotators(sample.votes).filter(pl.col("source") == "studio")
    found = {row["annotator"]: row for row in table.iter_rows(named=True)}
    assert set(found) == set(PLANTS["annotators"])
    for name, planted in PLANTS["annotators"].items():
        row, came_out = found[name], planted["right"] / planted["decided"]
        print(
            f"{name}: planted {planted['reliability']:.2f}, came out {came_out:.2f} (n {planted['decided']}), "
            f"skill {row['skill']:.2f}, leave-one-out {row['accuracy']:.2f} "
            f"[{row['accuracy_low']:.2f}, {row['accuracy_high']:.2f}], {row['flag'] or 'no flag'}"
        )
        assert abs(row["skill"] - came_out) < 0.1
        assert row["accuracy_low"] <= came_out <= row["accuracy_high"]
    assert {name: row["flag"] for name, row in found.items() if row["flag"]} == {"noor": "random", "otto": "inverted"}


def test_the_posterior_knows_better_than_the_majority(sample: Curated) -> None:
    better = {id: text_hash(text) for id, text in PLANTS["studio_better"].items() if id not in PLANTS["ties"]}
    rows = sample.rows(list(better)).with_columns(
        a_is_better=pl.col("hash_a") == pl.col("comparison_id").replace_strict(better)
    )
    decided = rows.filter(pl.col("preferred").is_not_null())
    right = decided.filter((pl.col("preferred") == "a") == pl.col("a_is_better"))
    majority = rows.filter(pl.col("votes_a") != pl.col("votes_b"))
    majority_right = majority.filter((pl.col("votes_a") > pl.col("votes_b")) == pl.col("a_is_better"))
    by_posterior = share(len(right), len(rows), "studio: the better response by posterior")
    by_majority = share(len(majority_right), len(rows), "studio: the better response by majority")
    assert by_posterior >= 0.9
    assert by_posterior > by_majority + 0.05


def test_the_judge_models_come_in_their_order(sample: Curated) -> None:
    table = annotators.annotators(sample.votes).filter(pl.col("source") == "judged")
    skill = dict(table.select("annotator", "skill").iter_rows())
    for name, planted in PLANTS["judges"].items():
        print(f"{name}: planted {planted:.2f}, skill {skill[name]:.2f}")
    assert (table["kind"] == "model").all()
    assert table["flag"].null_count() == len(table)
    assert sorted(skill, key=lambda name: -skill[name]) == list(PLANTS["judges"])


def test_a_changed_mind_counts_once_and_a_contradicting_click_is_told(sample: Curated) -> None:
    for planted in PLANTS["changed_minds"]:
        mine = (pl.col("comparison_id") == planted["comparison_id"]) & (pl.col("annotator") == planted["annotator"])
        votes = sample.votes.filter(mine).sort("at")
        row = sample.rows([planted["comparison_id"]]).row(0, named=True)
        assert len(votes) == 2
        assert row["votes"] == sample.votes.filter(comparison_id=planted["comparison_id"])["annotator"].n_unique()
    clicks = [planted["comparison_id"] for planted in PLANTS["self_contradictions"]]
    assert sample.rows(clicks)["self_contradictions"].to_list() == [1] * len(clicks)
    minds = [planted["comparison_id"] for planted in PLANTS["changed_minds"]]
    assert sample.rows(minds)["self_contradictions"].to_list() == [0] * len(minds)
    print(f"changed minds: {len(minds)}, contradicting clicks: {len(clicks)}")


def test_the_length_habit_of_the_forum_is_measured_and_taken_out(sample: Curated) -> None:
    planted = PLANTS["length_biased"]["longer_wins"] / PLANTS["length_biased"]["comparisons"]
    alike = PLANTS["too_alike"] + PLANTS["identical"]
    forum = sample.ledger.filter((pl.col("source") == "forum") & ~pl.col("comparison_id").is_in(alike))
    before = length_bias.bias(forum).row(0, named=True)
    after = length_bias.bias(forum.filter(pl.col("reasons").list.len() == 0)).row(0, named=True)
    for name, row in (("before", before), ("after", after)):
        print(
            f"forum, {name}: P(longer) {row['p_longer']:.3f} [{row['p_low']:.3f}, {row['p_high']:.3f}], "
            f"AUC {row['auc']:.3f}, n {row['n']} (planted {planted:.3f})"
        )
    assert abs(before["p_longer"] - planted) < 0.03
    assert before["p_low"] > 0.6
    assert abs(after["p_longer"] - 0.5) < 0.03
    assert abs(after["auc"] - 0.5) < 0.06
    assert after["n"] > 0.25 * before["n"]


def test_sources_without_the_habit_show_none(sample: Curated) -> None:
    table = length_bias.bias(sample.ledger.filter(pl.col("source") != "forum"))
    row = table.row(0, named=True)
    print(f"elsewhere: P(longer) {row['p_longer']:.3f} [{row['p_low']:.3f}, {row['p_high']:.3f}], n {row['n']}")
    assert 0.4 < row["p_longer"] < 0.6


def test_opposite_thumbs_make_a_comparison_and_lone_ones_stay(sample: Curated) -> None:
    rows = sample.rows(PLANTS["opposite_thumbs"])
    assert (rows["source"] == "thumbs").all()
    assert len(sample.thumbs) == PLANTS["lone_thumbs"]
    share(len(rows), len(PLANTS["opposite_thumbs"]), "opposite thumbs made a comparison")


def test_ratings_decide_and_not_the_misleading_overall_score(sample: Curated) -> None:
    rated = sample.chosen().filter(pl.col("source") == "rated")
    first = rated.filter(
        pl.col("text").str.starts_with("Answer:") | ~pl.col("comparison_id").is_in(rated_pairs(sample))
    )
    assert len(rated) > 10
    assert share(len(first), len(rated), "rated: the higher mean rating is chosen") == 1


def rated_pairs(sample: Curated) -> list[str]:
    """Comparisons of the rated file in which one response has the asked form and the other has not."""
    form = [pl.col(name).str.starts_with("Answer:") for name in ("response_a", "response_b")]
    return sample.comparisons.filter(form[0] != form[1])["comparison_id"].to_list()


def test_the_language_slice_is_recognised(sample: Curated) -> None:
    first = pl.col("prompt").list.last().struct.field("content")
    german = sample.comparisons.filter(first.str.contains(r"[äöüß]|Wie |Was |Von |Für |Wo")).select("comparison_id")
    rows = sample.ledger.join(german, on="comparison_id", how="semi")
    counts = dict(sample.ledger["language"].value_counts().iter_rows())
    print(f"languages found: {counts}; German prompts recognised: {(rows['language'] == 'de').sum()} of {len(rows)}")
    assert counts["de"] >= 12
    assert counts["es"] >= 12


FLIPPED = PLANTS["flipped_slice"]
IN_FLIPPED = pl.col(FLIPPED["slice"]).eq_missing(FLIPPED["value"])


def test_the_flipped_slice_prefers_the_rambling_response_and_no_other_does(sample: Curated) -> None:
    mixed = sample.chosen().filter(pl.col("comparison_id").is_in(rated_pairs(sample)))
    first = pl.col("text").str.contains(r"^(Answer|Antwort|Respuesta):")
    inside = mixed.filter(IN_FLIPPED).select(first).to_series()
    outside = mixed.filter(~IN_FLIPPED).select(first).to_series()
    flipped_share = share(inside.sum(), len(inside), f"{FLIPPED['value']}: answer first is chosen")
    plain_share = share(outside.sum(), len(outside), "elsewhere: answer first is chosen")
    assert flipped_share < 0.1
    assert plain_share > 0.9


def test_the_flipped_slice_has_every_comparison_that_was_planted_in_it(sample: Curated) -> None:
    copies = [id for pair in PLANTS["near_duplicates"] for id in pair[1:]]
    found = sample.ledger.filter(IN_FLIPPED & ~pl.col("comparison_id").is_in(copies))
    assert dict(found["source"].value_counts().iter_rows()) == FLIPPED["comparisons"]
    share(len(found), sum(FLIPPED["comparisons"].values()), "flipped comparisons")


def test_nothing_but_the_slice_itself_gives_the_flipped_labels_away(sample: Curated) -> None:
    """Neither what is asked nor the length of the responses differs from the rest, so no policy can learn the flip."""
    inside, outside = sample.kept.filter(IN_FLIPPED), sample.kept.filter(~IN_FLIPPED)
    categories = dict(inside["category"].value_counts().iter_rows())
    print(f"{FLIPPED['value']} by category: {categories}")
    assert set(categories) >= set(outside["category"].drop_nulls())
    assert max(categories.values()) < 0.3 * len(inside)
    row = length_bias.bias(inside).row(0, named=True)
    print(
        f"{FLIPPED['value']}: P(longer) {row['p_longer']:.3f} [{row['p_low']:.3f}, {row['p_high']:.3f}], n {row['n']}"
    )
    assert row["p_low"] < 0.5 < row["p_high"]


def test_enough_is_kept_to_train_and_to_see_the_flipped_slice_held_out(sample: Curated) -> None:
    kept = sample.kept
    splits = dict(kept["split"].value_counts().iter_rows())
    held_out = dict(kept.filter(IN_FLIPPED).group_by("split").agg(pl.col("prompt_group").n_unique()).iter_rows())
    print(f"kept {len(kept)} of {len(sample.ledger)}; {splits}; prompts of the flipped slice: {held_out}")
    assert 250 <= len(kept) <= 450
    assert splits["train"] >= 110
    assert 0.12 < len(kept.filter(IN_FLIPPED & (pl.col("split") == "train"))) / splits["train"] < 0.22
    for split, least in FLIPPED["held_out_at_least"].items():
        assert held_out[split] >= least


def test_no_prompt_stands_on_two_sides_of_the_split(sample: Curated) -> None:
    sides = sample.kept.group_by("prompt_group").agg(pl.col("split").n_unique())
    assert (sides["split"] == 1).all()
