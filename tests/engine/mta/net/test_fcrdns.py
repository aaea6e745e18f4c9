"""Our names and addresses in DNS: each way in which they do not prove each other has its cure."""

import time

import pytest
import trio

from engine.model.egress import Source
from engine.mta.net.fcrdns import check_names
from engine.mta.net.resolver import Resolver, ResolverConfig
from tests.fakes.dns import FakeDns

ADDRESS = "11.22.33.44"
ADDRESS_6 = "2600::25"
GOOD = "out 60 IN A 11.22.33.44\nout 60 IN AAAA 2600::25\n"
REVERSE_6 = "5.2" + ".0" * 26 + ".0.0.6.2.ip6.arpa"


async def findings(zones: dict[str, str], source: Source, seconds: float = 5.0) -> tuple[str, ...] | None:
    async with trio.open_nursery() as nursery:
        server = FakeDns(zones)
        address = await nursery.start(server.serve)
        resolver = Resolver(ResolverConfig(servers=(address,)), time.monotonic)
        found = await check_names(resolver, (source,), seconds)
        nursery.cancel_scope.cancel()
    return found.get(source.name)


def reverse(name: str) -> dict[str, str]:
    return {"11.in-addr.arpa": f"44.33.22 60 IN PTR {name}.\n"}


@pytest.mark.parametrize(
    ("zones", "words"),
    [
        (reverse("out.test") | {"test": GOOD}, []),
        (reverse("OUT.test") | {"test": GOOD}, []),
        ({"11.in-addr.arpa": "", "test": GOOD}, ["has no PTR record"]),
        ({"11.in-addr.arpa": "", "test": ""}, ["has no PTR record", "add an A record"]),
        (reverse("other.test") | {"test": GOOD}, ["other.test, which does not lead back"]),
        (
            reverse("other.test") | {"test": GOOD + "other 60 IN A 11.22.33.44\n"},
            ["is not the name in the PTR record"],
        ),
        (
            reverse("other.test") | {"test": "other 60 IN A 11.22.33.44\n"},
            ["EHLO name out.test does not lead to"],
        ),
    ],
)
async def test_each_fault_has_its_cure(zones: dict[str, str], words: list[str]) -> None:
    found = await findings(zones, Source("out", "Out.test", ADDRESS))
    assert found is not None
    assert len(found) == len(words)
    for text, word in zip(found, words, strict=True):
        assert word in text


async def test_an_ipv6_source_is_checked_too() -> None:
    zones = {"6.2.ip6.arpa": f"{REVERSE_6.removesuffix('.6.2.ip6.arpa')} 60 IN PTR out.test.\n", "test": GOOD}
    assert await findings(zones, Source("out", "out.test", ADDRESS_6)) == ()


async def test_private_and_unknown_addresses_are_not_asked_about() -> None:
    for address in (None, "10.0.0.1", "127.0.0.1"):
        assert await findings({"test": ""}, Source("out", "out.test", address)) is None


async def test_what_dns_does_not_tell_in_time_is_a_finding() -> None:
    class Silent(FakeDns):
        def respond(self, wire: bytes, transport: str) -> list[bytes]:
            return []

    async with trio.open_nursery() as nursery:
        address = await nursery.start(Silent({"test": ""}).serve)
        resolver = Resolver(ResolverConfig(servers=(address,)), time.monotonic)
        found = await check_names(resolver, (Source("out", "out.test", ADDRESS),), 0.1)
        nursery.cancel_scope.cancel()
    assert "did not answer within 0.1 s" in found["out"][0]
