"""Rings of token keys: who holds what, which id signs what, and how a new id comes into force."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.keyring import (
    TOKEN_KINDS,
    KeyringError,
    create_master_key,
    derive_suppression_key,
    derive_token_key,
    load_master_key,
)
from engine.token_ring import (
    FIRST_PLAN,
    KEY_IDS_MAX,
    KINDS_BY_ROLE,
    PLAN_FILE,
    YEAR_SECONDS,
    TokenId,
    TokenPlan,
    decode_ring,
    encode_ring,
    load_plan,
    load_ring,
    ring_for,
    save_plan,
    save_ring,
    with_new_id,
    with_start,
)

MASTER = bytes(range(32))
NOW = 1_800_000_000.0

plans = st.dictionaries(
    st.integers(0, KEY_IDS_MAX - 1),
    st.builds(TokenId, st.floats(0, 4e9), st.none() | st.floats(0, 4e9)),
    min_size=1,
).map(lambda ids: TokenPlan(3, {**ids, 0: TokenId(0.0, 0.0)}))


def test_a_first_ring_signs_with_id_0_whatever_was_accepted() -> None:
    ring = ring_for(MASTER)
    assert ring.keys == {0: {kind: derive_token_key(MASTER, 0, kind) for kind in TOKEN_KINDS}}
    assert ring.suppression == derive_suppression_key(MASTER)
    assert ring.current == ring.signing_id(0.0) == ring.signing_id(NOW) == ring.signing_id(-1.0) == 0
    assert repr(ring) == "<TokenRing 1: ids [0], current 0>"


@pytest.mark.parametrize(
    ("role", "kinds"), [("broadcaster", set("bucsrf")), ("landing", set("ucs")), ("bounce", set("burf"))]
)
def test_a_role_gets_only_the_kinds_that_it_needs(role: str, kinds: set[str]) -> None:
    assert set(ring_for(MASTER, KINDS_BY_ROLE[role]).keys[0]) == kinds


@given(plans)
def test_a_ring_comes_through_its_file_form_unchanged(plan: TokenPlan) -> None:
    ring = ring_for(MASTER, "uc", plan)
    assert decode_ring(encode_ring(ring), "here") == ring


@given(plans, st.floats(0, 4e9))
def test_what_is_accepted_is_signed_by_the_id_that_started_last_before(
    plan: TokenPlan, accepted_at: float
) -> None:
    ring = ring_for(MASTER, "u", plan)
    chosen = ring.signing_id(accepted_at)
    assert ring.starts[chosen] <= accepted_at
    assert not any(ring.starts[chosen] < start <= accepted_at for start in ring.starts.values())
    assert ring.signing_id(4e9) == ring.current


# --- rotation ----------------------------------------------------------------------------------------------


def test_a_new_id_verifies_first_and_signs_from_its_start_on() -> None:
    plan = with_new_id(FIRST_PLAN, NOW)
    handed_out = ring_for(MASTER, plan=plan)
    assert plan.waiting == 1
    assert sorted(handed_out.keys) == [0, 1]
    assert handed_out.signing_id(NOW + 9e6) == 0
    started = ring_for(MASTER, plan=with_start(plan, NOW + 60))
    assert [started.signing_id(NOW + seconds) for seconds in (0, 59, 60, 61)] == [0, 0, 1, 1]
    assert started.serial > handed_out.serial > ring_for(MASTER).serial
    assert started.keys == handed_out.keys


def test_one_new_id_a_year_unless_it_must_be() -> None:
    plan = with_start(with_new_id(FIRST_PLAN, NOW), NOW)
    with pytest.raises(KeyringError, match=r"100 days old.*--force"):
        with_new_id(plan, NOW + 100 * 86_400)
    assert with_new_id(plan, NOW + 100 * 86_400, early=True).waiting == 2
    assert with_new_id(plan, NOW + YEAR_SECONDS).waiting == 2


def test_a_second_new_id_waits_for_the_first() -> None:
    with pytest.raises(KeyringError, match="start that one first"):
        with_new_id(with_new_id(FIRST_PLAN, NOW), NOW + 2 * YEAR_SECONDS, early=True)


def test_there_is_no_seventeenth_id() -> None:
    plan = FIRST_PLAN
    for number in range(1, KEY_IDS_MAX):
        plan = with_start(with_new_id(plan, NOW + number, early=True), NOW + number)
    assert sorted(ring_for(MASTER, plan=plan).keys) == list(range(KEY_IDS_MAX))
    with pytest.raises(KeyringError, match="all 16 key ids are in use"):
        with_new_id(plan, NOW + 9 * YEAR_SECONDS, early=True)


# --- files -------------------------------------------------------------------------------------------------


def test_a_master_key_and_its_plan_make_the_ring(tmp_path: Path) -> None:
    create_master_key(tmp_path / "master.key")
    master = load_master_key(tmp_path / "master.key")
    assert load_ring(tmp_path) == ring_for(master)
    plan = with_new_id(FIRST_PLAN, NOW)
    save_plan(tmp_path, plan)
    assert load_plan(tmp_path) == plan
    assert load_ring(tmp_path) == ring_for(master, plan=plan)


def test_without_a_master_key_the_ring_file_speaks(tmp_path: Path) -> None:
    ring = ring_for(MASTER, plan=with_new_id(FIRST_PLAN, NOW))
    save_ring(tmp_path / "ring.json", ring)
    assert (tmp_path / "ring.json").stat().st_mode & 0o777 == 0o600
    assert load_ring(tmp_path) == ring
    (tmp_path / "ring.json").chmod(0o644)
    with pytest.raises(KeyringError, match="chmod 600"):
        load_ring(tmp_path)
    (tmp_path / "ring.json").unlink()
    with pytest.raises(KeyringError, match=r"ring\.json"):
        load_ring(tmp_path)


def changed(**facts: object) -> bytes:
    return json.dumps(json.loads(encode_ring(ring_for(MASTER))) | facts).encode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a ring of keys"),
        (b"[]", "not a ring of keys"),
        (b"\xff", "not a ring of keys"),
        (changed(form=2), "form 2"),
        (changed(serial=None), "not a ring of keys"),
        (changed(keys={"16": {"u": "00" * 32}}), "from 0 to 15"),
        (changed(keys={}), "from 0 to 15"),
        (changed(keys={"0": {"u": "00"}}), "32 octets"),
        (changed(keys={"0": {"x": "00" * 32}}), "kinds"),
        (changed(starts={}), "which key signs"),
        (changed(starts={"3": 0}), "which key signs"),
        (changed(suppression="00"), "suppressions"),
    ],
)
def test_what_is_no_ring_is_refused_by_name(data: bytes, problem: str) -> None:
    with pytest.raises(KeyringError, match=f"^here: .*{problem}"):
        decode_ring(data, "here")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"serial": 1}',
        '{"serial": 1, "ids": {}}',
        '{"serial": 1, "ids": {"16": {"made_at": 0, "starts_at": 0}}}',
        '{"serial": 1, "ids": {"0": {"made_at": 0, "starts_at": null}}}',
        '{"serial": 1, "ids": {"0": {"when": 0}}}',
    ],
)
def test_a_plan_that_cannot_be_used_names_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / PLAN_FILE).write_text(text)
    (tmp_path / PLAN_FILE).chmod(0o600)
    with pytest.raises(KeyringError, match=PLAN_FILE):
        load_plan(tmp_path)


def test_an_id_starts_with_a_whole_second_since_acceptance_is_kept_in_whole_seconds() -> None:
    plan = with_start(with_new_id(FIRST_PLAN, NOW), NOW + 0.3)
    ring = ring_for(MASTER, plan=plan)
    start = ring.starts[1]
    assert start == int(start) >= NOW + 0.3
    assert ring.signing_id(int(start + 0.01)) == 1
    assert ring.signing_id(int(start - 0.01)) == 0
