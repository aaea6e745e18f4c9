"""The nats-server's configuration and program; that it runs is seen where a real one is started."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from control.cluster.nats_server import (
    CONFIG_FILE,
    NatsServerError,
    find_binary,
    nats_argv,
    reload_nats,
    render_users,
    write_nats_config,
)
from control.cluster.registry import NodeRole, new_registry, users, with_code
from control.cluster.registry_file import save_registry
from engine.config import BusTable, Config, HostPort, KeysTable, NodeTable
from tests.control.cluster.test_registry import NOW, applicant, key


@pytest.fixture
def config(tmp_path):
    save_registry(tmp_path, new_registry(applicant("hub", NodeRole.HUB), NOW))
    return Config(
        node=NodeTable(name="hub", data=str(tmp_path)),
        keys=KeysTable(folder=str(tmp_path / "keys")),
        bus=BusTable(listen=HostPort.parse("127.0.0.1:4999")),
    )


def test_everybody_of_the_register_and_nobody_else_is_a_user(config):
    registry = with_code(
        new_registry(applicant("hub", NodeRole.HUB), NOW), "b", NodeRole.BROADCASTER, key(), NOW, 60
    )
    text = write_nats_config(config, registry).read_text()
    assert text.count("nkey:") == len(users(registry, NOW)) == 5
    for user in users(registry, NOW):
        assert user.public in text
    assert 'listen: "127.0.0.1:4999"' in text
    assert "no_auth_user" not in text
    assert (config.node.data + "/nats/store") in text


def test_the_file_is_private_and_replaced_whole(config, tmp_path):
    path = write_nats_config(config, new_registry(applicant("hub", NodeRole.HUB), NOW))
    assert path == tmp_path / "nats" / CONFIG_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [CONFIG_FILE]


def test_permissions_stand_beside_the_key_they_are_for():
    (line,) = [
        each
        for each in render_users(users(new_registry(applicant("h", NodeRole.HUB), NOW), NOW)[:1]).splitlines()
        if "nkey" in each
    ]
    assert "allow_responses: true" in line
    assert "emass.s.events=2Eh.h" in line


def test_the_command_line_needs_a_hub(config, tmp_path):
    argv = nats_argv(config, {"EMASS_NATS_SERVER": sys.executable})
    assert argv == (sys.executable, "--config", str(tmp_path / "nats" / CONFIG_FILE))
    elsewhere = replace(config, node=NodeTable(data=str(tmp_path / "none")))
    with pytest.raises(NatsServerError, match="this is no hub"):
        nats_argv(elsewhere, {"EMASS_NATS_SERVER": sys.executable})


def test_the_program_is_looked_for_where_packages_put_it(tmp_path):
    program = tmp_path / "nats-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_binary({"PATH": str(tmp_path)}) == program
    assert find_binary({"PATH": "/nowhere", "EMASS_NATS_SERVER": str(program)}) == program
    with pytest.raises(NatsServerError, match="no program"):
        find_binary({"EMASS_NATS_SERVER": str(tmp_path / "other")})


def test_a_machine_without_it_is_told_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr("control.cluster.nats_server.OUTSIDE_PATH", ())
    with pytest.raises(NatsServerError, match="apt install nats-server"):
        find_binary({"PATH": str(tmp_path), "EMASS_PEERS": str(tmp_path)})


def test_a_reload_reaches_the_server_and_no_other_process(config, tmp_path):
    folder = tmp_path / "nats"
    assert not reload_nats(tmp_path)
    write_nats_config(config, new_registry(applicant("hub", NodeRole.HUB), NOW))
    (folder / "nats.pid").write_text(str(os.getpid()))
    assert not reload_nats(tmp_path)  # this process is no nats-server
    script = "import signal,sys; signal.sigwait([signal.SIGHUP]); sys.exit(7)"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        child = subprocess.Popen([sys.executable, "-c", script, str(folder / CONFIG_FILE)])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    (folder / "nats.pid").write_text(f"{child.pid}\n")
    command = Path(f"/proc/{child.pid}/cmdline")
    while not command.read_bytes():  # the kernel shows it a moment after the start
        time.sleep(0.001)
    assert reload_nats(tmp_path)
    assert child.wait(10) == 7
    assert not reload_nats(tmp_path)  # it has ended


def test_a_file_that_says_the_same_already_is_not_written_again(config):
    registry = new_registry(applicant("hub", NodeRole.HUB), NOW)
    first = write_nats_config(config, registry).stat()
    again = write_nats_config(config, registry).stat()
    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)


def test_a_start_of_the_server_writes_what_holds_then_and_nothing_older(config, tmp_path, monkeypatch):
    """Else a start beside a retirement could let the retired node in."""
    locked = []

    def write(*_):
        with (tmp_path / "cluster" / "registry.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(True)

    monkeypatch.setattr("control.cluster.nats_server.write_nats_config", write)
    nats_argv(config, {"EMASS_NATS_SERVER": sys.executable})
    assert locked == [True]
