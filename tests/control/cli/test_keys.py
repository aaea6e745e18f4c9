"""`emass keys`: what it shows, what it refuses, and the rotation of a single node."""

import json
import os
from pathlib import Path

import pytest

from control.cli import keys as keys_module
from control.cli.__main__ import run
from engine.keyring import create_master_key
from engine.sealing import NODE_BOX, create_box, former_of, load_boxes
from engine.token_ring import KEY_IDS_MAX, load_plan, ring_for, save_ring


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A single node's folder."""
    (tmp_path / "keys").mkdir()
    create_master_key(tmp_path / "keys" / "master.key")
    (tmp_path / "emass.toml").write_text('[node]\nname = "solo"\n')
    return tmp_path


@pytest.fixture
def member(tmp_path: Path) -> Path:
    """A node that joined a cluster."""
    keys = tmp_path / "keys"
    (keys / "bus").mkdir(parents=True)
    for box in (NODE_BOX, "signer.box"):
        create_box(keys / box)
    save_ring(keys / "ring.json", ring_for(bytes(32)))
    (tmp_path / "emass.toml").write_text('[node]\nname = "a"\n[bus]\nkind = "nats"\n')
    return tmp_path


def emass(folder: Path, *words: str) -> int:
    return run(["keys", *words, "--config", str(folder / "emass.toml")])


def test_it_shows_names_and_no_key(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert emass(node, "show") == 0
    out = capsys.readouterr().out
    assert "solo: keys in" in out
    assert "token key 0   signs from the beginning, the current one" in out
    assert (node / "keys" / "master.key").read_text().strip() not in out


def test_a_member_shows_its_boxes_and_where_the_master_key_is(
    member: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.link(member / "keys" / NODE_BOX, former_of(member / "keys" / NODE_BOX))
    assert emass(member, "show", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["master"] is False
    assert facts["boxes"] == {NODE_BOX: "being replaced", "signer.box": "in use"}
    assert facts["tokens"] == {"serial": 1, "current": 0, "ids": {"0": 0.0}}
    assert emass(member, "show") == 0
    assert "not here (a cluster's hub has it)" in capsys.readouterr().out


def test_what_cannot_be_read_is_shown_as_such(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (member / "keys" / "ring.json").chmod(0o644)
    assert emass(member, "show") == 0
    assert "chmod 600" in capsys.readouterr().out


# --- token keys --------------------------------------------------------------------------------------------


def test_a_single_node_rotates_at_once_and_once_a_year(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emass(node, "rotate-token") == 0
    assert "Key id 1 signs what is accepted from 10 s from now on." in capsys.readouterr().out
    plan = load_plan(node / "keys")
    assert plan.waiting is None
    assert sorted(plan.ids) == [0, 1]
    assert emass(node, "rotate-token") == 2
    assert "--force takes one all the same" in capsys.readouterr().err
    for _ in range(KEY_IDS_MAX - 2):
        assert emass(node, "rotate-token", "--force") == 0
    assert emass(node, "rotate-token", "--force") == 2
    assert "all 16 key ids are in use" in capsys.readouterr().err
    assert emass(node, "show") == 0
    assert "token key 15  signs what is accepted from" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("rotate-token",), "the hub has and this node has not"),
        (("seal",), "this node is none"),
    ],
)
def test_what_only_the_hub_can_do_is_refused_elsewhere(
    member: Path, words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emass(member, *words) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"), [(("rotate-sealing",), "no box keys"), (("rotate-node",), "shows no keys")]
)
def test_what_only_a_cluster_s_node_has_is_refused_elsewhere(
    node: Path, words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emass(node, *words) == 2
    assert why in capsys.readouterr().err


# --- box keys ----------------------------------------------------------------------------------------------


def test_both_boxes_are_replaced_and_the_former_ones_stay_until_somebody_drops_them(
    member: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {box: load_boxes(member / "keys" / box).public for box in (NODE_BOX, "signer.box")}
    assert emass(member, "rotate-sealing", "--no-wait") == 0
    for box, public in before.items():
        boxes = load_boxes(member / "keys" / box)
        assert boxes.public != public
        assert boxes.keys[1].public == public
    monkeypatch.setattr(keys_module, "BOX_SECONDS", 0.1)
    capsys.readouterr()
    assert emass(member, "rotate-sealing") == 1
    told = capsys.readouterr()
    assert "still under way" in told.out
    assert "goes by itself once it is" in told.err
    former_of(member / "keys" / NODE_BOX).unlink()
    former_of(member / "keys" / "signer.box").unlink()
    monkeypatch.setattr(keys_module, "rotate_box", lambda path, owner: bytes(32))
    assert emass(member, "rotate-sealing") == 0
    assert "the former ones are destroyed" in capsys.readouterr().out
