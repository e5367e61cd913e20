"""Votes to a preference with a calibrated confidence: tally, agreement, posterior, and the rules on them.

One annotator has one vote per comparison. Anonymous votes cannot be attributed, so those of a source count as one
snapshot reports them, however often that snapshot is read again. A single vote has no agreement (null, not 100%), and
equal votes both ways are quarantined, never settled by the order of a file.
"""

import polars as pl
from pydantic import Field

from dpo_data.settings import Settings
from dpo_data.votes.annotator_model import ReliabilityLimits
from dpo_data.votes.dawid_skene import CodedVotes, Reliability, estimate

METHOD = "agreement 2"  # raise it when the same votes would be judged otherwise; 1 knew no "neither"
KEY = ["comparison_id", "source", "annotator"]
_POSTERIOR = ["better_a", "better_b", "p_equal"]
REVIEWS = "reviews"
"""The source of the store's own reviews: a second look at a comparison is not where it comes from."""


class AgreementLimits(Settings):
    """What a comparison's votes must say for it to be kept."""

    min_agreement: float = Field(0.5, ge=0, le=1)
    """Share of the votes that chose the preferred side. Unanimity is not asked for: 39 % of MultiPref and 24 % of
    HelpSteer2 comparisons divide people for reasons other than noise (Diverging Preferences, arXiv 2410.14632)."""
    min_confidence: float = Field(0.55, ge=0.5, le=1)
    """See `measure`. 0.55 drops pairs within 0.05 of chance, whether uncertain or tied. On UKPConvArg1 it drops 16 of
    6,229 otherwise-kept pairs; gold labels exist for 15, and 5 of those were correct
    (tests/bench/bench_calibration.py). 0.6 would also drop a comparison with one graded vote of little more than half
    its source's usual strength, and 0.75 every probable tie."""
    settle_contradictions_above: float | None = Field(None, ge=0.5, le=1)
    """Keep equal votes both ways where the annotators' reliability alone makes one side this probable; never by
    default, since skill is an estimate and the votes are a fact."""
    reliability: ReliabilityLimits = ReliabilityLimits()


def collapse(votes: pl.DataFrame) -> pl.DataFrame:
    """One row per comparison, source and annotator; anonymous votes one row per comparison, source and choice.

    Columns: comparison_id, source, annotator, annotator_kind, choice, strength, shown_first, copies (like anonymous
    votes), self_contradiction. A person's latest dated vote wins; a judge model asked in both orders is not changing
    its mind, so both count. Who chose differently at once has not chosen: a tie (as Zheng et al., arXiv 2306.05685,
    3.4, score a judge), and a self-contradiction where both sides were chosen. Sorted, so row order is of no account.
    """
    named = _one_vote_each(votes.filter(pl.col("annotator").is_not_null()).sort(KEY))
    anonymous = _latest_snapshot(votes.filter(pl.col("annotator").is_null()))
    if not anonymous.height:
        return named
    return pl.concat([named, anonymous.select(named.columns)]).sort(*KEY, "choice")


def _one_vote_each(votes: pl.DataFrame) -> pl.DataFrame:
    """Named votes, sorted by KEY, with those of one annotator on one comparison settled; sorted by KEY again."""
    columns = [*KEY, "annotator_kind", "choice", "strength", "shown_first"]
    extra = [pl.lit(1, pl.UInt32).alias("copies"), pl.lit(0, pl.UInt32).alias("self_contradiction")]
    again = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in KEY).fill_null(False)
    repeated = again | again.shift(-1, fill_value=False)
    many = votes.filter(repeated)
    if not many.height:
        return votes.select(*columns, *extra)
    once = votes.filter(~repeated).select(*columns, *extra)
    order = pl.when(pl.col("annotator_kind") == "model").then(pl.col("shown_first").fill_null(""))
    latest = many.with_columns(order.alias("order")).filter(
        pl.col("at").is_null().all().over(*KEY, "order") | (pl.col("at") == pl.col("at").max().over(*KEY, "order"))
    )
    like = pl.col("choice").n_unique() == 1
    settled = latest.group_by(KEY).agg(
        pl.col("annotator_kind").min(),
        pl.when(like).then(pl.col("choice").min()).otherwise(pl.lit("tie")).alias("choice"),
        pl.when(like).then(pl.col("strength").sort().mean()).alias("strength"),
        pl.when(pl.col("shown_first").n_unique() == 1).then(pl.col("shown_first").min()).alias("shown_first"),
        pl.lit(1, pl.UInt32).alias("copies"),
        (pl.col("choice").filter(pl.col("choice") != "tie").n_unique() == 2)
        .cast(pl.UInt32)
        .alias("self_contradiction"),
    )
    return pl.concat([once, settled.select(once.columns)]).sort(KEY)


def _latest_snapshot(votes: pl.DataFrame) -> pl.DataFrame:
    """Anonymous votes as the fullest batch has them: a batch is a snapshot, and a later one repeats the earlier."""
    like = ["comparison_id", "source", "choice"]
    batch = [pl.col("batch") if "batch" in votes.columns else pl.lit("").alias("batch")]
    counted = (
        votes.with_columns(batch)
        .group_by(*like, "batch")
        .agg(
            pl.col("annotator").min(),
            pl.col("annotator_kind").min(),
            pl.col("strength").sort().mean(),
            pl.when(pl.col("shown_first").n_unique() == 1).then(pl.col("shown_first").min()).alias("shown_first"),
            pl.len().cast(pl.UInt32).alias("copies"),
            pl.lit(0, pl.UInt32).alias("self_contradiction"),
        )
    )
    return counted.sort(*like, "copies", "batch").unique(like, keep="last").drop("batch")


def tally(votes: pl.DataFrame) -> pl.DataFrame:
    """Votes counted per comparison: source, votes, votes_a, votes_b, votes_tie, annotators, self_contradictions.

    `votes` has the columns of `schema.VOTES` (and `batch` where it comes from several). Sorted by comparison_id. Where
    several sources voted, `source` is the one with most votes, then the first by name; never `REVIEWS` while there is
    another. Anonymous votes count as one annotator a source.
    """
    return _tally(collapse(votes))


def _tally(collapsed: pl.DataFrame) -> pl.DataFrame:
    counted = collapsed.group_by("comparison_id").agg(
        pl.col("source").min(),
        pl.col("source").n_unique().alias("sources"),
        pl.col("copies").sum().alias("votes"),
        *(pl.col("copies").filter(pl.col("choice") == c).sum().alias(f"votes_{c}") for c in ("a", "b", "tie")),
        pl.struct("source", "annotator").n_unique().cast(pl.UInt32).alias("annotators"),
        pl.col("self_contradiction").sum().alias("self_contradictions"),
    )
    shared = collapsed.join(counted.filter(pl.col("sources") > 1), on="comparison_id", how="semi")
    largest = (
        shared.group_by("comparison_id", "source")
        .agg(pl.col("copies").sum())
        .sort(pl.col("source") == REVIEWS, "copies", "source", descending=[False, True, False])
        .unique("comparison_id", keep="first", maintain_order=True)
        .select("comparison_id", "source")
    )
    return counted.drop("sources").update(largest, on="comparison_id").sort("comparison_id")


def code(collapsed: pl.DataFrame, limits: ReliabilityLimits) -> tuple[CodedVotes, pl.DataFrame, pl.DataFrame]:
    """Collapsed votes as numbers, and the tables their codes index: comparison_id; source, annotator, kind.

    A strength counts against the median strength of its source, since every source grades on a scale of its own; the
    median vote counts one, as an ungraded vote does.
    """
    items = collapsed.select("comparison_id").unique(maintain_order=True)  # sorted, so the codes are those of its runs
    people = collapsed.group_by("source", "annotator").agg(pl.col("annotator_kind").min())
    people = people.sort("source", "annotator").with_row_index("person")
    coded = collapsed.with_columns(item=pl.col("comparison_id").rle_id()).join(
        people.drop("annotator_kind"), on=["source", "annotator"], how="left", nulls_equal=True, maintain_order="left"
    )
    side = {"a": 1.0, "b": -1.0}
    decided = pl.col("choice") != "tie"
    usual = pl.col("strength").filter(decided).median().over("source")
    graded = pl.when(usual > 0).then((pl.col("strength") / usual).clip(0, limits.max_strength)).fill_null(1.0)
    numbers = coded.select(
        pl.col("item").cast(pl.Int32),
        pl.col("person").cast(pl.Int32).alias("annotator"),
        pl.col("choice").replace_strict(side, default=0.0, return_dtype=pl.Float32).alias("direction"),
        (pl.when(decided).then(graded).otherwise(1.0) * pl.col("copies")).cast(pl.Float32).alias("evidence"),
        pl.col("shown_first").replace_strict(side, default=0.0, return_dtype=pl.Float32).alias("first"),
        pl.col("copies").cast(pl.Int32).alias("repeats"),
    )
    columns = {name: numbers[name].to_numpy() for name in numbers.columns}
    group = people["source"].rank("dense").cast(pl.Int64).to_numpy() - 1
    return CodedVotes(**columns, group=group, items=items.height), items, people


def posteriors(collapsed: pl.DataFrame, limits: ReliabilityLimits) -> tuple[pl.DataFrame, Reliability]:
    """comparison_id, `better_a`, `better_b` and `p_equal`, probabilities that add up to one; and the whole estimate."""
    votes, items, _ = code(collapsed, limits)
    found = estimate(votes, limits)
    columns = [pl.Series(*column) for column in zip(_POSTERIOR, found.probabilities, strict=True)]
    return items.select("comparison_id").with_columns(columns), found


def measure(ledger: pl.DataFrame, votes: pl.DataFrame, limits: AgreementLimits | None = None) -> pl.DataFrame:
    """The ledger with source, vote counts, self_contradictions, preferred, agreement and confidence.

    `preferred` is the likelier better side; null where both are as likely, where more votes say tie than say either
    side, or where there is no vote. `agreement` is the share of all votes, ties included, for `preferred`; null below
    two votes. `p_equal` is the posterior probability that there is no real difference (null without votes), and
    `confidence` the probability that `preferred` is better plus half of `p_equal`: the rate
    at which an infallible judge who breaks ties at random would choose it. It is never below 0.5 and can be used as a
    soft label; the other side is better with probability 1 - confidence - p_equal / 2. Where a
    source has no ties, `p_equal` is 0: it cannot be distinguished from noise.
    """
    limits = limits or AgreementLimits()
    collapsed = collapse(votes)
    posterior, _ = posteriors(collapsed, limits.reliability)
    counted = _tally(collapsed).join(posterior, on="comparison_id", how="left", maintain_order="left")
    added = [name for name in counted.columns if name != "comparison_id"]
    fresh = ledger.drop(*added, "preferred", "agreement", "confidence", strict=False)
    numbers = [name for name in added if name not in ("source", *_POSTERIOR)]
    frame = fresh.join(counted, on="comparison_id", how="left", maintain_order="left").with_columns(
        pl.col(numbers).fill_null(0)
    )
    tied = pl.col("votes_tie") > pl.max_horizontal("votes_a", "votes_b")
    certain = (pl.col("better_a") - pl.col("better_b")).abs() > 1e-9
    frame = frame.with_columns(
        pl.when(certain & ~tied)
        .then(pl.when(pl.col("better_a") > pl.col("better_b")).then(pl.lit("a")).otherwise(pl.lit("b")))
        .alias("preferred")
    )
    chosen = pl.when(pl.col("preferred") == "a").then(pl.col("votes_a")).otherwise(pl.col("votes_b"))
    known = pl.col("preferred").is_not_null()
    return frame.with_columns(
        pl.when(known & (pl.col("votes") >= 2)).then(chosen / pl.col("votes")).alias("agreement"),
        pl.when(known).then(pl.max_horizontal("better_a", "better_b") + pl.col("p_equal") / 2).alias("confidence"),
    ).drop("better_a", "better_b")


def rules(limits: AgreementLimits) -> dict[str, pl.Expr]:
    """Reasons to drop a row for its votes; null (not measured) never fails one."""
    equal = (pl.col("votes_a") == pl.col("votes_b")) & ((pl.col("votes_a") > 0) | (pl.col("self_contradictions") > 0))
    if limits.settle_contradictions_above is not None:
        equal = equal & (pl.col("confidence").fill_null(0.0) < limits.settle_contradictions_above)
    tie = (pl.col("votes") > 0) & pl.col("preferred").is_null() & ~equal
    return {
        "no_votes": pl.col("votes") == 0,
        "contradictory_votes": equal,
        "tie": tie,
        "low_agreement": pl.col("agreement") < limits.min_agreement,
        "low_confidence": pl.col("confidence") < limits.min_confidence,
    }
