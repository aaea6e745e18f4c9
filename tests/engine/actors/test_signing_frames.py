"""What the signer actor and its processes say about keys is read as it was written."""

from hypothesis import given
from hypothesis import strategies as st

from engine.actors.signing_frames import (
    KEYS_MAX,
    REQUEST,
    add_key,
    is_key_change,
    read_key_change,
    remove_key,
)


@given(st.integers(0, KEYS_MAX - 1), st.binary(max_size=300), st.binary(min_size=1, max_size=300))
def test_a_key_that_is_added_comes_through_whole(number: int, bound: bytes, sealed: bytes) -> None:
    frame = add_key(number, bound, sealed)
    assert is_key_change(frame)
    assert read_key_change(frame) == (number, bound, sealed)


@given(st.integers(0, KEYS_MAX - 1), st.binary(min_size=32, max_size=32))
def test_a_removal_has_no_key_and_a_request_is_no_change(number: int, digest: bytes) -> None:
    assert read_key_change(remove_key(number)) == (number, b"", b"")
    assert not is_key_change(REQUEST.pack(number, digest))
