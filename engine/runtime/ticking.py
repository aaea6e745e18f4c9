"""A mailbox read with a clock beside it: an actor that also has things to do when nothing comes."""

from typing import TypeVar

import trio

from engine.runtime.mailbox import Mailbox, MailboxClosed

T = TypeVar("T")


async def batch_within(mailbox: Mailbox[T], limit: int, seconds: float) -> list[T] | None:
    """The next batch; an empty one when none came within `seconds`; None when no more comes."""
    batch: list[T] = []
    try:
        with trio.move_on_after(seconds):
            batch = await mailbox.get_batch(limit)
    except MailboxClosed:
        return None
    return batch
