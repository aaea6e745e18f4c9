"""The answer slot of an ask: exactly one value, one error, or `ActorDied`.

A message that wants an answer carries an `Answer`; whoever took the message calls `set` or `fail` once,
then or later, from any task of that actor. A second answer is a bug and raises. Two ends make the slot
indifferent instead: the asker went away (cancelled, timed out), or the supervisor failed the ask because
the actor died; a late `set` then does nothing. Touches: the waiting asker, no clock, no socket.
"""

from enum import Enum
from typing import Generic, TypeVar

import trio

R = TypeVar("R")


class ActorDied(Exception):
    """The actor cannot answer: it crashed with the message in hand, or it has ended for good."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}")
        self.name = name


class AlreadyAnswered(Exception):
    """An `Answer` was given a second value or error: a bug of the answering actor."""


class AnswerState(Enum):
    OPEN = "open"
    ANSWERED = "answered"
    ABANDONED = "abandoned"  # nobody waits any more, or the supervisor has failed it


class Answer(Generic[R]):
    """One answer, to be given once. `sequence` belongs to the mailbox: its message's place there."""

    __slots__ = ("_error", "_given", "_state", "_value", "name", "sequence")

    def __init__(self, name: str) -> None:
        self.name = name
        self.sequence = -1
        self._state = AnswerState.OPEN
        self._value: R
        self._error: Exception | None = None
        self._given: trio.Event | None = None

    @property
    def wanted(self) -> bool:
        """Somebody still waits: an actor may skip work for an answer that is not wanted."""
        return self._state is AnswerState.OPEN

    def set(self, value: R) -> None:
        """Answer. Raises AlreadyAnswered the second time; does nothing when the asker is gone."""
        if self._take():
            self._value = value
            self._wake()

    def fail(self, error: Exception) -> None:
        """Let the asker's `ask` raise `error`. Otherwise as `set`."""
        if self._take():
            self._error = error
            self._wake()

    def die(self, error: ActorDied) -> None:
        """The supervisor's word: the actor that held this is dead. Does nothing if it was answered."""
        if self._state is AnswerState.OPEN:
            self._state = AnswerState.ABANDONED
            self._error = error
            self._wake()

    def abandon(self) -> None:
        """The asker's word: it waits no longer."""
        if self._state is AnswerState.OPEN:
            self._state = AnswerState.ABANDONED

    async def wait(self) -> R:
        """The asker's side: the value, or the error raised."""
        if self._state is AnswerState.OPEN:
            self._given = trio.Event()
            await self._given.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def _take(self) -> bool:
        if self._state is AnswerState.ANSWERED:
            raise AlreadyAnswered(f"{self.name} answered one ask twice")
        if self._state is AnswerState.ABANDONED:
            return False
        self._state = AnswerState.ANSWERED
        return True

    def _wake(self) -> None:
        if self._given is not None:
            self._given.set()

    def __repr__(self) -> str:
        return f"<Answer of {self.name}: {self._state.value}>"
