"""Secrets: files that others may read are refused, keys are never overwritten, destroyed keys are gone."""

import errno
import hashlib
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from engine import keyring
from engine.keyring import (
    TOKEN_KINDS,
    KeyringError,
    RowKeyring,
    RowSealer,
    create_dkim_key,
    create_master_key,
    derive_suppression_key,
    derive_token_key,
    load_dkim_key,
    load_master_key,
    load_row_secret,
    read_secret,
    replace_file,
    row_secret,
    write_secret,
)
from engine.model.content import DkimAlgorithm

MASTER = bytes(range(32))
DIGEST = hashlib.sha256(b"header").digest()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


# --- files -----------------------------------------------------------------------------------------------


def test_a_secret_is_written_for_its_owner_only_and_read_back(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"octets")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read_secret(tmp_path / "key") == b"octets"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_key_is_never_overwritten_unless_that_is_the_point(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"one")
    with pytest.raises(KeyringError, match="never overwritten"):
        write_secret(tmp_path / "key", b"two")
    assert read_secret(tmp_path / "key") == b"one"
    write_secret(tmp_path / "key", b"two", replace=True)
    assert read_secret(tmp_path / "key") == b"two"


def test_a_link_that_leads_nowhere_is_not_overwritten_either(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "not mounted" / "key")
    with pytest.raises(KeyringError, match="never overwritten"):
        write_secret(tmp_path / "key", b"octets")
    assert (tmp_path / "key").is_symlink()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_may_read_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    write_secret(tmp_path / "key", b"octets")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(KeyringError, match=r"others may read this key.*chmod 600"):
        read_secret(tmp_path / "key")


def test_a_missing_or_too_large_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="No such file"):
        read_secret(tmp_path / "none")
    with pytest.raises(KeyringError, match="cannot write the key"):
        write_secret(tmp_path / "none" / "key", b"")
    write_secret(tmp_path / "large", bytes(keyring.KEY_FILE_OCTETS_MAX + 1))
    with pytest.raises(KeyringError, match="not a key file"):
        read_secret(tmp_path / "large")


def test_a_write_that_fails_leaves_the_old_key_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secret(tmp_path / "key", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyringError, match="No space left"):
        write_secret(tmp_path / "key", b"new", replace=True)
    assert read_secret(tmp_path / "key") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


# --- master key and tokens -------------------------------------------------------------------------------


def test_a_master_key_is_made_once(tmp_path: Path) -> None:
    create_master_key(tmp_path / "master.key")
    master = load_master_key(tmp_path / "master.key")
    assert len(master) == 32
    with pytest.raises(KeyringError):
        create_master_key(tmp_path / "master.key")
    assert load_master_key(tmp_path / "master.key") == master


@pytest.mark.parametrize("text", [b"", b"00" * 31, b"00" * 33, b"zz" * 32, b"\xff" * 64])
def test_what_is_no_master_key_is_refused(tmp_path: Path, text: bytes) -> None:
    write_secret(tmp_path / "master.key", text)
    with pytest.raises(KeyringError, match="make one with `emass init`"):
        load_master_key(tmp_path / "master.key")


def test_token_keys_differ_by_kind_and_id_and_stay_the_same() -> None:
    keys = {derive_token_key(MASTER, number, kind) for number in range(16) for kind in TOKEN_KINDS}
    assert len(keys) == 16 * len(TOKEN_KINDS)
    assert derive_token_key(MASTER, 3, "u") == derive_token_key(MASTER, 3, "u")
    # A golden value: tokens in mail that was sent must be understood by every later version.
    assert derive_token_key(MASTER, 0, "u").hex() == GOLDEN_TOKEN_KEY


GOLDEN_TOKEN_KEY = "aff3b42480b31249331c862cf70fe7b4aba5f79d0f75f9c196ad4a1a67730623"


@pytest.mark.parametrize(("number", "kind"), [(16, "u"), (-1, "u"), (0, "x"), (0, ""), (0, "uc")])
def test_an_impossible_token_key_is_a_bug(number: int, kind: str) -> None:
    with pytest.raises(AssertionError):
        derive_token_key(MASTER, number, kind)


# --- DKIM ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "record"),
    [("rsa-sha256", "v=DKIM1; k=rsa; p="), ("ed25519-sha256", "v=DKIM1; k=ed25519; p=")],
)
def test_a_dkim_key_signs_what_its_record_verifies(tmp_path: Path, algorithm: str, record: str) -> None:
    published = create_dkim_key(tmp_path / "dkim.pem", algorithm)
    key = load_dkim_key(tmp_path / "dkim.pem")
    assert published == key.record()
    assert published.startswith(record)
    assert key.algorithm is DkimAlgorithm(algorithm)
    signature = key.sign(DIGEST)
    key.verify(DIGEST, signature)
    with pytest.raises(InvalidSignature):
        key.verify(hashlib.sha256(b"other").digest(), signature)
    with pytest.raises(KeyringError):
        create_dkim_key(tmp_path / "dkim.pem", algorithm)


def test_dkim_keys_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    curve = ec.generate_private_key(ec.SECP256R1())
    for name, octets, reason in [
        ("text", b"hello", "not an unencrypted PEM"),
        ("half", pem(weak)[:200], "not an unencrypted PEM"),
        ("locked", pem(weak, b"password"), "not an unencrypted PEM"),
        ("curve", pem(curve), "RSA or Ed25519 keys only"),
    ]:
        write_secret(tmp_path / name, octets)
        with pytest.raises(KeyringError, match=reason):
            load_dkim_key(tmp_path / name)
    write_secret(tmp_path / "weak", pem(weak))
    assert load_dkim_key(tmp_path / "weak").algorithm is DkimAlgorithm.RSA_SHA256  # 1024 is the floor


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_keeps_its_owner_and_a_new_one_is_its_folder_s(tmp_path: Path) -> None:
    os.chown(tmp_path, 54_321, 54_322)
    path = tmp_path / "file"
    replace_file(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (54_321, 54_322)
    os.chown(path, 54_323, 54_324)
    replace_file(path, b"replaced")
    assert (path.stat().st_uid, path.stat().st_gid) == (54_323, 54_324)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_an_owner_that_cannot_be_given_does_not_keep_a_file_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_bytes(b"old")
    former = SimpleNamespace(st_uid=54_321, st_gid=54_321)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("pathlib.Path.lstat", lambda _: former)
    monkeypatch.setattr("os.fchown", refuse)
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


# --- row keys --------------------------------------------------------------------------------------------


def test_a_sealed_row_opens_only_as_it_was_sealed() -> None:
    sealer, nonce = RowSealer(bytes(32)), bytes(12)
    sealed = sealer.seal(nonce, b"row", b"bound")
    assert sealer.open(nonce, sealed, b"bound") == b"row"
    assert b"row" not in sealed
    for other, octets, where, bound in [
        (sealer, sealed[:-1] + bytes([sealed[-1] ^ 1]), nonce, b"bound"),
        (sealer, sealed, bytes(11) + b"\1", b"bound"),
        (sealer, sealed, nonce, b"other"),
        (sealer, sealed, nonce, None),
        (sealer, b"", nonce, b"bound"),
        (RowSealer(b"\1" * 32), sealed, nonce, b"bound"),
    ]:
        with pytest.raises(KeyringError, match="does not open"):
            other.open(where, octets, bound)


def test_the_key_of_suppressions_is_the_master_key_s_own_and_no_token_key() -> None:
    key = derive_suppression_key(MASTER)
    assert key == derive_suppression_key(MASTER)
    assert len(key) == 32
    assert key not in {derive_suppression_key(bytes(32)), derive_token_key(MASTER, 0, "b")}


def test_a_campaign_key_unwraps_in_a_later_process(tmp_path: Path) -> None:
    wrapped = RowKeyring(tmp_path / "rows.keys", MASTER).create_campaign_key(20_000)
    sealed = RowKeyring(tmp_path / "rows.keys", MASTER).sealer(wrapped).seal(bytes(12), b"row")
    assert RowKeyring(tmp_path / "rows.keys", MASTER).sealer(wrapped).open(bytes(12), sealed) == b"row"


def test_campaigns_of_one_day_share_the_epoch_key_and_nothing_else(tmp_path: Path) -> None:
    rows = RowKeyring(tmp_path / "rows.keys", MASTER)
    one = rows.create_campaign_key(20_000)
    file = (tmp_path / "rows.keys").read_bytes()
    two = rows.create_campaign_key(20_000)
    assert (tmp_path / "rows.keys").read_bytes() == file
    assert rows.sealer(one).seal(bytes(12), b"row") != rows.sealer(two).seal(bytes(12), b"row")


def test_nothing_is_sealed_under_an_epoch_key_that_no_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.keys"
    ring = RowKeyring(path, bytes(32))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(KeyringError, match="No space left on device"):
            ring.create_campaign_key(20_000)
    wrapped = ring.create_campaign_key(20_000)
    RowKeyring(path, bytes(32)).sealer(wrapped)


def no_room(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_destroyed_epoch_key_is_gone_from_the_file(tmp_path: Path) -> None:
    rows = RowKeyring(tmp_path / "rows.keys", MASTER)
    old, new = rows.create_campaign_key(20_000), rows.create_campaign_key(20_001)
    assert (rows.destroy_before(20_001), rows.destroy_before(20_001)) == (1, 0)
    for keys in (rows, RowKeyring(tmp_path / "rows.keys", MASTER)):
        keys.sealer(new)
        with pytest.raises(KeyringError, match="day 20000 was destroyed"):
            keys.sealer(old)


def test_epoch_keys_that_could_not_be_destroyed_are_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = RowKeyring(tmp_path / "rows.keys", MASTER)
    old = rows.create_campaign_key(20_000)
    rows.create_campaign_key(20_001)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(KeyringError, match="No space left on device"):
            rows.destroy_before(20_001)
    rows.sealer(old)
    assert rows.destroy_before(20_001) == 1
    with pytest.raises(KeyringError, match="was destroyed"):
        RowKeyring(tmp_path / "rows.keys", MASTER).sealer(old)


@pytest.mark.parametrize("wrapped", [b"", b"\0\0\x4e\x20", b"\0\0\x4e\x20" + bytes(60)])
def test_a_damaged_campaign_key_is_refused(tmp_path: Path, wrapped: bytes) -> None:
    rows = RowKeyring(tmp_path / "rows.keys", MASTER)
    rows.create_campaign_key(20_000)
    with pytest.raises(KeyringError):
        rows.sealer(wrapped)


@pytest.mark.parametrize("octets", [b"", b"short", bytes(100)])
def test_a_key_ring_of_another_master_key_is_refused(tmp_path: Path, octets: bytes) -> None:
    RowKeyring(tmp_path / "rows.keys", MASTER).create_campaign_key(20_000)
    with pytest.raises(KeyringError, match="does not open with this master key"):
        RowKeyring(tmp_path / "rows.keys", bytes(32))
    write_secret(tmp_path / "rows.keys", octets, replace=True)
    with pytest.raises(KeyringError, match="does not open with this master key"):
        RowKeyring(tmp_path / "rows.keys", MASTER)


def test_rows_are_kept_under_the_master_key_or_a_secret_of_the_node_s_own(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="rows"):
        load_row_secret(tmp_path, "master.key")
    assert list(tmp_path.iterdir()) == []
    own = row_secret(tmp_path, "master.key")
    assert own == row_secret(tmp_path, "master.key") == load_row_secret(tmp_path, "master.key")
    create_master_key(tmp_path / "master.key")
    assert row_secret(tmp_path, "master.key") == load_master_key(tmp_path / "master.key") != own
