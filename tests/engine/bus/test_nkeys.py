"""nkeys: the form is NATS's own, so a published pair and an independent library must agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from engine.bus.nkeys import check_public, decode_seed, encode_seed, new_seed, public_of, sign, verified

# From the documentation of NATS ("nk -gen user -pubout").
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_a_published_pair_is_read_as_nats_reads_it():
    assert public_of(SEED) == PUBLIC
    assert encode_seed(decode_seed(SEED)) == SEED
    assert check_public(PUBLIC) == PUBLIC


def test_a_signature_is_verified_by_another_library():
    seed = new_seed()
    verify = SigningKey(decode_seed(seed)).verify_key
    assert verify.verify(b"nonce", sign(seed, b"nonce")) == b"nonce"


def test_a_signature_holds_for_its_octets_and_its_key_alone():
    seed, other = new_seed(), new_seed()
    signature = sign(seed, b"octets")
    assert verified(public_of(seed), b"octets", signature)
    assert not verified(public_of(seed), b"octetz", signature)
    assert not verified(public_of(other), b"octets", signature)
    assert not verified(public_of(seed), b"octets", b"short")
    with pytest.raises(ValueError, match="public key"):
        verified("nobody", b"octets", signature)


@given(st.binary(min_size=32, max_size=32))
def test_every_seed_comes_back(raw):
    seed = encode_seed(raw)
    assert seed.startswith("SU")
    assert decode_seed(f" {seed}\n") == raw


@given(st.integers(0, 57), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_one_wrong_character_is_noticed_and_the_secret_is_not_repeated(place, letter):
    damaged = SEED[:place] + letter + SEED[place + 1 :]
    if damaged == SEED:
        return
    with pytest.raises(ValueError, match=r"seed") as told:
        decode_seed(damaged)
    assert damaged not in str(told.value)


@pytest.mark.parametrize("text", ["", "SU", SEED.lower(), PUBLIC, SEED + "A", "SU" + "1" * 56])
def test_what_is_no_seed_is_refused(text):
    with pytest.raises(ValueError, match="seed"):
        decode_seed(text)


@pytest.mark.parametrize("text", ["", SEED, PUBLIC[:-1] + "A", "A" + PUBLIC[1:], PUBLIC.lower()])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(ValueError, match="public key"):
        check_public(text)


def test_a_key_of_an_account_is_no_user():
    import base64
    import binascii

    data = bytes((0 << 3,)) + bytes(32)  # "A": an account
    text = base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")
    with pytest.raises(ValueError, match="user"):
        check_public(text)
