"""What a reader of only the first screen must learn, in words: did margins grow, which slice first, how sure.

A slice is named only when its contrast stands in the declared family (Benjamini-Hochberg, q = 0.10) on held-out
pairs. Everything else is "no slice stands out", with the smallest difference that would have shown.
"""

from collections.abc import Sequence
from typing import Any

from dpo_train.axes import ALL, FEWEST, TOO_SMALL

Q = 0.10  # expected share of false discoveries among the slices named
LEVELS = {
    "described": "Evidence: described (where it happened; not yet why, nor confirmed by a retraining).",
    "accounted": "Evidence: described, and accounted for by its own gradients; not confirmed by a retraining.",
    "confirmed": "Evidence: confirmed, a retraining without it changed the margins.",
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


def flagged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slices that move less than the rest, surely; those whose margins truly fell come first, then the strongest."""
    low = [row for row in rows if row["axis"] != ALL and stands(row) and row["contrast"] < 0]
    return sorted(low, key=lambda row: ((row["movement_high"] or 0) >= 0, row["shrunken"], row["axis"], row["slice"]))


def headline(rows: Sequence[dict[str, Any]], level: str = "described") -> dict[str, Any]:
    """The first screen from the rows of one split: sentences `total`, `fix`, `sure`, and the `row` to fix or None."""
    total = next(row for row in rows if row["axis"] == ALL)
    where = {"validation": "Held-out", "test": "Test", "train_probe": "Training-probe"}.get(
        total["split"], total["split"]
    )
    if total["status"] == TOO_SMALL:
        words = f"{where} pairs come from only {total['prompts']} prompts, under {FEWEST}: too small to say anything."
        return {"total": words, "fix": "No slice can be judged.", "sure": "", "row": None}
    return {"total": _total(where, total), **_fix(rows, level)}


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


def _fix(rows: Sequence[dict[str, Any]], level: str) -> dict[str, Any]:
    tested = [row for row in rows if row["p_adjusted"] is not None]
    worst = flagged(rows)
    if not worst:
        seen = sorted(row["detectable"] for row in tested if row["detectable"] is not None)
        limit = f" A difference under about {seen[len(seen) // 2]:.2f} could not have been seen." if seen else ""
        return {
            "fix": f"No slice stands out among the {len(tested)} compared.{limit}",
            "sure": "Nothing to fix by this table; more held-out prompts would show smaller differences.",
            "row": None,
        }
    row = worst[0]
    direction = "fell" if row["movement"] < 0 else "grew less than the rest"
    fix = (
        f"Fix first: {row['axis']} = {row['slice']}. Its margins {direction}: {interval(row, 'movement')}, against the "
        f"rest {interval(row, 'contrast')}; {row['pairs']} pairs of {row['prompts']} prompts."
    )
    sure = f"A gap this large by chance: {chance(row['p_adjusted'])}, adjusted for {len(tested)} slices compared. "
    if row["adjusted_low"] is not None:
        holds = row["adjusted_high"] < 0
        sure += f"With the other axes held fixed {'it stays' if holds else 'it is no longer clear'}: "
        sure += f"{interval(row, 'adjusted')}. "
    return {"fix": fix, "sure": sure + LEVELS[level], "row": row}
