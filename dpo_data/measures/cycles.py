"""Preferences that run in a circle (a > b > c > a), and the smallest set of comparisons whose removal opens them.

No reward, hence no policy, can satisfy a circle: its pairs pull against one another. A comparison lies on a circle
when both its responses are in one strongly connected component of the prompt's graph (chosen -> rejected), found for
all prompts at once. Only the removal set is dropped. The rest of a circle is as good as any other row.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from scipy.sparse import csgraph

from dpo_data.settings import Settings

Ints = NDArray[np.int64]


class CycleLimits(Settings):
    """How circles are opened."""

    drop: bool = True
    """Drop the removal set; False only measures."""
    exact_responses: int = Field(10, ge=3, le=16)
    """Components up to this many responses are solved exactly, in 2^n n steps; beyond, by local search."""


LOCAL_SEARCH = 1000  # responses; a larger component keeps the order of its net weights (the search needs n x n)
SCALE = 1_000_000  # weights as integers: sums are exact, so equal solutions are equal on every machine


def measure(ledger: pl.DataFrame, limits: CycleLimits | None = None) -> pl.DataFrame:
    """The ledger with `in_cycle` (lies on a circle) and `cycle_edge` (in the smallest set to remove).

    Needs comparison_id, prompt_hash, hash_a, hash_b, preferred, confidence. Both columns are null where nothing is
    preferred. "Smallest" is by weight, the log-odds of the confidence (unknown: the least), so what is least certain
    goes; the same rows in any order give the same set.
    """
    limits = limits or CycleLimits()
    fresh = ledger.drop("in_cycle", "cycle_edge", strict=False).with_row_index("row")
    edges = _edges(fresh)
    on_circle, removed = np.zeros(ledger.height, bool), np.zeros(ledger.height, bool)
    component = _components(edges)
    circular = edges.with_columns(pl.Series("component", component)).filter(pl.col("component") >= 0)
    circular = circular.sort("component", "winner", "loser")
    row, label, winner, loser, weight = (
        circular[name].to_numpy() for name in ("row", "component", "winner", "loser", "weight")
    )
    on_circle[row] = True
    starts = np.flatnonzero(np.diff(label, prepend=-1))
    for start, end in zip(starts, np.append(starts, len(row))[1:], strict=True):
        part = slice(start, end)
        removed[row[part]] = _feedback(winner[part], loser[part], weight[part], limits)
    known = pl.col("preferred").is_not_null()
    return fresh.drop("row").with_columns(
        pl.when(known).then(pl.Series("in_cycle", on_circle)).alias("in_cycle"),
        pl.when(known).then(pl.Series("cycle_edge", removed)).alias("cycle_edge"),
    )


def rules(limits: CycleLimits) -> dict[str, pl.Expr]:
    """The removal set goes; the rest of the circle stays."""
    return {"preference_cycle": pl.col("cycle_edge") if limits.drop else pl.lit(False)}


def summary(ledger: pl.DataFrame) -> dict[str, int]:
    """How many prompts could hold a circle, how many do, comparisons on circles and to remove, triads and cyclic ones.

    `prompts` counts those with three decided comparisons or more; a triad is three responses compared in all three
    ways, and it is cyclic when it is a circle (A^3 on the diagonal of the preference graph). Counted after the merge:
    equal texts are one response, all votes on a comparison are one preference, a tie is none. On PandaLM that is 288
    triads; with a node for each model instead of each text, and ties left out of the majority, 373. One is cyclic.
    """
    edges = _edges(ledger.with_row_index("row"))
    affected = ledger.filter(pl.col("in_cycle").fill_null(False))
    result = {
        "prompts": edges["prompt_hash"].n_unique(),
        "prompts_with_circles": affected["prompt_hash"].n_unique(),
        "comparisons_on_circles": affected.height,
        "comparisons_to_remove": int(ledger["cycle_edge"].fill_null(False).sum()),
    }
    nodes = _responses(edges)
    graph = sparse.csr_array((np.ones(edges.height, np.int64), (edges["winner"], edges["loser"])), shape=(nodes, nodes))
    either = graph + graph.T
    cyclic = int((graph @ graph).multiply(graph.T).sum()) // 3
    return {**result, "triads": int((either @ either).multiply(either).sum()) // 6, "cyclic_triads": cyclic}


def _edges(ledger: pl.DataFrame) -> pl.DataFrame:
    """Decided comparisons of prompts with three or more, as edges between numbered responses, numbered by hash."""
    a_won = pl.col("preferred") == "a"
    odds = pl.col("confidence").fill_null(0.5).clip(0.5, 1 - 1e-9)
    decided = (
        ledger.lazy()
        .filter(pl.col("preferred").is_not_null() & (pl.col("hash_a") != pl.col("hash_b")))
        .select(
            "row",
            "prompt_hash",
            pl.when(a_won).then("hash_a").otherwise("hash_b").alias("won"),
            pl.when(a_won).then("hash_b").otherwise("hash_a").alias("lost"),
            # At least 1 each, so that of two sets alike in weight the smaller one wins.
            ((odds / (1 - odds)).log() * SCALE + 1).round().cast(pl.Int64).alias("weight"),
        )
    )
    several = decided.filter(pl.len().over("prompt_hash") >= 3).collect()
    names = pl.concat([several.select("prompt_hash", response=side) for side in ("won", "lost")]).unique()
    names = names.sort("prompt_hash", "response").with_row_index("node")
    for side, number in (("won", "winner"), ("lost", "loser")):
        numbered = names.rename({"response": side, "node": number})
        several = several.join(numbered, on=["prompt_hash", side], how="left", maintain_order="left")
    return several.with_columns(pl.col("winner", "loser").cast(pl.Int64))


def _responses(edges: pl.DataFrame) -> int:
    highest = edges.select(pl.max_horizontal(pl.col("winner").max(), pl.col("loser").max())).item()
    return 0 if highest is None else int(highest) + 1


def _components(edges: pl.DataFrame) -> Ints:
    """The strongly connected component of each edge, -1 for edges between components."""
    if not edges.height:
        return np.empty(0, np.int64)
    winner, loser, nodes = edges["winner"].to_numpy(), edges["loser"].to_numpy(), _responses(edges)
    graph = sparse.csr_array((np.ones(len(winner), np.int8), (winner, loser)), shape=(nodes, nodes))
    label = csgraph.connected_components(graph, directed=True, connection="strong")[1].astype(np.int64)
    return np.where(label[winner] == label[loser], label[winner], -1)


def _feedback(winner: Ints, loser: Ints, weight: Ints, limits: CycleLimits) -> NDArray[np.bool_]:
    """Which edges of a component run backwards in the order that loses the least weight."""
    nodes, ends = np.unique(np.concatenate([winner, loser]), return_inverse=True)
    source, target = ends[: len(winner)], ends[len(winner) :]
    size = len(nodes)
    if size > LOCAL_SEARCH:
        net = np.bincount(source, weight, size) - np.bincount(target, weight, size)
        order = np.argsort(-net, kind="stable")
    else:
        table = np.zeros((size, size), np.int64)
        np.add.at(table, (source, target), weight)
        order = _exact_order(table) if size <= limits.exact_responses else _searched_order(table)
    place = np.empty(size, np.int64)
    place[order] = np.arange(size)
    backwards: NDArray[np.bool_] = place[source] > place[target]
    return backwards


def _exact_order(table: Ints) -> Ints:
    """The order with the least backward weight, by dynamic programming over the sets that may come first."""
    size = len(table)
    rows = table.tolist()
    back = [[0] * (1 << size) for _ in range(size)]  # back[v][set]: weight of v's edges into a set placed before it
    for v in range(size):
        for group in range(1, 1 << size):
            low = group & -group
            back[v][group] = back[v][group ^ low] + rows[v][low.bit_length() - 1]
    cost, last = [0] * (1 << size), [0] * (1 << size)
    for group in range(1, 1 << size):
        options = [(cost[group ^ (1 << v)] + back[v][group ^ (1 << v)], v) for v in range(size) if group >> v & 1]
        cost[group], last[group] = min(options)
    order, group = [], (1 << size) - 1
    while group:
        order.append(last[group])
        group ^= 1 << last[group]
    return np.array(order[::-1])


def _searched_order(table: Ints) -> Ints:
    """Order by net weight won, then move single responses to their best place until nothing improves."""
    surplus = table - table.T
    order = np.argsort(-surplus.sum(axis=1), kind="stable")
    improved = True
    while improved:
        improved = False
        for node in range(len(table)):
            others = order[order != node]
            # Placed before all, nothing of the node's runs back but what others won; each step right swaps one edge.
            gain = np.concatenate([[0], np.cumsum(surplus[node, others])])
            here, best = int(np.flatnonzero(order == node)[0]), int(np.argmin(gain))
            if gain[best] < gain[here]:
                order, improved = np.insert(others, best, node), True
    return order
