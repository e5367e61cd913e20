"""What a confidence means on published sets: votes foretold, and labels of gold met, with and without "neither".

    python tests/bench/bench_calibration.py

Foretold: one vote of every comparison is hidden, the rest is judged, and the hidden vote (a, b or tie) is foretold
from that and its annotator's votes elsewhere; three times over, with different votes hidden. "Blind to ties" is the
same model on the votes for a side alone, so that one of the two responses is always better; how often it expects a tie
is how often the annotator says it. Met: UKPConvArg1 has gold labels (MACE over the same votes), which may be "equal".
Needs the published sets beside the project; ten seconds.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from dpo_data.votes import agreement
from dpo_data.votes.annotator_model import ReliabilityLimits
from dpo_data.votes.dawid_skene import CodedVotes, Reliability, estimate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers.published_votes import golds, tables

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = ("pandalm", "llmfao", "ukpconvarg1", "squality")
MODELS = {"with neither": False, "blind to ties": True}
ROUNDS = 3
EDGES = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
Floats = NDArray[np.float64]


def judge(votes: CodedVotes, blind: bool) -> Reliability:
    """The estimate, from all votes or from those for a side alone."""
    return estimate(part(votes, votes.direction != 0) if blind else votes)


def part(votes: CodedVotes, keep: NDArray[np.bool_]) -> CodedVotes:
    names = ("item", "annotator", "direction", "evidence", "first", "repeats")
    return replace(votes, **{name: getattr(votes, name)[keep] for name in names})


def foretell(votes: CodedVotes, hidden: NDArray[np.bool_], blind: bool) -> Floats:
    """P(a), P(tie), P(b) of the hidden votes, shape (hidden, 3)."""
    seen, asked = part(votes, ~hidden), part(votes, hidden)
    found = judge(seen, blind)
    better_a, better_b, neither = (column[asked.item] for column in found.probabilities)
    skills, who = found.skills, asked.annotator
    if blind:
        tie = shrunk_tie_share(seen)[who]
        ties = tie, tie
    else:
        odds = [skills.readiness[who] * each[votes.group][who] for each in skills.tie_odds]
        ties = odds[0] / (1 + odds[0]), odds[1] / (1 + odds[1])
    pull, skill = asked.first * skills.bias[who], skills.weights.side[who]
    for_a = better_a * expit(skill + pull) + better_b * expit(pull - skill)
    for_b = better_a * expit(-skill - pull) + better_b * expit(skill - pull)
    a = (1 - ties[1]) * for_a + (1 - ties[0]) * neither * expit(pull)
    b = (1 - ties[1]) * for_b + (1 - ties[0]) * neither * expit(-pull)
    return np.stack([a, 1 - a - b, b], axis=1)


def shrunk_tie_share(votes: CodedVotes) -> Floats:
    """How often each annotator says tie, starting at the source's share on the word of `prior_votes` votes."""
    cast = np.bincount(votes.annotator, minlength=votes.annotators)
    ties = np.bincount(votes.annotator, votes.direction == 0, minlength=votes.annotators)
    usual = np.bincount(votes.group, ties) / np.bincount(votes.group, cast)
    prior = ReliabilityLimits().prior_votes
    return np.asarray((prior * usual[votes.group] + ties) / (prior + cast), np.float64)


def rounds(votes: CodedVotes) -> list[NDArray[np.bool_]]:
    """Which votes are hidden: one of every comparison with two votes or more, another one each time."""
    ticket = np.random.default_rng(0).random(len(votes.item))
    order = np.lexsort((ticket, votes.item))
    many = np.bincount(votes.item)
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(many) - many, many)
    return [(place == turn) & (many[votes.item] >= 2) for turn in range(ROUNDS)]


def calibration(name: str, foretold: Floats, happened: NDArray[np.generic]) -> str:
    """By tenths: what was foretold -> what happened (n); and the mean distance of the two."""
    tenth = np.searchsorted(EDGES, foretold, side="right") - 1
    rows = [tenth == place for place in np.unique(tenth)]
    cells = " ".join(f"{foretold[at].mean():.3f}->{happened[at].mean():.3f} ({at.sum():,})" for at in rows)
    return f"  {name}: {cells}; off by {distance(foretold, happened):.4f}, n {len(foretold):,}"


def distance(foretold: Floats, happened: NDArray[np.generic]) -> float:
    tenth = np.searchsorted(EDGES, foretold, side="right") - 1
    rows = [tenth == place for place in np.unique(tenth)]
    return float(sum(abs(foretold[at].mean() - happened[at].mean()) * at.mean() for at in rows))


def foretold(name: str, votes: CodedVotes) -> None:
    losses = {}
    for model, blind in MODELS.items():
        turns = [(foretell(votes, hidden, blind), votes.direction[hidden]) for hidden in rounds(votes)]
        chance, choice = np.concatenate([turn[0] for turn in turns]), np.concatenate([turn[1] for turn in turns])
        code = 1 - choice.astype(int)
        losses[model] = -np.log(np.maximum(chance[np.arange(len(code)), code], 1e-9))
        off = np.mean([distance(chance[:, k], code == k) for k in range(3)])
        sided = code != 1
        ahead = np.sign(np.round(chance[:, 0] - chance[:, 2], 9)) * choice
        right = np.where(ahead == 0, 0.5, ahead > 0)[sided]
        print(
            f"{name}, {model}: held-out log loss {losses[model].mean():.4f}, calibration off by {off:.4f}, side right "
            f"{right.mean():.4f} of {sided.sum():,}, most likely of three right "
            f"{(chance.argmax(1) == code).mean():.4f}, n {len(code):,}"
        )
        print(calibration("a tie", chance[:, 1], code == 1))
    one, other = losses.values()
    gap = one - other
    print(f"  with neither, less blind: {gap.mean():+.4f} (standard error {gap.std() / len(gap) ** 0.5:.4f})")


def met(votes: CodedVotes, items: pl.DataFrame, counts: pl.DataFrame) -> None:
    """Every record of UKPConvArg1 against its gold label, where it has one."""
    table = items.join(golds(DATA), on="comparison_id", how="left", maintain_order="left")
    gold = table["gold"].fill_null("").to_numpy()
    known = gold != ""
    for model, blind in MODELS.items():
        a, b, neither = judge(votes, blind).probabilities
        side, better = np.where(a > b, "a", "b"), np.maximum(a, b)
        right = (side == gold) + (gold == "tie") / 2
        print(f"ukpconvarg1 and its gold labels ({(gold == 'tie').sum():,} of {known.sum():,} equal), {model}:")
        print(calibration("confidence (equal is half right)", (better + neither / 2)[known], right[known]))
        print(calibration("preferred is better (equal is wrong)", better[known], (side == gold)[known]))
        print(calibration("neither is better", neither[known], (gold == "tie")[known]))
        sided = known & (gold != "tie")
        print(calibration("the side, where gold has one", (better / (1 - neither))[sided], (side == gold)[sided]))
    limits = agreement.AgreementLimits(min_confidence=0.5)
    ledger = counts.join(golds(DATA), on="comparison_id", how="left")
    standing = ledger.filter(~pl.any_horizontal(*(rule.fill_null(False) for rule in agreement.rules(limits).values())))
    for limit in (0.5, 0.55, 0.6, 0.75):
        low = standing.filter(pl.col("confidence") < limit)
        told = low.filter(pl.col("gold").is_not_null())
        right, equal = (told["gold"] == told["preferred"]).sum(), (told["gold"] == "tie").sum()
        print(
            f"  min_confidence {limit}: drops {low.height} of {standing.height:,} that nothing else drops; "
            f"gold knows {told.height}, says {right} right, {equal} equal"
        )


def main() -> None:
    if not DATA.is_dir():
        print("skipped: no published sets beside the project")
        return
    for name in SETS:
        frame = tables(DATA, name)[0].with_columns(comparison_id=pl.col("origin"))
        votes, items, _ = agreement.code(agreement.collapse(frame), ReliabilityLimits())
        foretold(name, votes)
        found = estimate(votes)
        tie_neither, tie_side = (float(odds[0] / (1 + odds[0])) for odds in found.skills.tie_odds)
        print(
            f"  neither better in {found.prior_neither[0]:.3f} of comparisons ({(votes.direction == 0).mean():.3f} of "
            f"votes are ties); right {found.skills.right[0]:.3f}; tie where neither is better {tie_neither:.3f}, "
            f"where one is {tie_side:.3f}"
        )
        if name == "ukpconvarg1":
            met(votes, items, agreement.measure(items.select("comparison_id"), frame))


if __name__ == "__main__":
    main()
