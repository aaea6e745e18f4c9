"""Whatever octets are decoded, one clause catches what is raised."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.model.decoding import UNDECODABLE, decoded
from engine.model.submission import decode_submission


@pytest.mark.parametrize(
    "octets", [b'{"command":"\xff"}', b'{"asked":' + b"[" * 200_000, b"{", b"\xff", b"", b'{"command":7}']
)
def test_json_that_cannot_be_decoded_is_one_kind_of_trouble(octets: bytes) -> None:
    with pytest.raises(UNDECODABLE):
        msgspec.json.decode(octets, type=dict[str, str])


@given(st.binary(max_size=300))
@example(b"\xa1\xff")
@example(b"\x91" * 100_000)
def test_a_submission_that_cannot_be_decoded_is_the_same_kind(octets: bytes) -> None:
    with pytest.raises(UNDECODABLE):
        decode_submission(octets)


@pytest.mark.parametrize("row", [None, b"", b"{", b"7", b'{"a":"\xff"}', b'{"a":' * 100_000])
def test_a_row_that_says_nothing_is_none(row: bytes | None) -> None:
    assert decoded(row, dict[str, int]) is None
    assert decoded(b'{"a":1}', dict[str, int]) == {"a": 1}
