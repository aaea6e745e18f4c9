"""Keys, records and orders as octets: what is written is read, what is not ours is refused."""

from contextlib import suppress
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.address import Address, canonical_v1, parse_address
from engine.mta.policy.suppression import (
    ORDER_KEYS_MAX,
    Reason,
    Scope,
    ScopeKind,
    SuppressionEntry,
    SuppressionError,
    SuppressionOrder,
)
from engine.mta.policy.suppression_codec import (
    AddressHasher,
    decode_order,
    decode_record,
    describe_key,
    domain_key,
    encode_order,
    encode_record,
    hash_key,
    subscriber_key,
)

HASHER = AddressHasher(bytes(range(32)))

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
scopes = st.one_of(
    st.just(Scope()),
    st.builds(lambda name: Scope(ScopeKind.WORKSPACE, name), names),
    st.builds(lambda name, list_id: Scope(ScopeKind.LIST, name, list_id), names, names),
)
times = st.integers(0, 2**63)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
records = st.lists(
    st.builds(SuppressionEntry, scopes, st.sampled_from(Reason), times, times, texts), max_size=8
).map(tuple)


def key_of(text: str) -> bytes:
    return HASHER.key_of(str(parse_address(text)))


@given(records)
def test_a_record_reads_as_it_was_written(entries: tuple[SuppressionEntry, ...]) -> None:
    assert decode_record(encode_record(entries)) == entries


@given(st.binary(max_size=80))
def test_octets_of_others_are_entries_or_refused(record: bytes) -> None:
    try:
        entries = decode_record(record)
    except SuppressionError:
        return
    assert encode_record(entries) == record


@given(records.filter(bool), st.data())
def test_a_record_that_is_cut_off_is_refused(
    entries: tuple[SuppressionEntry, ...], data: st.DataObject
) -> None:
    record = encode_record(entries)
    length = data.draw(st.integers(1, len(record) - 1))
    try:
        found = decode_record(record[:length])
    except SuppressionError:
        return
    assert found == entries[: len(found)]  # it was cut between two


def test_spellings_of_one_mailbox_have_one_key() -> None:
    assert key_of("Ann@Example.NET") == key_of('"ann"@example.net') == key_of("ann@example.net.")
    assert key_of("J\u00f6rg@ex\u00e4mple.de") == key_of("jo\u0308rg@xn--exmple-cua.de")
    assert len({key_of(text) for text in ("ann@x.test", "ann+news@x.test", "a.nn@x.test")}) == 3


@given(st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,20}", fullmatch=True))
def test_the_short_way_to_a_key_is_the_long_one(local: str) -> None:
    canonical = canonical_v1(Address(local, "x.test"))
    long_way = blake2b(canonical, key=bytes(range(32)), digest_size=16).digest()
    assert HASHER.key_of(f"{local}@x.test") == b"A" + long_way


def test_another_key_makes_other_hashes_and_another_check() -> None:
    other = AddressHasher(bytes(32))
    assert other.key_of("ann@x.test") != HASHER.key_of("ann@x.test")
    assert other.check != HASHER.check
    assert other.check.hex() in repr(other)


def test_keys_say_what_they_name() -> None:
    key = HASHER.key_of("ann@x.test")
    assert describe_key(key) == ("address", key[1:].hex())
    assert hash_key(key[1:].hex()) == key
    assert describe_key(domain_key("Ex\u00e4mple.DE")) == ("domain", "xn--exmple-cua.de")
    assert describe_key(subscriber_key("shop", 17)) == ("subscriber", "shop:17")


@pytest.mark.parametrize("key", [b"", b"A", b"A" + bytes(15), b"D", b"D\xff", b"S", b"Sshop12345678", b"X1"])
def test_octets_that_are_no_key_are_refused(key: bytes) -> None:
    with pytest.raises(SuppressionError, match="no key"):
        describe_key(key)


def test_names_that_make_no_key_are_refused() -> None:
    with pytest.raises(SuppressionError, match="no dot"):
        domain_key("localhost")
    for workspace, number in (("", 1), ("shop", 0), ("shop", 2**64), ("w" * 121, 1)):
        with pytest.raises(SuppressionError):
            subscriber_key(workspace, number)
    for text in ("", "zz" * 16, "00" * 15, "  " * 16):
        with pytest.raises(SuppressionError, match="no address hash"):
            hash_key(text)


def test_an_order_reads_as_it_was_written_and_the_largest_fits_the_bus() -> None:
    keys = tuple(b"A" + number.to_bytes(16, "big") for number in range(ORDER_KEYS_MAX))
    order = SuppressionOrder(
        adds=True,
        keys=keys,
        at_ms=17,
        scope=Scope(ScopeKind.LIST, "shop", "news.example.org"),
        reason=Reason.COMPLAINED,
        source="ann",
        key_check=HASHER.check,
    )
    octets = encode_order(order)
    assert len(octets) < 400_000
    assert decode_order(octets) == order


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        encode_order(SuppressionOrder(adds=False, keys=(b"A1",), at_ms=1)),
        encode_order(SuppressionOrder(adds=False, keys=(b"D" + b"x" * 400,), at_ms=1)),
        encode_order(SuppressionOrder(adds=False, keys=(), at_ms=1)).replace(b"\xc2", b"\xc3"),
    ],
)
def test_an_order_of_nobody_is_refused(payload: bytes) -> None:
    with pytest.raises(SuppressionError):
        decode_order(payload)


@given(st.binary(max_size=200))
def test_no_octets_break_the_reading_of_orders(payload: bytes) -> None:
    with suppress(SuppressionError):
        decode_order(payload)
