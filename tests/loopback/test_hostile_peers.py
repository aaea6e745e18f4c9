"""Receivers that mean harm, all at once, against a whole engine: each costs a connection its time limit.

Each has a domain of its own (`fakes.hostile_peers`); a good receiver gets its mail meanwhile. What a
hostile one was to get is deferred, bounced or ambiguous, with a plain reason that a terminal may show, and
the engine's memory does not grow.
"""

import os
from collections import defaultdict
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from bench.world.process import world_process
from engine.app import open_engine
from engine.config.shaping import ShapingRule, TlsPolicy
from engine.config.units import Duration
from engine.model.event import AttemptEvent
from tests.fakes.engine_house import CAMPAIGN, EventReader, engine_config, letter, submit, until
from tests.fakes.hostile_peers import PEERS, hostile_peers
from tests.fakes.kill_nine import calm_world
from tests.fakes.moody_dns import At, Mood, moody_dns

pytestmark = pytest.mark.slow

EACH = 3
GOOD = 1_500
REPLY_SECONDS = 1.0
MEMORY_OCTETS = 24 * 1024 * 1024
CONNECTIONS_EACH = 6  # one or two, and a second try of each after its time limit
WORST_SECONDS = 12.0  # three verbs' time limits, and a second attempt without TLS
LIMITS = ShapingRule(
    connect_timeout=Duration(1),
    reply_timeout=Duration(REPLY_SECONDS),
    final_timeout=Duration(REPLY_SECONDS),
    idle_timeout=Duration(1),
    retry_first=Duration(60),
    retry_max=Duration(60),
)
IN_TLS = (
    "injected-behind-starttls",
    "garbage-for-a-handshake",
    "silent-in-the-handshake",
    "without-a-certificate",
)
REASONS = {
    "endless-banner": "protocol at banner: a reply has more than 100 lines",
    "long-line": "protocol at banner: a reply is longer than 16384 octets",
    "silent": "timeout at banner",
    "dribbled-banner": "timeout at banner",
    "dribbled-lines": "timeout at ehlo",
    "dribbled-reply": "timeout at rcpt",
    "dribbled-final-reply": "timeout at content",
    "injected-behind-starttls": "protocol at starttls: octets behind the answer",
    "garbage-for-a-handshake": "tls at tls",
    "silent-in-the-handshake": "timeout at tls",
    "without-a-certificate": "at tls",
    "long-ehlo": "a reply is longer than",
    "endless-ehlo": "a reply has more than",
    "control-octets": "550 5.1.1",
    "no-reply-at-all": "protocol at mail",
    "half-closed": "closed at mail",
    "deaf-after-the-content": "timeout at content",
    "closes-at-connect": "closed at banner",
    "closes-at-ehlo": "closed at ehlo",
    "closes-at-mail": "closed at mail",
    "closes-at-rcpt": "closed at rcpt",
    "closes-at-data": "closed at data",
    "closes-at-dot": "closed at content",
}


def resident_octets() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_hostile_peers_cost_their_time_limit_and_nothing_else(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with (
        world_process(calm_world(), record=record) as world,
        moody_dns(world.resolver, ttl_seconds=60) as resolver,
        hostile_peers(world.smtp_port) as met,
    ):
        resolver.overlay = met.addresses
        strict = [ShapingRule(domain=f"{name}.hostile.test", tls=TlsPolicy.REQUIRED) for name in IN_TLS]
        config = engine_config(tmp_path, At(world.smtp_port, resolver.resolver), site=(LIMITS, *strict))
        async with open_engine(config) as engine:
            reader = EventReader(engine.parts.bus.subscribe("events.node", "test"))
            hostile = [f"reader{number}@{domain}" for domain in met.addresses for number in range(EACH)]
            good = [person.email for person in world.addresses(GOOD)]
            before = resident_octets()
            await submit(engine, letter(), [*hostile, *good])
            begun = trio.current_time()
            await until(lambda: engine.counts(CAMPAIGN).delivered >= GOOD)
            good_seconds = trio.current_time() - begun
            told: dict[str, list[AttemptEvent]] = defaultdict(list)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.follow)
                with trio.move_on_after(WORST_SECONDS):
                    while len(told) < len(PEERS):
                        await trio.sleep(0.2)
                        told.clear()
                        for event in reader.events:
                            if isinstance(event, AttemptEvent) and event.domain.endswith("hostile.test"):
                                told[event.domain.partition(".")[0]].append(event)
                nursery.cancel_scope.cancel()
            grown = resident_octets() - before
            crashes = {child.name: child.crashes for child in engine.tree.statistics().children}
            counts = engine.counts(CAMPAIGN)
            engine.hurry()
    print(f"\ngood mail took {good_seconds:.1f} s, memory grew by {grown >> 10} KB, {counts}")
    for name, events in told.items():
        print(f"{name}: {sorted({f'{type(event).__name__}: {event.reply}' for event in events})}")
    assert told.keys() == PEERS.keys(), PEERS.keys() - told.keys()
    for name, reason in REASONS.items():
        assert any(reason in event.reply for event in told[name]), (
            name,
            [event.reply for event in told[name]],
        )
    assert all(event.reply.isprintable() for events in told.values() for event in events)
    assert counts.quarantined == 0
    assert counts.delivered == GOOD + _believed(told)
    assert grown < MEMORY_OCTETS
    assert max(met.connections.values()) <= CONNECTIONS_EACH, met.connections
    assert set(crashes.values()) == {0}, crashes


def _believed(told: dict[str, list[AttemptEvent]]) -> int:
    """Those hostile ones that said yes to a message are believed: nobody can know better."""
    return sum(type(event).__name__ == "Delivered" for events in told.values() for event in events)


async def test_a_domain_that_points_at_our_own_machine_gets_no_connection(tmp_path: Path) -> None:
    async with (
        world_process(calm_world(), record=tmp_path / "record") as world,
        moody_dns(world.resolver) as resolver,
        hostile_peers(world.smtp_port) as met,
    ):
        resolver.overlay = {"private.test": met.addresses["silent.hostile.test"]}
        config = engine_config(tmp_path, At(world.smtp_port, resolver.resolver))
        config = replace(config, resolver=replace(config.resolver, allow_private=False))
        async with open_engine(config) as engine:
            reader = EventReader(engine.parts.bus.subscribe("events.node", "test"))
            resolver.mood = Mood.LOOPBACK
            await submit(engine, letter(), ["ann@private.test", "bo@localhost.test"])
            await until(lambda: engine.counts(CAMPAIGN).bounced == 2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.follow)
                await until(lambda: len(reader.events) == 2)
                nursery.cancel_scope.cancel()
    assert not met.connections
    assert {event.domain: event.reply for event in reader.events} == {
        "private.test": "mx_refused at resolve: MX has a private or reserved address",
        "localhost.test": "mx_refused at resolve: MX is localhost",
    }
