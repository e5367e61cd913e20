"""Every colour that a picture tells something with stands out from the white it is drawn on."""

from base64 import b64decode
from xml.etree import ElementTree

import pytest

from dpo_data.audit import charts
from dpo_train.report import charts as report_charts

LEAST = 3.0
"""To what is beside it, for graphics that carry a meaning: WCAG 2.2, 1.4.11."""


def to_white(colour: str) -> float:
    """Contrast of #rrggbb to white by WCAG: the ratio of the relative luminances, .05 added to each."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def colours_of(source: str) -> set[str]:
    """Fills and strokes of the marks of a picture, bands that only accompany a line left out."""
    page = ElementTree.fromstring(b64decode(source.partition(",")[2]))
    marks = [group for group in page.iter() if "role-mark" in group.get("class", "").split()]
    drawn = [path for group in marks if not group.get("class", "").startswith("mark-area") for path in group]
    found = {path.get(part, "none") for path in drawn for part in ("fill", "stroke")}
    return found - {"none", "white", "transparent"}


def test_black_and_white_are_as_far_apart_as_the_guideline_says() -> None:
    assert to_white("#000000") == pytest.approx(21)
    assert to_white("#ffffff") == pytest.approx(1)


def test_both_parts_of_the_bars_of_reasons_stand_out() -> None:
    picture = charts.reasons([{"reason": "tie", "rows": 30, "sole_rows": 20}])
    assert picture is not None
    found = colours_of(picture.source)
    assert len(found) == 2
    assert {colour: to_white(colour) for colour in found if to_white(colour) < LEAST} == {}


def test_every_line_of_the_reports_margins_stands_out() -> None:
    names = [f"slice {number}" for number in range(len(report_charts.COLOURS))]
    values = {"steps": [0, 1], "mean": [0.0, 1.0], "low": [0.0, 0.5], "high": [0.0, 1.5]}
    found = colours_of(report_charts.trajectories([{"name": name, **values} for name in names]).source)
    assert found >= set(report_charts.COLOURS)
    assert {colour: to_white(colour) for colour in found if to_white(colour) < LEAST} == {}
