"""The audit's pictures: Altair specifications, drawn to SVG once, so that the page runs no script at all.

Colours are Okabe and Ito's, told apart by colour-blind readers; every picture stands beside a table with the
same numbers, and its description says what it shows.
"""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
_WIDTH = 620


@dataclass(frozen=True)
class Picture:
    """An SVG as a data address, and what it shows for those who cannot see it."""

    source: str
    description: str


def reasons(rows: list[dict[str, Any]]) -> Picture | None:
    """Bars: rows per reason, the part with no other reason darker."""
    import altair as alt

    if not rows:
        return None
    values = [
        {"reason": row["reason"], "rows": count, "part": part}
        for row in rows[:15]
        for part, count in (
            ("only this reason", row["sole_rows"]),
            ("with other reasons", row["rows"] - row["sole_rows"]),
        )
    ]
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            x=alt.X("rows:Q", title="comparisons"),
            y=alt.Y("reason:N", sort=[row["reason"] for row in rows], title=None, axis=alt.Axis(labelLimit=260)),
            color=alt.Color(
                "part:N",
                title=None,
                scale=alt.Scale(domain=["only this reason", "with other reasons"], range=[BLUE, "#A6CEE3"]),
                legend=alt.Legend(orient="bottom"),
            ),
            order=alt.Order("part:N"),
        )
        .properties(width=_WIDTH, height=alt.Step(22))
    )
    return _draw(chart, "Bars of dropped comparisons per reason, those with no other reason darker.")


def length_bias(before: list[dict[str, Any]], after: list[dict[str, Any]], most: int = 20) -> Picture | None:
    """Points with 95 % intervals: how often the chosen response is longer, before and after, by slice."""
    import altair as alt

    labels = [_label(row) for row in before[:most]]
    values = [
        {"slice": _label(row), "when": when, "share": row["p_longer"], "low": row["p_low"], "high": row["p_high"]}
        for when, rows in (("before", before), ("kept", after))
        for row in rows
        if row["p_longer"] is not None and _label(row) in labels
    ]
    if not values:
        return None
    colour = alt.Color(
        "when:N",
        title=None,
        scale=alt.Scale(domain=["before", "kept"], range=[ORANGE, BLUE]),
        legend=alt.Legend(orient="bottom"),
    )
    y = alt.Y("slice:N", sort=labels, title=None, axis=alt.Axis(labelLimit=260))
    shift = alt.YOffset("when:N", scale=alt.Scale(domain=["before", "kept"]))
    base = alt.Chart(alt.Data(values=values))
    share = alt.Scale(domain=[0, 1])
    title = "share of comparisons whose chosen response is longer"
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", scale=share, axis=alt.Axis(format="%"), title=title),
        x2="high:Q",
        y=y,
        yOffset=shift,
        color=colour,
    )
    shape = alt.Shape("when:N", scale=alt.Scale(domain=["before", "kept"], range=["circle", "diamond"]), legend=None)
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        x=alt.X("share:Q", scale=share, title=title), y=y, yOffset=shift, color=colour, shape=shape
    )
    half = alt.Chart(alt.Data(values=[{"x": 0.5}])).mark_rule(strokeDash=[4, 4], color=GREY).encode(x="x:Q")
    chart = (half + bars + points).properties(width=_WIDTH, height=alt.Step(16))
    return _draw(
        chart, "Share of comparisons whose chosen response is longer, before and after, by slice, with intervals."
    )


def yield_curves(curves: list[dict[str, Any]]) -> Picture | None:
    """Lines: the share of rows that each limit would keep, one panel a measure, all rows."""
    import altair as alt

    values = [
        {"measure": curve["measure"], "limit": limit, "kept": kept / curve["of"]}
        for curve in curves
        if curve["slice"] == "all" and curve["of"]
        for limit, kept in zip(curve["limits"], curve["kept"], strict=True)
    ]
    if not values:
        return None
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line(point=True, color=BLUE)
        .encode(
            x=alt.X("limit:Q", title="limit", scale=alt.Scale(zero=False)),
            y=alt.Y("kept:Q", title="kept", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
        )
        .properties(width=250, height=150)
        .facet(facet=alt.Facet("measure:N", title=None), columns=2)
        .resolve_scale(x="independent")
    )
    return _draw(chart, "Share of comparisons kept against the limit on each measure.")


def _label(row: dict[str, Any]) -> str:
    return "all comparisons" if row["slice"] == "all" else f"{row['slice']}: {str(row['value'])[:40]}"


def _draw(chart: Any, description: str) -> Picture:
    """An SVG inside an `img` may run nothing and fetch nothing, whatever text it holds."""
    from vl_convert import vegalite_to_svg

    svg = vegalite_to_svg(chart.configure_view(stroke=None).configure_axis(labelFontSize=12).to_dict())
    return Picture(f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}", description)
