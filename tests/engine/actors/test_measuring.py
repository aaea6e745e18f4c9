"""What a monitor reads of an engine: each number is the one that the engine itself goes by."""

import re
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from engine.actors.measuring import measure, private_octets
from engine.actors.parts import Parts
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.model.event import ChunkAccepted
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.model.tls import PolicyKind
from engine.mta.policy.holds import Hold, Subject
from engine.observe.lag import LoopLag
from engine.observe.metrics import Family, Kind
from engine.runtime.child import ChildState, ChildStatistics, SupervisorStatistics
from engine.runtime.crash import Crash
from engine.runtime.spec import Kind as ChildKind
from tests.fakes.engine_house import accepted, host_route, memory_parts, numbered, running_engine


def child(name: str, state: ChildState = ChildState.RUNNING, crash: Crash | None = None) -> ChildStatistics:
    crashes = 0 if crash is None else 1
    return ChildStatistics(name, ChildKind.WORKER, state, 1 + crashes, crashes, crashes, crash, 3, 9, 64, 2)


def statistics(*children: ChildStatistics) -> SupervisorStatistics:
    return SupervisorStatistics("engine", "rest_for_one", 0, 5, 60.0, children)


async def measured(parts: Parts, *children: ChildStatistics) -> dict[str, Family]:
    families = await measure(parts, statistics(*children), LoopLag())
    assert len({family.name for family in families}) == len(families), "a name stands there twice"
    return {family.name: family for family in families}


async def test_every_name_tells_its_unit_and_every_family_is_bounded(autojump_clock: MockClock) -> None:
    for name, family in (await measured(memory_parts(), child("spooler"))).items():
        assert name.startswith("emass_")
        assert family.help.endswith(".")
        if family.kind is Kind.HISTOGRAM or name.endswith(("_seconds", "_octets")):
            assert family.unit


async def test_an_engine_without_disk_is_measured_without_it(autojump_clock: MockClock) -> None:
    found = await measured(memory_parts())
    assert "emass_disk_level" not in found
    assert "emass_spool_commit_seconds" not in found


async def test_what_was_published_last_tells_the_journals_lag(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    assert (await measured(parts))["emass_journal_lag_seconds"].samples == {(): 0.0}
    await parts.spool.note([ChunkAccepted(7, "c", 1)], parts.clock.now())
    await trio.sleep(12)
    assert (await measured(parts))["emass_journal_lag_seconds"].samples == {(): pytest.approx(12.0)}


async def test_the_bus_backlog_is_what_intake_has_not_taken(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    await parts.bus.publish("chunks.node", [b"one", b"two"])
    assert (await measured(parts))["emass_bus_backlog_entries"].samples == {(): 2.0}


async def test_tls_is_counted_by_kind_and_policy(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    parts.tls_kinds["verified"] += 3
    parts.tls_results.counted[PolicyKind.STS, False] += 1
    parts.tls_sessions.taken = 5
    found = await measured(parts)
    assert found["emass_tls_connections_total"].samples == {
        ("none",): 0.0,
        ("unverified",): 0.0,
        ("verified",): 3.0,
    }
    assert found["emass_tls_policy_sessions_total"].samples == {(PolicyKind.STS.value, "failed"): 1.0}
    assert found["emass_tls_resumable_total"].samples == {(): 5.0}


async def test_what_operators_and_receivers_stopped_is_counted(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    aim = Aim(Scope.CAMPAIGN, "7")
    await parts.stops.give(StopOrder(0, StopKind.SUSPEND, aim, "a look at it", "ann", 0.0))
    parts.holds.put(Hold("google", Subject.DOMAIN, "letter.example", trio.current_time() + 60, "spam"))
    found = await measured(parts)
    assert found["emass_stops"].samples["suspend",] == 1.0
    assert found["emass_holds"].samples == {("domain",): 1.0, ("campaign",): 0.0, ("workspace",): 0.0}
    assert found["emass_draining"].samples == {(): 0.0}


async def test_a_source_that_failed_is_suspended(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    failure = TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "its address is gone")
    parts.source_states.failed("out", failure, trio.current_time())
    assert (await measured(parts))["emass_source_suspended_seconds"].samples["out",] == pytest.approx(30.0)


async def test_actors_are_told_with_their_crashes(autojump_clock: MockClock) -> None:
    crash = Crash("resolver", 1, "KeyError", "x", 1_800_000_000.0)
    found = await measured(memory_parts(), child("spooler"), child("resolver", ChildState.STARTING, crash))
    assert found["emass_actor_running"].samples == {("spooler",): 1.0, ("resolver",): 0.0}
    assert found["emass_actor_restarts_total"].samples == {("spooler",): 0, ("resolver",): 1}
    assert found["emass_actor_last_crash_timestamp_seconds"].samples == {("resolver",): 1_800_000_000.0}
    assert found["emass_actor_mailbox_messages"].samples["spooler",] == 3


async def test_what_messages_waited_for_is_told_by_stage(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    found = (await measured(parts))["emass_message_stage_seconds"]
    assert found.histograms == {(stage,): buckets for stage, buckets in parts.timelines.histograms().items()}
    parts.timelines.every = 0
    assert "emass_message_stage_seconds" not in await measured(parts)


async def test_nothing_that_is_measured_changes_the_engine(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    await accepted(parts, numbered(10))
    first, second = await measured(parts), await measured(parts)
    for name in first.keys() - {"emass_memory_private_octets", "emass_clock_timestamp_seconds"}:
        assert first[name] == second[name]


def test_the_process_has_memory_of_its_own() -> None:
    assert private_octets() > 1_000_000


@pytest.mark.slow
async def test_every_name_of_a_running_engine_is_explained(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "METRICS.md").read_text()
    explained = set(re.findall(r"`(emass_[a-z_]+)`", text))
    async with running_engine(tmp_path, route=host_route("127.0.0.1", 9)) as engine:
        names = {family.name for family in await measure(engine.parts, engine.tree.statistics(), LoopLag())}
    assert names - explained == set()
    assert explained - names <= {"emass_message_stage_seconds"}
