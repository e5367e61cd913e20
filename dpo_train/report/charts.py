"""Pictures of the report: Altair specifications, drawn to SVG once, so that the page needs no plotting script.

Every picture goes into the page as an image, in which nothing runs and nothing is fetched, whatever the names of slices
hold. Colours are Okabe and Ito's, two of them darkened, so that each has a contrast of 3 : 1 or more to white (WCAG
1.4.11); colour-blind readers tell them apart.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

BLUE, ORANGE, INK, GREY, SHADE = "#0072B2", "#D55E00", "#1c2430", "#8C8C8C", "#fbe9e7"
COLOURS = [INK, ORANGE, BLUE, "#009E73", "#CC79A7", "#3D9BD9", "#BF8600", "#7A5C00", "#6A51A3", "#A50F15", "#4D9221"]
WIDTH, HEIGHT = 400, 260
MOST_POINTS = 400  # of a scatter; more is a blot and a heavy page
LONGEST = 34  # characters of a name in a picture; the tables have it whole


class Picture(NamedTuple):
    """An SVG as a data address, and what it shows for those who cannot see it."""

    source: str
    description: str


def trajectories(series: Sequence[Mapping[str, Any]]) -> Picture:
    """Mean margin by step with its band; `series`: name, steps, mean, low, high; the first is drawn darkest."""
    import altair as alt

    rows = [
        {"slice": _cut(one["name"]), "step": step, "mean": mean, "low": low, "high": high}
        for one in series
        for step, mean, low, high in zip(one["steps"], one["mean"], one["low"], one["high"], strict=True)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("step:Q", title="optimizer step", axis=alt.Axis(tickMinStep=1)),
        color=_by_slice([_cut(one["name"]) for one in series]),
    )
    bands = base.mark_area(opacity=0.14).encode(y=alt.Y("low:Q", title="mean margin (β · nats)"), y2="high:Q")
    lines = base.mark_line(strokeWidth=2).encode(y="mean:Q")
    return _draw(_at_zero("y") + bands + lines, "Mean margin by optimizer step, with 95 % bands.")


def plane(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Chosen against rejected reward, a line from the start for each slice; those with a `name` stand in the legend.

    The quadrant in which both fell is shaded.
    """
    import altair as alt

    points = [
        {"slice": _cut(row["name"]), "x": row["chosen_reward"], "y": row["rejected_reward"], "zero": 0} for row in rows
    ]
    x, y = (alt.Scale(domain=_around_zero(point[name] for point in points), nice=False) for name in ("x", "y"))
    across = alt.X("x:Q", title="change of the chosen reward", scale=x)
    up = alt.Y("y:Q", title="change of the rejected reward", scale=y)
    corner = {"x": x["domain"][0], "y": y["domain"][0], "zero": 0, "words": "displaced: both fell"}
    shade = alt.Chart(alt.Data(values=[corner]))
    layers = shade.mark_rect(color=SHADE).encode(x=across, x2="zero:Q", y=up, y2="zero:Q")
    layers += shade.mark_text(align="left", dx=5, dy=-7, color=INK, fontSize=12).encode(x=across, y=up, text="words:N")
    layers += _at_zero("x") + _at_zero("y")
    for named in (False, True):
        drawn = [point for point in points if bool(point["slice"]) == named]
        colour = _by_slice([point["slice"] for point in drawn]) if named else alt.value(GREY)
        chart = alt.Chart(alt.Data(values=drawn)).encode(color=colour, opacity=alt.value(1 if named else 0.3))
        layers += chart.mark_rule().encode(x=alt.X("zero:Q", scale=x), y=alt.Y("zero:Q", scale=y), x2="x:Q", y2="y:Q")
        layers += chart.mark_circle(size=60).encode(x=across, y=up)
    return _draw(layers, "Change of the rejected reward against that of the chosen one, by slice.")


def scatter(points: Sequence[Sequence[float]], through: tuple[float, float] | None, titles: tuple[str, str]) -> Picture:
    """Points with an optional line (intercept, slope)."""
    import altair as alt

    shown = [{"x": x, "y": y} for x, y in points[:MOST_POINTS]]
    across, up = alt.X("x:Q", title=titles[0]), alt.Y("y:Q", title=titles[1])
    chart = _at_zero("x") + _at_zero("y")
    chart += alt.Chart(alt.Data(values=shown)).mark_circle(size=18, color=BLUE, opacity=0.5).encode(x=across, y=up)
    if through is not None:
        ends = [min(point["x"] for point in shown), max(point["x"] for point in shown)]
        line = [{"x": x, "y": through[0] + through[1] * x} for x in ends]
        chart += alt.Chart(alt.Data(values=line)).mark_line(color=ORANGE).encode(x=across, y=up)
    return _draw(chart, f"{titles[1]} against {titles[0]}.")


def reliability(bins: Sequence[Mapping[str, Any]]) -> Picture:
    """Vote share against sigma(margin) by bin, with intervals; on the diagonal, margins say what votes do."""
    import altair as alt

    whole = alt.Scale(domain=[0, 1])
    across = alt.X("predicted:Q", title="σ(margin), sides turned by hash", scale=whole)
    up = alt.Y("share:Q", title="share of votes", scale=whole)
    ideal = alt.Chart(alt.Data(values=[{"predicted": 0, "share": 0}, {"predicted": 1, "share": 1}]))
    found = alt.Chart(alt.Data(values=[dict(one) for one in bins]))
    chart = ideal.mark_line(strokeDash=[4, 4], color=GREY, strokeWidth=1).encode(x=across, y=up)
    told = "isValid(datum.low) && isValid(datum.high)"
    intervals = found.transform_filter(told).mark_rule(color=BLUE, strokeWidth=2)
    chart += intervals.encode(x=across, y=alt.Y("low:Q", scale=whole), y2="high:Q")
    chart += found.mark_circle(size=60, color=BLUE, opacity=1).encode(x=across, y=up)
    return _draw(chart, "Share of votes against sigma of the margin, by bin, with intervals.")


def waterfall(parts: Sequence[tuple[str, float]], observed: float) -> Picture:
    """From 0 to what was observed, a bar for each part, in the given order; the last bar is the whole."""
    import altair as alt

    rows: list[dict[str, Any]] = []
    reached = 0.0
    for place, (name, value) in enumerate(parts):
        rows.append({"place": place, "part": _cut(name), "from": reached, "to": reached + value, "value": value})
        reached += value
    rows.append({"place": len(parts), "part": "observed", "from": 0.0, "to": observed, "value": observed})
    for row in rows:
        row |= {
            "words": f"{row['value']:+.3f}".replace("-", "−"),
            "end": max(row["from"], row["to"]),
            "sort": "whole" if row["place"] == len(parts) else "up" if row["value"] >= 0 else "down",
        }
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("part:N", sort=[row["part"] for row in rows], title=None, axis=alt.Axis(labelLimit=260, ticks=False))
    )
    colour = alt.Color(
        "sort:N", legend=None, scale=alt.Scale(domain=["whole", "up", "down"], range=[INK, BLUE, ORANGE])
    )
    bars = base.mark_bar(minBandSize=1).encode(x=alt.X("from:Q", title="margin (β · nats)"), x2="to:Q", color=colour)
    words = base.mark_text(align="left", dx=4, color=INK).encode(x="end:Q", text="words:N")
    chart = (_at_zero("x") + bars + words).properties(height=alt.Step(22))
    return _draw(chart, "From the start to the observed movement, by training slice.", height=None)


def _by_slice(names: Sequence[str]) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(names), range=[COLOURS[place % len(COLOURS)] for place in range(len(names))])
    return alt.Color(
        "slice:N",
        title=None,
        scale=scale,
        legend=alt.Legend(orient="bottom", columns=3, labelLimit=150, symbolOpacity=1),
    )


def _at_zero(axis: str) -> Any:
    """The line at 0 of one axis."""
    import altair as alt

    place = alt.X("at:Q") if axis == "x" else alt.Y("at:Q")
    return alt.Chart(alt.Data(values=[{"at": 0}])).mark_rule(color=GREY).encode(**{axis: place})


def _around_zero(values: Iterable[float]) -> list[float]:
    """Ends of an axis that holds every value and 0, with room on both sides."""
    known = [0.0, *values]
    low, high = min(known), max(known)
    room = 0.08 * ((high - low) or 1.0)
    return [low - room, high + room]


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _draw(chart: Any, description: str, height: int | None = HEIGHT) -> Picture:
    from vl_convert import vegalite_to_svg

    sized = chart.properties(width=WIDTH, **({} if height is None else {"height": height}))
    styled = sized.configure_view(stroke=None).configure_axis(
        labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#edf0f3", domain=False
    )
    svg = vegalite_to_svg(styled.configure_legend(labelFontSize=12).to_dict())
    return Picture(f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}", description)
