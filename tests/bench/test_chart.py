"""The chart: well-formed, self-contained, everything inside its panel, honest about what is not there."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.chart import PANEL_HEIGHT, PANEL_WIDTH, Panel, chart, number, ticks

SVG = "{http://www.w3.org/2000/svg}"
FULL = Panel(
    title="googol & co <1>",
    accepted=[0, 5, 10, 9, 12],
    refused=[0, 0, 3, 0, 400],
    limit=10.0,
    window=[(0.0, 2.0), (1.5, 4.0), (3.0, 3.0)],
    rate=[(0.0, None), (2.0, 8.0)],
    rests=[(4.0, 900.0)],
)


def drawn(*panels: Panel, seconds: float = 5.0) -> ElementTree.Element:
    return ElementTree.fromstring(chart("A title", "a note", panels, seconds))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_every_panel_tells_its_name_axes_and_units():
    told = texts(drawn(FULL, Panel(title="plain", accepted=[1, 2])))
    assert {"A title", "a note", "googol & co <1>", "plain"} <= set(told)
    assert (told.count("messages/s"), told.count("seconds"), told.count("connections")) == (2, 2, 1)
    assert "limit of the receiver, messages/s" in told


def test_each_refusal_is_seen_and_a_flood_stays_inside():
    bars = [line for line in drawn(FULL).iter(f"{SVG}polyline") if line.get("stroke") == "#d02a2a"]
    assert len(bars) == 1 + 2  # one in the legend
    for bar in bars[1:]:
        (_, low), (_, high) = (map(float, point.split(",")) for point in bar.attrib["points"].split())
        assert low - high >= 3


def test_a_rest_that_outlasts_the_run_ends_with_the_plot():
    group = drawn(FULL).find(f"{SVG}g")
    assert group is not None
    [rest] = [each for each in group.iter(f"{SVG}rect") if each.get("fill") == "#ececec"]
    [edge] = [each for each in group.iter(f"{SVG}rect") if each.get("fill") == "none"]
    right = float(edge.attrib["x"]) + float(edge.attrib["width"])
    assert float(rest.attrib["x"]) + float(rest.attrib["width"]) == pytest.approx(right)


@given(
    st.lists(st.floats(0, 1e6), max_size=20),
    st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 1e6)), max_size=8),
    st.none() | st.floats(0.001, 1e6),
)
def test_whatever_is_drawn_stays_inside_its_panel(accepted, steps, limit):
    panel = Panel(
        title="p",
        accepted=accepted,
        refused=accepted,
        limit=limit,
        window=sorted(steps, key=lambda step: step[0]),
        rate=steps,
    )
    group = drawn(panel).find(f"{SVG}g")
    assert group is not None
    for line in group.iter(f"{SVG}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= PANEL_WIDTH
            assert 0 <= y <= PANEL_HEIGHT


@pytest.mark.parametrize(
    ("top", "labels"),
    [(1.12, ["0", "0.5", "1"]), (10, ["0", "2", "4", "6", "8", "10"]), (672, ["0", "200", "400", "600"])],
)
def test_ticks_are_few_and_round(top, labels):
    assert [number(tick) for tick in ticks(top)] == labels


@given(st.floats(0.01, 1e7))
def test_there_are_always_two_to_six_ticks(top):
    assert 2 <= len(ticks(top)) <= 6
    assert ticks(top)[-1] <= top * (1 + 1e-6)
