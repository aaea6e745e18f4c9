"""Places at remote addresses: counted, given back once, and never more than the limit."""

from hypothesis import given
from hypothesis import strategies as st

from engine.actors.remote_addresses import RemoteAddresses, Slot


def test_an_address_takes_so_many_and_no_more_until_one_leaves() -> None:
    places = RemoteAddresses(2)
    first, second = places.enter("192.0.2.1"), places.enter("192.0.2.1")
    assert first
    assert second
    assert places.enter("192.0.2.1") is None
    assert places.enter("192.0.2.2")
    first.leave()
    assert places.enter("192.0.2.1")
    assert repr(places) == "<RemoteAddresses: 2, at most 2/2 at one>"


def test_a_relay_of_our_own_has_no_limit_but_is_counted() -> None:
    places = RemoteAddresses(1)
    slots = [places.enter("127.0.0.1", exempt=True) for _ in range(3)]
    assert places.count("127.0.0.1") == 3
    for slot in slots:
        assert slot
        slot.leave()
    assert places.count("127.0.0.1") == 0


def test_leaving_twice_is_leaving_once() -> None:
    places = RemoteAddresses(2)
    first, second = places.enter("a"), places.enter("a")
    assert first
    assert second
    assert repr(first) == "<Slot at a>"
    first.leave()
    first.leave()
    assert places.count("a") == 1
    assert repr(first) == "<Slot at a, left>"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_nothing_is_kept_of_addresses_without_a_connection(steps: list[tuple[str, bool]]) -> None:
    places, held = RemoteAddresses(2), list[tuple[str, Slot]]()
    for address, enters in steps:
        if enters and (slot := places.enter(address)) is not None:
            held.append((address, slot))
        elif not enters and held:
            held.pop(0)[1].leave()
        for name in "abc":
            assert places.count(name) == sum(each == name for each, _ in held) <= 2
    for _, slot in held:
        slot.leave()
    assert repr(places) == "<RemoteAddresses: 0, at most 0/2 at one>"
