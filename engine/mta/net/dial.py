"""Open a TCP connection from a chosen source to one address of a host, through its proxy if it has one.

`dial` binds, connects and returns a non-blocking standard socket with TCP_NODELAY, or a `TransportFailure`
that says whose trouble it is: the peer's or the network's (the site's matter), our source's (its address
or proxy is gone: the source is suspended), or this machine's for a moment (no port, descriptor or buffer
left: nobody is to blame). `probe` finds out whether a source could be used at all. Touches: one socket,
closed on every path but success, cancellation included. Never raises for the network.
"""

import errno
import os
import socket

import trio

from engine.model.egress import Proxy, Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.addresses import family_version
from engine.mta.net.proxy_dial import check_proxy, through_proxy

# Linux: choose the local port at connect, by the whole address pair. Without it a source address
# serves 28,000 connections in all instead of as many to each peer. Python names it from 3.12 on.
_IP_BIND_ADDRESS_NO_PORT = 24

# We are out of descriptors or memory: a moment's trouble, and neither the peer's nor the source's.
_EXHAUSTED = {
    errno.EMFILE: FailureKind.LOCAL,
    errno.ENFILE: FailureKind.LOCAL,
    errno.ENOBUFS: FailureKind.LOCAL,
    errno.ENOMEM: FailureKind.LOCAL,
}
_KINDS = _EXHAUSTED | {
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
    # At connect, where the address is bound already: every port to this peer is taken.
    errno.EADDRNOTAVAIL: FailureKind.LOCAL,
    errno.EADDRINUSE: FailureKind.LOCAL,
}


async def dial(
    source: Source, address: str, port: int, timeout_seconds: float
) -> socket.socket | TransportFailure:
    """Connect from `source` to an IP literal and port, all of it within `timeout_seconds`.

    `source.address` None = the system's choice; a source with a proxy binds nothing.
    """
    version = family_version(address)
    if version is None:
        return _failure(FailureKind.UNREACHABLE, "not an IP address")
    if source.address is not None and family_version(source.address) != version:
        # The receiver's choice of family, not a loss of ours: the source goes on with others.
        return _failure(FailureKind.UNREACHABLE, f"source {source.name} has no IPv{version} address")
    proxy = source.proxy
    if proxy is None:
        return await _open(source, address, port, timeout_seconds)
    deadline = trio.current_time() + timeout_seconds
    sock = await _reach(proxy, timeout_seconds)
    if isinstance(sock, TransportFailure):
        return sock
    trouble: TransportFailure | None = _failure(FailureKind.STOPPED, "cancelled")
    try:
        trouble = await through_proxy(sock, source, address, port, deadline - trio.current_time())
    finally:
        if trouble is not None:
            sock.close()
    return sock if trouble is None else trouble


async def probe(source: Source, timeout_seconds: float) -> TransportFailure | None:
    """Why a source cannot be used now: its address is not ours, its proxy does not answer. None = it can."""
    if source.proxy is None:
        return address_trouble(source)
    deadline = trio.current_time() + timeout_seconds
    sock = await _reach(source.proxy, timeout_seconds)
    if isinstance(sock, TransportFailure):
        return sock
    with sock:
        return await check_proxy(sock, source.proxy, deadline - trio.current_time())


def address_trouble(source: Source) -> TransportFailure | None:
    """Why the address of a source without a proxy cannot be bound; None = it can."""
    if source.address is None or source.proxy is not None:
        return None
    family = socket.AF_INET6 if family_version(source.address) == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            return _bind(sock, source)
    except OSError as error:
        return _failure(_EXHAUSTED.get(error.errno or 0, FailureKind.SOURCE), error.strerror or str(error))


async def _reach(proxy: Proxy, timeout_seconds: float) -> socket.socket | TransportFailure:
    """A connection to the proxy itself; all trouble but this machine's own is the proxy's."""
    reached = await _open(Source("", ""), proxy.host, proxy.port, timeout_seconds)
    if isinstance(reached, TransportFailure) and reached.kind is not FailureKind.LOCAL:
        return _failure(FailureKind.SOURCE, f"proxy {proxy}: {reached.detail}")
    return reached


async def _open(
    source: Source, address: str, port: int, timeout_seconds: float
) -> socket.socket | TransportFailure:
    sock: socket.socket | None = None
    connected = False
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
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
        kind = _KINDS.get(error.errno or 0, FailureKind.UNREACHABLE)
        if error.errno == errno.EADDRNOTAVAIL and source.address is None and not _has_family(address):
            kind = FailureKind.UNREACHABLE
        text = error.strerror or str(error)
        if error.errno == errno.EADDRNOTAVAIL and kind is FailureKind.LOCAL:
            text = "every local port to this receiver is in use"
        return _failure(kind, text)
    finally:
        if sock is not None and not connected:
            sock.close()


def _has_family(address: str) -> bool:
    """Whether this machine has any address to reach `address` from.

    A machine without IPv6 says of a connect what it says when all ports are taken. A datagram socket needs
    an address as well, sends nothing, and has ports of its own.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return sock.connect_ex((address, 9)) != errno.EADDRNOTAVAIL
    except OSError:
        return True


def _bind(sock: socket.socket, source: Source) -> TransportFailure | None:
    if os.uname().sysname == "Linux":
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        sock.bind((source.address, 0))
    except OSError as error:
        # Ports run out here only where they are chosen at bind, that is elsewhere than on Linux.
        ours = error.errno == errno.EADDRINUSE
        kind = FailureKind.LOCAL if ours else _EXHAUSTED.get(error.errno or 0, FailureKind.SOURCE)
        return _failure(kind, f"source {source.name}: {source.address}: {error.strerror or error}")
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
