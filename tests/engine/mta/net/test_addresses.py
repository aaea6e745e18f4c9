"""Which addresses a stranger's DNS may send us to."""

import pytest

from engine.mta.net.addresses import family_version, is_literal, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("193.99.144.80", True),
        ("2a00:1450:4001::1a", True),
        ("2607:f8b0::1", True),
        ("64:ff9b::808:808", True),  # NAT64 of 8.8.8.8
        ("64:ff9b::a00:1", False),  # NAT64 of 10.0.0.1
        ("64:ff9b:1::1", False),  # local-use NAT64
        ("::ffff:8.8.8.8", False),
        ("::ffff:127.0.0.1", False),
        ("::127.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("10.255.255.255", False),
        ("100.64.0.1", False),
        ("127.8.8.8", False),
        ("169.254.169.254", False),
        ("172.31.0.1", False),
        ("172.32.0.1", True),
        ("192.0.0.8", False),
        ("192.0.2.1", False),
        ("192.168.1.1", False),
        ("198.19.0.1", False),
        ("203.0.113.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fd12::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("2001::1", False),  # Teredo
        ("2001:db8::1", False),
        ("2002:7f00:1::1", False),  # 6to4 of 127.0.0.1
        ("3fff::1", False),
        ("mail.example", False),
        ("", False),
    ],
)
def test_only_ordinary_hosts_of_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("192.0.2.1", True),
        ("[192.0.2.1]", True),
        ("::1", True),
        ("[2001:db8::1]", True),
        ("mx.example", False),
    ],
)
def test_literals_are_known_with_and_without_brackets(text: str, literal: bool) -> None:
    assert is_literal(text) is literal


def test_a_family_is_told_by_the_address() -> None:
    assert [family_version(text) for text in ("192.0.2.1", "::1", "mx.example")] == [4, 6, None]
