"""Octets over real sockets: deadlocks, half words, hang-ups, TLS."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trustme
from msgspec.structs import replace

from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.model.tls import HostTls, TlsaRecord
from engine.model.tls_result import TlsResult
from engine.mta.net import session as session_module
from engine.mta.net.session import READ_AHEAD_OCTETS_MAX, Session, SessionError
from engine.mta.net.tls import TlsInfo, TlsTerms, opportunistic_context, verifying_context

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

Peer = trio.SocketStream | trio.SSLStream[trio.SocketStream]
ANYBODY = TlsTerms(opportunistic_context())
SMALL_BUFFER_OCTETS = 4_096  # the kernel doubles it; so a few hundred kB fill both directions


@asynccontextmanager
async def connected(*, small: bool = False) -> AsyncIterator[tuple[Session, trio.SocketStream]]:
    """A session and the peer's end of its TCP connection."""
    with socket.socket() as server:
        if small:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_OCTETS)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_OCTETS)
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        ours = socket.socket()
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_OCTETS)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_OCTETS)
        ours.connect(server.getsockname())
        ours.setblocking(False)
        theirs, _ = server.accept()
    session = Session(ours)
    peer = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    with trio.fail_after(10):
        try:
            yield session, peer
        finally:
            session.close()
            peer.socket.close()


@asynccontextmanager
async def encrypted(
    authority: trustme.CA, *, small: bool = False
) -> AsyncIterator[tuple[Session, trio.SSLStream[trio.SocketStream]]]:
    async with connected(small=small) as (session, stream):
        server = trio.SSLStream(stream, server_context(authority), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            info = await session.start_tls("mx.example", ANYBODY, 5.0)
        assert isinstance(info, TlsInfo)
        yield session, server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str = "mx.example") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def reset(stream: trio.SocketStream) -> None:
    """Close with RST, as a crashed peer or a firewall does."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def receive_exactly(peer: Peer, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        part = await peer.receive_some(65_536)
        assert part
        received += part
    return bytes(received)


async def test_octets_pass_in_both_directions() -> None:
    async with connected() as (session, peer):
        await session.send(b"EHLO x\r\n")
        assert await peer.receive_some() == b"EHLO x\r\n"
        await peer.send_all(b"250 hi\r\n")
        assert await session.receive() == b"250 hi\r\n"
        assert repr(session) == "<Session open, clear text, 8 out, 8 in>"
        await peer.aclose()
        assert await session.receive() == b""
        assert await session.receive() == b""


@pytest.mark.parametrize("in_tls", [False, True])
async def test_progress_adds_up_and_follows_the_kernel(authority: trustme.CA, in_tls: bool) -> None:
    data = bytes(range(256)) * 1_000
    steps: list[int] = []
    async with encrypted(authority, small=True) if in_tls else connected(small=True) as (session, peer):
        got = bytearray()

        async def read_some() -> None:
            got.extend(await receive_exactly(peer, 40_000))

        with trio.move_on_after(0.1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_some)
                await session.send(data, steps.append)
        assert 0 < sum(steps) < len(data)
        if in_tls:
            assert set(steps) == {16_384}
        while len(got) < sum(steps):
            got.extend(await peer.receive_some(65_536))
        assert data.startswith(got[: sum(steps)])


async def test_a_send_that_was_cut_short_is_followed_by_nothing() -> None:
    async with connected(small=True) as (session, _):
        with trio.move_on_after(0.05):
            await session.send(b"x" * 500_000)
        with pytest.raises(AssertionError):
            await session.send(b"QUIT\r\n")


@pytest.mark.parametrize("epoll", [True, False])
@pytest.mark.parametrize("in_tls", [False, True])
async def test_a_peer_that_blocks_on_its_replies_does_not_deadlock_us(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, in_tls: bool, epoll: bool
) -> None:
    monkeypatch.setattr(session_module, "_HAS_EPOLL", epoll and session_module._HAS_EPOLL)
    content, replies = b"m" * 600_000, b"250 ok\r\n" * 25_000
    async with encrypted(authority, small=True) if in_tls else connected(small=True) as (session, peer):

        async def serve() -> None:
            # Reads nothing until all its replies are out, which only our reading makes possible.
            await peer.send_all(replies)
            assert await receive_exactly(peer, len(content)) == content

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await session.send(content)
        received = b""
        while len(received) < len(replies):
            received += await session.receive()
        assert received == replies


async def test_a_peer_that_floods_us_while_we_send_is_cut_off() -> None:
    async with connected(small=True) as (session, peer):

        async def flood() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await peer.send_all(b"x" * (READ_AHEAD_OCTETS_MAX * 8))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            with pytest.raises(SessionError) as caught:
                await session.send(b"y" * (READ_AHEAD_OCTETS_MAX * 8))
            assert caught.value.failure.kind is FailureKind.PROTOCOL
            session.close()


@pytest.mark.parametrize("in_tls", [False, True])
async def test_what_the_peer_said_before_it_hung_up_is_still_received(
    authority: trustme.CA, in_tls: bool
) -> None:
    async with encrypted(authority) if in_tls else connected() as (session, peer):
        await peer.send_all(b"421 going down\r\n")
        reset(peer.transport_stream if isinstance(peer, trio.SSLStream) else peer)
        with pytest.raises(SessionError) as caught:
            await session.send(b"x" * 20_000_000)
        assert caught.value.failure.kind is FailureKind.CLOSED
        assert await session.receive() == b"421 going down\r\n"


async def test_a_reset_is_a_value_when_receiving() -> None:
    async with connected() as (session, peer):
        reset(peer)
        with pytest.raises(SessionError) as caught:
            await session.receive()
        assert caught.value.failure == TransportFailure(
            FailureKind.CLOSED, Verb.IDLE, "Connection reset by peer"
        )


async def test_a_peer_that_only_stops_sending_still_gets_our_octets() -> None:
    async with connected(small=True) as (session, peer):
        await peer.send_eof()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_exactly, peer, 300_000)
            await session.send(b"x" * 300_000)
        assert await session.receive() == b""


@pytest.mark.parametrize("blocked_in", ["send", "receive"])
async def test_closing_wakes_the_task_that_waits(blocked_in: str) -> None:
    async with connected(small=True) as (session, _):

        async def wait() -> None:
            with pytest.raises(SessionError) as caught:
                await (session.receive() if blocked_in == "receive" else session.send(b"x" * 500_000))
            assert caught.value.failure.kind is FailureKind.STOPPED

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            session.close()
        session.close()
        assert repr(session).startswith("<Session closed")
        for call in (session.receive, lambda: session.send(b"x")):
            with pytest.raises(SessionError) as caught:
                await call()
            assert caught.value.failure.kind is FailureKind.STOPPED
            session._mid_write = False


@pytest.mark.parametrize("in_tls", [False, True])
async def test_a_session_that_never_waits_still_lets_others_have_their_turn(
    authority: trustme.CA, in_tls: bool
) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with encrypted(authority) if in_tls else connected() as (session, _peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(10 * session_module.CALLS_WITHOUT_WAIT_MAX):
                await session.send(b"x")
            nursery.cancel_scope.cancel()
        assert 5 <= turns <= 20


async def test_a_handshake_tells_what_was_negotiated(authority: trustme.CA) -> None:
    async with encrypted(authority) as (session, peer):
        assert session.tls is not None
        assert session.tls.version == "TLSv1.3"
        await session.send(b"EHLO x\r\n" * 10_000)
        assert await receive_exactly(peer, 80_000) == b"EHLO x\r\n" * 10_000
        await peer.send_all(b"250 hi\r\n" * 10_000)
        received = b""
        while len(received) < 80_000:
            received += await session.receive()
        assert received == b"250 hi\r\n" * 10_000
        session.close()
        assert await peer.receive_some() == b""  # our closing alert: no truncation for the peer


async def test_octets_ahead_of_the_handshake_are_refused() -> None:
    async with connected() as (session, peer):
        await peer.send_all(b"250 injected\r\n")
        await trio.sleep(0.01)
        assert await session.start_tls("mx.example", ANYBODY, 5.0) == TransportFailure(
            FailureKind.PROTOCOL, Verb.STARTTLS, "octets came ahead of the handshake"
        )


async def test_octets_kept_from_a_send_are_refused_as_well() -> None:
    async with connected(small=True) as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, b"220 go\r\n250 injected\r\n")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(receive_exactly, peer, 300_000)
            await session.send(b"x" * 300_000)
        failure = await session.start_tls("mx.example", ANYBODY, 5.0)
        assert isinstance(failure, TransportFailure)
        assert failure.kind is FailureKind.PROTOCOL


async def _close(peer: trio.SocketStream) -> None:
    await peer.receive_some()
    await peer.aclose()


async def _reset(peer: trio.SocketStream) -> None:
    await peer.receive_some()
    reset(peer)


async def _speak_smtp(peer: trio.SocketStream) -> None:
    await peer.receive_some()
    await peer.send_all(b"500 what was that\r\n")


async def _say_nothing(peer: trio.SocketStream) -> None:
    await peer.receive_some()


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (_close, FailureKind.CLOSED),
        (_reset, FailureKind.CLOSED),
        (_speak_smtp, FailureKind.TLS),
        (_say_nothing, FailureKind.TIMEOUT),
    ],
)
async def test_a_failed_handshake_is_a_value(
    behaviour: Callable[[trio.SocketStream], Awaitable[None]], kind: FailureKind
) -> None:
    async with connected() as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(behaviour, peer)
            failure = await session.start_tls("mx.example", ANYBODY, 0.2)
        assert isinstance(failure, TransportFailure)
        assert (failure.kind, failure.verb) == (kind, Verb.TLS)
        assert session.tls is None


async def test_a_peer_that_is_gone_before_the_handshake_is_a_value() -> None:
    async with connected() as (session, peer):
        await peer.aclose()
        await trio.sleep(0.01)
        failure = await session.start_tls("mx.example", ANYBODY, 1.0)
        assert failure == TransportFailure(
            FailureKind.CLOSED, Verb.STARTTLS, "the peer closed the connection"
        )


async def test_a_certificate_for_another_name_fails_a_verified_handshake(authority: trustme.CA) -> None:
    context = verifying_context()
    authority.configure_trust(context)
    async with connected() as (session, stream):
        server = trio.SSLStream(stream, server_context(authority, "other.example"), server_side=True)

        async def refuse() -> None:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await server.do_handshake()
            assert "alert" in str(caught.value.__cause__).lower()  # the peer is told why

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            failure = await session.start_tls("mx.example", TlsTerms(context), 5.0)
        assert isinstance(failure, TransportFailure)
        assert failure.kind is FailureKind.TLS
        assert "mx.example" in failure.detail


async def test_a_server_name_that_cannot_be_one_is_a_value() -> None:
    async with connected() as (session, _):
        failure = await session.start_tls("a" * 64 + ".example", ANYBODY, 5.0)
        assert isinstance(failure, TransportFailure)
        assert failure.kind is FailureKind.TLS


async def test_a_garbled_record_is_a_value(authority: trustme.CA) -> None:
    async with encrypted(authority) as (session, peer):
        await peer.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        with pytest.raises(SessionError) as caught:
            await session.receive()
        assert caught.value.failure.kind is FailureKind.TLS


async def test_what_may_be_resumed_is_kept_at_the_close_and_saves_the_next_handshake(
    authority: trustme.CA,
) -> None:
    context, kept = server_context(authority), list[ssl.SSLSession]()
    for number in range(2):
        terms = replace(ANYBODY, session=kept[-1] if kept else None, keep=kept.append)
        async with connected() as (session, stream):
            server = trio.SSLStream(stream, context, server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.do_handshake)
                info = await session.start_tls("mx.example", terms, 5.0)
            assert isinstance(info, TlsInfo)
            assert info.resumed == bool(number)
            await server.send_all(b"250 hi\r\n")
            assert await session.receive() == b"250 hi\r\n"
            assert not kept[number:]
        assert len(kept) == number + 1


async def test_a_peer_that_is_not_the_right_one_leaves_nothing_to_resume(authority: trustme.CA) -> None:
    kept = list[ssl.SSLSession]()
    terms = TlsTerms(
        ANYBODY.context,
        HostTls.DANE,
        ("mx.example",),
        (TlsaRecord(3, 1, 1, bytes(32)),),
        "dane",
        keep=kept.append,
    )
    async with connected() as (session, stream):
        server = trio.SSLStream(stream, server_context(authority), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            failure = await session.start_tls("mx.example", terms, 5.0)
        assert isinstance(failure, TransportFailure)
        assert (failure.kind, failure.tls) == (FailureKind.TLS, TlsResult.VALIDATION_FAILURE)
        assert session.tls is None
    assert not kept
