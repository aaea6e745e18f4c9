"""The connection comes and goes, proves who it is, and never speaks in the clear where TLS is wanted."""

import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.peers.nats import HOST, NatsServer
from control.cluster.authority import CERTIFICATE_FILE, KEY_FILE, create_server_certificate
from engine.bus import nkeys
from engine.bus.nats_client import Received
from engine.bus.nats_link import Away, Link

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def linked(*servers: NatsServer, member: str = "node-1", **options: Any) -> AsyncIterator[Link]:
    link = Link([server.address for server in servers], member, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        yield link
        link.close()


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not holds():
            await trio.sleep(0.01)


async def hears(link: Link, inbox: str) -> bool:
    """Whether a message that the link sends to itself arrives."""
    heard: list[Received] = []
    inlet = link.open_inlet(inbox, heard.append)
    link.send(inbox, b"x")
    with trio.move_on_after(0.5):
        while not heard:
            await trio.sleep(0.01)
    link.close_inlet(inlet)
    return [each.data for each in heard] == [b"x"]


def users(*lines: str) -> str:
    return "authorization { users: [" + ", ".join(lines) + "] }\n"


async def test_what_nobody_hears_is_away(nats_server: NatsServer) -> None:
    async with linked(nats_server) as link:
        with pytest.raises(Away, match="no server"):
            await link.request("emass.q.x")
        await link.wait_online()
        with pytest.raises(Away, match="nobody listens"):
            await link.request("emass.q.x")
        link.open_inlet("emass.q.x", lambda _: None)
        with pytest.raises(Away, match="no answer"):
            await link.request("emass.q.x", timeout_seconds=0.05)


async def test_a_lost_connection_ends_who_waits_and_is_made_again(nats_server: NatsServer) -> None:
    async with linked(nats_server) as link:
        await link.wait_online()
        heard: list[Received] = []
        link.open_inlet("emass.q.x", heard.append)

        async def ask() -> None:
            with pytest.raises(Away):
                await link.request("emass.q.x", timeout_seconds=PATIENCE_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: len(heard) == 1)
            nats_server.kill()
        assert not link.online
        assert heard[-1].status == "gone"
        await trio.to_thread.run_sync(nats_server.start)
        with trio.fail_after(PATIENCE_SECONDS):
            await link.wait_online()
        assert link.generation == 2
        link.send("emass.q.x", b"again")
        await until(lambda: heard[-1].data == b"again")


async def test_the_next_server_of_the_list_is_taken(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("nats")
    with NatsServer(tmp_path / "one") as one, NatsServer(tmp_path / "two") as two:
        async with linked(one, two) as link:
            for here, there in ((one, two), (two, one)):
                await link.wait_online()
                here.kill()
                with trio.fail_after(PATIENCE_SECONDS):
                    while not await hears(link, link.new_inbox()):
                        await link.wait_online()
                await trio.to_thread.run_sync(here.start)
                there.kill()
                await trio.to_thread.run_sync(there.start)


async def test_a_seed_opens_the_server_and_another_does_not(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("nats")
    seed = nkeys.new_seed()
    allowed = '{ publish: { allow: ["emass.i.node-1.>"] }, subscribe: { allow: ["emass.i.node-1.>"] } }'
    more = users(f"{{ nkey: {nkeys.public_of(seed)}, permissions: {allowed} }}")
    with NatsServer(tmp_path / "nats", more=more) as server:
        async with linked(server, seed=nkeys.new_seed()) as stranger, linked(server) as nobody:
            async with linked(server, seed=seed) as link:
                with trio.fail_after(PATIENCE_SECONDS):
                    await link.wait_online()
                assert await hears(link, link.new_inbox())
                assert not await hears(link, "emass.i.another.x")
                assert link.online
            assert not stranger.online
            assert not nobody.online


def test_what_is_no_seed_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="nkey seed"):
        Link([(HOST, 4222)], "node-1", seed="SUABC")
    with pytest.raises(ValueError, match="at least one server"):
        Link([], "node-1")
    with pytest.raises(FileNotFoundError):
        Link([(HOST, 4222)], "node-1", ca_file=Path("/nowhere/ca.pem"))


async def test_tls_is_used_and_a_server_without_it_is_not(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("nats")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    create_server_certificate(keys, [HOST], datetime.datetime.now(datetime.UTC))
    certificate = keys / CERTIFICATE_FILE
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{keys / KEY_FILE}" }}\n'
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    create_server_certificate(other, [HOST], datetime.datetime.now(datetime.UTC))
    with NatsServer(tmp_path / "tls", more=tls) as guarded, NatsServer(tmp_path / "clear") as clear:
        async with (
            linked(guarded, ca_file=certificate) as link,
            linked(clear, ca_file=certificate) as careful,
            linked(guarded, ca_file=other / CERTIFICATE_FILE) as deceived,
        ):
            with trio.fail_after(PATIENCE_SECONDS):
                await link.wait_online()
            assert await hears(link, link.new_inbox())
            await trio.sleep(0.5)
            assert not careful.online
            assert not deceived.online


async def test_a_message_too_large_for_the_server_names_the_setting(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("nats")
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server) as link:
            await link.wait_online()
            with pytest.raises(ValueError, match="max_payload"):
                link.send("emass.q.x", bytes(2 * 1024**2))
            assert await hears(link, link.new_inbox())


async def test_a_closed_link_does_not_wait_for_a_frozen_server(nats_server: NatsServer) -> None:
    nats_server.freeze()
    link = Link([nats_server.address], "node-1")
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(link.run)
            await trio.sleep(0.1)
            with trio.fail_after(PATIENCE_SECONDS):
                link.close()
    finally:
        nats_server.thaw()


async def test_a_message_that_cannot_be_sent_does_not_end_the_connection(nats_server: NatsServer) -> None:
    async with linked(nats_server) as link:
        await link.wait_online()
        for subject in ("", "two words"):
            link.send(subject, b"x")
        link.max_payload *= 2  # as if the server had taken more
        link.send("emass.q.x", bytes(link.max_payload - 1_000))
        assert await hears(link, link.new_inbox())
        assert link.generation == 1
