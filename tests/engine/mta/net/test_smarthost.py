"""The route that the operator wrote."""

import random
import time

import pytest
import trio

from engine.model.egress import MxHost, Relay, RelayTls
from engine.model.reply import FailureKind, TransportFailure
from engine.mta.net.resolver import Resolver, ResolverConfig, Route
from engine.mta.net.smarthost import literal_route, parse_host_port, relay_route
from tests.fakes.dns import FakeDns, silent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:2525", ("127.0.0.1", 2525)),
        (" relay.example:587 ", ("relay.example", 587)),
        ("Relay.Example.", ("relay.example", 25)),
        ("[2001:db8::1]:2525", ("2001:db8::1", 2525)),
        ("[::1]", ("::1", 25)),
        ("::1", ("::1", 25)),
        ("relay:25", ("relay", 25)),
    ],
)
def test_host_and_port_are_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_host_port(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":25", "relay.example:", "[::1]:", "relay.example:0x", "relay.example:0", "relay.example:65536",
     "a b:25", "[relay.example]:25", "[::1", "[::1]25", "127.0.0.1:25:25", "relay.example:²"],
)  # fmt: skip
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_host_port(text)


@pytest.mark.parametrize(
    ("text", "site", "host"),
    [
        ("127.0.0.1:2525", "127.0.0.1:2525", MxHost("127.0.0.1", ("127.0.0.1",), 0, 2525)),
        ("[::1]:2525", "[::1]:2525", MxHost("::1", ("::1",), 0, 2525)),
        ("localhost:2525", "localhost:2525", MxHost("localhost", ("127.0.0.1", "::1"), 0, 2525)),
    ],
)
async def test_a_literal_needs_no_dns(text: str, site: str, host: MxHost) -> None:
    route = await literal_route(text)
    assert isinstance(route, Route)
    assert (route.site, route.hosts) == (site, (host,))


async def test_a_name_is_resolved_by_its_addresses_private_ones_included() -> None:
    fake = FakeDns(
        {"corp.example": "relay 60 IN A 10.0.0.5\nrelay 60 IN MX 1 elsewhere"},
        {("slow.corp.example", "A"): silent},
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.serve)
        config = ResolverConfig(servers=(fake.address,), timeout_seconds=0.4, attempts=1)
        resolver = Resolver(config, time.monotonic, random.Random(1))
        route = await literal_route("relay.corp.example:26", resolver)
        assert isinstance(route, Route)
        assert route.hosts == (MxHost("relay.corp.example", ("10.0.0.5",), 0, 26),)
        missing = await literal_route("no.corp.example", resolver)
        assert isinstance(missing, TransportFailure)
        assert missing.kind is FailureKind.NO_ADDRESS
        slow = await literal_route("slow.corp.example", resolver)
        assert isinstance(slow, TransportFailure)
        assert slow.kind is FailureKind.DNS
        nursery.cancel_scope.cancel()


async def test_a_relay_s_route_has_its_demand() -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(FakeDns({"example": "relay 60 IN A 192.0.2.5\n"}).serve)
        resolver = Resolver(ResolverConfig(servers=(address,)), time.monotonic)
        plain = await relay_route(Relay("smart", "relay.example", 587), resolver)
        strict = await relay_route(Relay("smart", "relay.example", 587, tls=RelayTls.VERIFIED), resolver)
        missing = await relay_route(Relay("smart", "gone.example", 587), resolver)
        nursery.cancel_scope.cancel()
    assert isinstance(plain, Route)
    assert (plain.site, plain.demand) == ("smart@relay.example:587", None)
    assert isinstance(strict, Route)
    assert strict.hosts == plain.hosts
    assert strict.demand is not None
    assert strict.demand.hosts["relay.example"].names == ("relay.example",)
    assert isinstance(missing, TransportFailure)
