"""Question and response over the wire: UDP first, TCP when the response was cut.

`DnsExchange.ask` takes one question to the configured recursive servers in order and returns an
`Answer`. Decides which server is asked next and when to give up. Touches: one fresh UDP socket per
question (a fresh source port and id against forgery, RFC 5452; connected, so that the kernel drops
what others send) and a TCP connection when needed. Which servers' AD bit is believed (RFC 6840 5.8: only
over a path that nobody can write on) is decided here, too. A server that stays silent again and again is
asked last for a while. Whatever a server does costs at most the time limit and is a FAILED answer.
"""

import ipaddress
import random
import socket
from collections.abc import Callable, Sequence

import dns.message
import trio
from msgspec import Struct
from msgspec.structs import replace

from engine.config.tls import TrustAd
from engine.mta.net.addresses import family_version
from engine.mta.net.dns_message import (
    Answer,
    AnswerKind,
    EdnsRefused,
    Question,
    Truncated,
    build_query,
    failed,
    read_response,
)

DATAGRAM_OCTETS_MAX = 4_096  # well above the EDNS payload we announce
TCP_RESPONSE_OCTETS_MAX = 16_384  # some 400 records; DNS allows 65,535, which costs 20 ms to parse
STRAY_DATAGRAMS_MAX = 32  # wrong ids taken on one port before it is given up: somebody is guessing
SILENCES_UNTIL_REST = 3  # in a row; fewer may be one slow zone's fault
REST_SECONDS = 30.0  # a silent server is asked last for this long

Server = tuple[str, int]  # IP literal, port


class ExchangeLimits(Struct, frozen=True):
    """Time for one server to answer, and how often the whole list is gone through."""

    timeout_seconds: float = 3.0  # resolv.conf(5) has 5; a recursive server answers or never will
    attempts: int = 2


class _Health(Struct):
    """How a server did lately."""

    silences: int = 0
    rests_until: float = 0.0


class DnsExchange:
    """The way to the recursive servers. `servers` are (IP literal, port), best first."""

    def __init__(
        self,
        servers: Sequence[Server],
        limits: ExchangeLimits,
        now: Callable[[], float],
        rng: random.Random,
        trust_ad: TrustAd = TrustAd.LOOPBACK,
    ) -> None:
        assert servers, "a resolver needs at least one server"
        self._servers = tuple(servers)
        self._limits = limits
        self._now = now
        self._rng = rng
        self._health = {server: _Health() for server in self._servers}
        self._believed = {server for server in self._servers if _is_believed(server[0], trust_ad)}
        self.questions = 0

    async def ask(self, question: Question) -> Answer:
        """Ask until one server gives an answer that is not a failure. Never raises for the network."""
        answer = failed("no DNS server was asked")
        for _ in range(self._limits.attempts):
            for server in self._in_order():
                answer = await self._ask_server(server, question)
                if answer.kind is not AnswerKind.FAILED:
                    return answer
        return answer

    def _in_order(self) -> list[Server]:
        now = self._now()
        return sorted(self._servers, key=lambda server: self._health[server].rests_until > now)

    async def _ask_server(self, server: Server, question: Question) -> Answer:
        self.questions += 1
        health = self._health[server]
        with trio.move_on_after(self._limits.timeout_seconds):
            answer = await self._converse(server, question)
            health.silences = 0
            health.rests_until = 0.0
            if answer.secure and server not in self._believed:
                return replace(answer, secure=False)
            return answer
        health.silences += 1
        if health.silences >= SILENCES_UNTIL_REST:
            health.rests_until = self._now() + REST_SECONDS
        return failed(f"DNS server {server[0]} did not answer in {self._limits.timeout_seconds:g} s")

    async def _converse(self, server: Server, question: Question) -> Answer:
        for edns in (True, False):
            query = build_query(question, self._rng.getrandbits(16), edns=edns)
            if query is None:
                return failed("not a domain name")
            try:
                response = await _over_udp(server, query)
                if isinstance(response, Truncated):
                    response = await _over_tcp(server, query)
            except OSError as error:
                return failed(f"DNS server {server[0]}: {error.strerror or error}")
            if not isinstance(response, EdnsRefused):
                return response
        raise AssertionError("a query without EDNS cannot be refused for it")


async def _over_udp(server: Server, query: dns.message.Message) -> Answer | Truncated | EdnsRefused:
    with trio.socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        await sock.connect(server)
        await sock.send(query.to_wire())
        for _ in range(STRAY_DATAGRAMS_MAX):
            response = read_response(query, await sock.recv(DATAGRAM_OCTETS_MAX))
            if response is not None:
                return response
    return failed(f"DNS server {server[0]} sends answers to other questions")


async def _over_tcp(server: Server, query: dns.message.Message) -> Answer | EdnsRefused:
    with trio.socket.socket(_family(server), socket.SOCK_STREAM) as sock:
        await sock.connect(server)
        stream = trio.SocketStream(sock)
        wire = query.to_wire()
        try:
            await stream.send_all(len(wire).to_bytes(2, "big") + wire)
            length = int.from_bytes(await _exactly(stream, 2), "big")
            if length > TCP_RESPONSE_OCTETS_MAX:
                return failed(f"answer of {length:,} octets is too large")
            response = read_response(query, await _exactly(stream, length))
        except trio.BrokenResourceError:
            return failed(f"DNS server {server[0]} closed the connection")
    if response is None or isinstance(response, Truncated):
        return failed(f"DNS server {server[0]} sent an unreadable answer over TCP")
    return response


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        part = await stream.receive_some(count - len(received))
        if not part:
            raise trio.BrokenResourceError
        received += part
    return bytes(received)


def _is_believed(host: str, trust_ad: TrustAd) -> bool:
    if trust_ad is TrustAd.LOOPBACK:
        return ipaddress.ip_address(host).is_loopback
    return trust_ad is TrustAd.ALWAYS


def _family(server: Server) -> socket.AddressFamily:
    return socket.AF_INET6 if family_version(server[0]) == 6 else socket.AF_INET
