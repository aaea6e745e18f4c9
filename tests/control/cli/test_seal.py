"""A job's key goes sealed to each broadcaster that shows a key of its signers, and to no other."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from control.cli.seal import key_name, sealer
from control.job.roster import Status
from engine.keyring import KeyringError, create_dkim_key
from engine.model.content import Content, DkimIdentity
from engine.sealing import BoxKey
from tests.fakes.memory_bus import MemoryBus

NAME = key_name("s1", "x.example")
CONTENT = Content(
    campaign=7,
    name="n",
    from_address="a@x.example",
    subject="s",
    text="t",
    return_path_domain="x.example",
    dkim=(DkimIdentity("x.example", "s1", NAME),),
)
BOX = BoxKey(bytes(range(32)))


def test_a_key_is_called_as_its_record() -> None:
    assert NAME == "s1._domainkey.x.example"


async def test_it_is_sealed_to_the_signers_of_each(tmp_path: Path) -> None:
    create_dkim_key(tmp_path / "key.pem")
    bus = MemoryBus("operator")
    seal = sealer(bus, CONTENT, str(tmp_path / "key.pem"))
    await seal("a", Status(signer_public=BOX.public.hex()))
    sealed = await bus.read("dkim.a", NAME)
    assert sealed is not None
    assert (tmp_path / "key.pem").read_bytes() == BOX.open(sealed, f"dkim/a/{NAME}".encode())
    await seal("b", Status())
    await seal("c", None)
    assert [table for table in bus.tables if table.startswith("dkim.")] == ["dkim.a"]
    node = {"role": "broadcaster", "signer_public": BOX.public.hex()}
    await bus.put("nodes", "c", json.dumps(node).encode())
    await seal("c", None)
    assert await bus.read("dkim.c", NAME) is not None


async def test_an_unsigned_job_seals_nothing() -> None:
    bus = MemoryBus("operator")
    await sealer(bus, replace(CONTENT, dkim=()), "")("a", Status(signer_public=BOX.public.hex()))
    assert bus.tables == {}


@pytest.mark.parametrize("shown", ["zz", "00", "ab" * 33, "\u0660" * 64, "00" * 32])
async def test_one_that_shows_no_public_half_gets_no_key_and_ends_no_job(tmp_path: Path, shown: str) -> None:
    create_dkim_key(tmp_path / "key.pem")
    bus = MemoryBus("operator")
    seal = sealer(bus, CONTENT, str(tmp_path / "key.pem"))
    await seal("a", Status(signer_public=shown))
    assert bus.tables.get("dkim.a", {}) == {}
    await seal("b", Status(signer_public=BOX.public.hex()))
    assert await bus.read("dkim.b", NAME) is not None


async def test_a_file_that_is_no_key_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("nonsense")
    (tmp_path / "key.pem").chmod(0o600)
    seal = sealer(MemoryBus("operator"), CONTENT, str(tmp_path / "key.pem"))
    with pytest.raises(KeyringError, match=r"key\.pem"):
        await seal("a", Status(signer_public=BOX.public.hex()))
