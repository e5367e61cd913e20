"""Near duplicates of comparisons: the same prompt and the same two answers, told slightly differently.

Exact repeats need no rule, since they share an id and their votes merge. A near duplicate must be alike as a whole
and in each part: a shared long prompt with other answers is another comparison. Clusters are facts; which member
stays is decided among the rows still standing. Sides are named by hash, so a twin may be mirrored
(`duplicate_swapped`), and a twin may prefer the other answer: that is kept visible as votes against.
"""

import numpy as np
import polars as pl
from pydantic import Field

from dpo_data.executor import Executor
from dpo_data.settings import Settings
from dpo_data.text import minhash
from dpo_data.text.token_hashes import Ragged, offsets_of, tokens

METHOD = f"near comparisons 1, {minhash.METHOD}"  # raise it when the same two texts would be compared otherwise
# Facts this room adds; all null or zero outside clusters.
COLUMNS = {
    "duplicate_cluster": pl.String,
    "duplicate_similarity": pl.Float64,
    "duplicate_part": pl.Float64,
    "duplicate_method": pl.String,
    "duplicate_swapped": pl.Boolean,
}


class DuplicateLimits(Settings):
    """When two comparisons are one. Both bounds are Jaccard indices of word 3-gram sets."""

    jaccard: float = Field(default=0.8, ge=0.3, le=1)  # text-dedup, SlimPajama and RefinedWeb use .7 to .8
    # Each part on its own; lower, since one changed word in six takes a short answer to .14, in thirty to .8.
    part_jaccard: float = Field(default=0.5, ge=0, le=1)
    drop_near_duplicates: bool = True
    drop_contradicted: bool = True


def proposals(signed: pl.DataFrame, executor: Executor | None = None) -> pl.DataFrame:
    """Pairs of ids (`left` < `right`) whose signatures meet in a band. `signed`: comparison_id, signature."""
    known = signed.drop_nulls("signature").sort("comparison_id")
    left, right = minhash.candidates(known["signature"], executor)
    ids = known["comparison_id"]
    return pl.DataFrame({"left": ids.gather(left), "right": ids.gather(right)})


def verify(pairs: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """Exact Jaccard indices of proposed pairs: `left, right, whole, part, swapped, same_words`.

    `texts`: comparison_id, prompt (all messages as one text), response_a, response_b. `part` is the smallest index of
    prompt and the two responses, matched in the better order; `same_words` is true where only case, white space
    and nothing else differs.
    """
    texts = texts.sort("comparison_id")
    parts = [minhash.shingles(tokens(texts[name]).words()) for name in ("prompt", "response_a", "response_b")]
    stacked = minhash.incidence(_stack([*parts, minhash.join(*parts)]))
    count = len(texts)
    place = pl.DataFrame({"id": texts["comparison_id"], "row": np.arange(count, dtype=np.int64)})
    left = pairs.select(id="left").join(place, on="id", maintain_order="left")["row"].to_numpy()
    right = pairs.select(id="right").join(place, on="id", maintain_order="left")["row"].to_numpy()

    def index(part_left: int, part_right: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return minhash.jaccard(stacked, left + part_left * count, right + part_right * count)

    straight = np.minimum(index(1, 1), index(2, 2))
    crossed = np.minimum(index(1, 2), index(2, 1))
    swapped = crossed > straight
    squeezed = texts.select(
        *(
            pl.col(name).str.to_lowercase().str.replace_all(r"\s+", " ")
            for name in ("prompt", "response_a", "response_b")
        )
    ).with_columns(
        low=pl.min_horizontal("response_a", "response_b"), high=pl.max_horizontal("response_a", "response_b")
    )
    keys = squeezed.select("prompt", "low", "high")
    same = pl.all_horizontal((keys[name].gather(left) == keys[name].gather(right)).alias(name) for name in keys.columns)
    return pairs.with_columns(
        whole=pl.Series(index(3, 3)),
        part=pl.Series(np.minimum(index(0, 0), np.maximum(straight, crossed))),
        swapped=pl.Series(swapped),
        same_words=pl.select(same).to_series(),
    )


def _stack(parts: list[Ragged]) -> Ragged:
    values = np.concatenate([part.values for part in parts])
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Ragged(values, offsets_of(counts))


def measure(ledger: pl.DataFrame, edges: pl.DataFrame, limits: DuplicateLimits) -> pl.DataFrame:
    """Add cluster, similarity to the nearest member, method and orientation from verified `edges`.

    The cluster's name is its smallest id. `duplicate_swapped` tells whether this row's side a is the named row's b.
    """
    close = edges.filter((pl.col("whole") >= limits.jaccard) & (pl.col("part") >= limits.part_jaccard))
    close = close.join(ledger.select(left="comparison_id"), on="left", how="semi")
    close = close.join(ledger.select(right="comparison_id"), on="right", how="semi")
    both = pl.concat([close, close.rename({"left": "right", "right": "left"}).select(close.columns)]).sort(
        "left", "right"
    )
    nearest = both.group_by("left", maintain_order=True).agg(
        duplicate_similarity=pl.col("whole").max(),
        duplicate_part=pl.col("part").filter(pl.col("whole") == pl.col("whole").max()).max(),
        duplicate_method=pl.when(pl.col("same_words").any()).then(pl.lit("case_or_space")).otherwise(pl.lit("near")),
    )
    members = _oriented(nearest["left"].to_list(), both)
    found = nearest.join(members, on="left").rename({"left": "comparison_id"})
    base = ledger.drop(list(COLUMNS), strict=False)
    return base.join(found, on="comparison_id", how="left", maintain_order="left").with_columns(
        pl.col(name).cast(kind) for name, kind in COLUMNS.items()
    )


def _oriented(ids: list[str], both: pl.DataFrame) -> pl.DataFrame:
    """Cluster and orientation of every id, walking the edges breadth first from the smallest id of each cluster."""
    neighbours: dict[str, list[tuple[str, bool]]] = {identity: [] for identity in ids}
    for left, right, swapped in both.select("left", "right", "swapped").iter_rows():
        neighbours[left].append((right, swapped))
    cluster: dict[str, str] = {}
    turned: dict[str, bool] = {}
    for root in sorted(ids):
        if root in cluster:
            continue
        cluster[root], turned[root] = root, False
        queue = [root]
        for here in queue:
            for there, swapped in neighbours[here]:
                if there not in cluster:
                    cluster[there], turned[there] = root, turned[here] ^ swapped
                    queue.append(there)
    return pl.DataFrame(
        {"left": ids, "duplicate_cluster": [cluster[i] for i in ids], "duplicate_swapped": [turned[i] for i in ids]},
        schema={"left": pl.String, "duplicate_cluster": pl.String, "duplicate_swapped": pl.Boolean},
    )


def measure_votes(ledger: pl.DataFrame) -> pl.DataFrame:
    """Add `twin_votes_for` and `twin_votes_against`: votes in the whole cluster, this row's own included.

    Counted for and against the answer this row prefers, sides turned to match; null outside clusters and where
    nothing is preferred.
    """
    turned = pl.col("duplicate_swapped")
    first = pl.when(turned).then("votes_b").otherwise("votes_a")
    second = pl.when(turned).then("votes_a").otherwise("votes_b")
    inside = pl.col("duplicate_cluster").is_not_null()
    votes = (
        ledger.lazy()
        .filter(inside)
        .group_by("duplicate_cluster")
        .agg(cluster_first=first.sum(), cluster_second=second.sum())
    )
    prefers_first = (pl.col("preferred") == "a") != turned
    decided = inside & pl.col("preferred").is_not_null()
    return (
        ledger.lazy()
        .drop("twin_votes_for", "twin_votes_against", strict=False)
        .join(votes, on="duplicate_cluster", how="left", maintain_order="left")
        .with_columns(
            twin_votes_for=pl.when(decided).then(
                pl.when(prefers_first).then("cluster_first").otherwise("cluster_second")
            ),
            twin_votes_against=pl.when(decided).then(
                pl.when(prefers_first).then("cluster_second").otherwise("cluster_first")
            ),
        )
        .drop("cluster_first", "cluster_second")
        .collect()
    )


def rules(limits: DuplicateLimits) -> dict[str, pl.Expr]:
    """A row whose near twins hold at least as many votes for the other answer."""
    if not limits.drop_contradicted:
        return {}
    against = pl.col("twin_votes_against")
    return {"contradicted_by_twin": (against > 0) & (against >= pl.col("twin_votes_for"))}


def choose_survivors(ledger: pl.DataFrame, limits: DuplicateLimits) -> pl.DataFrame:
    """Among the rows still standing, one survivor per cluster: most votes, then highest confidence, then smallest id.

    Adds `duplicate_of` to every other member of a cluster that has a survivor, and the reason `near_duplicate` to
    those that stood.
    """
    standing = pl.col("reasons").list.len() == 0
    best = (
        ledger.lazy()
        .filter(pl.col("duplicate_cluster").is_not_null() & standing)
        .select("duplicate_cluster", "votes", "confidence", survivor="comparison_id")
        .sort("votes", "confidence", "survivor", descending=[True, True, False], nulls_last=True)
        .unique("duplicate_cluster", keep="first", maintain_order=True)
        .select("duplicate_cluster", "survivor")
        .collect()
    )
    base = ledger.drop("duplicate_of", strict=False)
    joined = base.join(best, on="duplicate_cluster", how="left", maintain_order="left")
    other = pl.col("survivor").is_not_null() & (pl.col("survivor") != pl.col("comparison_id"))
    reason = pl.lit(["near_duplicate"], dtype=pl.List(pl.String))
    goes = other & standing & pl.lit(limits.drop_near_duplicates)
    return joined.with_columns(
        duplicate_of=pl.when(other).then("survivor"),
        reasons=pl.when(goes).then(reason).otherwise("reasons"),
    ).drop("survivor")
