"""The accounts file and its passwords: private, whole or not at all, one time for everybody."""

import os
import stat
import time
from pathlib import Path
from statistics import median

import pytest
import structlog
import trio
from msgspec.structs import replace

from engine.model.content import MessageClass
from services.submission import accounts as module
from services.submission.accounts import (
    LOOK_SECONDS,
    PASSWORD_OCTETS_MAX,
    REMEMBERED_SECONDS,
    Account,
    Accounts,
    AccountsError,
    hash_password,
    new_account,
    new_password,
    read_accounts,
    with_password,
    write_accounts,
)
from tests.fakes.submission_house import PASSWORD, an_account

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all


class Ticking:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.json"
    write_accounts(path, {"ann": an_account(), "bob": an_account(name="bob", domains=("bob.test",))})
    return path


def test_what_is_written_is_read_and_private(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read_accounts(path)
    assert found == {"ann": an_account(), "bob": an_account(name="bob", domains=("bob.test",))}
    assert PASSWORD not in path.read_text()


def test_no_file_is_nobody(tmp_path: Path) -> None:
    assert read_accounts(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "is no accounts file"), ('{"acounts": []}', "acounts"), ('{"accounts": [{"name": 1}]}', "name")],
)
def test_a_file_that_is_none_is_said(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(AccountsError, match=why):
        read_accounts(path)


def test_a_file_that_others_may_read_or_that_cannot_be_is_said(path: Path) -> None:
    path.chmod(0o640)
    with pytest.raises(AccountsError, match="chmod 600"):
        read_accounts(path)
    with pytest.raises(AccountsError, match="cannot be read"):
        read_accounts(path.parent)
    with pytest.raises(AccountsError, match="cannot be written"):
        write_accounts(path / "below", {})


async def test_the_right_password_is_right_and_no_other(path: Path) -> None:
    accounts = Accounts(path)
    assert await accounts.check("ann", PASSWORD.encode()) == an_account()
    for name, password in (
        ("ann", b"wrong"),
        ("ann", b""),
        ("nobody", PASSWORD.encode()),
        ("", b""),
        ("ann", b"x" * (PASSWORD_OCTETS_MAX + 1)),
        ("ann", b"\xff\0"),
    ):
        assert await accounts.check(name, password) is None
    assert repr(accounts) == f"<Accounts 2 in {path}>"
    assert len(accounts) == 2


async def test_what_was_right_is_remembered_for_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ticking()
    accounts = Accounts(path, clock=clock)
    hashed: list[str] = []
    honest = module._verify
    monkeypatch.setattr(module, "_verify", lambda *facts: hashed.append(facts[0]) or honest(*facts))
    for _ in range(3):
        assert await accounts.check("ann", PASSWORD.encode())
    assert len(hashed) == 1
    assert await accounts.check("ann", b"wrong") is None
    assert await accounts.check("ann", b"wrong") is None
    assert len(hashed) == 3
    clock.now += REMEMBERED_SECONDS + 1
    assert await accounts.check("ann", PASSWORD.encode())
    assert len(hashed) == 4


async def test_a_changed_file_holds_within_seconds(path: Path) -> None:
    clock = Ticking()
    accounts = Accounts(path, clock=clock)
    account = await accounts.check("ann", PASSWORD.encode())
    assert account is not None
    assert accounts.still(account)
    write_accounts(path, {"ann": with_password(account, "another word")})
    assert accounts.still(account)
    clock.now += LOOK_SECONDS
    assert not accounts.still(account)
    assert await accounts.check("ann", PASSWORD.encode()) is None
    assert await accounts.check("ann", b"another word")
    path.write_text("{")
    clock.now += LOOK_SECONDS
    assert await accounts.check("ann", b"another word"), "a slip in the file locks nobody out"
    path.unlink()
    clock.now += LOOK_SECONDS
    assert await accounts.check("ann", b"another word") is None


async def test_a_changed_file_that_cannot_be_read_is_said_once(path: Path) -> None:
    clock = Ticking()
    accounts = Accounts(path, clock=clock)
    seen: list[list[str]] = []
    for damage in (lambda: path.write_text("{"), lambda: path.chmod(0o644), lambda: write_accounts(path, {})):
        damage()
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                clock.now += LOOK_SECONDS
                accounts.still(an_account())
        seen.append([line["why"] for line in lines if line["log_level"] == "error"])
    (unreadable,), (open_to_all,), none = seen
    assert "is no accounts file" in unreadable
    assert "chmod 600" in open_to_all
    assert none == []
    assert not accounts.still(an_account())


@pytest.mark.parametrize("octets", [b'{"accounts": [{"name": "\xff"}]}', b"[" * 100_000])
def test_octets_that_no_decoder_likes_are_no_accounts(path: Path, octets: bytes) -> None:
    path.write_bytes(octets)
    with pytest.raises(AccountsError, match="is no accounts file"):
        read_accounts(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_writes_stays_its_owner_s(path: Path) -> None:
    os.chown(path, 54_321, 54_322)
    write_accounts(path, {})
    assert (path.stat().st_uid, path.stat().st_gid) == (54_321, 54_322)


async def test_checks_do_not_stop_the_loop(path: Path) -> None:
    accounts = Accounts(path)
    ticks = 0

    async def tick(scope: trio.CancelScope) -> None:
        nonlocal ticks
        with scope:
            while True:
                await trio.sleep(0.001)
                ticks += 1

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(tick, scope)
        await accounts.check("ann", b"wrong")
        scope.cancel()
    assert ticks > 0


@pytest.mark.slow
async def test_unknown_names_take_as_long_as_wrong_passwords(path: Path) -> None:
    accounts = Accounts(path)

    async def seconds(name: str) -> float:
        began = time.perf_counter()
        assert await accounts.check(name, b"wrong") is None
        return time.perf_counter() - began

    known, unknown = [], []
    for _ in range(9):
        known.append(await seconds("ann"))
        unknown.append(await seconds("nobody"))
    assert 0.4 < median(known) / median(unknown) < 2.5


def test_a_hash_that_is_none_lets_nobody_in() -> None:
    assert not module._verify("no hash", b"")


def test_new_accounts_are_checked(path: Path) -> None:
    account = new_account("shop", PASSWORD, ("SHOP.test", "münchen.test"), "shop", MessageClass.DEFAULT)
    assert account.domains == ("shop.test", "xn--mnchen-3ya.test")
    assert replace(account, password="") == Account("shop", "", account.domains, "shop", MessageClass.DEFAULT)
    for name in ("", "a b", "x" * 121, "a\n"):
        with pytest.raises(AccountsError, match="name"):
            new_account(name, PASSWORD, ("shop.test",), "shop", MessageClass.BULK)
    with pytest.raises(AccountsError, match="domain"):
        new_account("shop", PASSWORD, ("not a domain",), "shop", MessageClass.BULK)
    for password in ("short", "x" * (PASSWORD_OCTETS_MAX + 1)):
        with pytest.raises(AccountsError, match="octets"):
            hash_password(password)
    assert new_password() != new_password()
    assert len(new_password()) == 20
