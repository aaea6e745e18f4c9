"""The header as section 2.2 of the protocol's text has it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.mta.proto.proxy_v2 import SIGNATURE, proxy_v2_header

PORTS = st.integers(1, 65_535)


def test_the_header_of_an_ipv4_connection() -> None:
    header = proxy_v2_header("192.0.2.1", "198.51.100.2", 25)
    told = bytes.fromhex("21 11 000c c0000201 c6336402 0000 0019")
    assert header == b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a" + told


@given(
    st.sampled_from((4, 6)).flatmap(lambda v: st.tuples(st.ip_addresses(v=v), st.ip_addresses(v=v))), PORTS
)
def test_every_pair_can_be_read_back(pair: tuple[object, object], port: int) -> None:
    source, address = (str(each) for each in pair)
    header = proxy_v2_header(source, address, port)
    assert header.startswith(SIGNATURE)
    version_command, family, octets = header[12], header[13], int.from_bytes(header[14:16], "big")
    body = header[16:]
    size = 4 if family == 0x11 else 16
    assert version_command == 0x21
    assert octets == len(body) == 2 * size + 4
    assert ipaddress.ip_address(body[:size]) == ipaddress.ip_address(source)
    assert ipaddress.ip_address(body[size : 2 * size]) == ipaddress.ip_address(address)
    assert int.from_bytes(body[-2:], "big") == port


def test_two_families_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        proxy_v2_header("::1", "127.0.0.1", 25)
