"""A client's message to a submission process, over the bus, through an engine, to a receiver: octet for
octet.

The process is started as `emass up` starts it, the engine sends what it finds, and the receiver keeps what
it got. Swaks is the client; dkimpy judges the signatures.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dkim
import pytest
import structlog
import trio

from bench.peers import missing
from bench.peers.nats import NatsServer
from engine.app import Engine, open_engine
from engine.bus.api import Subscription
from engine.config import load_config
from engine.model.event import AttemptEvent, Delivered, Suppressed, decode_events
from engine.model.single import message_number
from engine.mta.compose.token import verify
from engine.mta.policy.suppression import EVERYWHERE, Reason, SuppressionOrder
from tests.fakes.engine_house import host_route, until
from tests.fakes.submission_place import Place, Receiver

pytestmark = [pytest.mark.slow, pytest.mark.peers]

NATS = """
[bus]
kind = "nats"
servers = ["{0[0]}:{0[1]}"]
seeds = ""
ca_file = ""
"""
LETTER = (
    b"From: Ann <ann@shop.test>\r\nTo: b@x.test\r\nBcc: c@x.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe \r\n.dot\r\n..dots\r\n\r\nend\r\n\r\n"
)
BODY = LETTER[LETTER.index(b"\r\n\r\n") :]


@asynccontextmanager
async def engine_at(place: Place, receiver: Receiver) -> AsyncIterator[Engine]:
    route = host_route("127.0.0.1", receiver.port)
    with structlog.testing.capture_logs():
        async with open_engine(load_config(place.file, {}), static_route=route) as engine:
            yield engine


async def read_events(events: Subscription, count: int) -> list[AttemptEvent]:
    found: list[AttemptEvent] = []
    with trio.fail_after(30):
        while len(found) < count:
            for delivery in await events.receive(64):
                batch = decode_events(delivery.payload)
                found += [event for event in batch.events if isinstance(event, AttemptEvent)]
    return found


def queued_id(said: str) -> str:
    return next(line for line in said.splitlines() if "queued as" in line).rpartition(" ")[2].strip()


@pytest.mark.skipif(bool(missing("swaks")), reason=missing("swaks") or "")
@pytest.mark.parametrize("extensions", [("8BITMIME",), ("PIPELINING", "8BITMIME", "CHUNKING")])
async def test_a_message_arrives_as_it_was_with_a_signature_that_verifies(
    tmp_path: Path, extensions: tuple[str, ...]
) -> None:
    place, receiver = Place(tmp_path, 1), Receiver(*extensions)
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        async with place.submission(), engine_at(place, receiver) as engine:
            events = engine.parts.cluster.subscribe("events.node", "test")
            said = await place.swaks("b@x.test", LETTER)
            await until(lambda: receiver.accepted)
            (event,) = await read_events(events, 1)
            tokens = engine.parts.tokens
        nursery.cancel_scope.cancel()
    ((sender, recipient, content),) = receiver.accepted
    assert recipient == "b@x.test"
    assert content.endswith(BODY)
    assert content.startswith(b"DKIM-Signature: ")
    assert b"\r\nBcc:" not in content
    assert dkim.verify(content, dnsfunc=place.dns)
    token, _, domain = sender.removeprefix("b-").partition("@")
    assert domain == "bounce.shop.test"
    payload = verify("b", tokens, token, "shop.test")
    number = message_number(f"{queued_id(said)}.0")
    assert payload is not None
    assert (payload.single, payload.subscriber) == (True, number)
    assert isinstance(event, Delivered)
    assert (event.subscriber, event.campaign) == (number, payload.campaign)


@pytest.mark.skipif(bool(missing("swaks")), reason=missing("swaks") or "")
async def test_swaks_is_told_what_is_wrong(tmp_path: Path) -> None:
    place = Place(tmp_path, 1)
    async with place.submission():
        assert "535 5.7.8" in await place.swaks("b@x.test", LETTER, "--auth-password", "wrong password")
        assert "550 5.7.1" in await place.swaks("b@x.test", LETTER.replace(b"shop.test", b"bank.test"))
        assert "550 5.7.1" in await place.swaks("b@x.test", LETTER, "--from", "ann@bank.test")
        large = LETTER + b"0123456789abcdef\r\n" * 640_000
        assert "552 5.3.4" in await place.swaks("b@x.test", large)


@pytest.mark.skipif(bool(missing("swaks")), reason=missing("swaks") or "")
async def test_ten_megabytes_arrive_whole_and_who_is_suppressed_gets_nothing(tmp_path: Path) -> None:
    place, receiver = Place(tmp_path, 1), Receiver("8BITMIME")
    large = LETTER + b"0123456789abcdef\r\n" * 570_000
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        async with place.submission(), engine_at(place, receiver) as engine:
            events = engine.parts.cluster.subscribe("events.node", "test")
            hasher = engine.parts.suppressions.hasher
            order = SuppressionOrder(
                adds=True,
                keys=(hasher.key_of("gone@x.test"),),
                at_ms=1,
                scope=EVERYWHERE,
                reason=Reason.HARD_BOUNCE,
                key_check=hasher.check,
            )
            await engine.parts.suppressions.apply(order)
            await place.swaks("b@x.test,gone@x.test,c@x.test", large)
            await until(lambda: len(receiver.accepted) == 2)
            told = await read_events(events, 3)
        nursery.cancel_scope.cancel()
    assert sorted(recipient for _, recipient, _ in receiver.accepted) == ["b@x.test", "c@x.test"]
    for _, _, content in receiver.accepted:
        assert content.endswith(large[large.index(b"\r\n\r\n") :])
        assert dkim.verify(content, dnsfunc=place.dns)
    assert sorted(type(event).__name__ for event in told) == ["Delivered", "Delivered", Suppressed.__name__]


@pytest.mark.skipif(
    bool(missing("swaks") or missing("nats")), reason=str(missing("swaks") or missing("nats"))
)
async def test_over_a_bus_of_many_machines_it_arrives_as_well(tmp_path: Path) -> None:
    large = LETTER + b"0123456789abcdef\r\n" * 60_000
    with NatsServer(tmp_path / "nats") as server:
        place, receiver = Place(tmp_path, 1, NATS.format(server.address)), Receiver("8BITMIME")
        async with trio.open_nursery() as nursery:
            await nursery.start(receiver.run)
            async with place.submission(), engine_at(place, receiver) as engine:
                assert engine.parts.cluster is not engine.parts.bus
                assert "250 2.0.0" in await place.swaks("b@x.test", LETTER)
                assert "250 2.0.0" in await place.swaks("c@x.test,d@x.test", large)
                await until(lambda: len(receiver.accepted) == 3)
            nursery.cancel_scope.cancel()
    assert sorted(recipient for _, recipient, _ in receiver.accepted) == ["b@x.test", "c@x.test", "d@x.test"]
    assert all(dkim.verify(content, dnsfunc=place.dns) for _, _, content in receiver.accepted)


async def test_several_workers_share_a_port_and_one_that_dies_comes_back(tmp_path: Path) -> None:
    place = Place(tmp_path, 2)
    async with place.submission() as parent:
        workers = children(parent.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        await until(lambda: len(set(children(parent.pid)) - {workers[0]}) == 2)
        with trio.fail_after(30):
            while True:
                with suppress(OSError):
                    async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
                        assert (await stream.receive_some(100)).startswith(b"220 ")
                        break
                await trio.sleep(0.1)
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found
