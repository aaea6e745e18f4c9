"""What became of each address, out of the events of all broadcasters: two octets a person, and the sums.

A person is a place in the list. One octet is the state, the other the broadcaster, and whether it ever was
ambiguous. The first final state wins, whoever says something later; an address that two broadcasters say
they delivered is counted as doubled. Events may come before the chunk that they are about was cut again (a
resumed coordinator), and after its broadcaster was retired. Replies are kept for those who have not got
their mail, up to a limit. Pure; batches are expected without repeats.
"""

from collections.abc import Iterable
from enum import IntEnum

from msgspec import Struct

from engine.model.event import AttemptEvent
from engine.mta.spool.api import StateCounts

BROADCASTERS_MAX = 127  # seven bits
REPLIES_KEPT_MAX = 200_000  # about 20 MB; the state of an address is known without its reply
REPLY_CHARS = 300
HELD = "ambiguous, held"
RETIRED_REASON = "its broadcaster never said what became of it"

_WAS_AMBIGUOUS = 0x80


class State(IntEnum):
    """A person's state; those from DELIVERED on are final."""

    NONE = 0  # in no chunk: refused, or not read yet
    PLANNED = 1  # in a chunk that nobody has accepted
    QUEUED = 2
    DEFERRED = 3  # tried, and to be tried again
    HELD = 4  # ambiguous, until an operator decides
    QUARANTINED = 5
    GIVEN_UP = 6  # its broadcaster was retired, or its events were lost: ambiguous
    DELIVERED = 7
    BOUNCED = 8
    EXPIRED = 9
    SUPPRESSED = 10
    CANCELLED = 11
    RENDER_FAILED = 12


WORDS = {
    State.NONE: "",
    State.PLANNED: "not sent",
    State.QUEUED: "deferred",
    State.DEFERRED: "deferred",
    State.HELD: "ambiguous",
    State.QUARANTINED: "quarantined",
    State.GIVEN_UP: "ambiguous",
    State.DELIVERED: "delivered",
    State.BOUNCED: "bounced",
    State.EXPIRED: "expired",
    State.SUPPRESSED: "suppressed",
    State.CANCELLED: "cancelled",
    State.RENDER_FAILED: "render_failed",
}
_STATES = {
    "Delivered": State.DELIVERED,
    "Deferred": State.DEFERRED,
    "Bounced": State.BOUNCED,
    "Expired": State.EXPIRED,
    "Suppressed": State.SUPPRESSED,
    "Cancelled": State.CANCELLED,
    "RenderFailed": State.RENDER_FAILED,
    "Ambiguous": State.DEFERRED,
    "Quarantined": State.QUARANTINED,
}
_OPEN = (State.QUEUED, State.DEFERRED)
_FINAL = State.DELIVERED


class Person(Struct, frozen=True):
    """What is known of one address."""

    state: State
    broadcaster: str
    was_ambiguous: bool
    reply: str


class Outcomes:
    """All of one campaign."""

    def __init__(self) -> None:
        self.doubled = 0  # said to be delivered by two
        self._states = bytearray()
        self._owners = bytearray()
        self._names: list[str] = [""]
        self._index: dict[str, int] = {"": 0}
        self._counts: list[list[int]] = [[0] * len(State)]  # by broadcaster, then state
        self._ambiguous: list[int] = [0]
        self._replies: dict[int, str] = {}
        self._same: dict[str, str] = {}  # equal replies share one string

    def __repr__(self) -> str:
        return f"<Outcomes: {self.counts()}>"

    @property
    def broadcasters(self) -> list[str]:
        """Who has said something, or accepted something."""
        return self._names[1:]

    def plan(self, records: Iterable[int], last: int, accepted_by: str | None = None) -> None:
        """People of a chunk that was cut, now or again. `last` is the largest of them."""
        self._grow(last)
        states, state = self._states, State.PLANNED if accepted_by is None else State.QUEUED
        index = 0 if accepted_by is None else self._of(accepted_by)
        added = 0
        for record in records:
            if not states[record]:
                states[record] = state
                self._owners[record] |= index
                added += 1
        self._counts[index][state] += added

    def accept(self, first: int, last: int, broadcaster: str) -> None:
        """A chunk was accepted: who is only planned is queued there."""
        self._grow(last)
        index = self._of(broadcaster)
        states, owners = self._states, self._owners
        moved = 0
        for record in range(first, last + 1):
            if states[record] == State.PLANNED:
                states[record] = State.QUEUED
                owners[record] = owners[record] & _WAS_AMBIGUOUS | index
                moved += 1
        self._counts[0][State.PLANNED] -= moved
        self._counts[index][State.QUEUED] += moved

    def add(self, event: AttemptEvent, broadcaster: str) -> bool:
        """One event; whether it gave somebody a final state."""
        record = event.subscriber
        if record >= len(self._states):
            self._grow(record)
        index = self._of(broadcaster)
        name = type(event).__name__
        state = _STATES[name]
        if name == "Ambiguous" and event.reason.startswith(HELD):
            state = State.HELD
        before = self._states[record]
        if before >= _FINAL:
            self.doubled += state == before == State.DELIVERED
            return False
        if before == State.GIVEN_UP and state < _FINAL:
            return False
        self._set(record, state, index)
        if name == "Ambiguous":
            self._mark_ambiguous(record)
        self._keep_reply(record, state, event)
        return state >= _FINAL

    def give_up(self, first: int, last: int, broadcaster: str) -> int:
        """Who of a chunk is not finished becomes ambiguous; only a final state changes that. How many."""
        self._grow(last)
        index = self._of(broadcaster)
        given_up = 0
        for record in range(first, last + 1):
            if State.PLANNED <= self._states[record] < State.GIVEN_UP:
                self._set(record, State.GIVEN_UP, index)
                self._mark_ambiguous(record)
                self._remember(record, RETIRED_REASON)
                given_up += 1
        return given_up

    def may_be_doubled(self, first: int, last: int) -> None:
        """Another has claimed this chunk, too: whoever is in it may get two."""
        for record in range(first, min(last + 1, len(self._states))):
            if self._states[record]:
                self._mark_ambiguous(record)

    def unfinished(self, first: int, last: int) -> int:
        """How many between two places are in a chunk and not final."""
        part = self._states[first : last + 1]
        return sum(part.count(state) for state in range(State.PLANNED, State.GIVEN_UP))

    def person(self, record: int) -> Person:
        if record >= len(self._states):
            return Person(State.NONE, "", False, "")
        owner = self._owners[record]
        return Person(
            State(self._states[record]),
            self._names[owner & ~_WAS_AMBIGUOUS],
            bool(owner & _WAS_AMBIGUOUS),
            self._replies.get(record, ""),
        )

    def counts(self, broadcaster: str | None = None) -> StateCounts:
        """Of all, or of one; who is in a chunk that nobody has accepted counts nowhere."""
        if broadcaster is None:
            rows = [[sum(column) for column in zip(*self._counts, strict=True)]]
            ambiguous = sum(self._ambiguous)
        else:
            index = self._index.get(broadcaster)
            rows = [] if index is None else [self._counts[index]]
            ambiguous = 0 if index is None else self._ambiguous[index]
        counts = StateCounts(was_ambiguous=ambiguous)
        for row in rows:
            for state in State:
                if state >= State.QUEUED:
                    counts.accepted += row[state]
                    if state not in _OPEN:
                        counts.add(WORDS[state], row[state])
        return counts

    def retrying(self) -> int:
        return sum(row[State.DEFERRED] for row in self._counts)

    def planned(self) -> int:
        return self._counts[0][State.PLANNED]

    def _set(self, record: int, state: State, index: int) -> None:
        before, owner = self._states[record], self._owners[record]
        if before:
            self._counts[owner & ~_WAS_AMBIGUOUS][before] -= 1
        if owner & _WAS_AMBIGUOUS and owner & ~_WAS_AMBIGUOUS != index:
            self._ambiguous[owner & ~_WAS_AMBIGUOUS] -= 1
            self._ambiguous[index] += 1
        self._counts[index][state] += 1
        self._states[record] = state
        self._owners[record] = owner & _WAS_AMBIGUOUS | index

    def _mark_ambiguous(self, record: int) -> None:
        if not self._owners[record] & _WAS_AMBIGUOUS:
            self._owners[record] |= _WAS_AMBIGUOUS
            self._ambiguous[self._owners[record] & ~_WAS_AMBIGUOUS] += 1

    def _keep_reply(self, record: int, state: State, event: AttemptEvent) -> None:
        if state == State.DELIVERED:
            self._replies.pop(record, None)
        else:
            self._remember(record, event.reply or event.reason or event.rule)

    def _remember(self, record: int, text: str) -> None:
        if record in self._replies or len(self._replies) < REPLIES_KEPT_MAX:
            text = text[:REPLY_CHARS]
            self._replies[record] = self._same.setdefault(text, text) if len(self._same) < 10_000 else text

    def _of(self, broadcaster: str) -> int:
        index = self._index.get(broadcaster)
        if index is None:
            index = self._index[broadcaster] = len(self._names)
            assert index <= BROADCASTERS_MAX, "a job has up to 127 broadcasters"
            self._names.append(broadcaster)
            self._counts.append([0] * len(State))
            self._ambiguous.append(0)
        return index

    def _grow(self, record: int) -> None:
        missing = record + 1 - len(self._states)
        if missing > 0:
            # Some more than is wanted, since people come one by one.
            more = bytes(max(missing, min(len(self._states), 1_000_000)))
            self._states += more
            self._owners += more
