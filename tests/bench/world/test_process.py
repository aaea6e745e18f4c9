"""A world in its own process: ready line, questions, record, and its ends. Real processes."""

import json
import os
import signal
import smtplib
import subprocess
import sys

import msgspec
import pytest
import trio

from bench.world.process import WorldError, child_environment, load_spec, world_process
from bench.world.records import read_records
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec

pytestmark = pytest.mark.slow  # real sockets and processes on the real clock: seconds

SPEC = WorldSpec(
    name="small", providers=(ProviderSpec("box", (Site((Host("mx.box.test"),), {"box.test": 1}),)),)
)
SERVE = [sys.executable, "-m", "bench.world", "serve"]


def send(address, port):
    with smtplib.SMTP(address, port, timeout=10) as client:
        client.sendmail("s@from.test", ["anna@box.test"], "Message-ID: <1@from.test>\r\n\r\nHi\r\n")


async def test_a_world_process_takes_mail_answers_and_ends(tmp_path):
    record = tmp_path / "record"
    async with world_process(SPEC, record=record, keep_content=True) as world:
        assert world.domains == {"box.test": 1}
        assert [p.email for p in world.addresses(3)] == [p.email for p in SPEC.addresses(3)]
        await trio.to_thread.run_sync(send, "127.83.0.1", world.smtp_port)
        [message] = read_records(record)
        assert message.content == b"Message-ID: <1@from.test>\r\n\r\nHi\r\n"
        assert (await world.statistics())["totals"]["accepted"] == 1
        timeline = await world.timeline()
        assert sum(timeline["providers"]["box"]["accepted"]) == 1
        assert timeline["now"] >= timeline["providers"]["box"]["begin"]
        pid = world.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_world_that_dies_is_an_error_with_a_name():
    async with world_process(SPEC) as world:
        os.kill(world.pid, signal.SIGKILL)
        with pytest.raises(WorldError):
            await world.statistics()


@pytest.mark.parametrize("end", ["stdin", "sigterm"])
def test_serve_ends_when_its_stdin_closes_and_on_sigterm(end, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_bytes(msgspec.json.encode(SPEC))
    command = [*SERVE, "--spec", str(spec)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
    ) as child:
        ready = json.loads(child.stdout.readline())
        assert ready["pid"] == child.pid
        child.stdin.write(b"nonsense\n")
        child.stdin.flush()
        assert "error" in json.loads(child.stdout.readline())
        if end == "stdin":
            child.stdin.close()
        else:
            child.terminate()
        assert child.wait(10) == 0


def test_a_spec_that_is_none_is_told_without_a_trace(tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text('{"name": 1}')
    for path in (spec, tmp_path / "missing"):
        done = subprocess.run(
            [*SERVE, "--spec", str(path)],
            capture_output=True,
            text=True,
            env=child_environment(),
            check=False,
        )
        assert done.returncode in (1, 2)
        assert done.stderr.count("\n") == 1


def test_the_demo_can_be_named():
    assert load_spec("demo").name == "demo"
