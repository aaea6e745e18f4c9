"""What others hold of an actor: a name and a way in, the same before, during and after its crashes.

`tell` waits for room; `try_tell` never waits; `ask` waits for the one answer. A message that was not taken
survives a crash and is answered by the next incarnation. When the actor died with the message in hand, or
has ended for good, `ask` raises `ActorDied`; so does `tell` to one that has ended. Neither is a promise
that a told message was acted upon: who must know, asks. A time limit is the caller's (`trio.fail_after`).
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from engine.runtime.answer import ActorDied, Answer
from engine.runtime.mailbox import Mailbox, MailboxClosed, MailboxFull

M_contra = TypeVar("M_contra", contravariant=True)
R = TypeVar("R")


class Ref(Generic[M_contra]):
    """A way into one actor's mailbox. Cheap, hashable by identity, may be sent in messages."""

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: Mailbox[Any]) -> None:
        self._mailbox = mailbox

    @property
    def name(self) -> str:
        return self._mailbox.name

    @property
    def ended(self) -> bool:
        """The actor takes no more messages: it has ended for good or is about to."""
        return self._mailbox.closed

    async def tell(self, message: M_contra) -> None:
        """Put, waiting for room. Raises ActorDied when the actor takes no more messages."""
        try:
            await self._mailbox.put(message)
        except MailboxClosed:
            raise self._ended() from None

    def try_tell(self, message: M_contra) -> bool:
        """Put without waiting; False when the mailbox is full or the actor takes no more messages."""
        try:
            self._mailbox.put_nowait(message)
        except (MailboxFull, MailboxClosed):
            return False
        return True

    async def ask(self, make: Callable[[Answer[R]], M_contra]) -> R:
        """Send `make(answer)` and wait for that answer.

        Raises ActorDied, or the error given to `Answer.fail`. A cancelled asker abandons the answer: the
        message stays in the mailbox, and answering it does nothing.
        """
        mailbox = self._mailbox
        answer: Answer[R] = Answer(mailbox.name)
        try:
            await mailbox.put(make(answer))
        except MailboxClosed:
            raise self._ended() from None
        # `put` returns without a scheduler pass behind the append, so the message is the queue's last.
        mailbox.track(answer)
        try:
            return await answer.wait()
        finally:
            mailbox.untrack(answer)
            answer.abandon()

    def _ended(self) -> ActorDied:
        return ActorDied(self.name, "takes no more messages")

    def __repr__(self) -> str:
        return f"<Ref {self.name}>"
