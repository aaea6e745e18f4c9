"""A whole engine over a small world: what goes in comes out, it stops cleanly, and it refuses clearly."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace

from bench.world.manners import Manners, Moment, Starttls, bounced, busy, hang_up
from bench.world.records import Accepted
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from bench.world.world import open_world
from engine.app import EngineError, find_tls_policies, load_keys, open_engine, resolver_config
from engine.config.bus import BusKind, BusTable
from engine.config.egress import RelayRule, SourceRule
from engine.config.tables import NodeTable
from engine.config.tls import TlsTable, TrustAd
from engine.config.units import HostPort
from engine.keyring import KeyringError, create_master_key, write_secret
from engine.mta.net.egress import egress_sources
from engine.mta.net.resolver import Resolver
from engine.runtime.child import ChildState
from engine.runtime.clock import SystemClock
from engine.runtime.crash import leaves_of
from engine.token_ring import ring_for, save_ring
from tests.fakes.engine_house import (
    CAMPAIGN,
    EventReader,
    engine_config,
    host_route,
    letter,
    numbered,
    running_engine,
    signed,
    submit,
    until,
    until_finished,
    weak_key,
)
from tests.fakes.memory_bus import MemoryBus

pytestmark = pytest.mark.slow  # real sockets and processes on the real clock: seconds

WORLD = WorldSpec(
    name="small",
    providers=(
        ProviderSpec(
            "box",
            (
                Site(
                    (Host("dead.box.test", 5, listens=False), Host("mx.box.test")),
                    {"box.test": 3, "also.test": 1},
                ),
            ),
            Manners(starttls=Starttls.OFFERED, chunking=True, troubles=(bounced(0.1), busy(0.1, 0.3))),
        ),
        ProviderSpec(
            "moody",
            (Site((Host("mx.moody.test"),), {"moody.test": 1}),),
            Manners(greylist_seconds=0.2, troubles=(hang_up(Moment.RCPT, 0.05),)),
        ),
    ),
    null_mx={"null.test": 0.3},
    missing={"missing.test": 0.3},
)
PEOPLE = 300


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def test_a_campaign_ends_as_the_world_foresees(tmp_path: Path) -> None:
    weak_key(tmp_path / "keys" / "test.pem")
    received: list[Accepted] = []
    people = [person.email for person in WORLD.addresses(PEOPLE)]
    with trio.fail_after(60):
        async with (
            open_world(WORLD, accepted=received, keep_content=True) as world,
            running_engine(tmp_path, world) as engine,
        ):
            reader = EventReader(engine.parts.bus.subscribe("events.node", "test"))
            await submit(engine, signed(), people, size=50)
            await until(lambda: engine.backlog() == 0)
            counts = await until_finished(engine, PEOPLE)
            await engine.stop()
            assert engine.counts(CAMPAIGN) == counts, "the stores stay readable"
            with trio.move_on_after(1), suppress(trio.ClosedResourceError):
                await reader.follow()
            assert not engine.parts.spool.open_leases()
            assert not engine.parts.unsettled
            assert not engine.parts.spool.events(0, 10), "everything was published"
            assert engine.parts.prepared_octets == 0
    expected = world.expected(people).final
    assert counts.accepted == PEOPLE == counts.finished
    assert {"delivered": counts.delivered, "bounced": counts.bounced} == expected
    foreseen = [name for name in people if WORLD.predict(name).final == "delivered"]
    assert sorted(message.recipient for message in received) == sorted(foreseen)
    assert all(b"DKIM-Signature" in (message.content or b"") for message in received)
    last = {event.spool_id: type(event).__name__.lower() for event in reader.events}
    assert reader.accepted == len(last) == PEOPLE
    assert {state: list(last.values()).count(state) for state in expected} == expected


async def test_a_second_engine_over_the_folder_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    received: list[Accepted] = []
    people = numbered(400, "box.test")
    plain = replace(
        WORLD,
        providers=(replace(WORLD.providers[0], manners=Manners(tarpit={"content": 0.02}, pipelining=False)),),
    )
    with trio.fail_after(60):
        async with open_world(plain, accepted=received) as world:
            async with running_engine(tmp_path, world) as engine:
                await submit(engine, letter(), people)
                await until(lambda: engine.counts(CAMPAIGN).delivered > 20)
                began = trio.current_time()
            assert trio.current_time() - began < 5
            sent_first = len(received)
            assert 20 < sent_first < 400
            async with running_engine(tmp_path, world) as engine:
                assert engine.counts(CAMPAIGN).delivered == sent_first
                counts = await until_finished(engine, 400)
    assert (counts.delivered, counts.was_ambiguous) == (400, 0)
    assert sorted(message.recipient for message in received) == sorted(people), "nobody twice"


async def test_a_static_route_takes_all_mail_without_dns(tmp_path: Path) -> None:
    received: list[Accepted] = []
    spec = WorldSpec(
        name="one",
        providers=(ProviderSpec("any", (Site((Host("mx.box.test"),), {"box.test": 1}),)),),
    )
    async with open_world(spec, accepted=received) as world:
        world.providers["any"].domains = frozenset()
        route = host_route(spec.addresses_of_hosts["mx.box.test"], world.smtp_port)
        async with running_engine(tmp_path, None, route=route) as engine:
            await submit(engine, letter(), ["a@anywhere.test", "b@elsewhere.test"])
            counts = await until_finished(engine, 2)
    assert counts.delivered == len(received) == 2


async def test_an_engine_answers_questions_and_tells_the_truth_about_itself(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as engine:
        assert b'"sites":[]' in await engine.parts.bus.ask("engine.node", b'{"command":"show"}', 5.0)
        assert repr(engine).startswith("<Engine node: <LmdbSpool")
        assert engine.chunk_stream == "chunks.node"
        states = {child.state for child in engine.tree.statistics().children}
        assert states == {ChildState.RUNNING}


# --- what it refuses ------------------------------------------------------------------------------------


async def refusal(folder: Path, *, engine: dict[str, Any] | None = None, **node: str) -> EngineError:
    config = engine_config(folder, **(engine or {}))
    if node:
        config = replace(config, node=NodeTable(**node))
    try:
        async with open_engine(config):
            raise AssertionError("it opened")
    except EngineError as error:
        return error


async def test_a_bus_key_that_is_none_is_named_without_its_octets(tmp_path: Path) -> None:
    config = engine_config(tmp_path)
    Path(config.keys.folder).mkdir()
    create_master_key(Path(config.keys.folder) / "master.key")
    write_secret(Path(config.keys.folder) / "engine.seed", b"SUSECRET\xff")
    bus = BusTable(kind=BusKind.NATS, seeds=".", ca_file="")
    with pytest.raises(EngineError, match=r"\[bus\] seeds or ca_file") as caught:
        async with open_engine(replace(config, bus=bus)):
            raise AssertionError("it opened")
    assert "SECRET" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    async with running_engine(tmp_path):
        script = (
            "import sys, trio; from pathlib import Path\n"
            "from engine.app import EngineError, open_engine\n"
            "from tests.fakes.engine_house import engine_config\n"
            "async def main():\n"
            "    try:\n"
            "        async with open_engine(engine_config(Path(sys.argv[1]))): print('it opened')\n"
            "    except EngineError as error: print('EngineError:', error)\n"
            "trio.run(main)\n"
        )
        finished = await trio.run_process(
            [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
            capture_stdout=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=subprocess.STDOUT,
        )
    said = finished.stdout.decode()
    assert said.startswith("EngineError: "), said
    assert str(tmp_path / "data" / "spool") in said
    assert said.count("\n") == 1


async def test_a_source_or_relay_that_cannot_be_used_is_refused_with_the_cure(tmp_path: Path) -> None:
    gone = SourceRule(name="gone", address="192.0.2.77")
    said = str(await refusal(tmp_path, engine={"source": (gone,)}))
    assert said.startswith("[[engine.source]] gone: address: 192.0.2.77 cannot be used")
    relay = RelayRule(
        name="smart", host=HostPort.parse("127.0.0.1:587"), user="me", password_file="smart.password"
    )
    assert "smart.password does not exist" in str(await refusal(tmp_path, engine={"relay": (relay,)}))
    (tmp_path / "keys").mkdir(exist_ok=True)
    (tmp_path / "keys" / "smart.password").write_text("secret")
    (tmp_path / "keys" / "smart.password").chmod(0o644)
    said = str(await refusal(tmp_path, engine={"relay": (relay,)}))
    assert "[[engine.relay]] smart: password_file: " in said
    assert "chmod 600" in said
    assert not (tmp_path / "data").exists(), "nothing was begun"


async def test_a_wrong_master_key_is_refused_and_the_right_one_works_again(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as engine:
        await submit(engine, letter(), ["a@nowhere.invalid"])
        await until(lambda: engine.counts(CAMPAIGN).accepted == 1)
    master = tmp_path / "keys" / "master.key"
    kept = master.rename(tmp_path / "keys" / "kept.key")
    create_master_key(master)
    assert "rows.keys" in str(await refusal(tmp_path))
    kept.replace(master)
    async with running_engine(tmp_path) as engine:
        assert engine.counts(CAMPAIGN).accepted == 1


async def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    error = await refusal(tmp_path, name="node", data=str(tmp_path / "file" / "data"))
    assert "cannot be used as the data folder" in str(error)


async def test_a_broken_bus_is_refused_and_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bus").write_text("no folder")
    await refusal(tmp_path)
    (tmp_path / "data" / "bus").unlink()
    async with running_engine(tmp_path):
        pass


async def test_a_key_that_cannot_be_used_stops_the_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weak_key(tmp_path / "keys" / "test.pem")
    config = engine_config(tmp_path)
    (tmp_path / "keys" / "test.pem").write_text("no key")
    with pytest.raises(ExceptionGroup) as caught:
        async with open_engine(config):
            pass
    (error,) = leaves_of(caught.value)
    assert "signers did not start" in str(error)
    assert "test.pem" in capfd.readouterr().err


# --- from configuration -----------------------------------------------------------------------------------


def test_our_own_names_are_known_to_the_resolver(tmp_path: Path) -> None:
    config = engine_config(tmp_path)
    made = resolver_config(config, egress_sources(config))
    assert made.own_names == ("mail.letter.example",)
    assert made.servers == (("127.0.0.1", 9),)
    assert made.smtp_port == 25
    assert made.trust_ad is TrustAd.LOOPBACK


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (TlsTable(), "<TlsPolicies: DANE on, <StsPolicies: 0 kept, 0 under way, 0 fetched, 0 failed>>"),
        (TlsTable(mta_sts=False), "<TlsPolicies: DANE on, MTA-STS off>"),
        (TlsTable(dane=False, mta_sts=False), "None"),
    ],
)
def test_the_kinds_of_policy_that_are_on_are_looked_for(tmp_path: Path, table: TlsTable, found: str) -> None:
    config = replace(engine_config(tmp_path), tls=table)
    clock = SystemClock()
    resolver = Resolver(resolver_config(config, egress_sources(config)), clock.monotonic)
    assert repr(find_tls_policies(config, resolver, MemoryBus("node"), clock)) == found


def test_a_master_key_is_made_once(tmp_path: Path) -> None:
    config = engine_config(tmp_path)
    assert load_keys(config) == load_keys(config)
    assert (tmp_path / "keys" / "master.key").stat().st_mode & 0o777 == 0o600


def test_a_node_that_joined_has_its_ring_and_is_given_no_master_key(tmp_path: Path) -> None:
    config = replace(engine_config(tmp_path), bus=BusTable(kind=BusKind.NATS))
    with pytest.raises(KeyringError, match="put back the keys of this node"):
        load_keys(config)
    (tmp_path / "keys").mkdir(exist_ok=True)
    save_ring(tmp_path / "keys" / "ring.json", ring_for(bytes(32)))
    assert load_keys(config) == ring_for(bytes(32))
    assert not (tmp_path / "keys" / "master.key").exists()
