"""`--broadcasters`: names and weights, or one line that says what is wrong."""

import pytest

from control.cli.errors import InputError
from control.cli.shares import parse_shares


def test_names_have_weights_or_one() -> None:
    assert parse_shares("a=2, b,c=0.5") == {"a": 2.0, "b": 1.0, "c": 0.5}
    assert parse_shares("") == {}


@pytest.mark.parametrize("text", ["a=", "a=x", "=2", "a b", "a=0", "a=-1", "a=nan", "a=1001", "a,a", "a=1=2"])
def test_what_makes_no_sense_is_named(text: str) -> None:
    with pytest.raises(InputError, match="--broadcasters"):
        parse_shares(text)


def test_there_is_an_end_of_them() -> None:
    with pytest.raises(InputError, match="too many"):
        parse_shares(",".join(f"b{number}" for number in range(128)))
