"""The writer of the queue and a system clock that somebody sets: nothing waits for ever, nothing is lost."""

import structlog
import trio
from trio.testing import MockClock

from engine.actors.messages import Queued, Settle
from engine.actors.parts import Parts
from engine.model.disposition import Disposition, Outcome
from engine.model.event import Adapted
from engine.runtime.clock import TrioClock
from tests.engine.actors.test_spooler import House, open_house
from tests.fakes.engine_house import accepted, memory_parts
from tests.fakes.trees import until_quiet


class SetClock(TrioClock):
    """A clock that the test sets; as with the system's, it moves when that is noticed."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.set_by = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def check_step(self) -> float | None:
        step, self.set_by = self.set_by, 0.0
        self.ahead += step
        return step or None


async def deferred(house: House, seconds: float, recipient: str) -> int:
    """An envelope that waits for so long; its id."""
    (spool_id,) = await accepted(house.parts, [recipient])
    ((lease,),) = await house.parts.spool.lease([[spool_id]], house.parts.clock.now())
    end = Disposition(spool_id, 0, Outcome.DEFERRED, due=house.parts.clock.now() + seconds)
    await house.ref.tell(Settle([(lease.id, [end])]))
    await until_quiet()
    return spool_id


def queued_ids(house: House) -> list[int]:
    return [entry.spool_id for message in house.told(Queued) for entry in message.entries]


def set_parts() -> tuple[Parts, SetClock]:
    parts = memory_parts()
    parts.clock = clock = SetClock()
    return parts, clock


async def test_a_clock_set_forward_brings_what_is_due_by_it_and_is_told(autojump_clock: MockClock) -> None:
    parts, clock = set_parts()
    with structlog.testing.capture_logs() as lines:
        async with open_house(parts) as house:
            spool_id = await deferred(house, 1_800.0, "a@x.test")
            await trio.sleep(5)
            assert queued_ids(house) == []
            clock.set_by = 3_600.0
            await trio.sleep(2)
            assert queued_ids(house) == [spool_id]
    (noted,) = parts.notes
    assert isinstance(noted, Adapted)
    assert (noted.knob, noted.after) == ("clock", 3_600.0)
    assert "set forward by 3600 s" in noted.reason
    assert [line["step_seconds"] for line in lines if "clock" in line["event"]] == [3_600.0]


async def test_a_clock_set_back_does_not_hold_up_what_is_deferred_later(autojump_clock: MockClock) -> None:
    parts, clock = set_parts()
    async with open_house(parts) as house:
        first = await deferred(house, 1.0, "a@x.test")
        await trio.sleep(2)
        assert queued_ids(house) == [first]
        clock.set_by = -3_600.0
        await trio.sleep(2)
        later = await deferred(house, 5.0, "b@x.test")
        await trio.sleep(4)
        assert queued_ids(house) == []
        await trio.sleep(2)
        assert queued_ids(house) == [later]


async def test_a_retry_keeps_its_pace_when_the_clock_is_set_back(autojump_clock: MockClock) -> None:
    parts, clock = set_parts()
    async with open_house(parts) as house:
        waiting = await deferred(house, 60.0, "a@x.test")
        clock.set_by = -3_600.0
        await trio.sleep(50)
        assert queued_ids(house) == []
        await trio.sleep(12)
        assert queued_ids(house) == [waiting]


async def test_a_start_under_a_clock_before_all_that_was_written_keeps_nobody_waiting(
    autojump_clock: MockClock,
) -> None:
    parts, clock = set_parts()
    async with open_house(parts) as house:
        spool_id = await deferred(house, 60.0, "a@x.test")
        clock.ahead = -40 * 365 * 86_400.0
        with structlog.testing.capture_logs() as lines:
            await house.crash()
        assert queued_ids(house) == [spool_id]
        assert parts.spool.next_due() is None
    assert [line["envelopes"] for line in lines if "too far ahead" in line["event"]] == [1]
