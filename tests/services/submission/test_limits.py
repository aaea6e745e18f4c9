"""Limits of accounts, addresses and guessers, on a clock that the test holds."""

from hypothesis import given
from hypothesis import strategies as st

from services.submission import limits
from services.submission.limits import (
    ADDRESS_FREE_FAILURES,
    FREE_FAILURES,
    LOCK_SECONDS_MAX,
    Connections,
    Guesses,
    RateLimit,
    Room,
    block_of,
)

HERE, THERE = "192.0.2.1", "192.0.2.2"


def test_a_rate_gives_its_count_at_once_and_then_by_time() -> None:
    rate = RateLimit(3, 60.0)
    assert [rate.take("ann", 0.0) for _ in range(4)] == [True, True, True, False]
    assert rate.take("bob", 0.0)
    assert not rate.take("ann", 19.0)
    assert rate.take("ann", 20.0)
    assert not rate.take("ann", 20.0)
    assert [rate.take("ann", 500.0) for _ in range(4)] == [True, True, True, False]


@given(st.integers(1, 20), st.lists(st.floats(0, 30), max_size=60))
def test_no_window_sees_more_than_twice_the_count(count: int, gaps: list[float]) -> None:
    rate, now, taken = RateLimit(count, 60.0), 0.0, []
    for gap in gaps:
        now += gap
        if rate.take("ann", now):
            taken.append(now)
    for at in taken:
        assert sum(at <= other < at + 60.0 for other in taken) <= 2 * count


def test_the_oldest_key_is_forgotten_when_there_are_too_many() -> None:
    rate = RateLimit(1, 60.0)
    for number in range(limits.KEYS_MAX + 1):
        rate.take(str(number), 0.0)
    assert rate.take("0", 0.0)
    assert not rate.take("1" + "0" * 4, 0.0)
    assert repr(rate) == f"<RateLimit one in 60 s, {limits.KEYS_MAX} keys>"


def test_connections_are_counted_in_all_and_by_address() -> None:
    connections = Connections(3, 2)
    assert [connections.enter(HERE) for _ in range(3)] == [True, True, False]
    assert [connections.enter(THERE) for _ in range(2)] == [True, False]
    connections.leave(HERE)
    assert connections.enter(THERE)
    for address in (HERE, THERE, THERE):
        connections.leave(address)
    assert repr(connections) == "<Connections 0 of 0 addresses>"


def test_guesses_make_wait_longer_each_time_and_others_not_at_all() -> None:
    guesses = Guesses()
    waits = []
    now = 0.0
    for _ in range(FREE_FAILURES + 4):
        waits.append(guesses.wait_seconds(HERE, "ann", now))
        now += waits[-1]
        guesses.failed(HERE, "ann", now)
    assert waits == [0.0] * FREE_FAILURES + [2.0, 4.0, 8.0, 16.0]
    assert guesses.wait_seconds(HERE, "ann", now) == 32.0
    assert guesses.wait_seconds(THERE, "ann", now) == 0.0
    assert guesses.wait_seconds(HERE, "bob", now) == 0.0


def test_an_address_that_guesses_at_many_accounts_waits_as_a_whole() -> None:
    guesses = Guesses()
    for number in range(ADDRESS_FREE_FAILURES):
        guesses.failed(HERE, f"account-{number}", 0.0)
    assert guesses.wait_seconds(HERE, "fresh", 0.0) > 0
    for number in range(50):
        guesses.failed(HERE, f"more-{number}", 0.0)
    assert guesses.wait_seconds(HERE, "fresh", 0.0) == LOCK_SECONDS_MAX
    guesses.succeeded(HERE, "fresh")
    assert guesses.wait_seconds(HERE, "fresh", 0.0) == LOCK_SECONDS_MAX


def test_success_and_time_forget() -> None:
    guesses = Guesses()
    for _ in range(FREE_FAILURES):
        guesses.failed(HERE, "ann", 0.0)
    assert guesses.wait_seconds(HERE, "ann", 0.0) > 0
    guesses.succeeded(HERE, "ann")
    assert guesses.wait_seconds(HERE, "ann", 0.0) == 0
    for _ in range(FREE_FAILURES):
        guesses.failed(HERE, "ann", 0.0)
    guesses.failed(HERE, "ann", 10_000.0)
    assert guesses.wait_seconds(HERE, "ann", 10_000.0) == 0
    assert repr(guesses) == "<Guesses of 2 keys>"


def test_addresses_are_told_apart_by_what_one_customer_has() -> None:
    assert block_of("192.0.2.1") == "192.0.2.1"
    assert block_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert block_of("2001:db8::1") == block_of("2001:db8::ffff") == "2001:db8::/64"
    assert block_of("fe80::1%eth0") == "fe80::/64"
    assert block_of("") == ""


def test_a_room_is_shared_and_given_back_once() -> None:
    room = Room(100)
    one, two, *others = (room.lease(name) for name in ("ann", "bob", "cid", "dan", "eve"))
    assert one.take(25)
    assert not two.take(26)
    assert two.take(15)
    assert all(other.take(20) for other in others)
    assert room.left("bob") == room.left("fay") == 0
    one.end()
    one.end()
    assert room.left("bob") == 10
    assert room.left("fay") == 25
    assert repr(two) == "<Lease of 15 octets for bob in <Room 75 of 100 octets>>"


def test_one_account_holds_a_quarter_of_a_room_and_no_more() -> None:
    room = Room(100)
    one, two = room.lease("ann"), room.lease("ann")
    assert one.take(20)
    assert not two.take(6)
    assert two.take(5)
    assert room.left("ann") == 0
    assert room.left("bob") == 25
    one.end()
    assert room.left("ann") == 20
