"""Charts of the report as plain SVG, drawn without a plotting library.

A page under a strict content policy may not evaluate code, and plotting libraries for the browser do; a picture
that is markup prints, scales and needs no script. Every text goes through `markupsafe`, since slice names and
categories come from the data. Colours and strokes live in report.css, by class.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 42.0
MOST_POINTS = 1500  # of a scatter; more is a blot and a heavy page


class Scale(NamedTuple):
    """Data to picture: start and end of the data, start and end in picture units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def scale(values: Iterable[float | None], start: float, end: float, room: float = 0.05) -> Scale:
    """A scale that holds 0 and every known value, with a little room."""
    known = [0.0, *(value for value in values if value is not None and math.isfinite(value))]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 1, high + 1
    edge = room * (high - low)
    return Scale(low - (edge if low < 0 else 0), high + (edge if high > 0 else 0), start, end)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between low and high: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """One element; children and attribute values are escaped, `class_` and `stroke_width` lose or change the bar."""
    parts = "".join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value)) for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup(parts), Markup("").join(children))


def _short(value: Any) -> Any:
    return f"{value:.1f}" if isinstance(value, float) else value


def text(x: float, y: float, words: Any, anchor: str = "start", class_: str = "label") -> Markup:
    """A word in a picture."""
    return tag("text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def picture(children: Iterable[Markup], title: str, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """A whole SVG with its title for screen readers."""
    box = f"0 0 {width:g} {height:g}"
    return tag("svg", tag("title", title), *children, viewBox=box, role="img", class_="chart")


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def frame(x: Scale, y: Scale, x_title: str, y_title: str) -> list[Markup]:
    """Axes with ticks, a line at zero, and titles."""
    bottom, left, right, top = y.start, x.start, x.end, y.end
    parts: list[Markup] = []
    for value in ticks(x.low, x.high):
        parts += [
            line(x(value), top, x(value), bottom, "zero" if value == 0 else "grid"),
            text(x(value), bottom + 14, _tick(value), "middle", "tick"),
        ]
    for value in ticks(y.low, y.high):
        parts += [
            line(left, y(value), right, y(value), "zero" if value == 0 else "grid"),
            text(left - 5, y(value) + 4, _tick(value), "end", "tick"),
        ]
    parts.append(text((left + right) / 2, bottom + 32, x_title, "middle"))
    turned = tag(
        "text", escape(y_title), transform=f"translate(12 {(top + bottom) / 2:.0f}) rotate(-90)", class_="label",
        text_anchor="middle",
    )  # fmt: skip
    return [*parts, turned]


def _plot(xs: Iterable[float | None], ys: Iterable[float | None]) -> tuple[Scale, Scale]:
    return scale(xs, LEFT, WIDTH - RIGHT), scale(ys, HEIGHT - BOTTOM, TOP)


def whisker(row: dict[str, Any], x: Scale, shrunken: float | None, height: float = 22) -> Markup:
    """One line of the forest: interval, mean as a dot, shrunken value as a diamond, a line at zero."""
    middle = height / 2
    parts = [line(x(0), 0, x(0), height, "zero")]
    if row["movement_all_low"] is not None:
        parts.append(line(x(row["movement_all_low"]), middle, x(row["movement_all_high"]), middle, "at-once"))
    if row["movement_low"] is not None:
        parts.append(line(x(row["movement_low"]), middle, x(row["movement_high"]), middle, "interval"))
    if row["movement"] is not None:
        parts.append(tag("circle", cx=x(row["movement"]), cy=middle, r=4.0, class_="dot"))
    if shrunken is not None:
        place = x(shrunken)
        points = f"{place - 4:.1f},{middle} {place:.1f},{middle - 5} {place + 4:.1f},{middle} {place:.1f},{middle + 5}"
        parts.append(tag("polygon", points=points, class_="shrunken"))
    box = f"0 0 {x.end - x.start:g} {height:g}"
    return tag("svg", *parts, viewBox=box, class_="whisker", role="img", aria_label="movement with its interval")


def trajectories(series: Sequence[dict[str, Any]]) -> Markup:
    """Mean margin by step with bands; `series`: name, steps, mean, low, high; the first is drawn strongest."""
    x = scale((s for one in series for s in one["steps"]), LEFT, WIDTH - RIGHT, room=0)
    bounds = [value for one in series for name in ("mean", "low", "high") for value in one[name]]
    y = scale(bounds, HEIGHT - BOTTOM, TOP)
    parts = frame(x, y, "optimizer step", "mean margin (β · nats)")
    for place, one in enumerate(series):
        known = [i for i, low in enumerate(one["low"]) if low is not None]
        ring = [(x(one["steps"][i]), y(one["high"][i])) for i in known]
        ring += [(x(one["steps"][i]), y(one["low"][i])) for i in reversed(known)]
        parts.append(tag("polygon", points=_points(ring), class_=f"band c{place % 7}"))
    for place, one in enumerate(series):
        path = [(x(step), y(mean)) for step, mean in zip(one["steps"], one["mean"], strict=True)]
        parts.append(tag("polyline", points=_points(path), class_=f"curve c{place % 7}"))
    return picture(parts, "Mean margin by optimizer step")


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def plane(rows: Sequence[dict[str, Any]]) -> Markup:
    """Chosen against rejected reward, an arrow from the start for each slice; the displaced quadrant is shaded."""
    x, y = _plot((row["chosen_reward"] for row in rows), (row["rejected_reward"] for row in rows))
    parts = []
    if x.low < 0 and y.low < 0:
        parts.append(tag("rect", x=x.start, y=y(0), width=x(0) - x.start, height=y.start - y(0), class_="displaced"))
        parts.append(text(x.start + 6, y.start - 8, "displaced: both fell", class_="tick"))
    parts += frame(x, y, "change of the chosen reward", "change of the rejected reward")
    taken: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda one: (y(one["rejected_reward"]), one["axis"], one["slice"])):
        here = (x(row["chosen_reward"]), y(row["rejected_reward"]))
        name = "all pairs" if row["axis"] == "all" else f"{row['axis']} = {row['slice']}"
        strength = "strong" if row.get("named") else "weak"
        parts.append(line(x(0), y(0), *here, f"arrow {strength}"))
        parts.append(tag("circle", tag("title", escape(name)), cx=here[0], cy=here[1], r=3.5, class_=f"dot {strength}"))
        if row.get("named"):
            height = _free(here[0], here[1] + 4, taken)
            near_right = here[0] > (x.start + x.end) / 2
            parts.append(
                text(here[0] + (-7 if near_right else 7), height, _cut(name), "end" if near_right else "start")
            )
    return picture(parts, "Chosen against rejected reward by slice")


def _free(across: float, height: float, taken: list[tuple[float, float]]) -> float:
    """The nearest height from `height` upwards at which no near label stands; it is taken from then on."""
    while any(abs(height - other) < 13 and abs(across - place) < 160 for place, other in taken):
        height -= 1
    taken.append((across, height))
    return height


def _cut(name: str) -> str:
    return name if len(name) <= 34 else name[:33] + "…"


def scatter(
    points: Sequence[tuple[float, float]], through: tuple[float, float] | None, titles: tuple[str, str]
) -> Markup:
    """Points with an optional line (intercept, slope)."""
    x, y = _plot((a for a, _ in points), (b for _, b in points))
    parts = frame(x, y, *titles)
    parts += [tag("circle", cx=x(a), cy=y(b), r=2.2, class_="speck") for a, b in points[:MOST_POINTS]]
    if through is not None:
        ends = [(at, min(max(through[0] + through[1] * at, y.low), y.high)) for at in (x.low, x.high)]
        parts.append(line(x(ends[0][0]), y(ends[0][1]), x(ends[1][0]), y(ends[1][1]), "fit"))
    return picture(parts, f"{titles[1]} against {titles[0]}")


def reliability(bins: Sequence[dict[str, Any]]) -> Markup:
    """Vote share against sigma(margin) by bin, with intervals; on the diagonal, margins say what votes do."""
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    parts = [*frame(x, y, "σ(margin), sides turned by hash", "share of votes"), line(x(0), y(0), x(1), y(1), "ideal")]
    for one in bins:
        if one["low"] is not None and one["high"] is not None:
            parts.append(line(x(one["predicted"]), y(one["low"]), x(one["predicted"]), y(one["high"]), "interval"))
        parts.append(tag("circle", cx=x(one["predicted"]), cy=y(one["share"]), r=4.0, class_="dot"))
    return picture(parts, "Share of votes against sigma of the margin")


def waterfall(parts: Sequence[tuple[str, float]], observed: float) -> Markup:
    """From 0 to what was observed, a bar for each part, in the given order; the last bar is the whole."""
    height, left = 22.0, 150.0
    ends = [0.0]
    for _, value in parts:
        ends.append(ends[-1] + value)
    x = scale([*ends, observed], left, WIDTH - 58)
    tall = TOP + height * (len(parts) + 1) + 8
    drawn = [line(x(0), TOP, x(0), tall - 8, "zero")]
    bars = [(name, start, value) for (name, value), start in zip(parts, ends, strict=False)]
    for place, (name, start, value) in enumerate([*bars, ("observed", 0.0, observed)]):
        top = TOP + place * height
        sort = "whole" if place == len(parts) else "up" if value >= 0 else "down"
        low, high = sorted((x(start), x(start + value)))
        drawn.append(tag("rect", x=low, y=top + 4, width=max(high - low, 0.8), height=height - 8, class_=sort))
        drawn.append(text(left - 8, top + 15, name if len(name) <= 20 else name[:19] + "…", "end"))
        drawn.append(text(high + 5, top + 15, f"{value:+.3f}".replace("-", "−"), class_="tick"))
        if place < len(parts):
            drawn.append(line(x(start + value), top + height - 4, x(start + value), top + height + 4, "step"))
    return picture(drawn, "From the start to the observed movement, by training slice", height=tall)
