"""A scripted proxy on a socket pair: whose trouble it is, and no octet of the peer's is swallowed."""

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from engine.model.egress import Proxy, ProxyKind, Source
from engine.model.reply import FailureKind, TransportFailure
from engine.mta.net.proxy_dial import check_proxy, through_proxy

GREETED = b"\x05\x00"
DONE = b"\x05\x00\x00\x01\x7f\x00\x00\x07\x30\x39"
SOCKS = Source("s", "s.test", None, Proxy(ProxyKind.SOCKS5, "127.0.0.1", 1080))
LOGIN = Source("s", "s.test", None, Proxy(ProxyKind.SOCKS5, "127.0.0.1", 1080, "me", "secret"))
HAPROXY = Source("s", "s.test", "192.0.2.1", Proxy(ProxyKind.HAPROXY, "127.0.0.1", 2525))


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours and the proxy's end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def through(ours: socket.socket, source: Source = SOCKS) -> TransportFailure | None:
    return await through_proxy(ours, source, "192.0.2.9", 25, 5.0)


async def test_the_banner_behind_the_proxy_s_answer_stays_in_the_socket(
    wire: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = wire
    theirs.sendall(GREETED + DONE + b"220 mx\r\n")
    assert await through(ours) is None
    assert ours.recv(100) == b"220 mx\r\n"
    assert theirs.recv(100) == b"\x05\x01\x00" + b"\x05\x01\x00\x01\xc0\x00\x02\x09\x00\x19"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", FailureKind.SOURCE),  # it hangs up on us
        (b"\x05", FailureKind.SOURCE),
        (GREETED, FailureKind.UNREACHABLE),  # it hangs up while it connects
        (GREETED + b"\x05\x05\x00\x01\x00\x00", FailureKind.CONNECT_REFUSED),
        (b"220 mx\r\n", FailureKind.SOURCE),
    ],
)
async def test_whose_trouble_it_is(
    said: bytes, kind: FailureKind, wire: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = wire
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    failure = await through(ours)
    assert failure is not None
    assert failure.kind is kind


@pytest.mark.parametrize(
    ("said", "kind"), [(b"", FailureKind.SOURCE), (GREETED, FailureKind.CONNECT_TIMEOUT)]
)
async def test_silence_is_the_proxy_s_until_it_was_asked(
    said: bytes, kind: FailureKind, wire: tuple[socket.socket, socket.socket], autojump_clock: MockClock
) -> None:
    ours, theirs = wire
    theirs.sendall(said)
    # The clock of the test jumps as soon as everybody waits: the octets above must have been read by then.
    failure = await through(ours)
    assert failure is not None
    assert failure.kind is kind
    assert "in time" in failure.detail


async def test_a_check_greets_and_asks_for_nothing(wire: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = wire
    assert LOGIN.proxy is not None
    theirs.sendall(b"\x05\x02\x01\x00")
    assert await check_proxy(ours, LOGIN.proxy, 5.0) is None
    said = theirs.recv(100)
    assert said == b"\x05\x02\x00\x02\x01\x02me\x06secret"
    theirs.sendall(b"\x05\xff")
    failure = await check_proxy(ours, LOGIN.proxy, 5.0)
    assert failure is not None
    assert failure.kind is FailureKind.SOURCE


async def test_a_haproxy_is_told_and_says_nothing(wire: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = wire
    assert await through(ours, HAPROXY) is None
    assert theirs.recv(100)[:12] == b"\r\n\r\n\x00\r\nQUIT\n"
    assert HAPROXY.proxy is not None
    assert await check_proxy(ours, HAPROXY.proxy, 5.0) is None


async def test_a_haproxy_that_is_gone_is_our_trouble(wire: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = wire
    theirs.close()
    failure = await through(ours, HAPROXY)
    assert failure is not None
    assert failure.kind is FailureKind.SOURCE
    await trio.lowlevel.checkpoint()
