"""What the actors say to each other. Batches cross mailboxes, never single envelopes.

Grouped by the actor that takes the message. A message is a frozen Struct; one that wants an answer
carries an `Answer`.
"""

from array import array
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from engine.actors.holder import Holder
from engine.model.content import Content
from engine.model.disposition import Disposition
from engine.model.envelope import Chunk
from engine.model.event import Event
from engine.model.reply import Reply, TransportFailure
from engine.mta.net.mx import Route
from engine.mta.spool.api import Acceptance, QueueEntry
from engine.runtime.answer import Answer
from engine.runtime.ref import Ref

# --- to the spooler --------------------------------------------------------------------------------


class PutContent(Struct, frozen=True):
    content: Content
    answer: Answer[None]


class Accept(Struct, frozen=True):
    chunk: Chunk
    answer: Answer[Acceptance]


class LeaseFor(Struct, frozen=True):
    """Lease `ids` (in the care of `path` so far) for what `holder` belongs to."""

    path: str
    holder: Holder
    ids: Sequence[int]


class OrderLeases(Struct, frozen=True):
    orders: Sequence[LeaseFor]


class Settle(Struct, frozen=True):
    """(lease id, dispositions) batches."""

    batches: Sequence[tuple[int, Sequence[Disposition]]]


class Note(Struct, frozen=True):
    """Events of the engine itself, for the journal."""

    events: Sequence[Event]


class Flush(Struct, frozen=True):
    """Answered when everything told before is durable."""

    answer: Answer[None]


# --- to the scheduler ------------------------------------------------------------------------------


class Accepted(Struct, frozen=True):
    """Envelope `first_id` + i of `campaign` waits for `domains[i]`."""

    campaign: int
    first_id: int
    domains: tuple[str, ...]


class Queued(Struct, frozen=True):
    """Envelopes wait (again): returned from a lease, or due."""

    entries: tuple[QueueEntry, ...]


class Leased(Struct, frozen=True):
    """These ids left the care of their paths: (path, ids)."""

    paths: tuple[tuple[str, Sequence[int]], ...]


class Credit(Struct, frozen=True):
    """A path has room for `places` more ids; it had received `seen` ids when it said so.

    Below 0, transactional mail has taken that many of the places that are kept for it.
    """

    path: str
    places: int
    seen: int


class GiveBack(Struct, frozen=True):
    """A path has to rest: it gives these ids back, and takes no others before its next Credit.

    `elsewhere`: another source may take them, and all that waits for this path.
    """

    path: str
    ids: Sequence[int]
    elsewhere: bool = False


class Routed(Struct, frozen=True):
    domain: str
    route: Route


class Unroutable(Struct, frozen=True):
    """No route: `ref` takes `places` envelopes of the domain and settles them.

    `retry_at` (monotonic seconds) None = the domain takes no mail; all its envelopes go this way.
    """

    domain: str
    path: str
    ref: Ref[Any]
    places: int
    retry_at: float | None


class StopsChanged(Struct, frozen=True):
    """An operator has stopped mail, let it go on, or sent it another way: `parts.stops` says what holds."""


class Bell(Struct, frozen=True):
    """Look again: something outside the mailbox has changed."""


# --- to a path (a site, or a domain without a route) ------------------------------------------------


class Offer(Struct, frozen=True):
    """Ids that are now in the path's care. `exhausted`: nothing more waits for it at the moment.

    The first `urgent` of them are transactional mail.
    """

    ids: "array[int]"
    exhausted: bool
    urgent: int = 0


class Want(Struct, frozen=True):
    """A connection asks for up to `count` more envelopes."""

    connection: str
    count: int


class ConnectionReady(Struct, frozen=True):
    connection: str


class ConnectionEnded(Struct, frozen=True):
    """`reached`: the peer said Ready on this connection. `trouble` is what kept it from that, or ended it."""

    connection: str
    reached: bool
    served: int
    trouble: Reply | TransportFailure | None
    crashed: bool


class Recall(Struct, frozen=True):
    """Give back what is ready: who may be sent to, and over what, has changed."""


class NewRoute(Struct, frozen=True):
    """The site's hosts as DNS has them now."""

    route: Route


# --- to the resolver, the signers, the commands -----------------------------------------------------


class Lookup(Struct, frozen=True):
    domain: str
    answer: Answer[Route | TransportFailure]


class SignBatch:
    """Slots that one connection orders together; it is rung once, when all are signed."""

    __slots__ = ("missing",)

    def __init__(self) -> None:
        self.missing = 0


class SignSlot:
    """A place for one message's signatures; rings its connection when its batch is complete.

    A ring for each message would wake the connection for one flight at a time, and messages that
    come one by one cannot share a write with their neighbours.
    """

    __slots__ = ("batch", "digests", "missing", "ref", "refused", "signatures")

    def __init__(
        self, digests: Sequence[tuple[str, bytes]], ref: Ref[Any], batch: SignBatch | None = None
    ) -> None:
        self.digests = digests  # (key name, 32-octet digest)
        self.signatures: list[bytes] = [b""] * len(digests)
        self.missing = len(digests)
        self.refused = False  # one of the keys is not here: the message cannot be finished now
        self.ref = ref
        self.batch = batch or SignBatch()
        self.batch.missing += 1

    def put(self, index: int, signature: bytes) -> None:
        """One signature; a second one for the same digest (asked again after a death) changes nothing."""
        if not self.signatures[index]:
            self.signatures[index] = signature
            self.missing -= 1
            if not self.missing:
                self.batch.missing -= 1
                if not self.batch.missing:
                    self.ref.try_tell(BELL)

    def refuse(self, index: int) -> None:
        """There will be no signature for this digest."""
        self.refused = True
        self.put(index, NO_SIGNATURE)


class Sign(Struct, frozen=True):
    slots: Sequence[SignSlot]


BELL = Bell()
NO_SIGNATURE = b"-"  # holds the place of one that does not come
