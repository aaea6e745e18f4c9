"""The whole way of a demand over real sockets: DNS with its AD bit, a policy host, hostile ones too."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from engine.config.tls import TrustAd
from engine.model.tls import HostTls, PolicyKind, TlsDemand
from engine.mta.net import sts
from engine.mta.net.http import HttpClient
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver, ResolverConfig
from engine.mta.net.sts import StsPolicies
from engine.mta.net.tls import verifying_context
from engine.mta.net.tls_policy import TlsPolicies
from tests.fakes.dns import FakeDns, rcode
from tests.fakes.policy_host import Manner, PolicyHost, responds, says

pytestmark = pytest.mark.slow

TEXT = b"version: STSv1\r\nmode: enforce\r\nmx: mx.a.example\r\nmax_age: 604800\r\n"
ZONES = {
    "a.example": """
@               60 IN MX 10 mx
@               60 IN MX 20 mx2
mx              60 IN A 127.0.0.1
mx2             60 IN A 127.0.0.2
_mta-sts        60 IN TXT "v=STSv1; id=1;"
mta-sts         60 IN A 127.0.0.1
""",
    "signed.example": f"""
@               300 IN MX 10 mx
mx              300 IN A 127.0.0.1
_25._tcp.mx     300 IN TLSA 3 1 1 {"ab" * 32}
""",
    "bogus.example": "@ 300 IN MX 10 mx\nmx 300 IN A 127.0.0.1\n",
}


class Rows(dict[str, bytes]):
    """A store without a disk."""

    async def put(self, domain: str, row: bytes) -> None:
        self[domain] = row

    async def delete(self, domain: str) -> None:
        del self[domain]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@asynccontextmanager
async def finding(
    authority: trustme.CA,
    manner: Manner,
    *,
    name: str = "mta-sts.a.example",
    allow_private: bool = True,
    trust_ad: TrustAd = TrustAd.LOOPBACK,
) -> AsyncIterator[tuple[TlsPolicies, Resolver, PolicyHost]]:
    servfail = rcode(2)
    dns_server = FakeDns(
        ZONES, {("_25._tcp.mx.bogus.example", "TLSA"): servfail}, signed=["signed.example", "bogus.example"]
    )
    host = PolicyHost(authority, name, manner=manner)
    context = verifying_context()
    authority.configure_trust(context)
    async with trio.open_nursery() as nursery:
        await nursery.start(dns_server.serve)
        await nursery.start(host.serve)
        resolver = Resolver(
            ResolverConfig(servers=(dns_server.address,), attempts=1, allow_private=True, trust_ad=trust_ad),
            time.monotonic,
        )
        client = HttpClient(resolver, context, allow_private=allow_private, port=host.port)
        policies = TlsPolicies(resolver, StsPolicies(resolver, client, Rows(), time.time), dane=True)
        await nursery.start(policies.run, lambda *facts: None)
        yield policies, resolver, host
        nursery.cancel_scope.cancel()


async def demanded(policies: TlsPolicies, resolver: Resolver, domain: str) -> TlsDemand | None:
    route = await resolver.mail_hosts(domain)
    assert isinstance(route, Route)
    return (await policies.demand(domain, route)).demand


async def test_an_honest_policy_is_demanded(authority: trustme.CA) -> None:
    async with finding(authority, responds(TEXT)) as (policies, resolver, host):
        for _ in range(2):
            demand = await demanded(policies, resolver, "a.example")
            assert demand is not None
            assert demand.kind is PolicyKind.STS
            tls = {name: each.tls for name, each in demand.hosts.items()}
            assert tls == {"mx.a.example": HostTls.VERIFIED, "mx2.a.example": HostTls.REFUSED}
        assert len(host.requests) == 1
        assert host.requests[0].startswith(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\n")


async def stall(stream: trio.SSLStream[trio.SocketStream]) -> None:
    await trio.sleep_forever()


async def flood(stream: trio.SSLStream[trio.SocketStream]) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nversion: STSv1\n")
    for _ in range(1_000):
        await stream.send_all(b"\n" * 2**20)


@pytest.mark.parametrize(
    "manner",
    [
        responds(TEXT, status="302 Found", more="Location: https://mta-sts.a.example/else\r\n"),
        responds(TEXT, kind="text/html"),
        responds(b"x" * 70_000),
        says(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1073741824\r\n\r\n"),
        flood,
        stall,
    ],
)
async def test_a_hostile_policy_host_demands_nothing_and_costs_its_limits(
    authority: trustme.CA, manner: Manner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sts, "FETCH_SECONDS", 1.0)
    async with finding(authority, manner) as (policies, resolver, host):
        began = time.monotonic()
        assert await demanded(policies, resolver, "a.example") is None
        assert await demanded(policies, resolver, "a.example") is None
        assert host.connections == 1, "left in peace after a failure"
        assert time.monotonic() - began < 4.0


async def test_a_policy_host_with_a_wrong_certificate_demands_nothing(authority: trustme.CA) -> None:
    async with finding(authority, responds(TEXT), name="a.example") as (policies, resolver, host):
        assert await demanded(policies, resolver, "a.example") is None
        assert not host.requests


async def test_a_policy_host_on_a_private_address_is_not_connected_to(authority: trustme.CA) -> None:
    async with finding(authority, responds(TEXT), allow_private=False) as (policies, resolver, host):
        assert await demanded(policies, resolver, "a.example") is None
        assert host.connections == 0


async def test_proven_records_are_demanded_and_unproven_ones_refuse(authority: trustme.CA) -> None:
    async with finding(authority, responds(TEXT)) as (policies, resolver, _):
        demand = await demanded(policies, resolver, "signed.example")
        assert demand is not None
        assert demand.hosts["mx.signed.example"].tls is HostTls.DANE
        demand = await demanded(policies, resolver, "bogus.example")
        assert demand is not None
        assert demand.hosts["mx.bogus.example"].tls is HostTls.REFUSED


async def test_a_server_that_is_not_believed_gives_no_dane(authority: trustme.CA) -> None:
    async with finding(authority, responds(TEXT), trust_ad=TrustAd.NEVER) as (policies, resolver, _):
        assert await demanded(policies, resolver, "signed.example") is None
