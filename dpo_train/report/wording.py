"""Numbers as the report writes them: a true minus sign, intervals in words, no more digits than there are."""

from typing import Any


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
    return "n/a" if value is None else f"{round(100 * value)} %".replace("-", "−")


def chance(p: float | None) -> str:
    """An adjusted p-value in words that do not promise more digits than it has."""
    if p is None:
        return "not tested"
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)
