"""What a reader of only the first screen must learn, in words: did margins grow, which slice first, how sure.

A slice is named only when something stands in a declared family (Benjamini-Hochberg, q = 0.10): its margins moved less
than the rest, its chosen answers grew less likely than the rest, or its training pairs pushed other held-out pairs
down. The strongest evidence is named first; a slice whose removal was tried and helped nobody is named last.
Everything else is "no slice stands out", with the smallest difference that would have shown.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_train.axes import ALL, FEWEST, TOO_SMALL

Q = 0.10  # expected share of false discoveries among the slices named
LEVELS = {
    "described": "Evidence: described (where it happened; not yet why, nor confirmed by a retraining).",
    "accounted": "Evidence: accounted for by its own gradients in this run; not confirmed by a retraining.",
    "one seed": "Evidence: retrained once without it; how much a seed alone changes was not measured.",
    "confirmed": "Evidence: confirmed, a retraining without it changed the margins.",
    "not confirmed": "Evidence: a retraining without it did not clearly help the others; fixing it may gain nothing.",
}


def number(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign, or "n/a"."""
    if value is None or value != value:
        return "n/a"
    return f"{value:+.{digits}f}".replace("-", "−")


def interval(row: dict[str, Any], name: str) -> str:
    """The value and its 95 % interval in words."""
    if row.get(f"{name}_low") is None:
        return number(row.get(name))
    return f"{number(row[name])} (95 % {number(row[f'{name}_low'])} to {number(row[f'{name}_high'])})"


def percent(value: float | None) -> str:
    """A share as a whole percentage, or "n/a"."""
    return "n/a" if value is None else f"{100 * value:.0f} %".replace("-", "−")


def chance(p: float | None) -> str:
    """An adjusted p-value in words that do not promise more digits than it has."""
    if p is None:
        return "not tested"
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def stands(row: dict[str, Any]) -> bool:
    """Whether the slice's difference from the rest stands in its family."""
    return row["p_adjusted"] is not None and row["p_adjusted"] <= Q


def suspects(
    rows: Sequence[dict[str, Any]],
    account: Mapping[str, Any] | None = None,
    confirmations: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Slices that something speaks against, strongest evidence first: axis, slice, level, and what was found.

    `row` is its line of the table, `fell` and `displaced` say what stands in it, `own` is what its training pairs did
    to held-out pairs outside it (where that stands), `retrained` is its confirmation.
    """
    tried = {(one["axis"], one["slice"]): one for one in confirmations}
    own = _pushing_down(account) if account is not None else {}
    found = {(row["axis"], row["slice"]): row for row in rows if row["axis"] != ALL}
    named = []
    for key in dict.fromkeys([*found, *own, *tried]):
        row = found.get(key)
        one: dict[str, Any] = {
            "axis": key[0],
            "slice": key[1],
            "row": row,
            "fell": row is not None and stands(row) and row["contrast"] < 0,
            "displaced": row is not None and displaced(row),
            "own": own.get(key),
            "retrained": tried.get(key),
        }
        one["level"] = _level(one)
        helped = one["level"] in ("one seed", "confirmed")
        if one["fell"] or one["displaced"] or one["own"] or helped:
            named.append(one)
    return sorted(named, key=_strength)


def _pushing_down(account: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Training slices that pushed held-out pairs outside themselves less than the others, after Bonferroni."""
    return {
        (account["axis"], name): cell
        for name, cell in account["elsewhere"].items()
        if cell["p"] is not None and cell["p"] * len(account["train"]) <= Q and cell["excess"] < 0 > cell["pushed"]
    }


def displaced(row: Mapping[str, Any]) -> bool:
    """Whether its chosen answers grew less likely, and surely less so than those of the rest."""
    sure = row["chosen_p_adjusted"] is not None and row["chosen_p_adjusted"] <= Q
    return bool(sure and row["chosen_contrast"] < 0 and row["chosen_reward"] < 0)


def _level(one: Mapping[str, Any]) -> str:
    if one["retrained"]:
        return str(one["retrained"]["verdict"])
    return "accounted" if one["own"] else "described"


def _strength(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sorts by level, then by how many things speak against it, then by how far its margins fell."""
    order = {"confirmed": 0, "one seed": 1, "accounted": 2, "described": 3, "not confirmed": 4}
    row = one["row"] or {}
    still_grew = (row.get("movement_high") or 0) >= 0
    return (
        order[one["level"]],
        -(bool(one["own"]) + one["fell"]),
        still_grew,
        row.get("shrunken") or 0.0,
        one["axis"],
        one["slice"],
    )


def headline(
    rows: Sequence[dict[str, Any]],
    account: Mapping[str, Any] | None = None,
    confirmations: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The first screen from the rows of one split: sentences `total`, `fix`, `sure`, `also`, `next` (a command).

    `row` is the line of the slice to fix, `suspect` its axis and slice; both None where no slice stands out.
    """
    nobody = {"fix": "No slice can be judged.", "sure": "", "also": "", "next": None, "row": None, "suspect": None}
    if not rows:
        return {"total": "This run evaluated no pairs: it has neither held-out pairs nor a probe.", **nobody}
    total = next(row for row in rows if row["axis"] == ALL)
    where = {"validation": "Held-out", "test": "Test", "train_probe": "Training-probe"}.get(
        total["split"], total["split"]
    )
    if total["from_step"] == total["to_step"]:
        words = f"{where} pairs were evaluated only once, at step {total['to_step']}: no movement can be told."
        return {"total": words, **nobody}
    if total["status"] == TOO_SMALL:
        words = (
            f"{where} pairs: {total['pairs']} of {total['prompts']} prompts, under {FEWEST}: too small to say anything."
        )
        return {"total": words, **nobody}
    said = {"total": _total(where, total), **_fix(rows, suspects(rows, account, confirmations))}
    if total["split"] == "train_probe":
        said["sure"] += " Seen on training pairs only: this run has no held-out ones."
    return said


def _total(where: str, total: dict[str, Any]) -> str:
    verb = "did not clearly move"
    if total["movement_low"] is not None and total["movement_low"] > 0:
        verb = "grew"
    elif total["movement_high"] is not None and total["movement_high"] < 0:
        verb = "fell"
    sides = (
        f"chosen {number(total['chosen_reward'])}, rejected {number(total['rejected_reward'])}"
        f"{', so both fell' if total['chosen_reward'] < 0 and total['rejected_reward'] < 0 else ''}"
    )
    return (
        f"{where} margins {verb}: {interval(total, 'movement')} over {total['pairs']} pairs of {total['prompts']} "
        f"prompts ({sides}); {percent(total['accuracy'])} of pairs are ranked rightly."
    )


def _fix(rows: Sequence[dict[str, Any]], named: Sequence[dict[str, Any]]) -> dict[str, Any]:
    tested = [row for row in rows if row["p_adjusted"] is not None]
    if not named:
        seen = sorted(row["detectable"] for row in tested if row["detectable"] is not None)
        limit = f" A difference under about {seen[len(seen) // 2]:.2f} could not have been seen." if seen else ""
        return {
            "fix": f"No slice stands out among the {len(tested)} compared.{limit}",
            "sure": "Nothing to fix by this table; more held-out prompts would show smaller differences.",
            "also": "",
            "next": None,
            "row": None,
            "suspect": None,
        }
    first = named[0]
    name = f"{first['axis']} = {first['slice']}"
    told = _told(first, len(tested))
    others = [f"{one['axis']} = {one['slice']} ({_short(one)})" for one in named[1:4]]
    more = f" and {len(named) - 4} more" if len(named) > 4 else ""
    verb = "Look first at" if first["level"] == "not confirmed" or told[0][0] == "displaced" else "Fix first:"
    return {
        "fix": f"{verb} {name}. {told[0][1]}",
        "sure": " ".join([*(sentence for _, sentence in told[1:]), LEVELS[first["level"]]]),
        "also": f"Also standing out: {', '.join(others)}{more}." if others else "",
        "next": f'--confirm "{name.replace(" = ", "=")}"' if first["level"] in ("described", "accounted") else None,
        "row": first["row"],
        "suspect": {"axis": first["axis"], "slice": first["slice"], "level": first["level"]},
    }


def _short(one: Mapping[str, Any]) -> str:
    parts = []
    if one["own"]:
        parts.append(f"pushed others {number(one['own']['pushed'])}")
    if one["fell"]:
        parts.append(f"{number(one['row']['contrast'])} against the rest")
    elif one["displaced"]:
        parts.append(f"its chosen answers {number(one['row']['chosen_reward'])}")
    if one["retrained"]:
        parts.append(one["level"])
    return "; ".join(parts)


def _told(one: Mapping[str, Any], tested: int) -> list[tuple[str, str]]:
    """What was found, in sentences, each with its kind: the strongest first, the rest as support."""
    told: list[tuple[str, str]] = []
    if one["retrained"]:
        told.append(("retrained", _retrained(one["retrained"])))
    if one["fell"]:
        told += _described(one["row"], tested)
    if one["own"]:
        told.append(("own", _pushed(one["own"])))
    if one["displaced"]:
        told.append(("displaced", _fell_likely(one["row"])))
    order = {"confirmed": "retrained", "one seed": "retrained"}
    return sorted(told, key=lambda pair: pair[0] != order.get(one["level"], "fell" if one["fell"] else "own"))


def _retrained(found: Mapping[str, Any]) -> str:
    others, seeds = found["others"], len(found["others"]["by_seed"])
    how = f"with {percent(found['keep'])} of it" if found["keep"] else "without it"
    higher = "higher" if others["change"] >= 0 else "lower"
    return (
        f"Retrained {how}, the margins of all other held-out pairs end {number(abs(others['change']))[1:]} {higher} "
        f"(change 95 % {number(others['change_low'])} to {number(others['change_high'])}; {others['pairs']} pairs of "
        f"{others['prompts']} prompts, {seeds} seed{'s' if seeds > 1 else ''}), and {number(100 * others['right'], 1)} "
        "points more of them are ranked rightly."
    )


def _described(row: dict[str, Any], tested: int) -> list[tuple[str, str]]:
    direction = "grew less than the rest"
    if row["movement"] < 0:
        direction = "fell" if (row["movement_high"] or 0) < 0 else "did not grow"
    told = [
        (
            "fell",
            f"Its margins {direction}: {interval(row, 'movement')}, against the rest {interval(row, 'contrast')}; "
            f"{row['pairs']} pairs of {row['prompts']} prompts.",
        ),
        ("sure", f"A gap this large by chance: {chance(row['p_adjusted'])}, adjusted for {tested} slices compared."),
    ]
    if row["adjusted_low"] is not None:
        holds = row["adjusted_high"] < 0
        sentence = f"With the other axes held fixed {'it stays' if holds else 'it is no longer clear'}"
        told.append(("sure", f"{sentence}: {interval(row, 'adjusted')}."))
    return told


def _pushed(own: Mapping[str, Any]) -> str:
    return (
        "Its training pairs pushed the margins of held-out pairs outside it by "
        f"{interval(dict(own), 'pushed')} a pair, {own['pairs']} pairs looked at; the other "
        "slices pushed them more for their size."
    )


def _fell_likely(row: dict[str, Any]) -> str:
    return (
        f"Its chosen answers grew less likely: {interval(row, 'chosen_reward')}, against the rest "
        f"{interval(row, 'chosen_contrast')} ({chance(row['chosen_p_adjusted'])}, adjusted); "
        f"{percent(row['displaced'])} of its pairs whose margin grew are displaced, {row['pairs']} pairs of "
        f"{row['prompts']} prompts. Wrong labels look like this: check them."
    )
