"""A hub and a second node, each a whole `emass up`, and what `emass node` does with them from the hub."""

import json
import time

import pytest

from bench.peers.place import missing
from control.cli.__main__ import run
from tests.fakes.hub_house import HubHouse, up, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing("nats") is not None, reason=missing("nats") or ""),
]


class Hand:
    """An operator at the hub's shell."""

    def __init__(self, hub, capsys) -> None:
        self._config, self._capsys = ["--config", str(hub.file)], capsys

    def node(self, *words):
        """One command: exit code, what it printed, what it complained of."""
        self._capsys.readouterr()
        code = run(["node", *words, *self._config])
        told = self._capsys.readouterr()
        return code, told.out, told.err

    def state(self, name):
        _, out, _ = self.node("list", "--json")
        return next(one["state"] for one in json.loads(out)["nodes"] if one["node"] == name)

    def until(self, name, state):
        wait_for(lambda: self.state(name) == state, f"{name} {state}")


def test_a_cluster_by_hand(tmp_path, capsys):
    hub, hand = HubHouse(tmp_path / "hub"), None
    hand = Hand(hub, capsys)
    node = tmp_path / "b"
    with up(hub.file, tmp_path / "hub.log"):
        code, out, _ = hand.node("add", "b")
        assert code == 0
        assert run(["node", "join", out.strip(), "--dir", str(node), "--source", "127.0.0.2"]) == 0
        with up(node / "emass.toml", tmp_path / "b.log") as root:
            hand.until("b", "up")
            hand.until("hub", "up")
            assert hand.node("stop", "b")[:2] == (0, "engine stopped\n")
            hand.until("b", "engine stopped")
            assert hand.node("start", "b", "engine")[:2] == (0, "engine started\n")
            hand.until("b", "up")
            code, out, _ = hand.node("logs", "b", "engine", "-n", "3")
            assert (code, 1 <= len(out.splitlines()) <= 3) == (0, True)
            assert all(line.startswith("engine") for line in out.splitlines())
            code, _, err = hand.node("restart", "b", "web")
            assert (code, "no process is called 'web'" in err) == (1, True)
            code, out, _ = hand.node("drain", "b", "--reason", "new kernel")
            assert (code, "draining" in out) == (0, True)
            hand.until("b", "engine stopped")
            assert hand.node("retire", "b")[0] == 0
            assert hand.state("b") == "retired"
            wait_for(
                lambda: "does not know this node's key" in (tmp_path / "b.log").read_text(), "the node's word"
            )
            assert root.poll() is None  # a node that was shut out stays up, and says why it is alone
        code, _, err = hand.node("stop", "b")
        assert (code, "has been retired" in err) == (2, True)


def test_a_node_that_is_down_is_told_of_soon_and_comes_back_by_itself(tmp_path, capsys):
    hub = HubHouse(tmp_path / "hub", 'node.runs=["bus"]')
    hand = Hand(hub, capsys)
    node = tmp_path / "b"
    with up(hub.file, tmp_path / "hub.log"):
        _, out, _ = hand.node("add", "b")
        assert run(["node", "join", out.strip(), "--dir", str(node)]) == 0
        assert hand.state("b") == "never up"
        begun = time.monotonic()
        code, _, err = hand.node("stop", "b")
        assert (code, "b does not answer" in err) == (1, True)
        assert time.monotonic() - begun < 15
    # An engine starts without its bus.
    with up(node / "emass.toml", tmp_path / "b.log"), up(hub.file, tmp_path / "hub.log"):
        hand.until("b", "up")
    with up(hub.file, tmp_path / "hub.log"):
        hand.until("b", "silent")  # the hub was away when it stopped


def test_of_two_folders_with_one_name_the_second_stops(tmp_path, capsys):
    import shutil

    hub = HubHouse(tmp_path / "hub", 'node.runs=["bus"]')
    hand = Hand(hub, capsys)
    with up(hub.file, tmp_path / "hub.log"):
        _, out, _ = hand.node("add", "b")
        assert run(["node", "join", out.strip(), "--dir", str(tmp_path / "b")]) == 0
        shutil.copytree(tmp_path / "b", tmp_path / "copy")  # before it ever ran: its spool is not a copy
        with up(tmp_path / "b" / "emass.toml", tmp_path / "b.log") as first:
            hand.until("b", "up")
            with up(tmp_path / "copy" / "emass.toml", tmp_path / "copy.log") as second:
                assert second.wait(60) == 1
            told = (tmp_path / "copy.log").read_text()
            assert "a node called b runs already" in told
            assert str(tmp_path / "b" / "data") in told
            assert first.poll() is None
            hand.until("b", "up")
