"""From a connection to a proxy to one through it: the IO around `socks5` and `proxy_v2`.

Decides whose trouble it is: a proxy that is silent, hangs up or refuses before it was asked to connect is
our source's; once it is at work for us, silence and refusals are the receiver's. Reads no octet beyond the
proxy's own answers. Touches the given socket only, and never closes it. Never raises for the network.
"""

import socket

import trio

from engine.model.egress import Proxy, ProxyKind, Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.proto.proxy_v2 import proxy_v2_header
from engine.mta.proto.socks5 import Socks5

ANYWHERE = "192.0.2.1"  # of documentation (RFC 5737): a check asks for no connection


async def through_proxy(
    sock: socket.socket, source: Source, address: str, port: int, timeout_seconds: float
) -> TransportFailure | None:
    """Have the proxy behind `sock` connect to an IP literal and port; None = what follows is the peer's."""
    proxy = source.proxy
    assert proxy is not None
    match proxy.kind:
        case ProxyKind.SOCKS5:
            socks = Socks5(address, port, proxy.user, proxy.password)
            return await _converse(sock, proxy, socks, timeout_seconds)
        case ProxyKind.HAPROXY:
            assert source.address is not None, "a haproxy is told where to send from"
            with trio.move_on_after(timeout_seconds):
                try:
                    await _write(sock, proxy_v2_header(source.address, address, port))
                except OSError as error:
                    return _failure(FailureKind.SOURCE, f"proxy {proxy}: {error.strerror or error}")
                return None
            return _failure(FailureKind.SOURCE, f"proxy {proxy}: no answer in time")


async def check_proxy(sock: socket.socket, proxy: Proxy, timeout_seconds: float) -> TransportFailure | None:
    """Whether the proxy behind `sock` would work for us: it is greeted and asked for nothing.

    A haproxy says nothing before it connects somewhere: that it listens is all that can be known.
    """
    if proxy.kind is ProxyKind.HAPROXY:
        return None
    socks = Socks5(ANYWHERE, 25, proxy.user, proxy.password)
    return await _converse(sock, proxy, socks, timeout_seconds, greet_only=True)


async def _converse(
    sock: socket.socket, proxy: Proxy, socks: Socks5, timeout_seconds: float, *, greet_only: bool = False
) -> TransportFailure | None:
    trouble: TransportFailure | None = None
    with trio.move_on_after(max(0.0, timeout_seconds)) as patience:
        try:
            while socks.wanted and not (greet_only and socks.asked):
                if output := socks.next_output():
                    await _write(sock, output)
                data = await _read(sock, socks.wanted)
                if data is None:
                    return _hung_up(proxy, socks, "it hung up")
                socks.receive_data(data)
        except OSError as error:
            return _hung_up(proxy, socks, error.strerror or str(error))
        trouble = socks.trouble
    if patience.cancelled_caught:
        kind = FailureKind.CONNECT_TIMEOUT if socks.asked else FailureKind.SOURCE
        whose = "no answer through" if socks.asked else "no answer of"
        return _failure(kind, f"{whose} proxy {proxy} in time")
    return trouble


def _hung_up(proxy: Proxy, socks: Socks5, what: str) -> TransportFailure:
    # Some proxies hang up where others would say that the receiver cannot be reached.
    kind = FailureKind.UNREACHABLE if socks.asked else FailureKind.SOURCE
    return _failure(kind, f"proxy {proxy}: {what}")


async def _write(sock: socket.socket, data: bytes) -> None:
    await trio.lowlevel.checkpoint()
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def _read(sock: socket.socket, count: int) -> bytes | None:
    """Exactly `count` octets; None when the other side closed before."""
    found = b""
    while len(found) < count:
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(count - len(found))
        except BlockingIOError:
            continue
        if not data:
            return None
        found += data
    return found


def _failure(kind: FailureKind, detail: str) -> TransportFailure:
    return TransportFailure(kind, Verb.CONNECT, detail)
