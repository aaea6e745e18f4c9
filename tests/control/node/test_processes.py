"""What a node runs, as data, and when a nats-server counts as ready."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bench.peers.place import home
from bench.peers.process import free_port
from control.node.kernel import birth, family
from control.node.processes import (
    child_environment,
    engine_kind,
    guarded,
    has_jetstream,
    kinds_of,
    nats_is_ready,
)
from tests.fakes.node_children import node_config

ROOT = Path(__file__).resolve().parents[3]


def test_processes_start_in_the_order_of_their_kinds_whatever_the_file_says(tmp_path):
    config, path = node_config(tmp_path, '[node]\nname = "n1"\nruns = ["submission", "engine"]\n')
    assert [kind.name for kind in kinds_of(config, path)] == ["engine", "submission"]


def test_a_process_of_ours_is_supervised_and_reads_the_same_file(tmp_path):
    config, path = node_config(tmp_path)
    kind = engine_kind(config, path)
    assert kind.argv == (sys.executable, "-m", "engine", "--supervised", str(path))
    assert kind.ends_by_itself
    assert guarded("x", "-y")[1:] == ("-m", "control.node.guard", "x", "-y")


def test_what_the_service_manager_says_is_for_the_root_alone():
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "PATH": "/bin"}
    assert child_environment(environ, json_logs=False) == {"PATH": "/bin", "PYTHONUNBUFFERED": "1"}
    assert child_environment(environ, json_logs=True)["EMASS_LOG_FORMAT"] == "json"


def test_a_server_that_keeps_streams_says_so_in_its_first_line():
    assert has_jetstream(b'INFO {"server_id": "x", "jetstream":true} \r\n')
    assert not has_jetstream(b'INFO {"jetstream":false}\r\n')
    assert not has_jetstream(b"220 mail.example\r\n")
    assert not has_jetstream(b"INFO [1]\r\n")
    assert not has_jetstream(b"INFO " + b"[" * 100_000)


@given(st.binary(max_size=100))
def test_no_greeting_is_too_odd(octets):
    has_jetstream(b"INFO " + octets)


@pytest.mark.parametrize(
    ("greeting", "ready"), [(b'INFO {"jetstream":true}\r\n', True), (b"INFO {}\r\n", False), (b"", False)]
)
async def test_a_probe_reads_the_greeting(greeting, ready):
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(greeting)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda task_status: trio.serve_tcp(greet, 0, host="127.0.0.1", task_status=task_status)
        )
        port = listeners[0].socket.getsockname()[1]
        assert await nats_is_ready("127.0.0.1", port) is ready
        nursery.cancel_scope.cancel()
    assert not await nats_is_ready("127.0.0.1", port)


@pytest.mark.peers
@pytest.mark.slow
async def test_a_real_nats_server_on_its_guard_is_ready_and_ends_with_it(tmp_path, require_peer):
    require_peer("nats")
    port = free_port("127.0.0.1")
    program = str(home("nats") / "usr/sbin/nats-server")
    options = ("--addr", "127.0.0.1", "--port", str(port), "--jetstream", "--store_dir", str(tmp_path))
    argv = guarded(program, *options)
    guard = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        with trio.fail_after(20):
            while not await nats_is_ready("127.0.0.1", port):
                await trio.sleep(0.05)
        (server,) = [pid for pid in family([guard.pid]) if pid != guard.pid]
        guard.send_signal(signal.SIGKILL)
        guard.wait(10)
        with trio.fail_after(10):
            while birth(server) is not None:
                await trio.sleep(0.02)
    finally:
        guard.kill()
        guard.communicate()
