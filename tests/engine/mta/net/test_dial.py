"""Real connections on loopback: whose fault a failed one is."""

import errno
import socket

import pytest
import trio

from engine.model.egress import Proxy, ProxyKind, Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.dial import address_trouble, dial, probe
from engine.mta.proto.proxy_v2 import proxy_v2_header

ANY = Source("any", "mail.example")


def listener(host: str = "127.0.0.1", backlog: int = 5) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.bind((host, 0))
    sock.listen(backlog)
    return sock


@pytest.mark.parametrize(
    ("host", "source"), [("127.0.0.1", "127.0.0.7"), ("::1", "::1"), ("127.0.0.1", None)]
)
async def test_a_connection_leaves_from_its_source(host: str, source: str | None) -> None:
    with listener(host) as server:
        sock = await dial(Source("s", "s.example", source), host, server.getsockname()[1], 5.0)
        assert isinstance(sock, socket.socket)
        with sock:
            assert sock.gettimeout() == 0.0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockname()[0] == (source or host)
            accepted, peer = server.accept()
            accepted.close()
            assert peer == sock.getsockname()


async def test_nobody_listening_is_refused() -> None:
    with listener() as server:
        port = server.getsockname()[1]
    failure = await dial(ANY, "127.0.0.1", port, 5.0)
    assert isinstance(failure, TransportFailure)
    assert (failure.kind, failure.verb) == (FailureKind.CONNECT_REFUSED, Verb.CONNECT)


async def test_silence_times_out() -> None:
    # A full backlog drops further SYNs: the nearest thing to a black hole on loopback.
    with listener(backlog=0) as server:
        port = server.getsockname()[1]
        held = [await dial(ANY, "127.0.0.1", port, 0.1) for _ in range(3)]
        failure = held[-1]
        assert isinstance(failure, TransportFailure)
        assert failure.kind is FailureKind.CONNECT_TIMEOUT
        for sock in held:
            if isinstance(sock, socket.socket):
                sock.close()


@pytest.mark.parametrize(
    ("source", "address", "kind"),
    [
        ("192.0.2.77", "127.0.0.1", FailureKind.SOURCE),  # not an address of ours
        ("::1", "127.0.0.1", FailureKind.UNREACHABLE),  # another family: nothing of ours is lost
        ("127.0.0.1", "::1", FailureKind.UNREACHABLE),
        (None, "mail.example", FailureKind.UNREACHABLE),
        (None, "255.255.255.255", FailureKind.UNREACHABLE),
    ],
)
async def test_a_failure_says_whose_fault_it_is(source: str | None, address: str, kind: FailureKind) -> None:
    failure = await dial(Source("s", "s.example", source), address, 9, 2.0)
    assert isinstance(failure, TransportFailure)
    assert failure.kind is kind
    assert failure.detail


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ECONNREFUSED, FailureKind.CONNECT_REFUSED),
        (errno.ECONNRESET, FailureKind.CONNECT_REFUSED),
        (errno.ETIMEDOUT, FailureKind.CONNECT_TIMEOUT),
        (errno.ENETUNREACH, FailureKind.UNREACHABLE),
        (errno.EHOSTUNREACH, FailureKind.UNREACHABLE),
        (errno.EADDRINUSE, FailureKind.LOCAL),
        (errno.ENOBUFS, FailureKind.LOCAL),
        (errno.EXDEV, FailureKind.UNREACHABLE),  # anything else
    ],
)
async def test_the_systems_errors_have_a_kind(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: FailureKind
) -> None:
    def connect_ex(sock: socket.socket, address: object) -> int:
        return code

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    failure = await dial(ANY, "127.0.0.1", 25, 2.0)
    assert isinstance(failure, TransportFailure)
    assert failure.kind is kind


async def test_a_machine_without_the_family_is_not_out_of_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect_ex(sock: socket.socket, address: object) -> int:
        return errno.EADDRNOTAVAIL

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    failure = await dial(ANY, "2001:db8::25", 25, 2.0)
    assert isinstance(failure, TransportFailure)
    assert failure.kind is FailureKind.UNREACHABLE


async def test_ports_that_are_used_up_are_nobody_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the connect fails for want of a port: the source is there, and so is the family."""
    real = socket.socket.connect_ex

    def connect_ex(sock: socket.socket, address: tuple[str, int]) -> int:
        return errno.EADDRNOTAVAIL if sock.type == socket.SOCK_STREAM else real(sock, address)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    for source in (ANY, Source("s", "s.example", "127.0.0.7")):
        failure = await dial(source, "127.0.0.1", 25, 2.0)
        assert isinstance(failure, TransportFailure)
        assert failure.kind is FailureKind.LOCAL
        assert "every local port" in failure.detail


async def test_no_descriptor_left_is_nobody_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*arguments: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("engine.mta.net.dial.socket.socket", no_socket)
    failure = await dial(ANY, "127.0.0.1", 25, 2.0)
    assert failure == TransportFailure(FailureKind.LOCAL, Verb.CONNECT, "Too many open files")
    assert await probe(Source("s", "s.example", "127.0.0.7"), 2.0) == failure


async def test_a_cancelled_dial_leaves_no_socket_open() -> None:
    # An open socket that is dropped warns, and warnings are errors here.
    with listener(backlog=0) as server:
        port = server.getsockname()[1]
        held = [await dial(ANY, "127.0.0.1", port, 0.05) for _ in range(2)]
        with trio.move_on_after(0.05) as scope:
            await dial(ANY, "127.0.0.1", port, 30.0)
        assert scope.cancelled_caught
        for sock in held:
            if isinstance(sock, socket.socket):
                sock.close()


async def test_a_probe_finds_a_gone_address() -> None:
    assert await probe(ANY, 2.0) is None
    assert await probe(Source("s", "s.example", "127.0.0.7"), 2.0) is None
    gone = Source("s", "s.example", "192.0.2.77")
    failure = await probe(gone, 2.0)
    assert failure is not None
    assert failure.kind is FailureKind.SOURCE
    assert "192.0.2.77" in failure.detail
    assert address_trouble(gone) == failure


async def test_a_dead_proxy_is_the_source_s_trouble() -> None:
    with listener() as server:
        port = server.getsockname()[1]
    source = Source("s", "s.example", None, Proxy(ProxyKind.SOCKS5, "127.0.0.1", port))
    for failure in (await dial(source, "127.0.0.9", 25, 2.0), await probe(source, 2.0)):
        assert isinstance(failure, TransportFailure)
        assert failure.kind is FailureKind.SOURCE
        assert f"socks5://127.0.0.1:{port}" in failure.detail
    assert address_trouble(source) is None  # there is nothing to bind


async def test_a_dial_through_a_proxy_leaves_no_socket_open() -> None:
    """Not after a refusal, not after a silence, not when it is cancelled: a dropped socket warns."""
    with listener() as server:
        where = server.getsockname()
        source = Source("s", "s.example", None, Proxy(ProxyKind.SOCKS5, *where))
        silent = await dial(source, "127.0.0.9", 25, 0.05)
        assert isinstance(silent, TransportFailure)
        assert silent.kind is FailureKind.SOURCE
        with trio.move_on_after(0.05) as scope:
            await dial(source, "127.0.0.9", 25, 30.0)
        assert scope.cancelled_caught


async def test_a_source_behind_a_haproxy_says_where_from_and_where_to() -> None:
    with listener() as server:
        proxy = Proxy(ProxyKind.HAPROXY, *server.getsockname())
        sock = await dial(Source("s", "s.example", "192.0.2.77", proxy), "192.0.2.78", 25, 2.0)
        assert isinstance(sock, socket.socket)
        with sock:
            accepted, peer = server.accept()
            with accepted:
                assert peer[0] == "127.0.0.1"  # the source's address is not ours to bind
                assert accepted.recv(100) == proxy_v2_header("192.0.2.77", "192.0.2.78", 25)
