"""A resolver between the engine and a world's name server, whose mood a test changes while mail flows.

It passes questions on, shortens the TTL of answers, or fails in one of the ways that resolvers fail:
silent, SERVFAIL, denying that anything exists, or sending everybody to this machine. UDP only.
"""

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

import dns.message
import dns.rcode
import dns.rrset
import trio
from msgspec import Struct

DATAGRAM_OCTETS = 4_096
UPSTREAM_SECONDS = 5.0


class Mood(Enum):
    HONEST = "honest"
    SILENT = "silent"
    SERVFAIL = "servfail"
    DENIES = "denies everything"
    LOOPBACK = "everything is at 127.0.0.1"


class At(Struct, frozen=True):
    """Where an engine finds receivers and DNS, as `engine_config` asks a world for it."""

    smtp_port: int
    resolver: tuple[str, int]


class MoodyDns:
    """`resolver` is its address, as a world has one; `mood` holds from the next question on."""

    def __init__(self, upstream: tuple[str, int], *, ttl_seconds: int) -> None:
        self.mood = Mood.HONEST
        self.overlay: dict[str, str] = {}  # domain -> the address of its one MX host, which upstream has not
        self.asked: Counter[Mood] = Counter()
        self._upstream = upstream
        self._ttl_seconds = ttl_seconds
        self._socket = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.resolver: tuple[str, int] = ("127.0.0.1", 0)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._socket.bind(("127.0.0.1", 0))
        self.resolver = self._socket.getsockname()
        with self._socket:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    query, peer = await self._socket.recvfrom(DATAGRAM_OCTETS)
                    self.asked[self.mood] += 1
                    nursery.start_soon(self._answer, query, peer)

    async def _answer(self, query: bytes, peer: tuple[str, int]) -> None:
        if self.mood is Mood.SILENT:
            return
        question = dns.message.from_wire(query)
        answer = dns.message.make_response(question)
        name = question.question[0].name.to_text().removesuffix(".").removeprefix("mx.")
        if name in self.overlay:
            self._point(answer, f"mx.{name}.", self.overlay[name])
        elif self.mood is Mood.HONEST:
            with trio.move_on_after(UPSTREAM_SECONDS), trio.socket.socket(type=socket.SOCK_DGRAM) as asking:
                await asking.sendto(query, self._upstream)
                answer = dns.message.from_wire(await asking.recv(DATAGRAM_OCTETS))
            for each in (*answer.answer, *answer.authority, *answer.additional):
                each.ttl = min(each.ttl, self._ttl_seconds)
        elif self.mood is Mood.SERVFAIL:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif self.mood is Mood.DENIES:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            self._point(answer, "localhost.", "127.0.0.1")
        await self._socket.sendto(answer.to_wire(), peer)

    def _point(self, answer: dns.message.Message, host: str, address: str) -> None:
        """One MX and its one address, whichever was asked for."""
        (asked,) = answer.question
        texts = {"MX": f"10 {host}", "A": address}
        if text := texts.get(dns.rdatatype.to_text(asked.rdtype)):
            found = dns.rrset.from_text(asked.name, self._ttl_seconds, "IN", asked.rdtype, text)
            answer.answer.append(found)


@asynccontextmanager
async def moody_dns(upstream: tuple[str, int], *, ttl_seconds: int = 1) -> AsyncIterator[MoodyDns]:
    server = MoodyDns(upstream, ttl_seconds=ttl_seconds)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        yield server
        nursery.cancel_scope.cancel()
