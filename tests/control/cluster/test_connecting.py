"""The way onto the bus: what is missing is named with its file; a bus that is not there is said soon."""

import socket

import pytest
from msgspec.structs import replace

from control.cluster.connecting import ConnectError, as_operator, open_bus, read_seed, seed_path
from control.cluster.founding import found_cluster
from engine.config import BusKind, BusTable, Config, HostPort, KeysTable, NodeTable

NOW = 1_700_000_000.0


@pytest.fixture
def config(tmp_path):
    found_cluster(tmp_path, "hub", ["127.0.0.1"], NOW)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HostPort.parse(f"127.0.0.1:{listener.getsockname()[1]}")
    return Config(
        node=NodeTable(name="hub", data=str(tmp_path / "data")),
        keys=KeysTable(folder=str(tmp_path / "keys")),
        bus=BusTable(kind=BusKind.NATS, servers=(server,)),
    )


def test_members_are_named_after_node_and_process(config):
    names = [open_bus(config, process).member for process in ("engine", "agent", "operator")]
    assert names == ["hub", "hub.agent", "operator"]
    assert open_bus(config, "operator", "operator-1").member == "operator-1"


def test_a_node_without_a_cluster_is_told(config):
    with pytest.raises(ConnectError, match="belongs to no cluster"):
        open_bus(replace(config, bus=BusTable()), "agent")


def test_a_missing_or_damaged_seed_is_named(config):
    assert read_seed(replace(config, bus=replace(config.bus, seeds="")), "agent") is None
    path = seed_path(config, "agent")
    path.write_text("SU")
    with pytest.raises(ConnectError, match=r"agent\.seed.*not an nkey seed"):
        open_bus(config, "agent")
    path.chmod(0o644)
    with pytest.raises(ConnectError, match="chmod 600"):
        open_bus(config, "agent")
    path.unlink()
    with pytest.raises(ConnectError, match=r"agent\.seed"):
        open_bus(config, "agent")


def test_a_missing_or_damaged_certificate_is_named(config, tmp_path):
    path = tmp_path / "keys" / "bus-ca.pem"
    path.write_text("nothing")
    with pytest.raises(ConnectError, match=r"bus-ca\.pem"):
        open_bus(config, "agent")
    path.unlink()
    with pytest.raises(ConnectError, match=r"bus-ca\.pem: is not there"):
        open_bus(config, "agent")


async def test_a_bus_that_is_not_there_is_said_after_a_moment(config):
    with pytest.RaisesGroup(pytest.RaisesExc(ConnectError, match="does not answer")):
        async with as_operator(config, online_seconds=0.05):
            pass
