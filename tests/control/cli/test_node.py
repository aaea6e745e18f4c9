"""`emass node` on a hub that is not up; with everything running it is in test_node_machines."""

import fcntl
import json

import pytest

from control.cli.__main__ import run
from control.cluster.join_code import decode_join_code
from control.cluster.registry_file import load_registry


@pytest.fixture
def hub(tmp_path, capsys):
    folder = tmp_path / "hub"
    assert (
        run(["init", str(folder), "--cluster", "--algorithm", "ed25519-sha256", "--listen", "127.0.0.1:9"])
        == 0
    )
    capsys.readouterr()
    return folder


def said(capsys, *words) -> tuple[int, str, str]:
    code = run(list(words))
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_code_is_one_line_and_what_to_do_with_it_is_beside(hub, capsys):
    config = ["--config", str(hub / "emass.toml")]
    code, out, err = said(capsys, "node", "add", "b", *config)
    assert code == 0
    assert len(out.splitlines()) == 1 + (out.count("\n\n"))
    read = decode_join_code(out.strip())
    assert (read.node, str(read.server)) == ("b", "127.0.0.1:9")
    assert "emass node join CODE" in err
    assert "not up yet" in err
    assert [each.node for each in load_registry(hub / "data").codes.values()] == ["b"]
    assert read.seed not in (hub / "data" / "cluster" / "registry.json").read_text()


def test_a_second_code_is_refused_and_may_be_taken_back(hub, capsys):
    config = ["--config", str(hub / "emass.toml")]
    said(capsys, "node", "add", "b", *config)
    code, _, err = said(capsys, "node", "add", "b", *config)
    assert (code, "is out already" in err) == (1, True)
    assert said(capsys, "node", "retire", "b", *config)[0] == 0
    assert said(capsys, "node", "add", "b", "--expires", "2 h", "--json", *config)[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "word"),
    [
        (["add", "a.b"], 1, "no node's name"),
        (["add", "hub"], 1, "is in the cluster"),
        (["add", "b", "--expires", "soon"], 2, "--expires soon"),
        (["retire", "hub"], 1, "without it there is no cluster"),
        (["retire", "z"], 1, "no node is called z"),
        (["stop", "z"], 2, "no node is called z"),
        (["drain", "hub", "--within", "soon"], 2, "--within soon"),
    ],
)
def test_what_cannot_be_is_one_line(hub, capsys, words, code, word):
    result, _, err = said(capsys, "node", *words, "--config", str(hub / "emass.toml"))
    assert result == code
    assert word in err
    assert err.count("\n") == 1


def test_without_a_hub_it_says_which_folder_is_none(tmp_path, capsys):
    run(["init", str(tmp_path / "plain")])
    code, _, err = said(capsys, "node", "list", "--config", str(tmp_path / "plain" / "emass.toml"))
    assert (code, "is not the hub of a cluster" in err) == (2, True)


def test_a_bus_that_is_down_leaves_the_register(hub, capsys, monkeypatch):
    monkeypatch.setattr("control.cli.node.LOOK_SECONDS", 0.2)
    code, out, _ = said(capsys, "node", "list", "--json", "--config", str(hub / "emass.toml"))
    told = json.loads(out)
    assert (code, told["nodes"][0]["state"]) == (0, "not known")
    assert "does not answer" in told["bus"]


@pytest.mark.parametrize("code", ["hello", "emass-AAAA", "emass-"])
def test_a_wrong_code_is_wrong_usage_and_writes_nothing(tmp_path, capsys, code):
    result, _, err = said(capsys, "node", "join", code, "--dir", str(tmp_path / "new"))
    assert result == 2
    assert "join code" in err
    assert not (tmp_path / "new").exists()


def test_a_wrong_setting_is_wrong_usage(tmp_path, capsys):
    result, _, err = said(capsys, "node", "join", "hello", "--set", "x", "--dir", str(tmp_path / "new"))
    assert (result, "--set" in err) == (2, True)


def test_a_join_that_fails_is_one_line(hub, tmp_path, capsys):
    _, out, _ = said(capsys, "node", "add", "b", "--config", str(hub / "emass.toml"))
    result, _, err = said(capsys, "node", "join", out.strip(), "--dir", str(tmp_path / "new"))
    assert result == 1
    assert "127.0.0.1:9 cannot be reached" in err


def test_the_servers_configuration_is_written_before_anybody_else_may_change_the_register(
    hub, capsys, monkeypatch
):
    locked = []

    def write(*_):
        with (hub / "data" / "cluster" / "registry.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(True)

    monkeypatch.setattr("control.cluster.nats_server.write_nats_config", write)
    assert said(capsys, "node", "add", "b", "--config", str(hub / "emass.toml"))[0] == 0
    assert said(capsys, "node", "retire", "b", "--config", str(hub / "emass.toml"))[0] == 0
    assert locked == [True, True]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"[]", "does not decode"),
        (b"\xff", "does not decode"),
        (b'{"x":' + b"[" * 100_000, "does not decode"),
        (b'{"error": "no\\u001b[31m"}', "hub: no"),
    ],
)
def test_a_strange_answer_of_a_node_is_one_line(hub, capsys, monkeypatch, answer, word):
    monkeypatch.setattr("control.cli.node._run", lambda _: answer)
    code, _, err = said(capsys, "node", "logs", "hub", "--config", str(hub / "emass.toml"))
    assert (code, word in err, "\x1b" in err, err.count("\n")) == (1, True, False, 1)


def test_lines_that_are_none_are_no_lines(hub, capsys, monkeypatch):
    monkeypatch.setattr("control.cli.node._run", lambda _: b'{"lines": 5, "done": "well"}')
    assert said(capsys, "node", "logs", "hub", "--config", str(hub / "emass.toml"))[:2] == (0, "well\n")
