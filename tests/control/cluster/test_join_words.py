"""Question and answer of a join: signed by the code, and refused when they are not what they should be."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.cluster.join_words import (
    JoinAnswer,
    JoinRequest,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    skew_words,
)
from engine.bus.nkeys import new_seed, public_of
from tests.control.cluster.test_registry import NOW, applicant

REQUEST = JoinRequest(applicant("b"), NOW, "0.1.0")


def test_a_question_says_which_code_it_came_by():
    seed = new_seed()
    assert decode_request(encode_request(REQUEST, seed)) == (public_of(seed), REQUEST)


def test_a_question_with_another_codes_name_is_refused():
    told = msgspec.json.decode(encode_request(REQUEST, new_seed()))
    told["code"] = public_of(new_seed())
    with pytest.raises(ValueError, match="not signed by its join code"):
        decode_request(msgspec.json.encode(told))


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_anything_else_is_refused(payload):
    with pytest.raises(ValueError):
        decode_request(payload)
    with pytest.raises(ValueError):
        decode_answer(payload)


@pytest.mark.parametrize("octets", [b'{"x":' * 3_000, b'{"error":"\xff"}'])
def test_strange_octets_are_told_as_what_does_not_decode(octets):
    with pytest.raises(ValueError, match="question does not decode"):
        decode_request(octets.replace(b"error", b"code"))
    with pytest.raises(ValueError, match="answer does not decode"):
        decode_answer(octets)


def test_a_question_is_short():
    with pytest.raises(ValueError, match="too long"):
        decode_request(bytes(20_000))


def test_another_version_is_named():
    request = JoinRequest(applicant("b"), NOW, "9", version=2)
    with pytest.raises(ValueError, match="version 2 and the hub 1"):
        decode_request(encode_request(request, new_seed()))


def test_an_answer_comes_back():
    answer = JoinAnswer(NOW, node="b", servers=("h:1",), certificate=b"pem", ring=bytes(range(9)))
    assert decode_answer(encode_answer(answer)) == answer


def test_skew_is_said_in_words():
    assert skew_words(45) == "45 s ahead of"
    assert skew_words(-600) == "10 min behind"
