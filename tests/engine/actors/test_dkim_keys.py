"""The list of DKIM keys: what counts as here, under which number, and who hears of a change."""

import os
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors import dkim_keys
from engine.actors.dkim_keys import DkimKeys, dkim_keys_of
from engine.actors.signing_frames import KEYS_MAX
from engine.config.bus import BusKind, BusTable
from engine.config.tables import Config, DkimKeyFile, KeysTable
from engine.sealing import signer_owner

A, B = b"sealed a", b"sealed b"


def test_a_file_is_here_at_once_and_a_sealed_key_once_it_was_opened() -> None:
    keys = DkimKeys({"file": "/k.pem"}, "/box")
    keys.put("news", A)
    assert list(keys) == ["file"]
    assert keys.knows("news"), "a process gets it before what is asked next"
    assert keys.was_opened("news", A, "")
    assert not keys.was_opened("news", A, ""), "a second process opens it, too"
    assert list(keys) == ["file", "news"]
    assert len(keys) == 2
    assert keys.numbers == {"file": 0, "news": 1}
    keys.remove("news")
    assert "news" not in keys
    assert not keys.knows("news")
    assert repr(keys) == "<DkimKeys 1 files, 0 of 0 sealed opened>"


def test_what_does_not_open_is_trouble_until_another_comes() -> None:
    keys = DkimKeys(box="/box")
    keys.put("news", A)
    assert keys.was_opened("news", A, "damaged")
    assert not keys.was_opened("news", A, "damaged")
    assert "news" not in keys
    assert not keys.knows("news")
    keys.put("news", B)
    assert keys.knows("news")
    keys.was_opened("news", B, "")
    keys.put("news", A)
    keys.was_opened("news", A, "damaged")
    assert "news" in keys, "the one before it signs on"


def test_a_file_of_the_configuration_is_not_replaced_from_outside() -> None:
    keys = DkimKeys({"news": "/k.pem"}, "/box")
    keys.put("news", A)
    assert "file" in keys.trouble["news"]
    assert not keys.sealed


def test_numbers_of_removed_keys_are_given_again_and_there_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim_keys, "KEYS_MAX", 50)
    keys = DkimKeys(box="/box")
    for number in range(50):
        keys.put(f"key-{number}", A)
    keys.put("more", A)
    assert "keys already" in keys.trouble["more"]
    keys.remove("key-7")
    keys.put("more", A)
    assert keys.numbers["more"] == 7


async def test_every_change_is_heard(autojump_clock: MockClock) -> None:
    keys = DkimKeys(box="/box")
    heard = 0

    async def listen() -> None:
        nonlocal heard
        while True:
            await keys.changed()
            heard += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        for change in (
            lambda: keys.put("x", A),
            lambda: keys.was_opened("x", A, ""),
            lambda: keys.told([bytes(32)]),
            keys.renew,
            lambda: keys.remove("x"),
        ):
            await trio.testing.wait_all_tasks_blocked()
            before = heard
            change()
            await trio.testing.wait_all_tasks_blocked()
            assert heard == before + 1
        nursery.cancel_scope.cancel()


# --- from the configuration ------------------------------------------------------------------------


def config(keys: Path, **bus: object) -> Config:
    table = KeysTable(folder=str(keys), dkim=(DkimKeyFile("news", "news.pem"),), signer_user="")
    return Config(keys=table, bus=BusTable(**bus))  # type: ignore[arg-type]


def test_an_engine_alone_has_files_and_no_box(tmp_path: Path) -> None:
    keys = dkim_keys_of(config(tmp_path))
    assert (keys.files, keys.box, keys.user) == ({"news": str(tmp_path / "news.pem")}, "", None)
    assert keys.wanted
    assert not dkim_keys_of(Config()).wanted
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bus", [{"kind": BusKind.NATS}, {"folder": "/shared"}])
def test_a_node_of_a_cluster_gets_a_box_once(tmp_path: Path, bus: dict[str, object]) -> None:
    keys = dkim_keys_of(config(tmp_path, **bus))
    box = tmp_path / "signer.box"
    assert keys.box == str(box)
    before = box.read_bytes()
    dkim_keys_of(config(tmp_path, **bus))
    assert box.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_box_belongs_to_the_signers_user(tmp_path: Path) -> None:
    own = config(tmp_path, kind=BusKind.NATS)
    own = replace(own, keys=replace(own.keys, signer_user="54321"))
    keys = dkim_keys_of(own)
    assert keys.user == (54_321, 54_321)
    assert (tmp_path / "signer.box").stat().st_uid == 54_321


@pytest.mark.parametrize("user", ["", "nobody-of-that-name", "9" * 30])
def test_a_user_that_there_is_not_is_nobody(user: str) -> None:
    assert signer_owner(user) is None


def test_too_many_files_are_a_clear_error(tmp_path: Path) -> None:
    files = tuple(DkimKeyFile(f"k{number}", "k.pem") for number in range(KEYS_MAX + 1))
    with pytest.raises(Exception, match="signers take 4096"):
        dkim_keys_of(Config(keys=KeysTable(folder=str(tmp_path), dkim=files)))
