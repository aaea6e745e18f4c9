"""A hub and two machines that joined it send one signed job, with their roles' permissions and over TLS."""

from pathlib import Path

import pytest
import trio

from bench.peers.place import missing
from bench.world.process import world_process
from control.cli.__main__ import run
from control.cluster.join_code import encode_join_code
from tests.fakes.broadcasters import ManyJob, check_report
from tests.fakes.hub_house import HubHouse, up
from tests.fakes.kill_nine import calm_world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing("nats") is not None, reason=missing("nats") or ""),
]

PEOPLE = 4_000
FINISH_SECONDS = 120.0


async def test_a_job_over_machines_that_joined_reaches_everybody_once(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(calm_world(), record=record) as world:
        settings = (
            f"engine.smtp_port={world.smtp_port}",
            "engine.signers=1",
            'resolver.servers=["{}:{}"]'.format(*world.resolver),
            "resolver.allow_private=true",
            "bus.status_every=300 ms",
        )
        hub = HubHouse(tmp_path / "hub", *settings)
        keys = Path(hub.config.keys.folder)
        with up(hub.file, tmp_path / "hub.log"):
            for name in ("b", "c"):
                code = encode_join_code(hub.code(name))
                options = [part for each in settings for part in ("--set", each)]
                joining = ["node", "join", code, "--dir", str(tmp_path / name), *options]
                assert await trio.to_thread.run_sync(run, joining) == 0
            with (
                up(tmp_path / "b/emass.toml", tmp_path / "b.log"),
                up(tmp_path / "c/emass.toml", tmp_path / "c.log"),
            ):
                job = ManyJob(
                    tmp_path, world.addresses(PEOPLE, 5), bus=str(hub.config.bus.servers[0]), signed=True
                )
                way = ("--bus-seed", str(keys / "bus/operator.seed"), "--bus-ca", str(keys / "bus-ca.pem"))
                with job.start("--broadcasters", "hub=1,b=1,c=1", *way) as sending:
                    assert await sending.wait(FINISH_SECONDS) == 0, sending.said()
                    report = sending.report()
        received = check_report(world, job, report, record)
    assert sum(received.values()) == report["delivered"]
    assert {each["broadcaster"] for each in report["broadcasters"] if each["accepted"]} == {"hub", "b", "c"}
    for name in ("hub", "b", "c"):
        log = (tmp_path / f"{name}.log").read_text()
        denied = [
            line
            for line in log.splitlines()
            if "violation" in line.lower() and "STREAM.CREATE" not in line.upper()
        ]
        assert denied == [], denied[:3]
