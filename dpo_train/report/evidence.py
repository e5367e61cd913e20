"""Evidence against one slice in sentences: a short claim, then the numbers with their n.

Sentences say "pushed" of an account and "end higher" of a retraining, never the other way round.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpo_train.report.wording import chance, interval, number, percent

Q = 0.10  # expected share of false discoveries among the slices named


class Finding(NamedTuple):
    """One thing that speaks about a slice: its kind, the claim in a few words, and the sentence with its numbers."""

    kind: str
    claim: str
    sentence: str


def differs(push: Mapping[str, Any]) -> bool:
    """Whether a training slice pushed others otherwise than the rest did for their size, after Bonferroni."""
    return push["p_adjusted"] is not None and push["p_adjusted"] <= Q


def findings(one: Mapping[str, Any], tested: int) -> list[Finding]:
    """What was found, the strongest first."""
    told = []
    if one["retrained"]:
        told.append(_retrained(one["retrained"]))
    if one["fell"]:
        told.append(_described(one["row"], tested))
    if one["own"]:
        told.append(_pushed(one["own"]))
    if one["displaced"]:
        told.append(_less_likely(one["row"], tested))
    if one["weak"]:
        told.append(_perhaps_pushed(one["weak"]))
    last = "retrained" if one["level"] == "not confirmed" and len(told) > 1 else ""
    return sorted(told, key=lambda found: found.kind == last)


def _retrained(found: Mapping[str, Any]) -> Finding:
    others, seeds = found["others"], len(found["others"]["by_seed"])
    how = f"with {percent(found['keep'])} of it" if found["keep"] else "without it"
    higher = "higher" if others["change"] >= 0 else "lower"
    sentence = (
        f"Retrained {how}, the margins of all other held-out pairs end {number(abs(others['change']))[1:]} {higher} "
        f"(change 95 % {number(others['change_low'])} to {number(others['change_high'])}; {others['pairs']} pairs of "
        f"{others['prompts']} prompts, {seeds} seed{'s' if seeds > 1 else ''}; with it they moved by "
        f"{number(others['observed'])}); the share of them ranked rightly changes by "
        f"{number(100 * others['right'], 1)} points."
    )
    return Finding("retrained", f"Trained {how}, the other margins end {higher}", sentence)


def _described(row: dict[str, Any], tested: int) -> Finding:
    direction = "grew less than the rest"
    if row["movement"] < 0:
        direction = "fell" if (row["movement_high"] or 0) < 0 else "did not grow"
    sentence = (
        f"Its margins {direction}: {interval(row, 'movement')}, against the rest {interval(row, 'contrast')}; "
        f"{row['pairs']} pairs of {row['prompts']} prompts. A gap this large by chance: {chance(row['p_adjusted'])}, "
        f"adjusted for {tested} slices compared; that any of them would show one: {chance(row['p_family'])}."
    )
    if row["adjusted_low"] is not None:
        holds = "it stays" if row["adjusted_high"] < 0 else "it is no longer clear"
        sentence += f" With the other axes held fixed {holds}: {interval(row, 'adjusted')}."
    return Finding("fell", f"Its margins {direction}", sentence)


def _pushed(own: Mapping[str, Any]) -> Finding:
    down = own["direction"] == "down"
    claim = "pushed the margins of others down" if down else "pushed the margins of others less than other slices did"
    told = "the interval is below 0" if down else "direction unclear, the interval includes 0"
    return Finding("own", f"Its training pairs {claim}", f"{_outside(own)}: {told}. {_beyond_size(own)}.")


def _perhaps_pushed(own: Mapping[str, Any]) -> Finding:
    if own["direction"] == "down":
        told = "the interval is below 0, but not clearly different from other slices per training pair"
    else:
        told = "direction unclear, the interval includes 0"
    return Finding("weak", "", f"{_outside(own)}: {told}.")


def _outside(own: Mapping[str, Any]) -> str:
    return (
        "By attribution, its training pairs moved the margins of held-out pairs outside it by "
        f"{interval(dict(own), 'pushed')} per pair ({own['pairs']} of {own['of']} pairs sampled)"
    )


def _beyond_size(own: Mapping[str, Any]) -> str:
    by_chance = chance(own["p_adjusted"])
    return f"Other slices contributed significantly more per training pair ({by_chance}, adjusted for all slices)"


def _less_likely(row: dict[str, Any], tested: int) -> Finding:
    grown = (
        "None of its margins grew"
        if row["displaced"] is None
        else f"In {percent(row['displaced'])} of its pairs whose margin grew the chosen answer lost likelihood"
    )
    sentence = (
        f"Its chosen answers moved by {interval(row, 'chosen_reward')}, against the rest "
        f"{interval(row, 'chosen_contrast')}; by chance {chance(row['chosen_p_adjusted'])}, adjusted for {tested} "
        f"slices compared. {grown}; {row['pairs']} pairs of {row['prompts']} prompts. "
        "Wrong labels look like this: read some of its pairs."
    )
    return Finding("displaced", "Its chosen answers grew less likely while those of the rest gained", sentence)


def told(account: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each training slice did to held-out pairs outside itself, with `words`: is up or down told, or neither."""
    size = {cell["train"]: cell["train_pairs"] for cell in account["cells"]}
    return [
        {"name": name, "train_pairs": size[name], **one, "words": _in_words(one)}
        for name, one in account["elsewhere"].items()
    ]


def _in_words(one: Mapping[str, Any]) -> str:
    words = f"pushed them {one['direction']}" if one["direction"] else "direction unclear (95% interval includes 0)"
    if differs(one):
        words += f"; {'less' if one['excess'] < 0 else 'more'} than the other slices for its size"
    return words
