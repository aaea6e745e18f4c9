"""A whole engine whose receivers demand TLS: mail goes, waits or comes back, and counts are kept."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio
from msgspec.structs import replace

from bench.world import receiver
from bench.world.manners import Manners, Starttls
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from bench.world.world import open_world
from engine.app import EngineError, make_tls_contexts, open_engine
from engine.bus.local import LocalBus
from engine.config.tls import TlsTable
from engine.model.event import Bounced, Deferred, Delivered
from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsaRecord, TlsDemand
from engine.model.tls_result import TLS_RESULTS_TABLE, DomainResults
from tests.fakes.certificates import Identity, make
from tests.fakes.engine_house import (
    EventReader,
    engine_config,
    host_route,
    letter,
    numbered,
    running_engine,
    submit,
    until,
    until_finished,
)

pytestmark = pytest.mark.slow

HOST = "mx.plain.test"
SPEC = WorldSpec(
    name="tls",
    providers=(
        ProviderSpec("plain", (Site((Host(HOST),), {"plain.test": 1}),), Manners(starttls=Starttls.OFFERED)),
    ),
)


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Identity:
    made = make("receiver")
    context = made.server_context()
    monkeypatch.setattr(receiver, "self_signed_context", lambda: context)
    return made


def route_to(port: int, record: TlsaRecord) -> Any:
    hosts = {HOST: HostDemand(HostTls.DANE, (HOST,), (record,))}
    demand = TlsDemand("dane-1", PolicyKind.DANE, True, hosts)
    return replace(host_route(SPEC.addresses_of_hosts[HOST], port), demand=demand)


def counted(folder: Path) -> DomainResults:
    """What a stopped engine has left on its bus."""
    bus = LocalBus(folder / "data" / "bus", "looker", temporary=True)
    try:
        (row,) = bus.items(TLS_RESULTS_TABLE).values()
    finally:
        bus.close_files()
    return msgspec.json.decode(row, type=DomainResults)


async def test_mail_goes_by_dane_resumes_and_is_counted(tmp_path: Path, identity: Identity) -> None:
    people = numbered(40, "plain.test")
    async with open_world(SPEC) as world:
        route = route_to(world.smtp_port, identity.tlsa(3))
        async with running_engine(tmp_path, None, route=route) as engine:
            reader = EventReader(engine.parts.bus.subscribe("events.node", "test"))
            await submit(engine, letter(), people)
            await until_finished(engine, len(people))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.follow)
                await until(lambda: len(reader.events) >= len(people))
                nursery.cancel_scope.cancel()
            assert engine.parts.remote_addresses.limit == 200
        assert not any(engine.parts.remote_addresses._counts.values()), "every place was given back"
    delivered = [event for event in reader.events if isinstance(event, Delivered)]
    assert len(delivered) == len(people)
    assert all(" verified dane" in event.tls for event in delivered)
    row = counted(tmp_path)
    assert row.domain == "plain.test"
    (policy,) = row.policies
    assert policy.kind is PolicyKind.DANE
    assert policy.successful > 0
    assert policy.failed == 0


async def test_mail_waits_when_the_receiver_is_not_the_right_one(tmp_path: Path, identity: Identity) -> None:
    async with open_world(SPEC) as world:
        route = route_to(world.smtp_port, make("another").tlsa(3))
        async with running_engine(tmp_path, None, route=route) as engine:
            reader = EventReader(engine.parts.bus.subscribe("events.node", "test"))
            await submit(engine, letter(), numbered(1, "plain.test"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.follow)
                await until(lambda: any(isinstance(event, Deferred) for event in reader.events))
                nursery.cancel_scope.cancel()
        assert world.statistics()["totals"].get("messages", 0) == 0
    event = next(event for event in reader.events if isinstance(event, Deferred))
    assert "does not meet DANE: no TLSA record matches the certificate" in event.reply
    (policy,) = counted(tmp_path).policies
    assert policy.successful == 0
    assert policy.failed > 0
    assert policy.failures[0].reason == "no TLSA record matches the certificate"


async def test_tls_required_on_the_whole_way_comes_back_from_a_host_without_it(
    tmp_path: Path, identity: Identity
) -> None:
    async with open_world(SPEC) as world:
        route = route_to(world.smtp_port, identity.tlsa(3))
        async with running_engine(tmp_path, None, route=route) as engine:
            reader = EventReader(engine.parts.bus.subscribe("events.node", "test"))
            await submit(engine, replace(letter(), require_tls=True), numbered(1, "plain.test"))
            await until_finished(engine, 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.follow)
                await until(lambda: any(isinstance(event, Bounced) for event in reader.events))
                nursery.cancel_scope.cancel()
    event = next(event for event in reader.events if isinstance(event, Bounced))
    assert event.reply.startswith("550 5.7.30 ")


async def test_a_file_of_authorities_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    bad = tmp_path / "ca.pem"
    bad.write_text("nonsense")
    for path in (bad, tmp_path / "missing.pem"):
        config = replace(engine_config(tmp_path), tls=TlsTable(ca_file=str(path)))
        with pytest.raises(EngineError, match="name a file of certificates in PEM"):
            make_tls_contexts(config)
        with pytest.raises(EngineError, match="ca_file"):
            async with open_engine(config):
                pass
