"""What one taker of leases holds, kept outside of it so that its crash loses nothing.

The spooler grants leases into a holder; the connection (or site, or domain) takes envelopes out,
marks what it begins to send, and drops what it has settled. When it dies, `remains` turns the rest
into dispositions: ambiguous for what may be on the wire, returned for what is not, and a crash mark
on the one envelope that was being worked on. Pure bookkeeping; the loop's thread only.
"""

from collections import deque
from typing import Any

from engine.config.tables import AmbiguousPolicy
from engine.model.disposition import DelayReason, Disposition, Outcome, assumed
from engine.model.envelope import Envelope
from engine.model.reply import Reply, TransportFailure, Verb
from engine.mta.spool.api import Lease
from engine.runtime.ref import Ref

Batches = list[tuple[int, list[Disposition]]]

CUT_OFF = "its connection ended here before the answer"


class Holder:
    """Leases of one taker. `granted` is what it has not begun to prepare."""

    __slots__ = (
        "answers",
        "closed",
        "current",
        "granted",
        "held",
        "name",
        "reached",
        "ref",
        "served",
        "trouble",
        "wire",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.ref: Ref[Any] | None = None  # rung when a lease is granted
        self.granted: deque[tuple[int, Envelope]] = deque()
        self.held: dict[int, tuple[int, int]] = {}  # spool id -> lease id, attempt
        self.wire: set[int] = set()  # handed to the protocol: octets of it may be out
        self.current: int | None = None  # being composed or handed over right now
        self.closed = False
        self.answers = 0  # orders that the spooler has answered, with or without a lease
        self.reached = False  # a connection: the peer said Ready
        self.served = 0  # a connection: transactions that the peer answered
        self.trouble: Reply | TransportFailure | None = None  # a connection: what ended it

    def __repr__(self) -> str:
        return f"<Holder {self.name}: {len(self.held)} held, {len(self.granted)} untouched>"

    def grant(self, lease: Lease) -> bool:
        """Take a lease in. False when the taker is gone: the lease must be given back."""
        if self.closed:
            return False
        for envelope in lease.envelopes:
            self.held[envelope.spool_id] = (lease.id, envelope.attempt)
            self.granted.append((lease.id, envelope))
        return True

    def drop(self, spool_id: int) -> int:
        """Forget a settled envelope; returns its lease's id."""
        self.wire.discard(spool_id)
        return self.held.pop(spool_id)[0]

    def close(self) -> None:
        self.closed = True
        self.granted.clear()

    def remains(
        self, *, crashed: bool, ambiguous_due: float, reason: DelayReason, policy: AmbiguousPolicy
    ) -> Batches:
        """Dispositions for everything still held; the holder is empty and closed afterwards.

        `ambiguous_due` is when an ambiguous envelope is tried again, if `policy` has it tried again.
        """
        self.close()
        by_lease: dict[int, list[Disposition]] = {}
        for spool_id, (lease_id, attempt) in self.held.items():
            blamed = crashed and spool_id == self.current
            if spool_id in self.wire and policy is AmbiguousPolicy.ASSUME_DELIVERED:
                disposition = assumed(spool_id, attempt, CUT_OFF)
            elif spool_id in self.wire:
                held = policy is AmbiguousPolicy.HOLD
                disposition = Disposition(
                    spool_id,
                    attempt,
                    Outcome.AMBIGUOUS,
                    Verb.CONTENT,
                    CUT_OFF,
                    DelayReason.AMBIGUOUS_HELD if held else DelayReason.AMBIGUOUS_RETRY,
                    due=ambiguous_due,
                    crashed=blamed,
                )
            else:
                disposition = Disposition(spool_id, attempt, Outcome.RETURNED, reason=reason, crashed=blamed)
            by_lease.setdefault(lease_id, []).append(disposition)
        self.held.clear()
        self.wire.clear()
        return list(by_lease.items())
