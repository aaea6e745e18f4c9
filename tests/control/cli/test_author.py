"""Who orders has a name, also where the machine knows none."""

import pytest

from control.cli import author


def test_an_author_is_found_where_the_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid 1234")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert author.author() == "operator"
