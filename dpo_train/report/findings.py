"""What speaks against one slice, in sentences: a claim of a few words, and behind it the numbers with their n.

Sentences say "pushed" of an account and "end higher" of a retraining, never the other way round.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpo_train.report.wording import chance, interval, number, percent


class Finding(NamedTuple):
    """One thing that speaks about a slice: its kind, the claim in a few words, and the sentence with its numbers."""

    kind: str
    claim: str
    sentence: str


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
    sentence = (
        "Its training pairs pushed the margins of held-out pairs outside it by "
        f"{interval(dict(own), 'pushed')} a pair, {own['pairs']} pairs looked at; the other slices pushed them more "
        "for their size."
    )
    return Finding("own", "Its training pairs pushed the margins of others down", sentence)


def _perhaps_pushed(own: Mapping[str, Any]) -> Finding:
    sentence = (
        "By this run's account its training pairs pushed held-out pairs outside it by "
        f"{interval(dict(own), 'pushed')} a pair, {own['pairs']} pairs looked at: that alone could be chance."
    )
    return Finding("weak", "", sentence)


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
