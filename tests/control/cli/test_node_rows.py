"""`emass node list` from what is known: states, clocks, and a bus that does not answer."""

import json
import re

import pytest

from control.cli.node_rows import node_facts, show_nodes
from control.cluster.registry import NodeRole, new_registry, retired, with_code
from control.cluster.registry import joined as join
from tests.control.cluster.test_registry import NOW, applicant, key


@pytest.fixture
def registry():
    hub = new_registry(applicant("hub", NodeRole.HUB), NOW)
    code = key()
    out = with_code(hub, "b", NodeRole.BROADCASTER, code, NOW, 3_600)
    return join(out, code, applicant("b"), NOW)


def agent(**facts):
    row = {"at": NOW, "interval": 2.0, "skew_seconds": 0.0, "version": "0.1.0", "processes": [], **facts}
    return json.dumps(row).encode()


def state(registry, rows, now=NOW):
    return {one["node"]: one["state"] for one in node_facts(registry, rows, now)}


def test_states_of_a_node(registry):
    def of_b(now=NOW, **facts):
        return state(registry, {"b/agent": agent(**facts)}, now)["b"]

    assert state(registry, {})["b"] == "never up"
    assert state(registry, None)["b"] == "not known"
    assert of_b() == "up"
    assert of_b(stopped=True) == "down"
    assert of_b(NOW + 11) == "silent"
    assert of_b(processes=[{"name": "engine", "state": "ready"}]) == "up"
    assert of_b(processes=[{"name": "engine", "state": "stopped"}]) == "engine stopped"
    assert of_b(processes=[{"name": "engine", "state": "crashed"}]) == "engine crashed"
    assert state(retired(registry, "b", NOW), {"b/agent": agent()})["b"] == "retired"


def test_a_wrong_clock_makes_nobody_silent(registry):
    (one,) = [
        each
        for each in node_facts(registry, {"b/agent": agent(at=NOW + 240.0, skew_seconds=240.0)}, NOW + 1)
        if each["node"] == "b"
    ]
    assert (one["state"], one["heard_seconds"]) == ("up", 1.0)


def test_a_row_that_does_not_decode_says_nothing(registry):
    assert state(registry, {"b/agent": b"[1", "b/engine": b"[]"})["b"] == "never up"


@pytest.mark.parametrize(
    "row",
    [
        b'{"at": "x"}',
        b'{"at": null}',
        b'{"skew_seconds": []}',
        b'{"at": 1, "processes": [1]}',
        b'{"at": 1, "interval": {}}',
        b'{"closures": [1]}',
        b'{"queued": "many"}',
        b'{"rate": "fast"}',
        b'{"x":' * 100_000,
        b'{"version":"\xff"}',
    ],
)
def test_no_row_of_a_node_keeps_the_others_from_being_shown(registry, row, capsys):
    show_nodes(node_facts(registry, {"b/agent": row, "b/engine": row, "hub/agent": agent()}, NOW), "")
    assert re.search("hub +hub +up", capsys.readouterr().out)


def test_what_a_node_tells_is_no_markup(registry, capsys):
    process = {"name": "[/x]", "state": "[bold]"}
    show_nodes(node_facts(registry, {"b/agent": agent(processes=[process], version="[/y]")}, NOW), "")
    out = capsys.readouterr().out
    assert "[/x] [bold]" in out
    assert "[/y]" in out


def test_the_engines_row_adds_what_waits(registry):
    rows = {"b/agent": agent(), "b/engine": json.dumps({"queued": 5, "rate": 12.5}).encode()}
    (one,) = [each for each in node_facts(registry, rows, NOW) if each["node"] == "b"]
    assert (one["queued"], one["rate"]) == (5, 12.5)


def test_codes_that_are_out_are_shown_until_they_are_over(registry):
    out = with_code(registry, "c", NodeRole.BROADCASTER, key(), NOW, 60)
    assert state(out, {})["c"] == "invited"
    assert "c" not in state(out, {}, NOW + 61)


def test_the_table_is_printed_with_its_troubles(registry, capsys):
    rows = {
        "b/agent": agent(
            at=NOW + 45.0,
            skew_seconds=45.0,
            processes=[{"name": "engine", "state": "crashed", "last_error": "no\x1b[31m disk"}],
        ),
        "b/engine": json.dumps({"closures": {"twin": "another engine is called b"}}).encode(),
    }
    show_nodes(node_facts(with_code(registry, "c", NodeRole.BROADCASTER, key(), NOW, 60), rows, NOW), "why")
    out = capsys.readouterr().out
    for word in ("the register alone: why", "engine crashed", "+45 s !", "another engine is called b", "no"):
        assert word in out
    assert "\x1b[31m" not in out
    assert "can be used for 60 s more" in out
