"""Bounds, order, doors and fairness of a mailbox."""

import pytest
import trio
import trio.testing

from engine.runtime.mailbox import MESSAGES_PER_PASS, Mailbox, MailboxClosed, MailboxFull


async def test_messages_come_out_in_the_order_they_went_in() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    for number in range(5):
        await mailbox.put(number)
    assert await mailbox.get() == 0
    assert await mailbox.get_batch(2) == [1, 2]
    assert mailbox.get_nowait() == 3
    assert await mailbox.get_batch(64) == [4]
    assert mailbox.get_nowait() is None


async def test_put_nowait_refuses_beyond_the_capacity() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 2)
    mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    with pytest.raises(MailboxFull):
        mailbox.put_nowait(3)
    assert len(mailbox) == 2


async def test_put_waits_for_room_and_keeps_the_order(autojump_clock: trio.abc.Clock) -> None:
    mailbox: Mailbox[int] = Mailbox("m", 1)
    got: list[int] = []

    async def send() -> None:
        for number in range(20):
            await mailbox.put(number)
            assert len(mailbox) <= 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while len(got) < 20:
            await trio.sleep(1)
            got += await mailbox.get_batch(64)
    assert got == list(range(20))


async def test_many_waiting_senders_all_get_in() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 2)
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(mailbox.put, number)
        got: list[int] = []
        while len(got) < 50:
            got += await mailbox.get_batch(64)
    assert sorted(got) == list(range(50))
    assert mailbox.high_water == 2


async def test_get_batch_waits_for_one_and_takes_no_more_than_its_limit() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    async with trio.open_nursery() as nursery:
        batches: list[list[int]] = []

        async def receive() -> None:
            batches.append(await mailbox.get_batch(3))

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert batches == []
        for number in range(5):
            mailbox.put_nowait(number)
    assert batches == [[0, 1, 2]]
    assert len(mailbox) == 2


async def test_a_cancelled_receiver_takes_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.get()
    mailbox.put_nowait(1)
    assert await mailbox.get() == 1


async def test_a_cancelled_sender_puts_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 1)
    mailbox.put_nowait(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.put(2)
    assert await mailbox.get_batch(5) == [1]
    assert len(mailbox) == 0


async def test_room_and_a_message_need_no_scheduler_pass() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    with trio.testing.assert_no_checkpoints():
        await mailbox.put(1)
        await mailbox.put(2)
        await mailbox.get()
        await mailbox.get_batch(5)


@pytest.mark.parametrize("limit", [1, 7, 64])
async def test_a_busy_receiver_lets_others_run(limit: int) -> None:
    mailbox: Mailbox[int] = Mailbox("m", 1)
    passes = 0

    async def other() -> None:
        nonlocal passes
        while True:
            passes += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for number in range(10 * MESSAGES_PER_PASS):
            mailbox.put_nowait(number)
            await mailbox.get_batch(limit)
        nursery.cancel_scope.cancel()
    assert passes >= 5  # trio shuffles who goes first within a pass


async def test_a_busy_receiver_can_be_cancelled_and_loses_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 1)
    taken = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        while True:
            mailbox.put_nowait(taken)
            await mailbox.get()
            taken += 1
    assert taken == MESSAGES_PER_PASS
    assert len(mailbox) == 1


async def test_after_close_the_receiver_takes_what_is_left_then_leaves() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    mailbox.close()
    with pytest.raises(MailboxClosed):
        mailbox.put_nowait(3)
    with pytest.raises(MailboxClosed):
        await mailbox.put(3)
    assert [batch async for batch in mailbox.batches(1)] == [[1], [2]]
    with pytest.raises(MailboxClosed):
        await mailbox.get()


async def test_close_wakes_waiting_receivers_and_senders() -> None:
    empty: Mailbox[int] = Mailbox("empty", 1)
    full: Mailbox[int] = Mailbox("full", 1)
    full.put_nowait(1)

    async def receive() -> None:
        with pytest.raises(MailboxClosed):
            await empty.get()

    async def send() -> None:
        with pytest.raises(MailboxClosed):
            await full.put(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        empty.close()
        full.close()


async def test_a_suspended_mailbox_sends_receivers_away_and_keeps_messages() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    mailbox.put_nowait(1)
    mailbox.suspend()
    mailbox.put_nowait(2)
    with pytest.raises(MailboxClosed):
        await mailbox.get()
    assert mailbox.get_nowait() is None
    mailbox.resume()
    assert await mailbox.get_batch(5) == [1, 2]


def test_a_retired_mailbox_counts_what_it_dropped() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    mailbox.retire("has ended")
    assert (len(mailbox), mailbox.dropped, mailbox.closed) == (0, 2, True)


def test_a_mailbox_of_capacity_zero_is_closed_and_stays_so() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 0)
    mailbox.resume()
    with pytest.raises(MailboxClosed):
        mailbox.put_nowait(1)


async def test_repr_and_high_water_tell_the_truth() -> None:
    mailbox: Mailbox[int] = Mailbox("m", 10)
    for number in range(4):
        mailbox.put_nowait(number)
    await mailbox.get_batch(3)
    mailbox.put_nowait(9)
    assert repr(mailbox) == "<Mailbox m: 2/10, high water 4, 0 asks, open>"
    mailbox.suspend()
    assert "suspended" in repr(mailbox)
    mailbox.close()
    assert "closed" in repr(mailbox)
