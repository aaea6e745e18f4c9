"""Sealing: what was sealed opens for its holder and its purpose alone, and a box key can be replaced."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import sealing
from engine.keyring import KeyringError
from engine.sealing import (
    OVERHEAD_OCTETS,
    Boxes,
    BoxKey,
    SealingError,
    create_box,
    dkim_bound,
    drop_former,
    former_of,
    key_id,
    load_boxes,
    rotate_box,
    seal,
    sealed_to,
)

MINE, FOREIGN = BoxKey(bytes(range(32))), BoxKey(bytes(range(1, 33)))
BOUND = dkim_bound("a", "news")


@given(plain=st.binary(max_size=2_000), bound=st.binary(max_size=60))
def test_what_was_sealed_opens(plain: bytes, bound: bytes) -> None:
    sealed = seal(MINE.public, plain, bound)
    assert len(sealed) == len(plain) + OVERHEAD_OCTETS
    assert sealed_to(sealed) == MINE.id == key_id(MINE.public)
    assert MINE.open(sealed, bound) == plain


@given(place=st.integers(0, OVERHEAD_OCTETS + 9), bit=st.integers(0, 7))
def test_a_bit_that_changed_anywhere_is_noticed(place: int, bit: int) -> None:
    sealed = bytearray(seal(MINE.public, b"ten octets", BOUND))
    sealed[place] ^= 1 << bit
    with pytest.raises(SealingError):
        MINE.open(bytes(sealed), BOUND)


@given(data=st.binary(max_size=200))
def test_octets_that_nobody_sealed_never_open(data: bytes) -> None:
    with pytest.raises(SealingError):
        Boxes([MINE]).open(data, BOUND)
    with pytest.raises(SealingError):
        MINE.open(bytes((1,)) + MINE.id + data, BOUND)


@pytest.mark.parametrize("bound", [dkim_bound("b", "news"), dkim_bound("a", "shop"), b"tokens/a", b""])
def test_a_value_that_was_moved_to_another_name_does_not_open(bound: bytes) -> None:
    with pytest.raises(SealingError, match="sealed for something else"):
        MINE.open(seal(MINE.public, b"key", BOUND), bound)


def test_a_value_for_somebody_else_names_the_key_that_would_open_it() -> None:
    sealed = seal(FOREIGN.public, b"key", BOUND)
    with pytest.raises(SealingError, match=FOREIGN.id.hex()):
        MINE.open(sealed, BOUND)
    with pytest.raises(SealingError, match="`emass keys seal` on the hub"):
        Boxes([MINE]).open(sealed, BOUND)


def test_the_same_octets_are_sealed_differently_each_time() -> None:
    assert seal(MINE.public, b"key", BOUND) != seal(MINE.public, b"key", BOUND)


def test_what_cannot_be_sealed_is_refused() -> None:
    with pytest.raises(SealingError, match="too many"):
        seal(MINE.public, bytes(sealing.PLAIN_OCTETS_MAX + 1), BOUND)
    for public in (b"short", bytes(32)):  # all zero: a point for which every secret is the same
        with pytest.raises(SealingError, match="no public half"):
            seal(public, b"key", BOUND)


def test_another_form_is_named() -> None:
    sealed = b"\x07" + seal(MINE.public, b"key", BOUND)[1:]
    with pytest.raises(SealingError, match="form 7"):
        MINE.open(sealed, BOUND)


def test_a_repr_names_keys_and_shows_none() -> None:
    assert repr(MINE) == f"<BoxKey {MINE.id.hex()}>"
    assert repr(Boxes([MINE, FOREIGN])) == f"<Boxes {MINE.id.hex()}, {FOREIGN.id.hex()}>"


# --- files -----------------------------------------------------------------------------------------------


def test_a_box_file_is_its_owner_s_and_opens_what_was_sealed_to_it(tmp_path: Path) -> None:
    public = create_box(tmp_path / "box")
    assert (tmp_path / "box").stat().st_mode & 0o777 == 0o600
    assert load_boxes(tmp_path / "box").open(seal(public, b"key", BOUND), BOUND) == b"key"
    with pytest.raises(KeyringError, match="never overwritten"):
        create_box(tmp_path / "box")


def test_a_replaced_box_opens_old_and_new_values_until_the_former_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "box"
    old = seal(create_box(path), b"old", BOUND)
    new = seal(rotate_box(path), b"new", BOUND)
    boxes = load_boxes(path)
    assert boxes.open(old, BOUND) == b"old"
    assert boxes.open(new, BOUND) == b"new"
    assert sealed_to(new) == key_id(boxes.public)
    with pytest.raises(KeyringError, match="still under way"):
        rotate_box(path)
    drop_former(path)
    drop_former(path)  # nothing to do is no error
    with pytest.raises(SealingError):
        load_boxes(path).open(old, BOUND)
    assert [file.name for file in tmp_path.iterdir()] == ["box"]


def test_a_replacement_that_was_killed_half_way_leaves_a_box_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "box"
    public = create_box(path)
    (tmp_path / "box.next").write_bytes(b"half")
    assert load_boxes(path).public == public
    os.link(path, former_of(path))  # killed between the link and the replacement
    assert load_boxes(path).public == public
    drop_former(path)
    assert load_boxes(path).public == public
    assert rotate_box(path) == load_boxes(path).public != public


def test_a_replaced_box_is_durable_before_anybody_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_box(tmp_path / "box")
    synced: list[set[str]] = []
    honest = os.fsync

    def look(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append({path.name for path in tmp_path.iterdir()})
        honest(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    rotate_box(tmp_path / "box")
    assert synced[-1] == {"box", former_of(tmp_path / "box").name}


def test_a_former_box_that_others_may_read_is_refused_and_one_that_is_gone_is_not_missed(
    tmp_path: Path,
) -> None:
    create_box(tmp_path / "box")
    rotate_box(tmp_path / "box")
    former_of(tmp_path / "box").chmod(0o640)
    with pytest.raises(KeyringError, match="chmod 600"):
        load_boxes(tmp_path / "box")
    drop_former(tmp_path / "box")
    assert len(load_boxes(tmp_path / "box").keys) == 1


def test_a_box_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    create_box(tmp_path / "box")
    (tmp_path / "box").chmod(0o640)
    with pytest.raises(KeyringError, match="chmod 600"):
        load_boxes(tmp_path / "box")


@pytest.mark.parametrize("text", [b"", b"zz" * 32, b"ab" * 31, b"\xff"])
def test_a_box_file_that_is_none_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "box").write_bytes(text)
    (tmp_path / "box").chmod(0o600)
    with pytest.raises(KeyringError, match="box: not a box key"):
        load_boxes(tmp_path / "box")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_box_can_be_given_to_the_user_that_opens_it(tmp_path: Path) -> None:
    create_box(tmp_path / "box", (54_321, 54_321))
    rotate_box(tmp_path / "box", (54_321, 54_322))
    for path, group in ((tmp_path / "box", 54_322), (former_of(tmp_path / "box"), 54_321)):
        assert (path.stat().st_uid, path.stat().st_gid) == (54_321, group)


def test_trouble_with_the_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="cannot"):
        create_box(tmp_path / "absent" / "box")
    with pytest.raises(KeyringError, match="cannot be replaced"):
        rotate_box(tmp_path / "absent" / "box")
