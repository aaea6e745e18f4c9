"""The curves of `bench scale`: well-formed, each with its words, everything inside its plot."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulation.chart import HEIGHT, WIDTH, Curve, plot, scale_chart
from bench.simulation.model import Loss, Scenario
from bench.simulation.runs import Plan, Row, Runner

SVG = "{http://www.w3.org/2000/svg}"
PLAN = Plan(messages=2_000, counts=(1, 2), base=2)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    runner = Runner(PLAN)
    lost = Scenario(
        messages=2_000,
        providers=PLAN.scenario(limits=0).providers,
        broadcasters=PLAN.scenario(2).broadcasters,
        loss=Loss(1, 0.1, retired_after_seconds=1.0),
    )
    return [
        runner.run("1", PLAN.scenario(1, limits=0)),
        runner.run("2", PLAN.scenario(2, limits=0)),
        runner.run("1 <lost> & retired", lost),
    ]


def told(svg: str) -> set[str]:
    return {element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")}


def test_each_plot_tells_its_name_axes_and_curves(rows):
    one, two, lost = rows
    svg = scale_chart({"broadcasters": [one, two], "losses": [one, lost], "mixes": [one, two]}, PLAN)
    words = told(svg)
    assert words >= {"Times faster than one broadcaster", "broadcasters", "as many times faster", "hours"}
    assert words >= {"Finished while broadcasters are lost", "Hours, and the bound as a mark"}
    assert "One campaign of 2,000 over many broadcasters" in words


def test_sections_that_were_not_run_are_left_out(rows):
    assert "hours" not in told(scale_chart({"shared": rows[:2]}, PLAN))
    assert told(scale_chart({}, PLAN)) >= {"One campaign of 2,000 over many broadcasters"}


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), min_size=1, max_size=8),
        min_size=1,
        max_size=7,
    )
)
def test_whatever_is_drawn_stays_inside_its_plot(curves):
    lines = plot("a <title>", "x", "y", [Curve(f"curve {i}", points) for i, points in enumerate(curves)])
    root = ElementTree.fromstring("<svg>" + "".join(lines) + "</svg>")
    for element in root.iter("polyline"):
        for point in element.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
