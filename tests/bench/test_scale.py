"""`python -m bench scale`: what may be asked, and what is printed."""

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.scale import duration


def test_one_section_prints_one_json_object_and_draws(capsys, tmp_path: Path):
    picture = tmp_path / "scale.svg"
    asked = ["scale", "--json", "--messages", "5000", "--broadcasters", "1,2", "--only", "engines"]
    assert main([*asked, "--svg", str(picture)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["messages"] == 5_000
    labels = [row["label"] for row in facts["sections"]["engines"]]
    assert labels == ["1 signed", "2 signed", "1 unsigned", "2 unsigned"]
    assert picture.read_text().startswith("<svg")


def test_people_get_a_table_for_each_section(capsys):
    assert main(["scale", "--messages", "2000", "--broadcasters", "1", "--only", "engines"]) == 0
    shown = capsys.readouterr().out
    assert "our own ceilings" in shown
    assert "1 signed" in shown
    assert "engines" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        ["--messages", "1"],
        ["--base", "1"],
        ["--broadcasters", "0,3"],
        ["--broadcasters", "many"],
        ["--only", "engines,dreams"],
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(SystemExit):
        main(["scale", *wrong])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (119.0, "119 s"), (130.0, "2.17 min"), (8_000.0, "2.22 h"), (400_000.0, "4.63 d")],
)
def test_a_duration_has_three_digits_and_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text
