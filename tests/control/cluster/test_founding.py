"""A hub is founded once, and its file says how everybody reaches it."""

import pytest

from control.cluster.founding import found_cluster, hub_names, hub_values
from control.cluster.node_file import check_text, filled_default
from control.cluster.registry import NodeRole, RegistryError
from control.cluster.registry_file import load_registry
from engine.config import BusKind, HostPort, Runs

NOW = 1_700_000_000.0


def test_a_hub_has_a_register_a_certificate_and_keys_of_its_own(tmp_path):
    registry = found_cluster(tmp_path, "hub", ["192.0.2.1"], NOW)
    assert load_registry(tmp_path / "data") == registry
    assert registry.nodes["hub"].role is NodeRole.HUB
    names = {
        path.relative_to(tmp_path / "keys").as_posix()
        for path in (tmp_path / "keys").rglob("*")
        if path.is_file()
    }
    seeds = {f"bus/{process}.seed" for process in ("engine", "agent", "submission", "operator")}
    assert names == {*seeds, "bus-ca.pem", "bus-server.key", "node.box", "signer.box"}


def test_it_is_founded_once(tmp_path):
    found_cluster(tmp_path, "hub", ["192.0.2.1"], NOW)
    with pytest.raises(RegistryError, match="already"):
        found_cluster(tmp_path, "hub", ["192.0.2.1"], NOW)


@pytest.mark.parametrize(("name", "server"), [("127.0.0.1", "127.0.0.1:4333"), ("::1", "[::1]:4333")])
def test_its_file_names_the_server_as_others_reach_it(name, server):
    config = check_text(filled_default(hub_values("hub", HostPort.parse("0.0.0.0:4333"), [name, "other"])))
    assert config.bus.kind is BusKind.NATS
    assert list(map(str, config.bus.servers)) == [server]
    assert config.node.runs == (Runs.BUS, Runs.ENGINE)


def test_who_listens_everywhere_says_where_it_is_reached():
    assert hub_names(HostPort.parse("hub.example:4222"), []) == ["hub.example"]
    assert hub_names(HostPort.parse("0.0.0.0:4222"), ["hub.example", "192.0.2.1"]) == [
        "hub.example",
        "192.0.2.1",
    ]
    for anywhere in ("0.0.0.0:4222", "[::]:4222"):
        with pytest.raises(RegistryError, match="--address"):
            hub_names(HostPort.parse(anywhere), [])
