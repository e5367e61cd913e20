"""What a reader of only the first screen must learn, in words: did margins grow, which slice first, how sure.

A slice is named only when something stands in a declared family (Benjamini-Hochberg, q = 0.10): its margins moved less
than the rest, its chosen answers grew less likely than the rest, or its training pairs pushed other held-out pairs
down, or less than others did for their size (the page says which of the two). The strongest evidence is named first; a
slice whose removal was tried and helped nobody is named last. Everything else is "no slice stands out", with the
smallest difference that would have shown.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_train.data.axes import ALL, FEWEST, TOO_SMALL
from dpo_train.report.evidence import Q, differs, findings
from dpo_train.report.wording import interval, number, percent

LEVELS = {
    "described": "Evidence: described (where it happened; not yet why, nor confirmed by a retraining).",
    "accounted": "Evidence: accounted for by its own gradients in this run, which pushed other held-out pairs down "
    "(the interval says so); not confirmed by a retraining.",
    "pushed less": "Evidence: accounted for in part. Its own gradients pushed other held-out pairs less than those of "
    "other slices did for their size; whether they moved them down is unclear (the interval includes 0). Not confirmed "
    "by a retraining.",
    "one seed": "Evidence: retrained once without it; how much a seed alone changes was not measured.",
    "confirmed": "Evidence: confirmed, a retraining without it changed the margins.",
    "not confirmed": "Evidence: a retraining without it did not clearly help the others; fixing it may gain nothing.",
}


def stands(row: Mapping[str, Any]) -> bool:
    """Whether the slice's difference from the rest stands in its family."""
    return row["p_adjusted"] is not None and row["p_adjusted"] <= Q


def suspects(
    rows: Sequence[dict[str, Any]],
    account: Mapping[str, Any] | None = None,
    confirmations: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Slices with evidence against them, strongest first: axis, slice, level, and what was found.

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
            "weak": None if key in own else _uncertain(account, key),
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
        if differs(cell) and cell["excess"] < 0 > cell["pushed"]
    }


def _uncertain(account: Mapping[str, Any] | None, key: tuple[str, str]) -> dict[str, Any] | None:
    """What the slice's training pairs did elsewhere, where that is downwards but does not stand."""
    cell = account["elsewhere"].get(key[1]) if account is not None and account["axis"] == key[0] else None
    return dict(cell) if cell is not None and cell["pushed"] < 0 else None


def displaced(row: Mapping[str, Any]) -> bool:
    """Whether its chosen answers grew less likely, and surely less so than those of the rest."""
    sure = row["chosen_p_adjusted"] is not None and row["chosen_p_adjusted"] <= Q
    return bool(sure and row["chosen_contrast"] < 0 and row["chosen_reward"] < 0)


def _level(one: Mapping[str, Any]) -> str:
    if one["retrained"]:
        return str(one["retrained"]["verdict"])
    if one["own"]:
        return "accounted" if one["own"]["direction"] == "down" else "pushed less"
    return "described"


def _strength(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sorts by level, then by the number of findings, then by how far its margins fell."""
    order = {"confirmed": 0, "one seed": 1, "accounted": 2, "pushed less": 3, "described": 4, "not confirmed": 5}
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
    """The first screen from the rows of one split: `fix` (the claim), `points` (its numbers), `sure`, `also`,
    `total`, and `next`, the option of `dpo report` that would tell more.

    `row` is the line of the slice to fix, `suspect` its axis and slice; both None where no slice stands out.
    """
    nobody: dict[str, Any] = {
        "fix": "No slice can be judged.",
        "points": [],
        "sure": "",
        "also": "",
        "next": None,
        "row": None,
        "suspect": None,
    }
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
        said["sure"] += " Seen on training pairs only, not on held-out ones."
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
            "points": [],
            "sure": "Nothing to fix by this table; more held-out prompts would show smaller differences.",
            "also": "",
            "next": None,
            "row": None,
            "suspect": None,
        }
    first = named[0]
    name = f"{first['axis']} = {first['slice']}"
    told = findings(first, len(tested))
    others = [f"{one['axis']} = {one['slice']} ({_short(one)})" for one in named[1:4]]
    more = f" and {len(named) - 4} more" if len(named) > 4 else ""
    verb = "Look first at" if first["level"] == "not confirmed" or told[0].kind == "displaced" else "Fix first:"
    return {
        "fix": f"{verb} {name}. {told[0].claim}.",
        "points": [one.sentence for one in told],
        "sure": LEVELS[first["level"]],
        "also": f"Also standing out: {', '.join(others)}{more}." if others else "",
        "next": _next(name, first["level"]),
        "row": first["row"],
        "suspect": {"axis": first["axis"], "slice": first["slice"], "level": first["level"]},
    }


def _next(name: str, level: str) -> str | None:
    """The option of `dpo report` that would raise the level of evidence."""
    wanted = f"--confirm {shlex.quote(name.replace(' = ', '=', 1))}"  # a name is data: a shell must not run it
    if level == "one seed":
        return f"{wanted} --seeds 2"
    return wanted if level in ("described", "pushed less", "accounted") else None


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
