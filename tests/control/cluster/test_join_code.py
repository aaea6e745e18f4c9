"""Join codes come back as they were, and what is none is refused without being repeated."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.cluster.join_code import JoinCode, JoinCodeError, _sum, decode_join_code, encode_join_code
from engine.bus.nkeys import new_seed
from engine.config import HostPort

CODE = JoinCode(HostPort.parse("hub.example:4222"), bytes(range(32)), "b", new_seed())
LINE = encode_join_code(CODE)


@settings(max_examples=40)
@given(
    st.sampled_from(["127.0.0.1:4222", "[::1]:4222", "hub.example:65535"]),
    st.binary(min_size=32, max_size=32),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
)
def test_every_code_comes_back(server, digest, node):
    code = JoinCode(HostPort.parse(server), digest, node, new_seed())
    line = encode_join_code(code)
    assert decode_join_code(f"  {line[:40]}\n{line[40:]}\n") == code


@settings(max_examples=40)
@given(st.integers(6, len(LINE) - 1), st.sampled_from("ABCxyz019-_"))
def test_one_wrong_character_is_noticed(place, letter):
    damaged = LINE[:place] + letter + LINE[place + 1 :]
    if damaged != LINE:
        # The last character of base64 has bits to spare: then it is the same code.
        if place == len(LINE) - 1 and base64.urlsafe_b64decode(padded(damaged)) == base64.urlsafe_b64decode(
            padded(LINE)
        ):
            assert decode_join_code(damaged) == CODE
            return
        with pytest.raises(JoinCodeError) as told:
            decode_join_code(damaged)
        assert damaged not in str(told.value)


def padded(line):
    armoured = line.removeprefix("emass-")
    return armoured + "=" * (-len(armoured) % 4)


@settings(max_examples=40)
@given(st.text(max_size=80))
def test_any_text_is_a_code_or_a_refusal(text):
    for line in (text, "emass-" + text):
        with pytest.raises(JoinCodeError):
            decode_join_code(line)


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_code_that_was_cut_off_is_called_damaged(cut):
    with pytest.raises(JoinCodeError, match="damaged"):
        decode_join_code(LINE[:-cut])


def forged(body):
    return "emass-" + base64.urlsafe_b64encode(_sum(body) + body).decode().rstrip("=")


def test_a_code_of_a_later_version_says_so():
    with pytest.raises(JoinCodeError, match="version 2"):
        decode_join_code(forged(b"\x02anything"))


@pytest.mark.parametrize("body", [b"\x01", b"\x01\x90", b"\x01\x94\xa1x\xc4\x01x\xa1n\xc4\x01x"])
def test_a_code_with_a_right_sum_and_nothing_in_it_is_refused(body):
    with pytest.raises(JoinCodeError, match="looks like one"):
        decode_join_code(forged(body))


def test_its_repr_keeps_the_seed_to_itself():
    assert repr(CODE) == "<JoinCode of b at hub.example:4222>"
