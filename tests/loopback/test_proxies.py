"""Mail through real proxies: it leaves from the proxy's address, and trouble is blamed on whom it belongs to.

microsocks, Dante and haproxy from Debian; whole engines, and the receivers of the test world, which note
the address that mail came from.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio

from bench.peers import proxies
from bench.peers.process import free_port
from bench.world.records import Accepted
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from bench.world.world import World, open_world
from engine.app import Engine
from engine.config.egress import SourceRule
from engine.keyring import write_secret
from engine.model.egress import Proxy, ProxyKind, Source
from engine.model.reply import FailureKind, TransportFailure
from engine.mta.net.dial import dial, probe
from tests.fakes.engine_house import letter, numbered, running_engine, submit, until_finished

pytestmark = [pytest.mark.slow, pytest.mark.peers]

Require = Callable[[str], None]

SENDS_FROM = "127.0.0.31"
EHLO = "proxied.letter.example"
MESSAGES = 30
WORLD = WorldSpec(
    name="proxied", providers=(ProviderSpec("box", (Site((Host("mx.box.test"),), {"box.test": 1}),)),)
)


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with structlog.testing.capture_logs() as lines:
        yield lines


def socks(address: tuple[str, int], user: str = "", password: str = "") -> Source:
    return Source("out", EHLO, None, Proxy(ProxyKind.SOCKS5, *address, user, password))


@asynccontextmanager
async def sending(folder: Path, *sources: SourceRule) -> AsyncIterator[tuple[Engine, World, list[Accepted]]]:
    received: list[Accepted] = []
    with trio.fail_after(60):
        async with (
            open_world(WORLD, accepted=received) as world,
            running_engine(folder, world, source=sources) as engine,
        ):
            yield engine, world, received


async def delivered_from(folder: Path, source: SourceRule) -> set[str]:
    """The addresses that receivers saw."""
    async with sending(folder, source) as (engine, _, received):
        await submit(engine, letter(), numbered(MESSAGES, "box.test"))
        counts = await until_finished(engine, MESSAGES)
    assert counts.delivered == len(received) == MESSAGES
    return {message.source for message in received}


async def test_mail_leaves_through_microsocks_with_a_login(tmp_path: Path, require_peer: Require) -> None:
    require_peer("microsocks")
    (tmp_path / "keys").mkdir(mode=0o700)
    write_secret(tmp_path / "keys" / "socks", b"secret\n")
    with proxies.microsocks(tmp_path / "p", SENDS_FROM, user="me", password="secret") as (host, port):
        source = SourceRule(
            name="out",
            ehlo_name=EHLO,
            proxy=f"socks5://{host}:{port}",
            proxy_user="me",
            proxy_password_file="socks",
        )
        assert await delivered_from(tmp_path, source) == {SENDS_FROM}


async def test_mail_leaves_through_dante(tmp_path: Path, require_peer: Require) -> None:
    require_peer("dante")
    with proxies.dante(tmp_path / "p", SENDS_FROM) as (host, port):
        source = SourceRule(name="out", ehlo_name=EHLO, proxy=f"socks5://{host}:{port}")
        assert await delivered_from(tmp_path, source) == {SENDS_FROM}


async def test_mail_leaves_through_haproxy_from_the_source_s_address(
    tmp_path: Path, require_peer: Require
) -> None:
    require_peer("haproxy")
    with proxies.haproxy(tmp_path / "p") as (host, port):
        source = SourceRule(name="out", ehlo_name=EHLO, address=SENDS_FROM, proxy=f"haproxy://{host}:{port}")
        assert await delivered_from(tmp_path, source) == {SENDS_FROM}


async def test_a_dead_proxy_suspends_its_source_and_mail_takes_another(tmp_path: Path) -> None:
    dead = SourceRule(
        name="dead", ehlo_name=EHLO, proxy=f"socks5://127.0.0.1:{free_port('127.0.0.1')}", weight=1000
    )
    live = SourceRule(name="live", ehlo_name=EHLO, address="127.0.0.33")
    async with sending(tmp_path, dead, live) as (engine, _, received):
        await submit(engine, letter(), numbered(MESSAGES, "box.test"))
        counts = await until_finished(engine, MESSAGES)
        row = engine.parts.source_states.rows(trio.current_time())[0]
    assert counts.delivered == len(received) == MESSAGES
    assert {message.source for message in received} == {"127.0.0.33"}
    assert row["source"] == "dead"
    assert 20 < row["suspended_seconds"] <= 30
    assert "socks5://127.0.0.1" in row["suspended_why"]


async def test_microsocks_and_dante_tell_whose_trouble_it_is(tmp_path: Path, require_peer: Require) -> None:
    require_peer("microsocks")
    require_peer("dante")
    nobody = free_port("127.0.0.1")
    blocked = "127.0.0.41"
    with proxies.dante(tmp_path / "d", SENDS_FROM, blocked=blocked) as address:
        assert await probe(socks(address), 5.0) is None
        await refused(socks(address), "127.0.0.1", nobody, FailureKind.CONNECT_REFUSED)
        await refused(socks(address), blocked, nobody, FailureKind.UNREACHABLE)
    with proxies.microsocks(tmp_path / "m", SENDS_FROM, user="me", password="secret") as address:
        assert await probe(socks(address, "me", "secret"), 5.0) is None
        await refused(socks(address, "me", "secret"), "127.0.0.1", nobody, FailureKind.CONNECT_REFUSED)
        for user, password in (("me", "wrong"), ("", "")):
            failure = await probe(socks(address, user, password), 5.0)
            assert failure is not None
            assert failure.kind is FailureKind.SOURCE
            await refused(socks(address, user, password), "127.0.0.1", nobody, FailureKind.SOURCE)


async def refused(source: Source, address: str, port: int, kind: FailureKind) -> None:
    failure = await dial(source, address, port, 5.0)
    assert isinstance(failure, TransportFailure)
    assert failure.kind is kind, failure
