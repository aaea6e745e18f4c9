"""One job over three engines on one bus: every address is accounted for, whoever is killed meanwhile."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from bench.peers.nats import NatsServer
from bench.world.process import world_process
from bench.world.records import read_records
from tests.fakes.broadcasters import Fleet, ManyJob, check_report
from tests.fakes.campaigns import emass
from tests.fakes.kill_nine import calm_world, record_octets, unquiet_world

BUS = ("--bus", "local:bus")
FINISH_SECONDS = 120.0
SHARED_OCTETS = 250_000  # of the world's record: about 800 messages


async def until_received(record: Path, octets: int) -> None:
    with trio.fail_after(60):
        while record_octets(record) < octets:
            await trio.sleep(0.02)


@pytest.mark.slow
async def test_three_broadcasters_share_a_job_and_one_is_killed(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(unquiet_world(3), record=record) as world:
        job = ManyJob(tmp_path, world.addresses(6_000, 3))
        with Fleet(tmp_path, world, ("a", "b", "c")) as fleet:
            fleet.start("a", "b", "c")
            with job.start("--broadcasters", "a=2,b=1,c=1") as sending:
                await until_received(record, SHARED_OCTETS)
                fleet.kill("b")
                await trio.sleep(1.0)
                assert sending.running, sending.said()
                fleet.start("b")
                assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
                report = sending.report()
    received = check_report(world, job, report, record)
    assert report["ambiguous"] == report["deferred"] == 0
    assert all(each["chunks"] for each in report["broadcasters"])
    assert report["warnings"] == []
    expected = {one.email.lower() for one in job.people if world.spec.predict(one.email).final == "delivered"}
    assert set(received) == expected


@pytest.mark.slow
async def test_a_killed_coordinator_resumes_and_a_dead_broadcasters_work_is_moved_or_given_up(
    tmp_path: Path,
) -> None:
    record = tmp_path / "record"
    async with world_process(unquiet_world(4), record=record) as world:
        job = ManyJob(tmp_path, world.addresses(6_000, 4))
        with Fleet(tmp_path, world, ("a", "b")) as fleet:
            fleet.start("a", "b")
            with job.start() as sending:
                await until_received(record, SHARED_OCTETS)
                sending.kill()
            fleet.kill("b")
            retired = 0
            with job.start(resume=True) as sending:
                await trio.sleep(3.0)
                refused = await emass("broadcaster", "retire", "a", "--yes", *BUS, folder=tmp_path)
                assert (refused.code, "a lives" in refused.err) == (1, True), refused.err
                listed = await emass("broadcaster", "list", "--json", *BUS, folder=tmp_path)
                rows = {row["broadcaster"]: row["state"] for row in json.loads(listed.out)}
                assert rows == {"a": "sends", "b": "not there"}
                gone = await emass("broadcaster", "retire", "b", "--yes", "--json", *BUS, folder=tmp_path)
                assert gone.code == 0, gone.err
                retired = json.loads(gone.out)["queued"]
                assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
                report = sending.report()
            sent_before = len(list(read_records(record)))
            fleet.start("b")  # it comes back with its spool, and keeps still
            await trio.sleep(4.0)
            assert len(list(read_records(record))) == sent_before, fleet.said("b")
    received = check_report(world, job, report, record)
    assert report["deferred"] == 0
    assert (report["ambiguous"] > 0) == (retired > 0)
    rows = job.addresses()
    listed_ones = [row for row in rows.values() if row["state"] == "ambiguous"]
    assert len(listed_ones) == report["ambiguous"]
    assert {row["broadcaster"] for row in listed_ones} <= {"b"}
    for one in job.people:
        if world.spec.predict(one.email).final == "delivered":
            assert received[one.email.lower()] or rows[one.email.lower()]["state"] == "ambiguous"


@pytest.mark.slow
async def test_a_pause_and_a_suppression_act_on_all_broadcasters(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(calm_world(tarpit={"content": 0.02}), record=record) as world:
        job = ManyJob(tmp_path, world.addresses(3_000, 5))
        with Fleet(tmp_path, world, ("a", "b")) as fleet:
            fleet.start("a", "b")
            with job.start() as sending:
                await until_received(record, 20_000)
                paused = await emass("campaign", "pause", "job", "--reason", "a wrong link", folder=tmp_path)
                assert paused.code == 0, paused.err
                await trio.sleep(1.5)  # what is on the wire ends
                standing = record_octets(record)
                got = {one.recipient.lower() for one in read_records(record)}
                victims = [one.email for one in job.people if one.email.lower() not in got][-20:]
                add = await emass(
                    "suppress", "add", *victims, "--json", *BUS, "--config", "a.toml", folder=tmp_path
                )
                assert add.code == 0, add.err
                effective = json.loads(add.out)
                assert (effective["engines"], effective["keys"]) == (2, 20)
                assert effective["effective_seconds"] < 5
                assert record_octets(record) == standing, "it is paused"
                status = await emass("campaign", "status", "job", "--json", folder=tmp_path)
                facts = json.loads(status.out)
                assert (facts["state"], facts["reason"]) == ("pause", "a wrong link")
                resumed = await emass("campaign", "resume", "job", folder=tmp_path)
                assert resumed.code == 0, resumed.err
                assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
                report = sending.report()
    received = check_report(world, job, report, record)
    assert report["suppressed"] == 20
    assert not {one.lower() for one in victims} & set(received)
    assert report["delivered"] == 2_980
    assert effective["effective_seconds"] < 2


@pytest.mark.slow
@pytest.mark.peers
async def test_a_signed_job_over_nats_outlives_its_server(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("nats")
    record = tmp_path / "record"
    with NatsServer(tmp_path / "nats") as server:
        where = f"127.0.0.1:{server.port}"
        async with world_process(unquiet_world(6), record=record) as world:
            job = ManyJob(tmp_path, world.addresses(3_000, 6), bus=where, signed=True)
            with Fleet(tmp_path, world, ("a", "b"), server=where) as fleet:
                fleet.start("a", "b")
                with job.start() as sending:
                    await until_received(record, SHARED_OCTETS)
                    server.kill()
                    await trio.sleep(1.0)
                    server.start()
                    assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
                    report = sending.report()
    received = check_report(world, job, report, record)
    assert (report["deferred"], report["ambiguous"], report["warnings"]) == (0, 0, [])
    assert not any(each["differs"] for each in report["broadcasters"])
    expected = {one.email.lower() for one in job.people if world.spec.predict(one.email).final == "delivered"}
    assert set(received) == expected


@pytest.mark.slow
@pytest.mark.peers
async def test_a_bus_that_is_restored_from_an_old_copy_loses_and_doubles_nobody(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("nats")
    record = tmp_path / "record"
    with NatsServer(tmp_path / "nats") as server:
        where = f"127.0.0.1:{server.port}"
        async with world_process(unquiet_world(7), record=record) as world:
            job = ManyJob(tmp_path, world.addresses(6_000, 7), bus=where)
            with Fleet(tmp_path, world, ("a", "b"), server=where) as fleet:
                fleet.start("a", "b")
                with job.start() as sending:
                    await until_received(record, SHARED_OCTETS // 2)
                    server.kill()
                    shutil.copytree(server.folder / "store", tmp_path / "old")
                    server.start()
                    await until_received(record, 2 * SHARED_OCTETS)
                    server.kill()
                    server.wipe()
                    shutil.copytree(tmp_path / "old", server.folder / "store")
                    server.start()
                    assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
                    report = sending.report()
    received = check_report(world, job, report, record)
    # Whoever notices first puts claims back: an engine, or the coordinator.
    said = [*report["warnings"], *((tmp_path / f"{name}.log").read_text() for name in ("a", "b"))]
    assert any("the bus has forgotten" in each for each in said)
    assert (report["deferred"], sum(received.values()) >= report["delivered"]) == (0, True)
    rows = job.addresses()
    for one in job.people:
        if world.spec.predict(one.email).final == "delivered":
            assert received[one.email.lower()] or rows[one.email.lower()]["state"] == "ambiguous"
