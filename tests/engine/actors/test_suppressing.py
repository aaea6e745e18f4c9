"""An order holds when it is answered: nothing it stops is on its way then, or the answer says what is."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.operating import Refused
from engine.actors.parts import Parts
from engine.actors.requests import Request
from engine.actors.suppressing import SETTLED_SECONDS, acts, on_their_way
from engine.model.envelope import Envelope
from engine.mta.policy.suppression import Reason, SuppressionOrder
from engine.mta.policy.suppression_codec import AddressHasher, domain_key, encode_order, subscriber_key
from engine.mta.spool.suppressions_memory import MemorySuppressions
from tests.contract.suppressions import HASHER, NEWS, add, blocked, remove
from tests.fakes.engine_house import CAMPAIGN, Desk, accepted, letter, memory_parts

ANN = HASHER.key_of("ann@x.test")


def envelope(spool_id: int, recipient: str, subscriber: int = 1) -> Envelope:
    domain = recipient.rpartition("@")[2]
    return Envelope(spool_id, CAMPAIGN, subscriber, recipient, domain, ("A",), 0.0, 4e9)


async def office(*under_way: Envelope) -> tuple[Parts, list[Envelope]]:
    """Parts with one connection that has these messages under way."""
    parts = memory_parts()
    parts.suppressions = MemorySuppressions(HASHER)
    await accepted(parts, ["z@z.test"], letter(workspace="shop", list_id="news.example.org"))
    at_work = list(under_way)
    parts.under_way["connection-1"] = lambda: at_work
    return parts, at_work


async def suppress(parts: Parts, order: SuppressionOrder) -> dict[str, Any]:
    act = acts(parts, Desk().peer)["suppress"]
    return await act(Request("suppress", asked={"order": encode_order(order).hex()}))


async def test_with_nothing_on_its_way_it_is_answered_at_once(autojump_clock: MockClock) -> None:
    parts, _ = await office(envelope(1, "bob@x.test"))
    answer = await suppress(parts, add(ANN))
    assert trio.current_time() == pytest.approx(0.0, abs=0.001)
    assert (answer["changed"], answer["keys"]) == (1, 1)
    assert (answer["were_on_their_way"], answer["still_on_their_way"]) == (0, 0)
    assert blocked(parts.suppressions) is not None


async def test_the_answer_waits_for_what_is_on_its_way(autojump_clock: MockClock) -> None:
    parts, at_work = await office(envelope(1, "Ann@x.test"), envelope(2, "bob@x.test"))

    async def settle() -> None:
        await trio.sleep(3)
        del at_work[0]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle)
        answer = await suppress(parts, add(ANN))
    assert 3 <= trio.current_time() < 3.1
    assert (answer["were_on_their_way"], answer["still_on_their_way"]) == (1, 0)


async def test_a_silent_peer_does_not_hold_the_answer_for_ever(autojump_clock: MockClock) -> None:
    parts, _ = await office(envelope(1, "ann@x.test"))
    answer = await suppress(parts, add(ANN))
    assert trio.current_time() == pytest.approx(SETTLED_SECONDS, abs=0.1)
    assert (answer["were_on_their_way"], answer["still_on_their_way"]) == (1, 1)


async def test_what_comes_on_its_way_afterwards_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The gate has stopped the address by then: such a message is another one, of another scope."""
    parts, at_work = await office(envelope(1, "ann@x.test"))

    async def change() -> None:
        await trio.sleep(1)
        at_work[:] = [envelope(3, "ann@x.test")]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        answer = await suppress(parts, add(ANN))
    assert trio.current_time() < 1.1
    assert answer["still_on_their_way"] == 0


async def test_domains_and_subscribers_are_found_under_way_too(autojump_clock: MockClock) -> None:
    parts, _ = await office(envelope(1, "ann@x.test", 17), envelope(2, "bob@y.test", 18))
    for key, place in ((domain_key("y.test"), 2), (subscriber_key("shop", 17), 1)):
        order = add(key, scope=NEWS, reason=Reason.UNSUBSCRIBED)
        await parts.suppressions.apply(order)
        assert on_their_way(parts, frozenset(order.keys)) == {("connection-1", place)}


async def test_mail_that_the_order_does_not_stop_is_not_waited_for(autojump_clock: MockClock) -> None:
    parts, _ = await office(envelope(1, "ann@x.test"))
    await accepted(parts, ["z@z.test"], letter(8, workspace="club"))
    other = add(ANN, scope=NEWS)
    await parts.suppressions.apply(other)
    assert len(on_their_way(parts, frozenset(other.keys))) == 1
    await parts.suppressions.apply(remove(ANN))
    assert not on_their_way(parts, frozenset(other.keys))


async def test_a_removal_waits_for_nothing(autojump_clock: MockClock) -> None:
    parts, _ = await office(envelope(1, "ann@x.test"))
    await parts.suppressions.apply(add(ANN))
    answer = await suppress(parts, remove(ANN))
    assert answer == {"changed": 1, "added": 0, "removed": 1, "keys": 1}


async def test_an_order_of_another_key_or_of_nobody_is_refused(autojump_clock: MockClock) -> None:
    parts, _ = await office()
    parts.suppressions = MemorySuppressions(AddressHasher(bytes(32)))
    with pytest.raises(Refused, match="another master key"):
        await suppress(parts, add(ANN))
    act = acts(parts, Desk().peer)["suppress"]
    for asked in ({}, {"order": "zz"}, {"order": "c1"}):
        with pytest.raises(Refused):
            await act(Request("suppress", asked=asked))


async def test_the_applied_cursor_is_told(autojump_clock: MockClock) -> None:
    parts, _ = await office()
    await parts.suppressions.apply(add(ANN))
    await parts.suppressions.reached("landing", 4)
    facts = await acts(parts, Desk().peer)["suppressions"](Request("suppressions"))
    assert facts == {
        "node": "node",
        "key_check": HASHER.check.hex(),
        "keys": 1,
        "version": 1,
        "applied": {"landing": 4},
    }
