"""What TLSA records demand, by the rules of RFC 7672 and RFC 7671."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.tls import HostDemand, HostTls, TlsaRecord
from engine.mta.policy.dane import host_demand, is_usable, record_text, usable_records

LEAF = TlsaRecord(3, 1, 1, b"k" * 32)
ANCHOR = TlsaRecord(2, 1, 1, b"a" * 32)
AUTHORITY = TlsaRecord(0, 1, 1, b"p" * 32)


@pytest.mark.parametrize(
    ("record", "usable"),
    [
        (LEAF, True),
        (ANCHOR, True),
        (TlsaRecord(3, 0, 2, b"k" * 64), True),
        (TlsaRecord(2, 0, 0, b"whole certificate"), True),
        (AUTHORITY, False),
        (TlsaRecord(1, 1, 1, b"k" * 32), False),
        (TlsaRecord(4, 1, 1, b"k" * 32), False),
        (TlsaRecord(3, 2, 1, b"k" * 32), False),
        (TlsaRecord(3, 1, 3, b"k" * 32), False),
        (TlsaRecord(3, 1, 1, b"k" * 31), False),
        (TlsaRecord(3, 1, 2, b"k" * 32), False),
        (TlsaRecord(3, 1, 0, b""), False),
    ],
)
def test_a_record_is_usable_or_not(record: TlsaRecord, usable: bool) -> None:
    assert is_usable(record) is usable


def test_of_several_digests_only_the_strongest_counts() -> None:
    strong = TlsaRecord(3, 1, 2, b"s" * 64)
    whole = TlsaRecord(3, 1, 0, b"key")
    other = TlsaRecord(3, 0, 1, b"o" * 32)
    assert usable_records([LEAF, strong, whole, other, ANCHOR]) == (ANCHOR, other, whole, strong)


def test_a_broken_strong_digest_takes_nothing_away() -> None:
    assert usable_records([LEAF, TlsaRecord(3, 1, 2, b"short")]) == (LEAF,)


def test_usage_3_needs_no_name_of_the_domain() -> None:
    found = host_demand([LEAF], "mx.example", "mx.example", ("a.example", "b.example"))
    assert found == HostDemand(HostTls.DANE, ("mx.example",), (LEAF,))


def test_usage_2_may_be_for_host_base_domain_or_the_end_of_its_alias() -> None:
    found = host_demand([ANCHOR, LEAF], "end.example", "mx.example", ("a.example", "b.example"))
    names = ("end.example", "mx.example", "a.example", "b.example")
    assert found == HostDemand(HostTls.DANE, names, (ANCHOR, LEAF))


def test_a_host_without_a_usable_record_is_encrypted_and_no_more() -> None:
    found = host_demand([AUTHORITY], "mx.example", "mx.example", ("a.example",))
    assert found == HostDemand(HostTls.ENCRYPTED, ("mx.example",))


def test_an_unusable_record_beside_a_usable_one_changes_nothing() -> None:
    found = host_demand([AUTHORITY, LEAF], "mx.example", "mx.example", ("a.example",))
    assert found.tlsa == (LEAF,)


def test_a_report_quotes_the_fields() -> None:
    assert record_text(TlsaRecord(3, 1, 1, b"\x01\xff")) == "3 1 1 01ff"


RECORDS = st.builds(
    TlsaRecord,
    st.integers(0, 4),
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from([b"", b"x", b"y" * 32, b"z" * 32, b"y" * 64]),
)


@given(st.lists(RECORDS, max_size=8), st.randoms())
def test_the_order_of_records_changes_nothing(records: list[TlsaRecord], dice: object) -> None:
    mixed = [*records, *records]
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    assert usable_records(mixed) == usable_records(records)
    assert bool(usable_records(records)) is any(map(is_usable, records))
