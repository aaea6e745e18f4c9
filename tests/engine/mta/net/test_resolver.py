"""From a domain to its hosts, against a scripted DNS server on loopback."""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import dns.message
import dns.rcode
import dns.resolver
import pytest
import trio
from dns.rdatatype import RdataType

from engine.config.tls import TrustAd
from engine.model.egress import MxHost
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.dns_message import AnswerKind
from engine.mta.net.resolver import Resolver, ResolverConfig, ResolverStatistics, Route, system_servers
from tests.fakes.dns import FakeDns, Script, rcode, records, silent

ZONES = {
    "a.example": """
@        300 IN MX 20 mx2
@        300 IN MX 10 mx1
mx1      60  IN A 8.8.0.1
mx1      60  IN AAAA 2a00::1
mx2      600 IN A 8.8.0.2
bare     300 IN A 8.8.0.3
text     300 IN TXT "no mail here"
null     300 IN MX 0 .
inner    300 IN MX 10 priv
priv     300 IN A 10.0.0.1
priv     300 IN AAAA ::1
half     300 IN MX 10 both
both     300 IN A 127.0.0.1
both     300 IN A 8.8.0.4
dead     300 IN MX 10 nothing
literal  300 IN MX 10 192.0.2.1.
local    300 IN MX 10 localhost.
odd      300 IN MX 10 a\\032b\\010c.a.example.
loop1    300 IN CNAME loop2
loop2    300 IN CNAME loop1
alias    30  IN CNAME a.example.
away     30  IN CNAME bare.b.example.
gone     30  IN CNAME nowhere.b.example.
viacname 300 IN MX 10 mxalias
mxalias  50  IN CNAME mx1
us       300 IN MX 10 mx1
us       300 IN MX 20 out.sender.example.
us       300 IN MX 20 mx2
onlyus   300 IN MX 10 out.sender.example.
""",
    "b.example": "bare 300 IN MX 10 mx1.a.example.\nimplicitpriv 300 IN A 192.168.1.1\n",
    "sender.example": "@ 300 IN A 8.8.0.9",
}
MX1 = MxHost("mx1.a.example", ("8.8.0.1", "2a00::1"), 10)
MX2 = MxHost("mx2.a.example", ("8.8.0.2",), 20)


@asynccontextmanager
async def resolving(
    scripts: Mapping[tuple[str, str], Script] | None = None,
    now: Callable[[], float] = time.monotonic,
    deadline_seconds: float = 9.0,
    timeout_seconds: float = 5.0,
    allow_private: bool = False,
    signed: Collection[str] = (),
    trust_ad: TrustAd = TrustAd.LOOPBACK,
) -> AsyncIterator[tuple[Resolver, FakeDns]]:
    fake = FakeDns(ZONES, scripts, signed)
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.serve)
        config = ResolverConfig(
            servers=(fake.address,),
            timeout_seconds=timeout_seconds,
            attempts=1,
            deadline_seconds=deadline_seconds,
            allow_private=allow_private,
            own_names=("Out.Sender.example.", "sender.example"),
            trust_ad=trust_ad,
        )
        yield Resolver(config, now, random.Random(1)), fake
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("domain", "site", "hosts", "implicit"),
    [
        ("a.example", "mx1.a.example+mx2.a.example", (MX1, MX2), False),
        ("A.Example.", "mx1.a.example+mx2.a.example", (MX1, MX2), False),
        ("bare.a.example", "bare.a.example", (MxHost("bare.a.example", ("8.8.0.3",), 0),), True),
        ("alias.a.example", "mx1.a.example+mx2.a.example", (MX1, MX2), False),
        ("away.a.example", "mx1.a.example", (MX1,), False),
        ("half.a.example", "both.a.example", (MxHost("both.a.example", ("8.8.0.4",), 10),), False),
        ("viacname.a.example", "mxalias.a.example", (MxHost("mxalias.a.example", MX1.addresses, 10),), False),
        ("us.a.example", "mx1.a.example", (MX1,), False),
    ],
)
async def test_a_domain_has_a_route(
    domain: str, site: str, hosts: tuple[MxHost, ...], implicit: bool
) -> None:
    async with resolving() as (resolver, _):
        route = await resolver.mail_hosts(domain)
        assert isinstance(route, Route)
        assert (route.site, route.hosts, route.implicit) == (site, hosts, implicit)
        assert 0 < route.ttl_seconds <= 300


@pytest.mark.parametrize(
    ("domain", "kind"),
    [
        ("nowhere.a.example", FailureKind.NO_SUCH_DOMAIN),
        ("no.such.zone", FailureKind.NO_SUCH_DOMAIN),
        ("gone.a.example", FailureKind.NO_SUCH_DOMAIN),
        ("a" * 64 + ".example", FailureKind.NO_SUCH_DOMAIN),
        ("text.a.example", FailureKind.NO_ADDRESS),
        ("dead.a.example", FailureKind.NO_ADDRESS),
        ("null.a.example", FailureKind.NULL_MX),
        ("inner.a.example", FailureKind.MX_REFUSED),
        ("implicitpriv.b.example", FailureKind.MX_REFUSED),
        ("literal.a.example", FailureKind.MX_REFUSED),
        ("local.a.example", FailureKind.MX_REFUSED),
        ("odd.a.example", FailureKind.MX_REFUSED),
        ("onlyus.a.example", FailureKind.MX_REFUSED),
        ("sender.example", FailureKind.MX_REFUSED),  # implicit MX that is ourselves
        ("loop1.a.example", FailureKind.DNS),
    ],
)
async def test_a_domain_without_a_route_says_why(domain: str, kind: FailureKind) -> None:
    async with resolving() as (resolver, _):
        failure = await resolver.mail_hosts(domain)
        assert isinstance(failure, TransportFailure)
        assert (failure.kind, failure.verb) == (kind, Verb.RESOLVE)
        assert failure.detail.isprintable()


async def test_a_null_mx_asks_for_no_address() -> None:
    async with resolving() as (resolver, fake):
        await resolver.mail_hosts("null.a.example")
        assert [(name, rdtype) for name, rdtype, _ in fake.asked] == [("null.a.example", "MX")]


@pytest.mark.parametrize("script", [rcode(dns.rcode.SERVFAIL), rcode(dns.rcode.REFUSED), silent])
async def test_a_failed_mx_question_never_becomes_an_implicit_mx(script: Script) -> None:
    async with resolving({("bare.a.example", "MX"): script}, timeout_seconds=0.1) as (resolver, fake):
        failure = await resolver.mail_hosts("bare.a.example")
        assert isinstance(failure, TransportFailure)
        assert failure.kind is FailureKind.DNS
        assert {rdtype for _, rdtype, _ in fake.asked} == {"MX"}


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ([("mx1.a.example", "A"), ("mx1.a.example", "AAAA")], [MX2]),
        ([("mx1.a.example", "AAAA")], [MxHost("mx1.a.example", ("8.8.0.1",), 10), MX2]),
        ([(f"mx{number}.a.example", rdtype) for number in (1, 2) for rdtype in ("A", "AAAA")], None),
    ],
)
async def test_hosts_whose_addresses_fail_are_left_out(
    broken: list[tuple[str, str]], expected: list[MxHost] | None
) -> None:
    async with resolving(dict.fromkeys(broken, rcode(dns.rcode.SERVFAIL))) as (resolver, _):
        route = await resolver.mail_hosts("a.example")
        if expected is None:
            assert isinstance(route, TransportFailure)
            assert route.kind is FailureKind.DNS
        else:
            assert isinstance(route, Route)
            assert list(route.hosts) == expected
            assert route.site == "mx1.a.example+mx2.a.example"


async def test_private_hosts_are_used_when_allowed() -> None:
    async with resolving(allow_private=True) as (resolver, _):
        route = await resolver.mail_hosts("inner.a.example")
        assert isinstance(route, Route)
        assert route.hosts == (MxHost("priv.a.example", ("10.0.0.1", "::1"), 10),)
        literal = await resolver.mail_hosts("literal.a.example")
        assert isinstance(literal, Route)
        assert literal.hosts == (MxHost("192.0.2.1", ("192.0.2.1",), 10),)


async def test_a_server_that_leaves_aliases_to_us_is_followed() -> None:
    scripts = {
        ("c.example", "MX"): records("c.example. 60 IN CNAME d.example."),
        ("d.example", "MX"): records("d.example. 60 IN CNAME a.example."),
    }
    async with resolving(scripts) as (resolver, _):
        route = await resolver.mail_hosts("c.example")
        assert isinstance(route, Route)
        assert route.hosts == (MX1, MX2)


async def test_endless_aliases_end() -> None:
    def further(query: dns.message.Message, response: dns.message.Message, transport: str) -> Sequence[bytes]:
        name = query.question[0].name.to_text()
        return records(f"{name} 60 IN CNAME n{len(name)}.{name}")(query, response, transport)

    class Everywhere(dict[tuple[str, str], Script]):
        def get(self, key: tuple[str, str], default: object = None) -> Script:  # type: ignore[override]
            return further

    async with resolving() as (resolver, fake):
        fake.scripts = Everywhere()
        failure = await resolver.mail_hosts("c.example")
        assert failure == TransportFailure(FailureKind.DNS, Verb.RESOLVE, "CNAME chain is too long or a loop")
        assert len(fake.asked) == 9


async def test_answers_are_cached_until_they_expire() -> None:
    clock = [100.0]
    async with resolving(now=lambda: clock[0]) as (resolver, fake):
        first = await resolver.mail_hosts("a.example")
        assert len(fake.asked) == 5  # MX, and A and AAAA of two hosts
        clock[0] += 29.0
        assert isinstance(first, Route)
        second = await resolver.mail_hosts("a.example")
        assert isinstance(second, Route)
        assert len(fake.asked) == 5
        assert first.ttl_seconds - second.ttl_seconds == pytest.approx(29.0)
        clock[0] += 40.0  # the records of mx1 live 60 s, the missing AAAA of mx2 30 s
        await resolver.mail_hosts("a.example")
        assert Counter(rdtype for _, rdtype, _ in fake.asked) == {"MX": 1, "A": 3, "AAAA": 4}


async def test_negative_answers_and_failures_are_cached_too() -> None:
    clock = [100.0]
    scripts = {("bad.example", "MX"): rcode(dns.rcode.SERVFAIL)}
    async with resolving(scripts, now=lambda: clock[0]) as (resolver, fake):
        for _ in range(3):
            await resolver.mail_hosts("nowhere.a.example")
            await resolver.mail_hosts("bad.example")
        assert len(fake.asked) == 2
        clock[0] += 6.0
        await resolver.mail_hosts("nowhere.a.example")
        await resolver.mail_hosts("bad.example")
        assert len(fake.asked) == 3
        assert resolver.statistics() == ResolverStatistics(3, 2, 5, 3, 2, 0)


async def test_questions_alike_share_one_look_up() -> None:
    async with resolving() as (resolver, fake):
        fake.delay_seconds = 0.03
        routes: list[Route | TransportFailure] = []

        async def ask() -> None:
            routes.append(await resolver.mail_hosts("a.example"))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert len(fake.asked) == 5
        assert len({route.site for route in routes if isinstance(route, Route)}) == 1
        assert len(routes) == 50


async def test_when_the_asker_is_cancelled_another_one_asks() -> None:
    async with resolving() as (resolver, fake):
        fake.delay_seconds = 0.03
        routes: list[Route | TransportFailure] = []

        async def give_up(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                await resolver.mail_hosts("a.example")

        async def ask() -> None:
            routes.append(await resolver.mail_hosts("a.example"))

        async with trio.open_nursery() as nursery:
            scope: trio.CancelScope = await nursery.start(give_up)
            nursery.start_soon(ask)
            await trio.sleep(0.005)
            scope.cancel()
        assert isinstance(routes[0], Route)
        assert repr(resolver).startswith("<Resolver 0 under way, 6 asked")


async def test_the_whole_look_up_has_a_deadline() -> None:
    async with resolving({("mx1.a.example", "A"): silent}, deadline_seconds=0.1, timeout_seconds=30.0) as (
        resolver,
        _,
    ):
        started = time.monotonic()
        failure = await resolver.mail_hosts("a.example")
        assert isinstance(failure, TransportFailure)
        assert failure.kind is FailureKind.DNS
        assert time.monotonic() - started < 2.0


async def test_a_host_has_its_addresses() -> None:
    async with resolving() as (resolver, _):
        assert (await resolver.host_addresses("mx1.a.example")).addresses == MX1.addresses
        assert (await resolver.host_addresses("priv.a.example")).addresses == ("10.0.0.1", "::1")
        assert (await resolver.host_addresses("nowhere.a.example")).addresses == ()


@pytest.mark.parametrize(
    ("domain", "signed", "secure"),
    [
        ("a.example", ["a.example"], True),
        ("a.example", [], False),
        ("bare.a.example", ["a.example"], True),  # proven: there is no MX
        ("away.a.example", ["a.example", "b.example"], True),
        ("away.a.example", ["a.example"], False),
        ("away.a.example", ["b.example"], False),
    ],
)
async def test_a_route_is_secure_when_its_whole_mx_answer_is(
    domain: str, signed: list[str], secure: bool
) -> None:
    async with resolving(signed=signed) as (resolver, _):
        route = await resolver.mail_hosts(domain)
        assert isinstance(route, Route)
        assert route.secure is secure
        assert route.canonical == ("bare.b.example" if domain == "away.a.example" else "")


@pytest.mark.parametrize("weak", [None, 0, 1, 2])
async def test_a_chain_that_we_follow_is_as_secure_as_its_weakest_link(weak: int | None) -> None:
    scripts = {}
    for link, (name, target) in enumerate([("c.example", "d.example"), ("d.example", "a.example")]):
        script = records(f"{name}. 60 IN CNAME {target}.")
        scripts[name, "MX"] = script if link == weak else vouched(script)
    async with resolving(scripts, signed=[] if weak == 2 else ["a.example"]) as (resolver, _):
        route = await resolver.mail_hosts("c.example")
        assert isinstance(route, Route)
        assert route.secure is (weak is None)
        assert route.canonical == "a.example"


def vouched(script: Script) -> Script:
    """The same with the AD bit."""

    def with_ad(query: dns.message.Message, response: dns.message.Message, transport: str) -> list[bytes]:
        octets = [bytearray(wire) for wire in script(query, response, transport)]
        for wire in octets:
            wire[3] |= 0x20
        return [bytes(wire) for wire in octets]

    return with_ad


async def test_a_host_is_secure_when_all_its_addresses_are() -> None:
    async with resolving(signed=["a.example"]) as (resolver, _):
        assert (await resolver.host_addresses("mx1.a.example")).secure
        aliased = await resolver.host_addresses("mxalias.a.example")
        assert (aliased.secure, aliased.canonical) == (True, "mx1.a.example")
        assert not (await resolver.host_addresses("bare.b.example")).secure
        assert not (await resolver.host_addresses("nowhere.a.example")).secure
    odd = {("mx1.a.example", "AAAA"): records("mx1.a.example. 60 IN AAAA 2a00::1")}
    async with resolving(odd, signed=["a.example"]) as (resolver, _):
        assert not (await resolver.host_addresses("mx1.a.example")).secure


async def test_a_server_that_is_not_believed_makes_nothing_secure() -> None:
    async with resolving(signed=["a.example"], trust_ad=TrustAd.NEVER) as (resolver, _):
        route = await resolver.mail_hosts("a.example")
        assert isinstance(route, Route)
        assert not route.secure


async def test_any_record_can_be_asked_for() -> None:
    async with resolving({("slow.example", "TXT"): silent}, deadline_seconds=0.1) as (resolver, _):
        assert not resolver.knows("text.a.example", RdataType.TXT)
        answer, ttl_seconds = await resolver.ask("Text.A.example.", RdataType.TXT)
        assert (answer.texts, ttl_seconds) == ((b"no mail here",), 300.0)
        assert resolver.knows("text.a.example", RdataType.TXT)
        alias, _ = await resolver.ask("alias.a.example", RdataType.CNAME)
        assert alias.kind is AnswerKind.FOUND
        failed, _ = await resolver.ask("slow.example", RdataType.TXT)
        assert (failed.kind, failed.detail) == (AnswerKind.FAILED, "no answer within 0.1 s")


@pytest.mark.parametrize(
    ("nameservers", "expected"),
    [
        (["192.0.2.1", "2001:db8::1"], (("192.0.2.1", 53), ("2001:db8::1", 53))),
        ([], (("127.0.0.1", 53),)),
        (["https://dns.example/dns-query"], (("127.0.0.1", 53),)),
    ],
)
def test_the_servers_of_the_machine_are_read(
    monkeypatch: pytest.MonkeyPatch, nameservers: list[str], expected: tuple[tuple[str, int], ...]
) -> None:
    class Configured:
        port = 53

    Configured.nameservers = nameservers  # type: ignore[attr-defined]
    monkeypatch.setattr(dns.resolver, "Resolver", Configured)
    assert system_servers() == expected


def test_a_machine_without_servers_asks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def unconfigured() -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "Resolver", unconfigured)
    assert system_servers() == (("127.0.0.1", 53),)
