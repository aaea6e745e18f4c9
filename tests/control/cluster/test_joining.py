"""What a machine that joins writes, and what stops it before it asks. The whole is in test_joining_live."""

import pytest

from control.cluster.join_code import JoinCode
from control.cluster.joining import JoinError, Plan, join, node_text, skew_warning
from control.cluster.node_file import check_text
from engine.bus.nkeys import new_seed
from engine.config import BusKind, ConfigError, HostPort, Runs

CODE = JoinCode(HostPort.parse("127.0.0.1:9"), bytes(32), "b", new_seed())


def test_the_nodes_file_says_who_it_is_and_where_the_bus_is():
    config = check_text(node_text("b", ("hub:4222", "[::1]:4333"), 3, Plan()))
    assert (config.node.name, config.node.runs) == ("b", (Runs.ENGINE,))
    assert (config.bus.kind, config.bus.replicas) == (BusKind.NATS, 3)
    assert list(map(str, config.bus.servers)) == ["hub:4222", "[::1]:4333"]
    assert config.engine.source == ()


def test_its_sources_are_named_after_it():
    plan = Plan(("192.0.2.1", "2001:db8::1"), "out.example")
    sources = check_text(node_text("b", ("hub:4222",), 1, plan)).engine.source
    assert [(each.name, each.address, each.ehlo_name) for each in sources] == [
        ("b-1", "192.0.2.1", "out.example"),
        ("b-2", "2001:db8::1", "out.example"),
    ]


def test_a_setting_stands_above_what_joining_says():
    text = node_text("b", ("hub:4222",), 1, Plan(settings=(("node", "runs", '["engine", "submission"]'),)))
    assert check_text(text).node.runs == (Runs.ENGINE, Runs.SUBMISSION)


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="address"):
        node_text("b", ("hub:4222",), 1, Plan(("nowhere",)))


def test_a_folder_with_a_node_in_it_is_left_alone(tmp_path):
    (tmp_path / "emass.toml").write_text("")
    with pytest.raises(JoinError, match="exists already"):
        join(tmp_path, CODE, Plan(), lambda: 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["emass.toml"]


def test_a_mistake_in_a_setting_is_found_before_anything_is_done(tmp_path):
    with pytest.raises(JoinError, match="smtp_prot"):
        join(tmp_path, CODE, Plan(settings=(("engine", "smtp_prot", "1"),)), lambda: 0.0)
    assert not list(tmp_path.iterdir())


def test_a_bus_that_is_not_there_is_told_and_keys_stay_for_the_next_try(tmp_path):
    with pytest.raises(JoinError, match="cannot be reached"):
        join(tmp_path, CODE, Plan(), lambda: 0.0)
    seed = (tmp_path / "keys" / "bus" / "engine.seed").read_bytes()
    with pytest.raises(JoinError):
        join(tmp_path, CODE, Plan(), lambda: 0.0)
    assert (tmp_path / "keys" / "bus" / "engine.seed").read_bytes() == seed


def test_a_clock_is_warned_of_beyond_half_a_minute():
    assert skew_warning(29.0) == ""
    assert "31 s ahead of" in skew_warning(31.0)
    assert "2 min behind" in skew_warning(-130.0)
