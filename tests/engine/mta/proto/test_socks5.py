"""SOCKS 5, scripted: what the proxy says, what we answer, and whose trouble it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.reply import FailureKind
from engine.mta.proto.socks5 import Socks5

CONNECT = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x19"
DONE = b"\x05\x00\x00\x01\x7f\x00\x00\x07\x30\x39"
LOGIN = b"\x01\x02me\x06secret"


def feed(socks: Socks5, data: bytes) -> tuple[bytes, bytes]:
    """What it wrote while it took `data`, and what of that it left."""
    written = socks.next_output()
    while socks.wanted and len(data) >= socks.wanted:
        count = socks.wanted
        socks.receive_data(data[:count])
        data = data[count:]
        written += socks.next_output()
    return written, data


def test_without_a_login_it_is_greeting_and_connect() -> None:
    socks = Socks5("127.0.0.1", 25)
    written, left = feed(socks, b"\x05\x00" + DONE + b"220 banner\r\n")
    assert written == b"\x05\x01\x00" + CONNECT
    assert left == b"220 banner\r\n"  # not an octet of it is ours
    assert socks.trouble is None
    assert not socks.asked


def test_with_a_login_both_are_offered_and_the_proxy_chooses() -> None:
    socks = Socks5("127.0.0.1", 25, "me", "secret")
    assert feed(socks, b"\x05\x02\x01\x00" + DONE)[0] == b"\x05\x02\x00\x02" + LOGIN + CONNECT
    assert socks.trouble is None
    assert feed(Socks5("127.0.0.1", 25, "me", "secret"), b"\x05\x00")[0].endswith(CONNECT)


def test_an_ipv6_address_and_a_name_in_the_answer() -> None:
    socks = Socks5("::1", 587)
    answer = b"\x05\x00\x00\x03\x04name\x00\x01"
    written, left = feed(socks, b"\x05\x00" + answer + b"2")
    assert written.endswith(b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x02\x4b")
    assert (left, socks.wanted, socks.trouble) == (b"2", 0, None)
    assert feed(Socks5("::1", 587), b"\x05\x00\x05\x00\x00\x04" + bytes(18) + b"2")[1] == b"2"


def test_waiting_for_the_receiver_is_known() -> None:
    socks = Socks5("127.0.0.1", 25, "me", "secret")
    assert not socks.asked
    feed(socks, b"\x05\x02")
    assert not socks.asked
    feed(socks, b"\x01\x00")
    assert socks.asked


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, FailureKind.UNREACHABLE),
        (2, FailureKind.UNREACHABLE),
        (3, FailureKind.UNREACHABLE),
        (4, FailureKind.UNREACHABLE),
        (5, FailureKind.CONNECT_REFUSED),
        (6, FailureKind.CONNECT_TIMEOUT),
        (7, FailureKind.SOURCE),
        (8, FailureKind.UNREACHABLE),
        (77, FailureKind.UNREACHABLE),
    ],
)
def test_an_answer_says_whose_trouble_it_is(code: int, kind: FailureKind) -> None:
    socks = Socks5("127.0.0.1", 25)
    feed(socks, b"\x05\x00" + bytes((5, code)) + b"\x00\x01" + bytes(6))
    assert socks.trouble is not None
    assert (socks.trouble.kind, socks.wanted) == (kind, 0)


@pytest.mark.parametrize(
    ("user", "said", "word"),
    [
        ("", b"\x05\xff", "set proxy_user"),
        ("", b"\x05\x02", "set proxy_user"),
        ("me", b"\x05\xff", "takes no user"),
        ("me", b"\x05\x01", "takes no user"),
        ("me", b"\x05\x02\x01\x01", "refused user"),
        ("", b"\x04\x00", "no SOCKS 5"),
        ("", b"22", "no SOCKS 5"),
        ("", b"\x05\x00\x04\x00\x00\x01\x00", "no SOCKS 5"),
        ("", b"\x05\x00\x05\x00\x00\x09\x00", "no SOCKS 5"),
    ],
)
def test_a_proxy_that_is_none_or_lets_nobody_in_is_our_trouble(user: str, said: bytes, word: str) -> None:
    socks = Socks5("127.0.0.1", 25, user, "secret")
    feed(socks, said)
    assert socks.trouble is not None
    assert socks.trouble.kind is FailureKind.SOURCE
    assert word in socks.trouble.detail


@given(st.binary(max_size=400), st.sampled_from(("", "me")))
def test_any_octets_end_or_want_more(data: bytes, user: str) -> None:
    socks = Socks5("192.0.2.1", 25, user, "secret")
    _, left = feed(socks, data)
    assert socks.wanted == 0 or len(left) < socks.wanted <= 260
    assert "secret" not in repr(socks)
