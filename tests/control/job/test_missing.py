"""Events that the bus has lost do not hold a job up for ever, and their people are not taken for anything."""

from pathlib import Path

import pytest
import trio
import trio.testing

from control.job.missing import QUIET_SECONDS
from engine.model.submission import SubmitChunk
from tests.control.job.test_coordinator import house

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

PEOPLE = 600


async def test_what_a_broadcaster_told_and_the_bus_lost_is_ambiguous(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, PEOPLE, "a", "b") as made:
        made.puppets["a"].deaf_after = 100
        made.open()

        async def answer() -> None:
            while True:
                await trio.sleep(1)
                for puppet in made.puppets.values():
                    accepted = puppet.accepted
                    left = accepted - sum(puppet.sent.values())
                    puppet.answers = {"accepted": accepted, "delivered": accepted - left, "deferred": left}

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            began = trio.current_time()
            await made.run()
            assert trio.current_time() - began > 2 * QUIET_SECONDS
            nursery.cancel_scope.cancel()
    counts = made.board.counts()
    assert made.sent.total() == PEOPLE
    assert counts.accepted == PEOPLE
    assert (counts.deferred, counts.ambiguous) == (0, sum(made.puppets["a"].sent.values()) - 100)
    assert any("the bus has lost it" in warning for warning in made.board.warnings)


async def test_a_slow_broadcaster_is_waited_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 300, "a") as made:
        puppet = made.puppets["a"]
        puppet.per_second = 0
        puppet.answers = {"accepted": 300, "deferred": 300}
        made.open()
        async with trio.open_nursery() as nursery:

            async def wake() -> None:
                await trio.sleep(10 * QUIET_SECONDS)
                puppet.per_second = 500

            nursery.start_soon(wake)
            await made.run()
    made.check()


async def test_a_chunk_that_waits_for_room_after_its_claim_is_waited_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, 300, "a") as made:
        puppet = made.puppets["a"]
        puppet.answers = {"accepted": 0, "deferred": 0}  # whatever is in its spool is sent at once
        accept = puppet._accept

        async def accept_late(submission: SubmitChunk, sequence: int) -> None:
            await made.bus.create("claims", submission.chunk.id, b"a e1")
            await trio.sleep(10 * QUIET_SECONDS)
            await accept(submission, sequence)

        monkeypatch.setattr(puppet, "_accept", accept_late)
        made.open()
        await made.run(3_600)
    made.check()
    assert not any("never came" in warning for warning in made.board.warnings)
