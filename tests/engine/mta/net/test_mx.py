"""The rules of RFC 5321 5.1 and RFC 7505, as tables."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.egress import MxHost, Source
from engine.model.reply import FailureKind, TransportFailure
from engine.mta.net import mx
from engine.mta.net.mx import Addresses, Exchange, Route, choose_hosts, make_route, site_key, trial_order

A, B, C = Exchange(10, "a.example"), Exchange(20, "b.example"), Exchange(20, "c.example")
ME = frozenset({"b.example"})
NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("exchanges", "own_names", "allow_private", "expected"),
    [
        ([B, A], NOBODY, False, ["a.example", "b.example"]),
        ([C, B, A], NOBODY, False, ["a.example", "b.example", "c.example"]),
        ([A, A, Exchange(30, "a.example")], NOBODY, False, ["a.example"]),
        ([Exchange(0, ".")], NOBODY, False, FailureKind.NULL_MX),
        ([Exchange(10, "."), Exchange(20, ".")], NOBODY, False, FailureKind.NULL_MX),
        ([Exchange(0, "."), A], NOBODY, False, ["a.example"]),  # RFC 7505 3 forbids it: the rest counts
        ([A, B, C], ME, False, ["a.example"]),  # c is not preferred to us: mail would come back
        ([B, C], ME, False, FailureKind.MX_REFUSED),
        ([A, Exchange(5, "b.example")], ME, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "192.0.2.1")], NOBODY, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "[192.0.2.1]")], NOBODY, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "::1")], NOBODY, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "127.0.0.1")], NOBODY, True, ["127.0.0.1"]),
        ([Exchange(10, "127.1")], NOBODY, True, FailureKind.MX_REFUSED),  # an address to inet_aton
        ([Exchange(10, "localhost")], NOBODY, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "mail.localhost")], NOBODY, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "localhost")], NOBODY, True, ["localhost"]),
        ([Exchange(10, "192.0.2.1"), A], NOBODY, False, ["a.example"]),
        ([Exchange(10, "a\\000b.example")], NOBODY, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "a b.example")], NOBODY, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "a+b.example")], NOBODY, False, FailureKind.MX_REFUSED),
        ([Exchange(10, "_smtp.a_b.example")], NOBODY, False, ["_smtp.a_b.example"]),
        ([Exchange(10, "museum")], NOBODY, False, ["museum"]),
    ],
)
def test_which_hosts_of_a_set_are_used(
    exchanges: list[Exchange],
    own_names: frozenset[str],
    allow_private: bool,
    expected: list[str] | FailureKind,
) -> None:
    chosen = choose_hosts(exchanges, own_names, allow_private=allow_private)
    if isinstance(chosen, TransportFailure):
        assert chosen.kind is expected
        assert chosen.detail
    else:
        assert [exchange.name for exchange in chosen] == expected


def test_a_huge_set_is_cut_to_its_most_preferred() -> None:
    exchanges = [Exchange(number, f"mx{number}.example") for number in range(100, 0, -1)]
    chosen = choose_hosts(exchanges, NOBODY, allow_private=False)
    assert not isinstance(chosen, TransportFailure)
    assert len(chosen) == mx.MX_RECORDS_MAX
    assert chosen[0].preference == 1


NONE = Addresses((), 60.0)
TROUBLE = Addresses((), 5.0, "server answered SERVFAIL")
PUBLIC = Addresses(("8.8.8.8", "2a00::1"), 60.0)
PRIVATE = Addresses(("10.0.0.1", "::1"), 60.0)
MIXED = Addresses(("127.0.0.1", "8.8.4.4"), 60.0)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (PUBLIC, PUBLIC, {"a.example": PUBLIC.addresses, "b.example": PUBLIC.addresses}),
        (NONE, PUBLIC, {"b.example": PUBLIC.addresses}),
        (TROUBLE, PUBLIC, {"b.example": PUBLIC.addresses}),
        (PRIVATE, PUBLIC, {"b.example": PUBLIC.addresses}),
        (MIXED, NONE, {"a.example": ("8.8.4.4",)}),
        (NONE, NONE, FailureKind.NO_ADDRESS),
        (PRIVATE, NONE, FailureKind.MX_REFUSED),
        (TROUBLE, NONE, FailureKind.DNS),
        (TROUBLE, PRIVATE, FailureKind.DNS),  # may become better: not final
    ],
)
def test_which_addresses_are_used(
    first: Addresses, second: Addresses, expected: dict[str, tuple[str, ...]] | FailureKind
) -> None:
    found = {"a.example": first, "b.example": second}
    route = make_route([A, B], found, ttl_seconds=600.0, allow_private=False)
    if isinstance(route, TransportFailure):
        assert route.kind is expected
    else:
        assert {host.name: host.addresses for host in route.hosts} == expected
        assert route.site == "a.example+b.example"  # whichever of them has addresses at the moment


def test_private_addresses_are_used_when_the_operator_allows_them() -> None:
    route = make_route([A], {"a.example": PRIVATE}, ttl_seconds=9.0, allow_private=True, port=2525)
    assert route == Route("a.example", (MxHost("a.example", PRIVATE.addresses, 10, 2525),), 9.0)


def test_a_route_lives_as_long_as_the_shortest_record_it_rests_on() -> None:
    found = {"a.example": PUBLIC, "b.example": NONE}
    route = make_route([A, B], found, ttl_seconds=600.0, allow_private=False)
    assert isinstance(route, Route)
    assert route.ttl_seconds == 60.0


def test_a_route_with_a_host_in_trouble_is_looked_up_again_soon() -> None:
    found = {"a.example": Addresses(("8.8.8.8",), 80_000.0), "b.example": TROUBLE}
    route = make_route([A, B], found, ttl_seconds=80_000.0, allow_private=False)
    assert isinstance(route, Route)
    assert route.ttl_seconds == mx.TROUBLED_TTL_SECONDS


def test_addresses_are_bounded_per_host_and_per_route() -> None:
    many = Addresses(tuple(f"8.8.{high}.{low}" for high in range(2) for low in range(200)), 60.0)
    exchanges = [Exchange(1, f"mx{number}.example") for number in range(6)]
    route = make_route(
        exchanges, dict.fromkeys((e.name for e in exchanges), many), ttl_seconds=60, allow_private=False
    )
    assert isinstance(route, Route)
    assert [len(host.addresses) for host in route.hosts] == [mx.HOST_ADDRESSES_MAX] * 3


def test_a_site_key_is_the_same_in_any_order_and_case() -> None:
    assert site_key(["MX2.example.net", "mx1.example.net"]) == "mx1.example.net+mx2.example.net"
    assert (
        site_key(["mx1.example.net", "mx2.example.net", "mx2.example.NET"])
        == "mx1.example.net+mx2.example.net"
    )


def test_a_long_site_key_is_cut_and_stays_unique() -> None:
    names = [f"inbound-{number}.mail.protection.example.com" for number in range(9)]
    first, second = site_key(names), site_key([*names[:-1], "other.example"])
    assert len(first) == len(second) == mx.SITE_KEY_CHARS_MAX
    assert first != second
    assert first.startswith("inbound-0.mail.protection.example.com+inbound-1.")


HOSTS = [
    MxHost("low", ("192.0.2.9",), 30),
    MxHost("one", ("192.0.2.1", "2001:db8::1"), 10),
    MxHost("two", ("192.0.2.2",), 10),
    MxHost("six", ("2001:db8::6",), 20),
]


def test_equal_preferences_are_shuffled_and_others_keep_their_order() -> None:
    rng = random.Random(1)
    orders = Counter(tuple(host.name for host in trial_order(HOSTS, rng)) for _ in range(200))
    assert set(orders) == {("one", "two", "six", "low"), ("two", "one", "six", "low")}
    assert min(orders.values()) > 60


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.100", {"one": ("192.0.2.1",), "two": ("192.0.2.2",), "low": ("192.0.2.9",)}),
        ("2001:db8::100", {"one": ("2001:db8::1",), "six": ("2001:db8::6",)}),
    ],
)
def test_a_source_tries_only_its_own_family(address: str, expected: dict[str, tuple[str, ...]]) -> None:
    order = trial_order(HOSTS, random.Random(2), Source("s", "s.example", address))
    assert {host.name: host.addresses for host in order} == expected


def test_families_alternate_so_that_the_second_try_is_the_other_one() -> None:
    addresses = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2")
    for seed in range(20):
        (host,) = trial_order([MxHost("mx", addresses)], random.Random(seed))
        assert sorted(host.addresses) == sorted(addresses)
        assert (":" in host.addresses[0]) != (":" in host.addresses[1])


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 65_535), st.text(max_size=80)), min_size=1, max_size=40))
def test_whatever_names_a_zone_holds_the_choice_is_clean_or_a_failure(pairs: list[tuple[int, str]]) -> None:
    chosen = choose_hosts([Exchange(*pair) for pair in pairs], ME, allow_private=False)
    if not isinstance(chosen, TransportFailure):
        key = site_key([exchange.name for exchange in chosen])
        assert key.isascii()
        assert key.isprintable()
        assert " " not in key
        assert "b.example" not in [exchange.name for exchange in chosen]
