"""The audit's charts: Altair specifications, rendered to SVG once, so the page runs no script.

Colours are Okabe and Ito's palette and a grey, distinguishable by colour-blind readers and with a contrast of at least
3:1 to white (WCAG 1.4.11). Each chart is next to a table of the same numbers and has a text description.
"""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from dpo_data.text.escape import short as _short
from dpo_data.text.escape import visible

BLUE, ORANGE, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C"
_WIDTH = 620
_SHARES: dict[str, Any] = {"format": "%", "orient": "top"}  # at the top: tall pictures are read from there


def short(text: str, most: int) -> str:
    """A label, hidden signs made visible."""
    return visible(_short(text, most))


@dataclass(frozen=True)
class Picture:
    """An SVG as a data address, and what it shows for those who cannot see it."""

    source: str
    description: str


def reasons(rows: list[dict[str, Any]]) -> Picture | None:
    """Bars: rows per reason, the part with no other reason first."""
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
        .mark_bar(stroke="white")  # a gap between the parts, whose own contrast is low
        .encode(
            x=alt.X("rows:Q", title="comparisons"),
            y=alt.Y("reason:N", sort=[row["reason"] for row in rows], title=None, axis=alt.Axis(labelLimit=260)),
            color=alt.Color(
                "part:N",
                title=None,
                scale=alt.Scale(domain=["only this reason", "with other reasons"], range=[BLUE, GREY]),
                legend=alt.Legend(orient="bottom"),
            ),
            order=alt.Order("part:N"),
        )
        .properties(width=_WIDTH, height=alt.Step(22))
    )
    return _draw(
        chart,
        "Bars of dropped comparisons per reason: first (blue) those with no other reason, then (grey) the others.",
    )


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
    colour, shape, shift = _times()
    y = alt.Y("slice:N", sort=labels, title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(alt.Data(values=values))
    share = alt.Scale(domain=[0, 1])
    title = "share of comparisons whose chosen response is longer"
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", scale=share, axis=_SHARES, title=title),
        x2="high:Q",
        y=y,
        yOffset=shift,
        color=colour,
    )
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        x=alt.X("share:Q", scale=share, title=title), y=y, yOffset=shift, color=colour, shape=shape
    )
    chart = (_half() + bars + points).properties(width=_WIDTH, height=alt.Step(16))
    return _draw(
        chart, "Share of comparisons whose chosen response is longer, before and after, by slice, with intervals."
    )


def annotators(rows: list[dict[str, Any]], most: int = 30) -> Picture | None:
    """Points with 95 % intervals: how often each annotator is right, against what the others' votes say."""
    import altair as alt

    values = [
        {
            "who": short(row["annotator"] or f"anonymous, {row['source']}", 40),
            "accuracy": row["accuracy"],
            "low": row["accuracy_low"],
            "high": row["accuracy_high"],
            "flag": row.get("flag") or "not flagged",
        }
        for row in rows
        if row.get("accuracy") is not None and row.get("accuracy_low") is not None
    ][:most]
    if not values:
        return None
    flags = ["not flagged", "random", "inverted"]
    colour = alt.Color(
        "flag:N",
        title=None,
        scale=alt.Scale(domain=flags, range=[BLUE, ORANGE, PURPLE]),
        legend=alt.Legend(orient="top"),
    )
    shape = alt.Shape("flag:N", scale=alt.Scale(domain=flags, range=["circle", "diamond", "cross"]), legend=None)
    base = alt.Chart(alt.Data(values=values))
    y = alt.Y("who:N", sort=[row["who"] for row in values], title=None, axis=alt.Axis(labelLimit=260))
    share = alt.Scale(domain=[0, 1])
    title = "accuracy against the others' votes"
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", scale=share, axis=_SHARES, title=title), x2="high:Q", y=y, color=colour
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("accuracy:Q", scale=share, title=title), y=y, color=colour, shape=shape
    )
    chart = (_half() + bars + points).properties(width=_WIDTH, height=alt.Step(22))
    return _draw(chart, "Accuracy of each annotator with its interval; a coin is right half the time (dashed line).")


def style(found: dict[str, list[dict[str, Any]]]) -> Picture | None:
    """Points with 95 % intervals: how much each mark of style moves the choice, before and after."""
    import altair as alt

    values = [
        {"style": row["covariate"], "when": when, "effect": row["coefficient"], "low": row["low"], "high": row["high"]}
        for when, rows in (("before", found["before"]), ("kept", found["after"]))
        for row in rows
        if row["coefficient"] is not None and row["low"] is not None
    ]
    if not values:
        return None
    colour, shape, shift = _times()
    base = alt.Chart(alt.Data(values=values))
    y = alt.Y("style:N", sort=[row["covariate"] for row in found["before"]], title=None)
    title = "effect on the choice (logit per standard deviation of the difference)"
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", y=y, yOffset=shift, color=colour
    )
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        x=alt.X("effect:Q", title=title), y=y, yOffset=shift, color=colour, shape=shape
    )
    chart = (_half(0.0) + bars + points).properties(width=_WIDTH, height=alt.Step(16))
    return _draw(chart, "How much length, headers, lists and bold move the choice, before and after, with intervals.")


def yield_curves(curves: list[dict[str, Any]], limits: list[dict[str, Any]]) -> Picture | None:
    """Lines: the share of rows that each limit would keep, one panel a measure, all rows; the limit in force dashed."""
    import altair as alt

    values = [
        {"measure": curve["measure"], "limit": limit, "kept": kept / curve["of"]}
        for curve in curves
        if curve["slice"] == "all" and curve["of"]
        for limit, kept in zip(curve["limits"], curve["kept"], strict=True)
    ]
    if not values:
        return None
    bounds = {row["measure"]: row["limit"] for row in reversed(limits) if not row.get("where")}
    panels = []
    for measure in dict.fromkeys(row["measure"] for row in values):
        own = alt.Chart(alt.Data(values=[row for row in values if row["measure"] == measure]))
        panel = own.mark_line(point=True, color=BLUE).encode(
            x=alt.X("limit:Q", title=f"limit on {measure}", scale=alt.Scale(zero=False)),
            y=alt.Y("kept:Q", title="kept", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
        )
        if measure in bounds:
            panel += _half(bounds[measure])
        panels.append(panel.properties(width=250, height=140))
    chart = alt.concat(*panels, columns=2)
    return _draw(chart, "Share of comparisons kept against the limit on each measure; the limit in force dashed.")


def _half(at: float = 0.5) -> Any:
    """The dashed line that a measure is held against."""
    import altair as alt

    return alt.Chart(alt.Data(values=[{"x": at}])).mark_rule(strokeDash=[4, 4], color=GREY).encode(x="x:Q")


def _times() -> tuple[Any, Any, Any]:
    """Colour, shape and offset that tell before from kept."""
    import altair as alt

    times = ["before", "kept"]
    colour = alt.Color(
        "when:N", title=None, scale=alt.Scale(domain=times, range=[ORANGE, BLUE]), legend=alt.Legend(orient="top")
    )
    shape = alt.Shape("when:N", scale=alt.Scale(domain=times, range=["circle", "diamond"]), legend=None)
    return colour, shape, alt.YOffset("when:N", scale=alt.Scale(domain=times))


def _label(row: dict[str, Any]) -> str:
    return "all comparisons" if row["slice"] == "all" else short(f"{row['slice']}: {row['value']}", 48)


def _draw(chart: Any, description: str) -> Picture:
    """An SVG inside an `img` may run nothing and fetch nothing, whatever text it holds."""
    from vl_convert import vegalite_to_svg

    configured = chart.configure_view(stroke=None).configure_axis(labelFontSize=13, titleFontSize=13)
    svg = vegalite_to_svg(configured.configure_legend(labelFontSize=13).to_dict())
    return Picture(f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}", description)
