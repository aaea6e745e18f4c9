"""The simulated network: octets arrive in order and in time, and a cut falls at its octet."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from bench.world.manners import Manners
from bench.world.provider import Provider
from engine.model.egress import Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.session import SessionError
from tests.sim.clock import JumpingClock
from tests.sim.network import Cut, Fate, Peer, Receiving, SimNetwork, SimWire
from tests.sim.scenario import NetManners
from tests.sim.witness import Receipt, Witness

SOURCE = Source("one", "one.sender.test", "127.9.0.1")
QUIET = NetManners((0.1, 0.1), 65_536, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1_000)
LETTER = b"Message-ID: <1@x.test>\r\n\r\nHello\r\n"
ENVELOPE = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"


def talk(story: Callable[[SimNetwork], Awaitable[Any]], manners: NetManners = QUIET) -> Witness:
    """Run a story against one receiver, `y`, and one host where nobody listens, `z`."""
    clock, witness = JumpingClock(), Witness()
    provider = Provider("y", Manners(), sink=lambda messages: None)
    peers = {"127.0.0.1": Peer("mx.y.test", "y", provider), "127.0.0.2": Peer("mx.z.test", "z", None)}
    trio.run(story, SimNetwork(peers, manners, clock, random.Random(1), witness), clock=clock)
    assert clock.error is None
    return witness


def wire_of(network: SimNetwork, **fate: Any) -> SimWire:
    """A connection whose fate the test knows."""
    provider = Provider("y", Manners(), sink=lambda messages: None)
    receiving = Receiving("mx.y.test", provider, "127.9.0.1")
    return SimWire(network, network.witness.opened("one", "y"), Fate((0.1, 0.1), 65_536, **fate), receiving)


async def heard(wire: SimWire, until: bytes) -> bytes:
    octets = b""
    while until not in octets:
        more = await wire.receive()
        assert more, octets
        octets += more
    return octets


async def send_letter(wire: SimWire) -> None:
    await heard(wire, b"220 ")
    await wire.send(b"EHLO one.sender.test\r\n")
    await heard(wire, b"250 ")
    await wire.send(ENVELOPE)
    await heard(wire, b"354 ")
    await wire.send(LETTER + b".\r\n")


def test_a_letter_arrives_and_takes_its_time() -> None:
    async def story(network: SimNetwork) -> None:
        wire = await network.dial(SOURCE, "127.0.0.1", 25, 5.0)
        assert isinstance(wire, SimWire)
        assert trio.current_time() == pytest.approx(0.2)
        await send_letter(wire)
        assert b"queued" in await heard(wire, b"250 ")
        assert trio.current_time() == pytest.approx(0.9)  # the banner's way down, and three round trips
        wire.close()

    witness = talk(story)
    assert witness.receipts == [Receipt("b@y.test", "<1@x.test>", pytest.approx(0.8), 0, True)]
    assert witness.mails == {("one", "y"): [pytest.approx(0.5)]}
    assert [wire.closed_at < 1.0 for wire in witness.wires] == [True]


def test_nobody_listens_there() -> None:
    async def story(network: SimNetwork) -> None:
        failure = await network.dial(SOURCE, "127.0.0.2", 25, 5.0)
        assert failure == TransportFailure(FailureKind.CONNECT_REFUSED, Verb.CONNECT, "connect refused")

    assert talk(story).wires[0].closed_at > 0


def test_a_reset_falls_at_its_octet() -> None:
    async def story(network: SimNetwork) -> None:
        wire = wire_of(network, cut=Cut.RESET, up_at=len(b"EHLO one.sender.test\r\n") + len(ENVELOPE) + 7)
        await send_letter(wire)
        with pytest.raises(SessionError):
            await wire.receive()

    assert not talk(story).receipts


def test_a_close_lets_the_last_octets_through() -> None:
    async def story(network: SimNetwork) -> None:
        wire = wire_of(network, cut=Cut.CLOSE, down_at=4)
        assert await wire.receive() == b"220 "
        assert await wire.receive() == b""

    talk(story)


def test_silence_is_for_ever() -> None:
    async def story(network: SimNetwork) -> None:
        wire = wire_of(network, cut=Cut.SILENCE, down_at=0)
        with trio.move_on_after(3_600) as patience:
            await wire.receive()
        assert patience.cancelled_caught

    talk(story)


def test_a_small_window_makes_the_sender_wait_for_a_slow_reader() -> None:
    async def story(network: SimNetwork) -> None:
        wire = wire_of(network, sip_octets=10)
        wire.fate = Fate((0.1, 0.1), 20, sip_octets=10)
        taken: list[int] = []
        await heard(wire, b"220 ")
        await wire.send(b"NOOP\r\n" * 10, taken.append)
        assert sum(taken) == 60
        assert max(taken) <= 20
        assert trio.current_time() > 0.3

    talk(story)


def test_a_dying_process_sends_what_its_kernel_had_taken() -> None:
    async def story(network: SimNetwork) -> None:
        wire = await network.dial(SOURCE, "127.0.0.1", 25, 5.0)
        assert isinstance(wire, SimWire)
        await send_letter(wire)
        network.cut_all()
        with pytest.raises(SessionError):
            await wire.send(b"QUIT\r\n")
        await trio.sleep(1.0)

    witness = talk(story)
    assert len(witness.receipts) == 1
    assert witness.wires[0].closed_at < 1.0


def test_a_call_that_waits_hears_of_a_close_here() -> None:
    async def story(network: SimNetwork) -> None:
        wire = wire_of(network)
        await heard(wire, b"220 ")
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(SessionError) as caught:
                    await wire.receive()
                assert caught.value.failure.kind is FailureKind.STOPPED

            nursery.start_soon(wait)
            await trio.sleep(1.0)
            wire.close()

    talk(story)
