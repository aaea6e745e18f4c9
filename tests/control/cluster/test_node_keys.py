"""A machine's own keys: private, its own, and made once."""

import pytest

from control.cluster.node_keys import make_keys, read_applicant
from control.cluster.registry import PROCESSES, NodeRole
from engine.keyring import KeyringError


def test_keys_are_made_once(tmp_path):
    keys = make_keys(tmp_path, NodeRole.BROADCASTER)
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    assert make_keys(tmp_path, NodeRole.BROADCASTER) == keys
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before


def test_they_are_private(tmp_path):
    keys = make_keys(tmp_path, NodeRole.BROADCASTER)
    assert keys.stat().st_mode & 0o777 == 0o700
    for path in keys.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_what_is_shown_of_them_is_public_and_of_each_process(tmp_path):
    keys = make_keys(tmp_path, NodeRole.BROADCASTER)
    shown = read_applicant(keys, "b")
    assert set(shown.keys) == set(PROCESSES[NodeRole.BROADCASTER])
    secrets = [path.read_text().strip() for path in keys.rglob("*") if path.is_file()]
    assert not set(secrets) & {*shown.keys.values(), shown.signer_public, shown.box_public}
    assert shown.signer_public != shown.box_public


def test_a_damaged_seed_is_named(tmp_path):
    keys = make_keys(tmp_path, NodeRole.BROADCASTER)
    (keys / "bus" / "engine.seed").write_text("SU")
    with pytest.raises(KeyringError, match=r"engine\.seed"):
        read_applicant(keys, "b")
