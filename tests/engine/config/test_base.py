"""What every table shares: unknown keys and odd names are refused by key."""

import msgspec
import pytest

from engine.config.base import Table, check, check_name, check_unique


class Example(Table, frozen=True):
    key: int = 1


def test_a_misspelt_key_is_refused_not_ignored():
    with pytest.raises(msgspec.ValidationError, match="kee"):
        msgspec.convert({"kee": 2}, Example)


def test_a_refusal_starts_with_the_key():
    check("key", True, "is fine")
    with pytest.raises(ValueError, match=r"^key: must be 1$"):
        check("key", False, "must be 1")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "ä", "a" * 64, "a\n"])
def test_a_name_that_would_need_quotes_is_refused(name: str):
    with pytest.raises(ValueError, match=r"^name: "):
        check_name("name", name)


def test_names_with_dots_dashes_and_digits_are_fine():
    check_name("name", "ip-1.node_2")


def test_a_name_that_stands_there_twice_is_named():
    check_unique("source", iter(["a", "b"]))
    with pytest.raises(ValueError, match=r"^source: 'b' stands there twice"):
        check_unique("source", ["a", "b", "b"])
