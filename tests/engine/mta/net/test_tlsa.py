"""Where DANE applies: along a proven way only; what cannot be had is never taken for what is not there."""

import pytest
import trio
from dns.rdatatype import RdataType

from engine.model.egress import MxHost
from engine.model.tls import HostDemand, HostTls, TlsaRecord
from engine.mta.net.dns_message import Answer, AnswerKind
from engine.mta.net.mx import Addresses, Route
from engine.mta.net.tlsa import find_dane
from tests.fakes.answers import FakeAnswers

LEAF = TlsaRecord(3, 1, 1, b"k" * 32)
ANCHOR = TlsaRecord(2, 1, 1, b"a" * 32)
HOST = "mx.a.example"
BASE = f"_25._tcp.{HOST}"
REFUSED = HostDemand(HostTls.REFUSED, why="TLSA records cannot be had: server answered SERVFAIL")


def route(*names: str, secure: bool = True, canonical: str = "", port: int = 25) -> Route:
    hosts = tuple(MxHost(name, ("192.0.2.1",), 10, port) for name in names or (HOST,))
    return Route("site", hosts, 3_600.0, secure=secure, canonical=canonical)


async def demand(dns: FakeAnswers, on: Route, domain: str = "a.example") -> HostDemand | None:
    return (await find_dane(dns, domain, on))[on.hosts[0].name].demand  # type: ignore[arg-type]


async def test_a_proven_record_is_demanded() -> None:
    dns = FakeAnswers()
    dns.tlsa(BASE, LEAF, ttl_seconds=120.0)
    found = await find_dane(dns, "a.example", route())  # type: ignore[arg-type]
    assert found[HOST].demand == HostDemand(HostTls.DANE, (HOST,), (LEAF,))
    assert found[HOST].ttl_seconds == 120.0


async def test_the_port_of_the_host_is_asked_for() -> None:
    dns = FakeAnswers()
    dns.tlsa(f"_2525._tcp.{HOST}", LEAF)
    assert await demand(dns, route(port=2525)) == HostDemand(HostTls.DANE, (HOST,), (LEAF,))


async def test_an_mx_set_that_is_not_proven_asks_nothing() -> None:
    dns = FakeAnswers()
    dns.tlsa(BASE, LEAF)
    assert await find_dane(dns, "a.example", route(secure=False)) == {}  # type: ignore[arg-type]
    assert dns.asked == []


async def test_a_host_whose_addresses_are_not_proven_asks_nothing() -> None:
    dns = FakeAnswers()
    dns.tlsa(BASE, LEAF)
    dns.hosts[HOST] = Addresses(("192.0.2.1",), 60.0)
    assert await demand(dns, route()) is None
    assert dns.asked == []


@pytest.mark.parametrize("trouble", ["server answered SERVFAIL", ""])
async def test_a_host_whose_addresses_cannot_be_had_any_more_is_refused(trouble: str) -> None:
    dns = FakeAnswers()
    dns.tlsa(BASE, LEAF)
    dns.hosts[HOST] = Addresses((), 0.0, trouble)
    why = f"TLSA records cannot be had: {trouble or 'its addresses are gone'}"
    assert await demand(dns, route()) == HostDemand(HostTls.REFUSED, why=why)


async def test_records_that_are_not_proven_are_not_there() -> None:
    dns = FakeAnswers()
    dns.tlsa(BASE, LEAF, secure=False)
    assert await demand(dns, route()) is None


async def test_a_proven_lack_of_records_demands_nothing() -> None:
    assert await demand(FakeAnswers(), route()) is None


async def test_records_that_cannot_be_had_refuse_the_host() -> None:
    dns = FakeAnswers()
    dns.fail(BASE, RdataType.TLSA)
    assert await demand(dns, route()) == REFUSED


async def test_one_host_that_is_refused_leaves_the_others_alone() -> None:
    dns = FakeAnswers()
    dns.fail("_25._tcp.bad.a.example", RdataType.TLSA)
    dns.tlsa("_25._tcp.good.a.example", LEAF)
    found = await find_dane(  # type: ignore[arg-type]
        dns, "a.example", route("bad.a.example", "good.a.example", "plain.a.example")
    )
    assert found["bad.a.example"].demand == REFUSED
    assert found["good.a.example"].demand == HostDemand(HostTls.DANE, ("good.a.example",), (LEAF,))
    assert found["plain.a.example"].demand is None


async def test_records_of_which_none_is_usable_demand_encryption() -> None:
    dns = FakeAnswers()
    dns.tlsa(BASE, TlsaRecord(1, 1, 1, b"k" * 32))
    assert await demand(dns, route()) == HostDemand(HostTls.ENCRYPTED, (HOST,))


async def test_the_end_of_an_alias_is_asked_first_then_the_host() -> None:
    dns = FakeAnswers()
    dns.hosts[HOST] = Addresses(("192.0.2.1",), 60.0, canonical="end.b.example", secure=True)
    dns.tlsa(BASE, LEAF)
    assert await demand(dns, route()) == HostDemand(HostTls.DANE, (HOST,), (LEAF,))
    assert [name for name, _ in dns.asked] == ["_25._tcp.end.b.example", BASE]
    dns.tlsa("_25._tcp.end.b.example", ANCHOR)
    names = ("end.b.example", HOST, "a.example", "c.example")
    assert await demand(dns, route(canonical="c.example")) == HostDemand(HostTls.DANE, names, (ANCHOR,))


async def test_trouble_at_the_end_of_an_alias_is_not_passed_over() -> None:
    dns = FakeAnswers()
    dns.hosts[HOST] = Addresses(("192.0.2.1",), 60.0, canonical="end.b.example", secure=True)
    dns.tlsa(BASE, LEAF)
    dns.fail("_25._tcp.end.b.example", RdataType.TLSA)
    assert await demand(dns, route()) == REFUSED


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        (Answer(AnswerKind.FOUND, 60.0, secure=True), HostDemand(HostTls.DANE, (HOST,), (LEAF,))),
        (Answer(AnswerKind.FOUND, 60.0), None),
        (Answer(AnswerKind.FAILED, 5.0, detail="server answered SERVFAIL"), REFUSED),
    ],
)
async def test_a_proven_alias_into_an_unsigned_zone_keeps_the_records_of_its_own_name(
    alias: Answer, expected: HostDemand | None
) -> None:
    dns = FakeAnswers()
    dns.hosts[HOST] = Addresses(("192.0.2.1",), 60.0, canonical="end.b.example")
    dns.answers[HOST, RdataType.CNAME] = alias
    dns.tlsa(BASE, LEAF)
    dns.tlsa("_25._tcp.end.b.example", ANCHOR)
    assert await demand(dns, route()) == expected


async def test_a_literal_host_has_no_records() -> None:
    dns = FakeAnswers()
    assert await demand(dns, route("192.0.2.1")) is None
    assert dns.asked == []


async def test_a_name_that_is_too_long_for_records_has_none() -> None:
    name = ".".join(["x" * 61] * 4)
    dns = FakeAnswers()
    assert await demand(dns, route(name)) is None
    assert dns.asked == []


async def test_all_hosts_are_asked_side_by_side() -> None:
    dns = FakeAnswers()
    dns.hold = trio.Event()
    hosts = [f"mx{number}.a.example" for number in range(24)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(find_dane, dns, "a.example", route(*hosts))
        await trio.testing.wait_all_tasks_blocked()
        assert len(dns.asked) == 24
        dns.hold.set()
