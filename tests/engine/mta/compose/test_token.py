"""Tokens: what is minted verifies, and nothing else does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.mta.compose.token import (
    CAMPAIGN_MAX,
    DAY_MAX,
    KINDS,
    SUBSCRIBER_MAX,
    Kind,
    TokenKeys,
    TokenPayload,
    mint,
    verify,
)
from tests.fakes.letters import token_keys

KEYS = token_keys(current=3, ids=(3, 15))
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
kinds = st.sampled_from(KINDS)
facts = st.fixed_dictionaries(
    {
        "day": st.integers(0, DAY_MAX),
        "campaign": st.integers(0, CAMPAIGN_MAX),
        "subscriber": st.integers(0, SUBSCRIBER_MAX),
        "single": st.booleans(),
    }
)


def sample(kind: Kind = "b", keys: TokenKeys = KEYS) -> str:
    return mint(kind, keys, day=20_000, campaign=7, subscriber=42, domain_id="example.org")


@settings(max_examples=80)
@given(kinds, facts, st.text(max_size=30))
def test_a_minted_token_says_what_it_was_told(kind: Kind, payload: dict[str, int], domain: str) -> None:
    token = mint(kind, KEYS, domain_id=domain, **payload)  # type: ignore[arg-type]
    assert len(token) == 40
    assert set(token) <= set(ALPHABET)
    assert verify(kind, KEYS, token, domain) == TokenPayload(key_id=3, **payload)  # type: ignore[arg-type]


@settings(max_examples=80)
@given(st.integers(0, 39), st.sampled_from(ALPHABET))
def test_a_changed_character_is_noticed(at: int, char: str) -> None:
    token = sample()
    changed = token[:at] + char + token[at + 1 :]
    assert (verify("b", KEYS, changed, "example.org") is not None) == (changed == token)


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_other_text_is_no_token(text: str) -> None:
    assert verify("b", KEYS, text, "example.org") is None


def test_a_token_of_one_kind_is_no_other_kind() -> None:
    token = sample("u")
    assert [kind for kind in KINDS if verify(kind, KEYS, token, "example.org")] == ["u"]


def test_a_token_is_bound_to_its_sending_domain() -> None:
    assert verify("b", KEYS, sample(), "example.com") is None


def test_letter_case_does_not_matter() -> None:
    assert verify("b", KEYS, sample().upper(), "example.org") is not None


@pytest.mark.parametrize("token", ["ſ" + "a" * 39, "K" + "a" * 39, "=" * 40, "a" * 39, "a" * 41, "1" * 40])
def test_texts_that_nearly_look_like_tokens_are_refused(token: str) -> None:
    assert verify("b", KEYS, token, "example.org") is None


def test_tokens_of_an_older_key_keep_verifying_after_rotation() -> None:
    old = sample(keys=token_keys(current=3, ids=(3,)))
    rotated = token_keys(current=4, ids=(3, 4))
    assert verify("b", rotated, old, "example.org") is not None
    assert verify("b", rotated, sample(keys=rotated), "example.org") is not None
    assert verify("b", token_keys(current=4, ids=(4,)), old, "example.org") is None


def test_the_layout_is_the_documented_one() -> None:
    import base64
    import hashlib
    import hmac

    raw = base64.b32decode(sample("c").upper())
    assert raw[:15] == bytes([0x13]) + (20_000).to_bytes(2) + (7).to_bytes(4) + (42).to_bytes(6) + b"\0\0"
    mac = hmac.new(KEYS.keys[3]["c"], b"c" + raw[:15] + b"example.org", hashlib.sha256).digest()
    assert raw[15:] == mac[:10]


def test_an_incomplete_key_is_refused_where_it_is_made() -> None:
    with pytest.raises(AssertionError):
        TokenKeys(1, {1: {"b": bytes(32)}})
    with pytest.raises(AssertionError):
        TokenKeys(2, token_keys().keys)


def test_keys_do_not_show_in_a_repr() -> None:
    assert repr(token_keys()) == "<TokenKeys current 3, ids [3]>"
