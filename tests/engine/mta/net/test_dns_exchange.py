"""The way to the servers: real UDP and TCP on loopback, short time limits."""

import random
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import dns.message
import dns.rcode
import pytest
import trio
from dns.rdatatype import RdataType
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.tls import TrustAd
from engine.mta.net import dns_exchange
from engine.mta.net.dns_exchange import DnsExchange, ExchangeLimits, Server
from engine.mta.net.dns_message import Answer, AnswerKind, Question
from engine.mta.net.mx import Exchange
from tests.fakes.dns import FakeDns, Script, cut, rcode, silent

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

MX = Question("a.example", RdataType.MX)
FOUND = Answer(AnswerKind.FOUND, 300, exchanges=(Exchange(10, "mx.a.example"),))
LIMITS = ExchangeLimits(timeout_seconds=5.0, attempts=1)  # roomy: honest servers, busy machines
IMPATIENT = ExchangeLimits(timeout_seconds=0.2, attempts=1)  # where silence is the point
KEY = ("a.example", "MX")


def make_exchange(*servers: Server, limits: ExchangeLimits = LIMITS) -> DnsExchange:
    return DnsExchange(servers, limits, time.monotonic, random.Random(1))


@asynccontextmanager
async def serving(*scripts: Script | None) -> AsyncIterator[list[FakeDns]]:
    """One server per script (None = honest), each with the zone a.example."""
    fakes = [
        FakeDns({"a.example": "@ 300 IN MX 10 mx"}, {KEY: script} if script else None) for script in scripts
    ]
    async with trio.open_nursery() as nursery:
        for fake in fakes:
            await nursery.start(fake.serve)
        yield fakes
        nursery.cancel_scope.cancel()


async def test_a_question_is_answered_over_udp() -> None:
    async with serving(None) as (fake,):
        assert await make_exchange(fake.address).ask(MX) == FOUND
        assert fake.asked == [(*KEY, "udp")]


async def test_a_cut_response_is_fetched_over_tcp() -> None:
    async with serving(cut) as (fake,):
        assert await make_exchange(fake.address).ask(MX) == FOUND
        assert fake.asked == [(*KEY, "udp"), (*KEY, "tcp")]


async def test_a_silent_server_costs_its_time_and_the_next_one_is_asked() -> None:
    async with serving(silent, None) as fakes:
        started = time.monotonic()
        assert await make_exchange(*(fake.address for fake in fakes), limits=IMPATIENT).ask(MX) == FOUND
        assert 0.2 <= time.monotonic() - started < 2.0


async def test_a_server_that_is_always_silent_is_asked_last() -> None:
    async with serving(silent, None) as (dead, alive):
        exchange = make_exchange(dead.address, alive.address, limits=IMPATIENT)
        for _ in range(dns_exchange.SILENCES_UNTIL_REST + 3):
            assert await exchange.ask(MX) == FOUND
        assert len(dead.asked) == dns_exchange.SILENCES_UNTIL_REST


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
async def test_a_server_that_cannot_tell_is_followed_by_the_next(code: dns.rcode.Rcode) -> None:
    async with serving(rcode(code), None) as fakes:
        assert await make_exchange(*(fake.address for fake in fakes)).ask(MX) == FOUND


async def test_nxdomain_is_an_answer_and_no_other_server_is_asked() -> None:
    async with serving(rcode(dns.rcode.NXDOMAIN), None) as (first, second):
        answer = await make_exchange(first.address, second.address).ask(MX)
        assert answer.kind is AnswerKind.NXDOMAIN
        assert second.asked == []


async def test_a_server_without_edns_is_asked_without() -> None:
    def old(query: dns.message.Message, response: dns.message.Message, transport: str) -> Sequence[bytes]:
        if query.edns >= 0:
            response.answer.clear()
            response.set_rcode(dns.rcode.FORMERR)
        return [response.to_wire()]

    async with serving(old) as (fake,):
        assert await make_exchange(fake.address).ask(MX) == FOUND


async def test_nobody_listening_is_a_failure_at_once() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
    answer = await make_exchange(address, limits=ExchangeLimits(30.0, 2)).ask(MX)
    assert answer.kind is AnswerKind.FAILED
    assert "refused" in answer.detail


def forged(query: dns.message.Message, response: dns.message.Message, transport: str) -> Sequence[bytes]:
    """Wrong ids, garbage and an empty datagram ahead of the real response."""
    wire = response.to_wire()
    wrong = bytes([wire[0] ^ 0xFF]) + wire[1:]
    return [wrong, b"", b"garbage", wire[:11], wrong, wire]


async def test_forged_datagrams_ahead_of_the_response_are_skipped() -> None:
    async with serving(forged) as (fake,):
        assert await make_exchange(fake.address).ask(MX) == FOUND


async def test_a_flood_of_wrong_ids_ends_the_attempt() -> None:
    def flood(query: dns.message.Message, response: dns.message.Message, transport: str) -> Sequence[bytes]:
        wire = response.to_wire()
        return [bytes([wire[0] ^ 1]) + wire[1:]] * (dns_exchange.STRAY_DATAGRAMS_MAX + 1) + [wire]

    async with serving(flood) as (fake,):
        answer = await make_exchange(fake.address, limits=ExchangeLimits(5.0, 1)).ask(MX)
        assert answer.detail.endswith("sends answers to other questions")


class HalfServer(FakeDns):
    """Cuts every response over UDP and sends the given octets over TCP."""

    def __init__(self, octets: bytes, linger: bool) -> None:
        super().__init__({"a.example": "@ 300 IN MX 10 mx"}, {KEY: cut})
        self._octets = octets
        self._linger = linger

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(self._octets)
        if self._linger:
            await trio.sleep_forever()


@pytest.mark.parametrize(
    ("octets", "linger", "detail"),
    [
        (b"", False, "closed the connection"),
        (b"\x00", False, "closed the connection"),
        (b"\x00\x20half", False, "closed the connection"),
        (b"\xff\xff" + b"x" * 100, True, "too large"),
        (b"\x00\x04junk", True, "unreadable answer"),
        (b"\x00\x00", True, "unreadable answer"),
        (b"\x10\x00slow", True, "did not answer"),
    ],
)
async def test_a_broken_tcp_server_is_a_failure(octets: bytes, linger: bool, detail: str) -> None:
    async with trio.open_nursery() as nursery:
        address: Server = await nursery.start(HalfServer(octets, linger).serve)
        answer = await make_exchange(address, limits=IMPATIENT).ask(MX)
        assert answer.kind is AnswerKind.FAILED
        assert detail in answer.detail
        nursery.cancel_scope.cancel()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.binary(max_size=600), min_size=1, max_size=4))
def test_whatever_datagrams_come_back_the_outcome_is_a_failure_in_time(noise: list[bytes]) -> None:
    async def main() -> None:
        async with serving(lambda query, response, transport: noise) as (fake,):
            answer = await make_exchange(fake.address, limits=ExchangeLimits(0.02, 1)).ask(MX)
            assert answer.kind is AnswerKind.FAILED

    trio.run(main)


@pytest.mark.parametrize(
    ("host", "trust_ad", "believed"),
    [
        ("127.0.0.53", TrustAd.LOOPBACK, True),
        ("::1", TrustAd.LOOPBACK, True),
        ("192.0.2.1", TrustAd.LOOPBACK, False),
        ("192.0.2.1", TrustAd.ALWAYS, True),
        ("127.0.0.1", TrustAd.NEVER, False),
    ],
)
async def test_only_a_server_that_is_believed_makes_an_answer_secure(
    host: str, trust_ad: TrustAd, believed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def over_udp(server: object, query: object) -> Answer:
        return Answer(AnswerKind.NODATA, 30.0, secure=True)

    monkeypatch.setattr(dns_exchange, "_over_udp", over_udp)
    limits = ExchangeLimits()
    exchange = DnsExchange([(host, 53)], limits, lambda: 0.0, random.Random(1), trust_ad)
    answer = await exchange.ask(Question("a.example", RdataType.MX))
    assert answer.secure is believed
