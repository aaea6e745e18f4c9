"""A mailbox read with a clock beside it."""

import trio
from trio.testing import MockClock

from engine.runtime.mailbox import Mailbox
from engine.runtime.ticking import batch_within


async def test_a_batch_comes_at_once_when_messages_wait(autojump_clock: MockClock) -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    for number in range(3):
        mailbox.put_nowait(number)
    assert await batch_within(mailbox, 2, 60) == [0, 1]
    assert trio.current_time() == 0


async def test_an_empty_batch_comes_when_nothing_did(autojump_clock: MockClock) -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    assert await batch_within(mailbox, 2, 60) == []
    assert trio.current_time() == 60


async def test_a_message_ends_the_wait(autojump_clock: MockClock) -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)

    async def later() -> None:
        await trio.sleep(5)
        mailbox.put_nowait(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        assert await batch_within(mailbox, 2, 60) == [1]
    assert trio.current_time() == 5


async def test_none_comes_after_the_last_message_of_a_closed_mailbox() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    mailbox.put_nowait(1)
    mailbox.close()
    assert await batch_within(mailbox, 2, 60) == [1]
    assert await batch_within(mailbox, 2, 60) is None
