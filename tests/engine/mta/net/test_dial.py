"""Real connections on loopback: whose fault a failed one is."""

import errno
import socket

import pytest
import trio

from engine.model.egress import Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.dial import dial

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
        ("::1", "127.0.0.1", FailureKind.SOURCE),
        ("127.0.0.1", "::1", FailureKind.SOURCE),
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
        (errno.EADDRNOTAVAIL, FailureKind.SOURCE),
        (errno.EMFILE, FailureKind.SOURCE),
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


async def test_no_descriptor_left_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*arguments: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("engine.mta.net.dial.socket.socket", no_socket)
    failure = await dial(ANY, "127.0.0.1", 25, 2.0)
    assert failure == TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "Too many open files")


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
