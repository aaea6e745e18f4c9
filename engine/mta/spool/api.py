"""The spool's contract: what is durable when, and what a crash leaves.

An envelope is in exactly one state. A crash (kill -9, power cut, full disk) leaves it where its last
durable commit put it:

| state       | how it got there                         | after a crash                                    |
|-------------|------------------------------------------|--------------------------------------------------|
| unknown     | its chunk's `accept` is not durable yet  | unknown: the chunk was not acknowledged          |
| queued      | `accept` durable                         | queued                                           |
| leased      | `lease` durable                          | *orphan*: ambiguous, retried or held by policy   |
| deferred    | settled deferred; has a due time         | deferred                                         |
| held        | ambiguous under policy "hold"            | held                                             |
| quarantined | its actor died with it twice             | quarantined                                      |
| gone        | settled finally; its event is written    | gone; the event is still there until trimmed     |

An operator may queue a deferred, held or quarantined envelope again (`requeue`), or end a parked one
(`conclude`: held or quarantined).

Promises. `accept` is idempotent by chunk id. An event is written in the same commit as the settle it
tells of. `settle` is idempotent by (spool id, attempt), and refused for a lease that is not open
(then nothing changes). A lease is durable before its Pending resolves, so before the first octet of
its envelopes can reach the wire. Counts are kept in the same commits, so they add up after any
crash: accepted = deferred + ambiguous + quarantined + the final states.

Everything is called from one loop. Calls that change something return a `Pending` that is done when
the change is durable. Reads see what is committed.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from engine.config.tables import AmbiguousPolicy
from engine.model.content import Content
from engine.model.disposition import Disposition, Outcome
from engine.model.envelope import Chunk, Envelope
from engine.model.event import Event
from engine.storage import Pending, StorageError

LEASE_ENVELOPES_MAX = 64
CRASHES_MAX = 2  # actor deaths with an envelope in hand before it is quarantined
PROCESS_CRASHES_MAX = 3  # process deaths while it was leased alone: a machine may simply lose power twice
SUSPECTS_MAX = 8  # more than these leased alone at one death: it proves nothing against any of them


class SpoolError(StorageError):
    """The spool refuses: an unknown campaign, a changed content, an impossible chunk."""


class Acceptance(Struct, frozen=True):
    """`known` = this chunk id was accepted before, nothing changed and `domains` is empty.

    Otherwise envelope i of the chunk has spool id `first_id` + i and goes to `domains[i]`.
    """

    chunk: str
    campaign: int
    first_id: int
    count: int
    domains: tuple[str, ...] = ()
    known: bool = False


class Lease(Struct, frozen=True):
    id: int
    envelopes: tuple[Envelope, ...]


class QueueEntry(Struct, frozen=True, array_like=True, gc=False):
    """An envelope that (again) waits in the scheduled queue of (campaign, domain)."""

    spool_id: int
    campaign: int
    domain: str


class Settled(Struct, frozen=True):
    """What a settle did: `applied` dispositions, and those that are queued again at once."""

    applied: int
    requeued: tuple[QueueEntry, ...]
    due: float | None = None  # the earliest due time it wrote


class Recovery(Struct, frozen=True):
    """What opening found: leases of the last incarnation and what became of their envelopes."""

    orphans: int
    held: int
    quarantined: int


class StateCounts(Struct):
    """Envelopes of a campaign by state (interfaces.md). `was_ambiguous` is no state: it overlaps."""

    accepted: int = 0
    delivered: int = 0
    bounced: int = 0
    expired: int = 0
    suppressed: int = 0
    cancelled: int = 0
    render_failed: int = 0
    ambiguous: int = 0
    quarantined: int = 0
    was_ambiguous: int = 0

    @property
    def finished(self) -> int:
        return (
            self.delivered
            + self.bounced
            + self.expired
            + self.suppressed
            + self.cancelled
            + self.render_failed
        )

    @property
    def deferred(self) -> int:
        """Still queued, tried or not."""
        return self.accepted - self.finished - self.ambiguous - self.quarantined

    def add(self, state: str, amount: int) -> None:
        setattr(self, state, getattr(self, state) + amount)


class Spool(Protocol):
    """The durable queue of one engine. `now` and `at` are wall seconds."""

    producer: str
    epoch: str

    @property
    def next_id(self) -> int:
        """Above the ids of all envelopes accepted so far, at most that of the next one."""
        ...

    def put_content(self, content: Content, now: float) -> Pending[None]: ...

    def content(self, campaign: int) -> Content | None: ...

    def campaigns(self) -> list[int]: ...

    def chunk_ids(self) -> list[str]:
        """Every chunk that was accepted here, whatever became of its envelopes."""
        ...

    def knows(self, chunk_id: str) -> bool:
        """Whether a chunk of this id was accepted here, and not forgotten since."""
        ...

    def forget_chunks(self, first: str, before: str, limit: int) -> Pending[int]:
        """Forget up to `limit` chunk ids with first <= id < before; done with their number.

        A chunk of such an id would be accepted anew; its envelopes stay what they are.
        """
        ...

    def accept(self, chunk: Chunk, now: float) -> Pending[Acceptance]:
        """Raises SpoolError at once for a chunk that no spool takes: too large, or its campaign unknown."""
        ...

    def lease(self, orders: Sequence[Sequence[int]], now: float) -> Pending[list[list[Lease]]]:
        """For each order the leases made of it: one for all plain envelopes, one for each suspect one.

        Ids that are leased already, gone, held or quarantined are left out silently; one that does not
        open (damaged, or its key destroyed) is quarantined. Rows of records beyond HEAVY_OCTETS are left
        out, so that a lease costs little memory; `row` reads one.
        """
        ...

    def row(self, spool_id: int) -> tuple[str, ...] | None:
        """The row of an envelope, whatever its size; None when it is gone or does not open."""
        ...

    def settle(self, batches: Sequence[tuple[int, Sequence[Disposition]]], at: float) -> Pending[Settled]:
        """Apply (lease id, dispositions) batches in one commit. Lease id 0 = envelopes not leased."""
        ...

    def requeue(self, ids: Sequence[int]) -> Pending[Settled]:
        """Queue envelopes at once that are deferred, held or quarantined (its crashes are forgotten then).

        Others are left out: queued already, leased, gone, damaged; so a repeat changes nothing. It writes no
        event: an attempt has neither begun nor ended, and the next one tells.
        """
        ...

    def conclude(self, dispositions: Sequence[Disposition], at: float) -> Pending[Settled]:
        """End held or quarantined envelopes by these final outcomes, with their events, in one commit.

        Idempotent by (spool id, attempt); what is not parked is left out.
        """
        ...

    def note(self, events: Sequence[Event], at: float) -> Pending[None]:
        """Put events of the engine itself into the journal: they tell of no envelope."""
        ...

    def recover(
        self, now: float, policy: AmbiguousPolicy, retry_at: float, spread_seconds: float = 0.0
    ) -> Pending[Recovery]:
        """End the leases of earlier incarnations. `spread_seconds` draws apart, by that much per attempt
        that is over, the retries of those that were ambiguous before (see `leases.judge_orphans`)."""
        ...

    def queued(self, after: int = 0, limit: int = 2**63) -> list[QueueEntry]:
        """Queued envelopes with an id > `after`, in id order: how memory is rebuilt, after `recover`.

        A leased one counts as queued here until it is settled, and so does a deferred one that
        `take_due` has given in this incarnation: whoever took it may have died with it.
        """
        ...

    def take_due(self, now: float, limit: int) -> list[QueueEntry]:
        """Deferred envelopes whose time has come; each is given once per incarnation and due time."""
        ...

    def next_due(self) -> float | None: ...

    def rewind(self, now: float, seconds: float) -> Pending[int]:
        """The clock was set back by `seconds`, to `now`: due times that are written so far move with it.

        Done, with their number, when all have; those that `take_due` has given may be given again.
        """
        ...

    def late(self, latest: float, limit: int) -> list[int]:
        """Up to `limit` envelopes that are deferred until later than `latest`, the latest first."""
        ...

    def events(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Up to `limit` encoded batches with sequence > `after`: (sequence of the first event, octets)."""
        ...

    def trim_events(self, before: int) -> Pending[None]:
        """Forget batches whose events all have a sequence < `before`."""
        ...

    def counts(self, campaign: int) -> StateCounts: ...

    def listing(self, after: int, limit: int) -> list["Listed"]: ...

    def open_leases(self) -> int: ...


class Listed(Struct, frozen=True):
    """One envelope for people to look at."""

    spool_id: int
    campaign: int
    subscriber: int
    domain: str
    state: str
    attempt: int
    crashes: int
    due: float
    expires_at: float
    was_ambiguous: bool


STATE_OF_OUTCOME = {
    Outcome.DELIVERED: "delivered",
    Outcome.BOUNCED: "bounced",
    Outcome.EXPIRED: "expired",
    Outcome.SUPPRESSED: "suppressed",
    Outcome.CANCELLED: "cancelled",
    Outcome.RENDER_FAILED: "render_failed",
}
