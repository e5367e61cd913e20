"""The forest: every slice's movement with its intervals, one small drawing in each row of the table.

These are markup and no image, so that they stand in the line of their numbers and print sharply; they hold no text of
the data.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from dpo_train.data.axes import ALL, TOO_SMALL
from dpo_train.report.headline import displaced, stands

WIDTH, HEIGHT = 260.0, 22.0


class Scale(NamedTuple):
    """From margins to places in the drawing."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        return 6 + (value - self.low) / (self.high - self.low) * (WIDTH - 12)


def scale(values: Iterable[float | None]) -> Scale:
    """A scale that holds 0 and every known value, with a little room."""
    known = [0.0, *(value for value in values if value is not None and math.isfinite(value))]
    low, high = min(known), max(known)
    room = 0.05 * (high - low) or 1.0
    return Scale(low - room, high + room)


def forest(rows: Sequence[Mapping[str, Any]], first: str | None) -> list[dict[str, Any]]:
    """The rows of one split, each with its drawing and what stands in it; the axis `first` comes first.

    The shrunken movement is the split's mean plus the slice's shrunken part of it.
    """
    total = rows[0]["movement"] or 0.0
    x = scale(row[name] for row in rows for name in ("movement_all_low", "movement_all_high", "movement"))
    drawn = []
    for row in sorted(rows, key=lambda row: (row["axis"] != ALL, row["axis"] != first)):
        shrunken = None if row["shrunken"] is None else total + (1 - row["pairs_share"]) * row["shrunken"]
        picture = None if row["status"] == TOO_SMALL else whisker(row, x, shrunken)
        drawn.append({**row, "picture": picture, "flagged": stands(row), "displacing": displaced(row)})
    return drawn


def whisker(row: Mapping[str, Any], x: Scale, shrunken: float | None) -> Markup:
    """The band over all slices thin, the interval thick, the mean a dot, the shrunken value a diamond, a line at 0."""
    middle = HEIGHT / 2
    parts = [_line(x(0), 0, x(0), HEIGHT, "zero")]
    for class_, name in (("at-once", "movement_all"), ("interval", "movement")):
        if row[f"{name}_low"] is not None:
            parts.append(_line(x(row[f"{name}_low"]), middle, x(row[f"{name}_high"]), middle, class_))
    if row["movement"] is not None:
        parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" class="dot"/>').format(x(row["movement"]), middle))
    if shrunken is not None:
        place = x(shrunken)
        corners = ((place - 4, middle), (place, middle - 5), (place + 4, middle), (place, middle + 5))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        parts.append(Markup('<polygon points="{}" class="shrunken"/>').format(points))
    return Markup(
        '<svg viewBox="0 0 {:g} {:g}" class="whisker" role="img" aria-label="movement with its interval">{}</svg>'
    ).format(WIDTH, HEIGHT, Markup("").join(parts))


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, class_)
