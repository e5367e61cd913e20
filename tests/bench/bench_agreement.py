"""Reliability at ten million votes, against crowd-kit at what it can hold, and on the published sets.

    python tests/bench/bench_agreement.py [--votes 10000000]

Every section runs in a process of its own, so that its peak memory is its own. Needs `crowd-kit` for the second one and
the published sets beside the project for the last.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from dpo_data.measures import cycles, length_bias, style_bias
from dpo_data.schema import VOTES
from dpo_data.votes import agreement, agreement_coefficients
from dpo_data.votes.annotator_model import ReliabilityLimits
from dpo_data.votes.annotators import annotators, leave_one_out
from dpo_data.votes.dawid_skene import CodedVotes, estimate

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PLANTED = 50  # annotators at random, and as many inverted
TIES = 0.1
STYLE = {"chars": 2000, "headers": 4, "lists": 10, "bold": 6}


def simulate(votes: int, people: int = 5000, each: int = 3) -> tuple[CodedVotes, np.ndarray, np.ndarray]:
    """`votes` votes, `each` a comparison: skills Beta(8, 3), 50 random, 50 inverted (.1), position biases N(0, .5)."""
    rng = np.random.default_rng(0)
    items = votes // each
    truth = rng.integers(0, 2, items, dtype=np.int8) * 2 - 1
    skill = rng.beta(8, 3, people)
    skill[:PLANTED], skill[PLANTED : 2 * PLANTED] = 0.5, 0.1
    steps = rng.integers(1, people // each, (items, each), dtype=np.int32)
    start = rng.integers(0, people, (items, 1), dtype=np.int32)
    annotator = ((start + np.cumsum(steps, axis=1)) % people).astype(np.int32).ravel()
    item = np.repeat(np.arange(items, dtype=np.int32), each)
    first = (rng.integers(0, 2, len(item), dtype=np.int8) * 2 - 1).astype(np.float32)
    logit = np.log(skill / (1 - skill)).astype(np.float32)[annotator] * truth[item] * first
    logit += rng.normal(0, 0.5, people).astype(np.float32)[annotator]
    direction = np.where(rng.random(len(item), np.float32) < 1 / (1 + np.exp(-logit)), first, -first)
    direction[rng.random(len(item), np.float32) < TIES] = 0
    evidence = np.ones(len(item), np.float32)
    repeats = np.ones(len(item), np.int32)
    coded = CodedVotes(
        item=item,
        annotator=annotator,
        direction=direction,
        evidence=evidence,
        first=first,
        repeats=repeats,
        group=np.zeros(people, np.int64),
        items=items,
    )
    return coded, truth, skill


def codes(votes: int) -> dict[str, object]:
    """The whole estimate on integer codes: EM, posterior, leave-one-out table with flags, alpha."""
    coded, truth, skill = simulate(votes)
    built = peak()
    begin = time.perf_counter()
    found = estimate(coded)
    estimated = time.perf_counter()
    table = leave_one_out(coded, found)
    judged = time.perf_counter()
    counts = np.bincount(
        coded.item * np.int64(3) + 1 - coded.direction.astype(np.int64), minlength=3 * coded.items
    ).reshape(-1, 3)
    alpha = agreement_coefficients.alpha(counts)
    end = time.perf_counter()
    majority = counts[:, 0] - counts[:, 2]
    flag = table["flag"].to_list()
    return {
        "votes": len(coded.item),
        "comparisons": coded.items,
        "annotators": coded.annotators,
        "EM seconds": round(estimated - begin, 2),
        "iterations": found.iterations,
        "table seconds": round(judged - estimated, 2),
        "alpha seconds": round(end - judged, 2),
        "seconds in all": round(end - begin, 2),
        "peak GB": round(peak(), 2),
        "of it the simulated votes": round(built, 2),
        "alpha": round(alpha, 4),
        "posterior right": round(float(((found.logit > 0) == (truth > 0)).mean()), 4),
        "majority right (ties by chance)": round(
            float((np.sign(majority) == truth).mean() + (majority == 0).mean() / 2), 4
        ),
        "skill correlation": round(float(np.corrcoef(found.skills.skill, skill)[0, 1]), 4),
        "planted random flagged": f"{flag[:PLANTED].count('random')} of {PLANTED}",
        "planted inverted flagged": f"{flag[PLANTED : 2 * PLANTED].count('inverted')} of {PLANTED}",
        "others above .6 flagged": sum(
            f is not None for f, s in zip(flag[2 * PLANTED :], skill[2 * PLANTED :], strict=True) if s > 0.6
        ),
    }


def peer(votes: int) -> dict[str, object]:
    """crowd-kit and ours on the same smaller table, same number of EM steps."""
    import pandas
    from crowdkit.aggregation import DawidSkene, OneCoinDawidSkene

    warnings.simplefilter("ignore")
    coded, truth, _ = simulate(votes)
    decided = coded.direction != 0
    frame = pandas.DataFrame(
        {"task": coded.item[decided], "worker": coded.annotator[decided], "label": coded.direction[decided] > 0}
    )
    result: dict[str, object] = {"votes": len(coded.item), "steps": 10}
    for name, model in (("DawidSkene", DawidSkene(10)), ("OneCoinDawidSkene", OneCoinDawidSkene(10))):
        begin = time.perf_counter()
        labels = model.fit_predict(frame)
        result[f"crowd-kit {name} seconds"] = round(time.perf_counter() - begin, 2)
        right = labels.to_numpy() == (truth[labels.index.to_numpy()] > 0)
        result[f"crowd-kit {name} right"] = round(float(right.mean()), 4)
    result["crowd-kit peak GB"] = round(peak(), 2)
    begin = time.perf_counter()
    found = estimate(coded, ReliabilityLimits(iterations=10, tolerance=1e-12))
    result["ours seconds"] = round(time.perf_counter() - begin, 3)
    result["ours right"] = round(float(((found.logit > 0) == (truth > 0)).mean()), 4)
    return result


def store_shaped(votes: int) -> dict[str, object]:
    """The same through the tables of the store, with text ids: collapse, tally, posterior, annotator table."""
    coded, _, _ = simulate(votes)
    side = {1.0: "a", -1.0: "b", 0.0: "tie"}
    ids = pl.Series([f"{i:032x}" for i in range(coded.items)])
    names = pl.Series([f"worker {i}" for i in range(coded.annotators)])
    frame = pl.DataFrame(
        {
            "comparison_id": ids.gather(coded.item),
            "annotator": names.gather(coded.annotator),
            "choice": pl.Series(coded.direction).replace_strict(side, return_dtype=pl.String),
            "shown_first": pl.Series(coded.first).replace_strict(side, return_dtype=pl.String),
        }
    ).with_columns(annotator_kind=pl.lit("human"), source=pl.lit("simulated"), origin=pl.lit("none"))
    frame = frame.with_columns(pl.lit(None, VOTES[name]).alias(name) for name in VOTES if name not in frame.columns)
    ledger = ids.to_frame("comparison_id")
    begin = time.perf_counter()
    agreement.measure(ledger, frame)
    measured = time.perf_counter()
    annotators(frame)
    end = time.perf_counter()
    return {
        "votes": frame.height,
        "comparisons": ledger.height,
        "measure seconds": round(measured - begin, 2),
        "annotators seconds": round(end - measured, 2),
        "peak GB": round(peak(), 2),
    }


def published(_: int) -> dict[str, object]:
    """How often the posterior and the majority meet UKPConvArg1's gold, and what a gap of ratings is worth."""
    if not DATA.is_dir():
        return {"skipped": "no published sets beside the project"}
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from helpers.published_votes import golds, tables

    by_record = {
        name: tables(DATA, name)[0].with_columns(comparison_id=pl.col("origin")) for name in ("ukpconvarg1", "squality")
    }
    graded = by_record["squality"]
    plain = graded.with_columns(strength=pl.lit(None, pl.Float64))
    return (
        against_gold(by_record["ukpconvarg1"], golds(DATA))
        | {"squality: held-out log loss": held_out(graded), "squality, strengths ignored": held_out(plain)}
        | by_strength(graded)
    )


def against_gold(frame: pl.DataFrame, gold: pl.DataFrame) -> dict[str, object]:
    """Agreement with the gold side, where gold and the majority have one."""
    posterior, _ = agreement.posteriors(agreement.collapse(frame), ReliabilityLimits())
    table = agreement.tally(frame).join(posterior, on="comparison_id").join(gold, on="comparison_id")
    table = table.filter(pl.col("gold").is_in(["a", "b"]) & (pl.col("votes_a") != pl.col("votes_b")))
    result: dict[str, object] = {"UKPConvArg1 records with a gold side and a majority": table.height}
    for name, a, b in (("majority", "votes_a", "votes_b"), ("posterior", "better_a", "better_b")):
        side = pl.when(pl.col(a) > pl.col(b)).then(pl.lit("a")).otherwise(pl.lit("b"))
        result[f"{name} equals gold"] = round(table.select((side == pl.col("gold")).mean()).item(), 4)
    return result


def held_out(frame: pl.DataFrame) -> str:
    """One vote for a side is hidden in each comparison and foretold from the others and its annotator's skill."""
    limits, votes = ReliabilityLimits(), agreement.collapse(frame)
    votes = votes.with_columns(ticket=pl.Series(np.random.default_rng(0).random(votes.height)))
    hidden = pl.col("ticket") == pl.col("ticket").min().over("comparison_id")
    seen, asked = votes.filter(~hidden), votes.filter(hidden & (pl.col("choice") != "tie"))
    posterior, found = agreement.posteriors(seen.drop("ticket"), limits)
    _, _, people = agreement.code(seen, limits)
    skills = people.select("source", "annotator", skill=pl.Series(found.skills.skill))
    newcomer = float(found.skills.right[0])
    table = asked.join(posterior, on="comparison_id").join(skills, on=["source", "annotator"], how="left")
    s = table["skill"].fill_null(newcomer).to_numpy()
    a, b = table["better_a"].to_numpy(), table["better_b"].to_numpy()
    one, other = np.where((table["choice"] == "a").to_numpy(), (a, b), (b, a))
    p = one * s + other * (1 - s) + (1 - one - other) / 2
    return f"{-np.log(p).mean():.4f} (n {len(p)})"


def by_strength(frame: pl.DataFrame) -> dict[str, object]:
    """How often the other two reviewers agree (a split counts half), by sixths of the gap between two ratings."""
    one = pl.when(pl.col("choice") == "a").then(1).otherwise(-1)
    rest = one.sum().over("comparison_id") - one
    table = frame.with_columns(
        agrees=pl.when(rest == 0).then(0.5).otherwise((rest * one > 0).cast(pl.Float64)),
        sixth=(pl.col("strength").rank() / pl.len() * 6).ceil(),
    )
    rows = table.group_by("sixth").agg(
        pl.len(), low=pl.col("strength").min(), high=pl.col("strength").max(), agrees=pl.col("agrees").mean()
    )
    return {
        f"squality, gap {row['low']:.2f} to {row['high']:.2f}": f"n {row['len']}, others agree {row['agrees']:.3f}"
        for row in rows.sort("sixth").iter_rows(named=True)
    }


def whole_set(votes: int) -> dict[str, object]:
    """Circles, length bias, rebalance and style regression on a ledger of votes / 10 comparisons, five to a prompt."""
    rng = np.random.default_rng(0)
    rows = votes // 10
    prompt, better = rng.integers(0, rows // 5, rows), rng.integers(0, 7, rows)
    worse = better + 1 + (rng.random(rows) * (7 - better)).astype(np.int64)
    right = rng.random(rows) < 0.9
    names = pl.Series([f"{i:032x}" for i in range(8 * (rows // 5 + 1))])
    columns = {f"{name}_{side}": rng.integers(0, most, rows) for name, most in STYLE.items() for side in "ab"}
    ledger = pl.DataFrame(columns).with_columns(
        comparison_id=names.gather(np.arange(rows) % names.len()),
        prompt_hash=names.gather(prompt),
        hash_a=names.gather(prompt * 8 + better),
        hash_b=names.gather(prompt * 8 + worse),
        preferred=pl.Series(np.where(right, "a", "b")),
        confidence=pl.Series(rng.uniform(0.5, 1, rows)),
        source=pl.Series(rng.choice(["x", "y", "z"], rows)),
    )
    steps: dict[str, Callable[[], object]] = {
        "cycles.measure": lambda: cycles.measure(ledger),
        "length_bias.bias, by source": lambda: length_bias.bias(ledger, ["source"]),
        "length_bias.rebalance": lambda: length_bias.rebalance(ledger, length_bias.LengthLimits(rebalance="drop")),
        "style_bias.regression, by source": lambda: style_bias.regression(ledger, ["source"]),
    }
    result: dict[str, object] = {"comparisons": rows}
    for name, step in steps.items():
        begin = time.perf_counter()
        step()
        result[f"{name} seconds"] = round(time.perf_counter() - begin, 2)
    circles = cycles.summary(cycles.measure(ledger))
    return result | {"peak GB": round(peak(), 2), "circles": str(circles)}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


SECTIONS: dict[str, tuple[Callable[[int], dict[str, object]], float]] = {
    "codes": (codes, 1),
    "peer": (peer, 0.03),
    "store_shaped": (store_shaped, 0.3),
    "whole_set": (whole_set, 1),
    "published": (published, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=10_000_000)
    parser.add_argument("--section", choices=SECTIONS)
    options = parser.parse_args()
    if options.section:
        measure, share = SECTIONS[options.section]
        print(json.dumps(measure(int(options.votes * share))))
        return
    print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for name in SECTIONS:
        command = [sys.executable, __file__, "--votes", str(options.votes), "--section", name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"\n{name}")
        for key, value in found.items():
            print(f"  {key}: {value}")


if __name__ == "__main__":
    main()
