"""`emass account`: who may hand in mail, and that a password is shown once and kept nowhere."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.cli import account
from control.cli.errors import CliError
from services.submission import accounts as store
from services.submission.accounts import read_accounts

CONFIG = """
[submission]
accounts = "clients.json"

[[submission.domain]]
name = "shop.test"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "emass.toml"
    path.write_text(CONFIG)
    return path


def emass(config: Path, *words: str, typed: str = "") -> Result:
    return CliRunner().invoke(account.command, [*words, "--config", str(config)], input=typed)


def test_an_account_is_added_with_a_password_that_is_shown_once(config: Path) -> None:
    facts = json.loads(emass(config, "add", "shop", "--domain", "SHOP.test", "--json").stdout)
    path = config.parent / "keys" / "clients.json"
    assert facts["file"] == str(path)
    assert (facts["domains"], facts["workspace"], facts["unknown_domains"]) == (["shop.test"], "default", [])
    found = read_accounts(path)["shop"]
    assert facts["password"] not in path.read_text()
    assert store._verify(found.password, facts["password"].encode())
    said = emass(config, "list").output
    assert "shop.test" in said
    assert "argon2" not in said
    (listed,) = json.loads(emass(config, "list", "--json").stdout)["accounts"]
    assert "password" not in listed


def test_a_password_may_be_typed_and_is_not_shown(config: Path) -> None:
    result = emass(config, "add", "shop", "--domain", "other.test", "--password-stdin", typed="long enough\n")
    assert "long enough" not in result.output
    assert "Until [[submission.domain]] names other.test" in result.output
    found = read_accounts(config.parent / "keys" / "clients.json")["shop"]
    assert store._verify(found.password, b"long enough")


def test_another_password_makes_the_old_one_void(config: Path) -> None:
    first = json.loads(emass(config, "add", "shop", "--domain", "shop.test", "--json").stdout)
    second = json.loads(emass(config, "password", "shop", "--json").stdout)
    found = read_accounts(config.parent / "keys" / "clients.json")["shop"]
    assert store._verify(found.password, second["password"].encode())
    assert not store._verify(found.password, first["password"].encode())


def test_an_account_is_removed(config: Path) -> None:
    emass(config, "add", "shop", "--domain", "shop.test")
    assert emass(config, "remove", "shop").exit_code == 0
    assert read_accounts(config.parent / "keys" / "clients.json") == {}
    assert "No accounts" in emass(config, "list").output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("add", "shop", "--domain", "shop.test"), "already"),
        (("add", "a b", "--domain", "shop.test"), "name"),
        (("add", "new", "--domain", "no domain"), "domain"),
        (("remove", "none"), "no account none"),
        (("password", "none"), "no account none"),
        (("password", "shop", "--password-stdin"), "octets"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_changes(config: Path, words: tuple[str, ...], why: str) -> None:
    emass(config, "add", "shop", "--domain", "shop.test")
    path = config.parent / "keys" / "clients.json"
    before = path.read_bytes()
    result = emass(config, *words, typed="short\n")
    assert isinstance(result.exception, CliError)
    assert why in str(result.exception)
    assert path.read_bytes() == before
