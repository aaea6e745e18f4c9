"""`--until`."""

import pytest

from control.cli.errors import InputError
from control.cli.until import Until, parse_until


@pytest.mark.parametrize(
    ("text", "until"),
    [
        (None, Until(False, 1800.0)),
        ("finished", Until(False, None)),
        ("first-pass", Until(True, None)),
        ("90 s", Until(False, 90.0)),
        ("2h", Until(False, 7200.0)),
    ],
)
def test_until_is_an_end_or_a_time(text: str | None, until: Until) -> None:
    assert parse_until(text) == until


@pytest.mark.parametrize("text", ["", "soon", "90"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--until"):
        parse_until(text)
