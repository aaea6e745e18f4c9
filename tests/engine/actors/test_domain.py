"""A domain without a route: bounced, deferred at the front, or handed on. The test plays the spooler."""

from array import array
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.actors import domain as domain_module
from engine.actors.domain import domain, path_key
from engine.actors.messages import Lookup, Offer, OrderLeases, Recall, Routed, Settle, Unroutable
from engine.actors.parts import Parts
from engine.model.disposition import Disposition, Outcome
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.mx import Route
from tests.fakes.engine_house import RETRY, Desk, accepted, alive, host_route, memory_parts, numbered
from tests.fakes.trees import until_quiet

NOWHERE = TransportFailure(FailureKind.NO_SUCH_DOMAIN, Verb.RESOLVE, "no such domain")
SERVFAIL = TransportFailure(FailureKind.DNS, Verb.RESOLVE, "SERVFAIL")


class House:
    """One domain actor and a spooler played by the test."""

    def __init__(self, parts: Parts, found: Route | TransportFailure) -> None:
        self.parts = parts
        self.desk = Desk()
        self.settled: list[Disposition] = []
        self.ended: list[tuple[str, Exception | None]] = []
        self._found = found
        parts.domains.start_child(
            "x.test",
            domain(parts, "x.test", self.desk.peer),
            on_end=lambda name, error: self.ended.append((name, error)),
        )

    async def answer(self) -> None:
        await until_quiet()
        (question,) = self.desk.take("resolver", Lookup)
        assert question.domain == "x.test"
        question.answer.set(self._found)
        await until_quiet()

    def unroutable(self) -> Unroutable:
        (message,) = self.desk.take("scheduler")
        assert isinstance(message, Unroutable)
        return message

    async def offer(self, ref: Any, ids: list[int], *, exhausted: bool) -> None:
        ref.try_tell(Offer(array("Q", ids), exhausted))
        await self.play_spooler()

    async def play_spooler(self) -> None:
        """Lease and settle until nothing more is told."""
        await until_quiet()
        while messages := self.desk.take("spooler"):
            for message in messages:
                now = self.parts.clock.now()
                if isinstance(message, OrderLeases):
                    for order in message.orders:
                        ((*leases,),) = await self.parts.spool.lease([order.ids], now)
                        for lease in leases:
                            assert order.holder.grant(lease)
                        order.holder.answers += 1
                        order.holder.ref.try_tell(domain_module.Bell())
                elif isinstance(message, Settle):
                    self.settled += [item for _, batch in message.batches for item in batch]
                    await self.parts.spool.settle(message.batches, now)
            await until_quiet()


async def in_house(found: Route | TransportFailure, act: Callable[[House], Awaitable[None]]) -> None:
    parts = memory_parts()
    async with alive(parts, "domains"):
        house = House(parts, found)
        await house.answer()
        await act(house)


async def test_a_route_is_told_and_that_is_all(autojump_clock: MockClock) -> None:
    route = host_route("127.0.0.1", 25)

    async def act(house: House) -> None:
        assert house.desk.take("scheduler") == [Routed("x.test", route)]
        assert house.ended == [("x.test", None)]

    await in_house(route, act)


async def test_everything_for_a_domain_that_does_not_exist_bounces(autojump_clock: MockClock) -> None:
    async def act(house: House) -> None:
        ids = await accepted(house.parts, numbered(150, "x.test"))
        message = house.unroutable()
        assert (message.domain, message.path, message.retry_at) == ("x.test", path_key("x.test"), None)
        assert message.places == domain_module.PLACES_BOUNCING
        await house.offer(message.ref, ids[:100], exhausted=False)
        assert not house.ended
        await house.offer(message.ref, ids[100:], exhausted=True)
        assert house.ended == [("x.test", None)]
        assert {item.outcome for item in house.settled} == {Outcome.BOUNCED}
        assert sorted(item.spool_id for item in house.settled) == ids
        assert house.parts.spool.open_leases() == 0

    await in_house(NOWHERE, act)


async def test_dns_trouble_defers_the_front_and_the_rest_waits(autojump_clock: MockClock) -> None:
    async def act(house: House) -> None:
        ids = await accepted(house.parts, numbered(300, "x.test"))
        message = house.unroutable()
        assert message.places == domain_module.PLACES_DEFERRING
        assert message.retry_at == pytest.approx(trio.current_time() + RETRY.first)
        await house.offer(message.ref, ids[:100], exhausted=False)
        assert {item.outcome for item in house.settled} == {Outcome.DEFERRED}
        assert len(house.settled) == 100
        assert all(item.due > house.parts.clock.now() for item in house.settled)
        assert house.ended == [("x.test", None)], "it takes one offer and no more"

    await in_house(SERVFAIL, act)


async def test_without_an_offer_it_ends_soon(autojump_clock: MockClock) -> None:
    async def act(house: House) -> None:
        house.unroutable()
        await trio.sleep(domain_module.IDLE_SECONDS + 0.5)
        assert house.ended == [("x.test", None)]

    await in_house(NOWHERE, act)


async def test_ids_of_which_nothing_is_left_do_not_hold_it_up(autojump_clock: MockClock) -> None:
    async def act(house: House) -> None:
        message = house.unroutable()
        await house.offer(message.ref, [901, 902], exhausted=True)
        assert house.ended == [("x.test", None)]

    await in_house(NOWHERE, act)


async def test_a_crash_gives_its_leases_back(autojump_clock: MockClock) -> None:
    async def act(house: House) -> None:
        ids = await accepted(house.parts, numbered(2, "x.test"))
        message = house.unroutable()
        message.ref.try_tell(Offer(array("Q", ids), True))
        await until_quiet()
        (order,) = house.desk.take("spooler", OrderLeases)
        ((lease,),) = await house.parts.spool.lease([order.orders[0].ids], 0.0)
        with structlog.testing.capture_logs():
            assert order.orders[0].holder.grant(lease)
            house.parts.domains.kill("x.test")
            await until_quiet()
        await house.play_spooler()
        assert {item.outcome for item in house.settled} == {Outcome.RETURNED}
        assert house.parts.spool.open_leases() == 0
        assert not order.orders[0].holder.grant(lease), "a lease that comes later is refused"

    await in_house(NOWHERE, act)


async def test_a_stop_gives_back_what_it_holds(autojump_clock: MockClock) -> None:
    async def act(house: House) -> None:
        ids = await accepted(house.parts, numbered(2, "x.test"))
        message = house.unroutable()
        message.ref.try_tell(Offer(array("Q", ids), True))
        await until_quiet()
        (order,) = house.desk.take("spooler", OrderLeases)
        ((lease,),) = await house.parts.spool.lease([order.orders[0].ids], 0.0)
        order.orders[0].holder.grant(lease)
        await house.parts.domains.stop_child("x.test")
        await house.play_spooler()
        assert {item.outcome for item in house.settled} == {Outcome.RETURNED}

    await in_house(NOWHERE, act)


async def test_a_domain_that_had_a_route_today_is_deferred_and_not_bounced(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    parts.dns_doubt.found("x.test", trio.current_time())
    async with alive(parts, "domains"):
        house = House(parts, NOWHERE)
        await house.answer()
        ids = await accepted(parts, numbered(3, "x.test"))
        message = house.unroutable()
        assert message.retry_at is not None
        await house.offer(message.ref, ids, exhausted=True)
        assert {item.outcome for item in house.settled} == {Outcome.DEFERRED}
        assert {item.reply for item in house.settled} == {
            "dns at resolve: no_such_domain at resolve: no such domain; it had a route within the last day"
        }


async def test_what_was_found_is_remembered(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with alive(parts, "domains"):
        house = House(parts, host_route("127.0.0.1", 25))
        await house.answer()
    assert parts.dns_doubt.absent("x.test", trio.current_time())


async def test_a_recall_finds_nothing_to_give_back_and_harms_nothing(autojump_clock: MockClock) -> None:
    async def act(house: House) -> None:
        ids = await accepted(house.parts, numbered(5, "x.test"))
        message = house.unroutable()
        message.ref.try_tell(Recall())
        await house.offer(message.ref, ids, exhausted=True)
        assert house.ended == [("x.test", None)]
        assert {item.outcome for item in house.settled} == {Outcome.BOUNCED}

    await in_house(NOWHERE, act)
