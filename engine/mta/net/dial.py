"""Open a TCP connection from a chosen source address to one address of a host.

`dial` binds, connects and returns a non-blocking standard socket with TCP_NODELAY, or a
`TransportFailure` that says whether the peer refused, the network did, or our own source is at
fault: the first two are the site's trouble, the last one suspends the source. Touches: one
socket, closed on every path but success, cancellation included. Never raises for the network.
"""

import errno
import os
import socket

import trio

from engine.model.egress import Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.addresses import family_version

# Linux: choose the local port at connect, by the whole address pair. Without it a source address
# serves 28,000 connections in all instead of as many to each peer. Python names it from 3.12 on.
_IP_BIND_ADDRESS_NO_PORT = 24

_KINDS = {
    errno.ECONNREFUSED: FailureKind.CONNECT_REFUSED,
    errno.ECONNRESET: FailureKind.CONNECT_REFUSED,
    errno.ECONNABORTED: FailureKind.CONNECT_REFUSED,
    errno.ETIMEDOUT: FailureKind.CONNECT_TIMEOUT,
    errno.ENETUNREACH: FailureKind.UNREACHABLE,
    errno.EHOSTUNREACH: FailureKind.UNREACHABLE,
    errno.ENETDOWN: FailureKind.UNREACHABLE,
    errno.EHOSTDOWN: FailureKind.UNREACHABLE,
    errno.EAFNOSUPPORT: FailureKind.UNREACHABLE,
    errno.EINVAL: FailureKind.UNREACHABLE,
    errno.EACCES: FailureKind.UNREACHABLE,  # a local firewall rule, or a broadcast address
    errno.EPERM: FailureKind.UNREACHABLE,
    errno.EADDRNOTAVAIL: FailureKind.SOURCE,  # our address is gone, or its ports are used up
    errno.EADDRINUSE: FailureKind.SOURCE,
    errno.EMFILE: FailureKind.SOURCE,  # we are out of descriptors or memory: not the peer's fault
    errno.ENFILE: FailureKind.SOURCE,
    errno.ENOBUFS: FailureKind.SOURCE,
    errno.ENOMEM: FailureKind.SOURCE,
}


async def dial(
    source: Source, address: str, port: int, timeout_seconds: float
) -> socket.socket | TransportFailure:
    """Connect from `source.address` (None = the system's choice) to an IP literal and port."""
    version = family_version(address)
    if version is None:
        return _failure(FailureKind.UNREACHABLE, "not an IP address")
    if source.address is not None and family_version(source.address) != version:
        return _failure(FailureKind.SOURCE, f"source {source.name} has no IPv{version} address")
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    sock: socket.socket | None = None
    connected = False
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source.address is not None and (trouble := _bind(sock, source)):
            return trouble
        with trio.move_on_after(timeout_seconds):
            await _connect(sock, address, port)
            connected = True
            return sock
        return _failure(FailureKind.CONNECT_TIMEOUT, f"no answer in {timeout_seconds:g} s")
    except OSError as error:
        return _failure(_KINDS.get(error.errno or 0, FailureKind.UNREACHABLE), error.strerror or str(error))
    finally:
        if sock is not None and not connected:
            sock.close()


def _bind(sock: socket.socket, source: Source) -> TransportFailure | None:
    if os.uname().sysname == "Linux":
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        sock.bind((source.address, 0))
    except OSError as error:
        return _failure(FailureKind.SOURCE, f"source {source.name}: {error.strerror or error}")
    return None


async def _connect(sock: socket.socket, address: str, port: int) -> None:
    code = sock.connect_ex((address, port))
    if code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    else:
        await trio.lowlevel.checkpoint()
    if code == 0 and sock.getsockname() == sock.getpeername():
        # A free port of our own machine may be given to us as the local end, and TCP then connects
        # the socket to itself: nobody listens there.
        code = errno.ECONNREFUSED
    if code:
        raise OSError(code, os.strerror(code))


def _failure(kind: FailureKind, detail: str) -> TransportFailure:
    return TransportFailure(kind, Verb.CONNECT, detail)
