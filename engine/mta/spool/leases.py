"""Who holds which envelope: the open leases as memory knows them, and what becomes of orphans.

Both spools keep one `OpenLeases` and change it when a call comes in, before anything is durable, so
that no envelope can be leased or settled twice; `restore` and `release` take a change back when its
commit fails. An envelope that is being leased is held by its *claim* (a negative number) until the
lease is durable. A lease on disk is dropped when its last envelope is settled; until then it may name
envelopes that are settled already, and those are told by their attempt, which a settle moves on. Only
a returned one keeps its attempt, so it is taken out of the lease on disk at once.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from engine.config import AmbiguousPolicy
from engine.model.disposition import DelayReason, Disposition, Outcome, assumed
from engine.model.reply import Verb
from engine.mta.spool.api import SUSPECTS_MAX, Lease

LEASE_ITEM: Final = struct.Struct(">QB")  # spool id, attempt
SPREAD_ATTEMPTS_MAX: Final = 8  # further apart than eight spreads is no better


class Claim(Struct, frozen=True):
    """Envelopes that a `lease` call is about to hold: for each order its ids. `ticket` is negative."""

    ticket: int
    orders: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        return sum(len(ids) for ids in self.orders)


class Taken(Struct, frozen=True):
    """What a `settle` call took out of its leases.

    `items` are (lease, envelope), `finished` the leases that hold nothing any more, `returned` what
    leaves a lease with its attempt unchanged.
    """

    dispositions: tuple[Disposition, ...]
    items: tuple[tuple[int, int], ...]
    finished: tuple[int, ...]
    returned: dict[int, set[int]]


class OpenLeases:
    """Lease -> envelopes and back."""

    __slots__ = ("_envelopes", "_holder")

    def __init__(self) -> None:
        self._envelopes: dict[int, set[int]] = {}
        self._holder: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._envelopes)

    def __contains__(self, lease: int) -> bool:
        return lease in self._envelopes

    @property
    def held(self) -> int:
        """How many envelopes are leased or claimed."""
        return len(self._holder)

    def claim(self, orders: Iterable[Sequence[int]], number: int) -> Claim:
        """Hold what nobody holds; `number` > 0 is never used twice."""
        holder, ticket = self._holder, -number
        wanted = []
        for order in orders:
            ids = tuple(spool_id for spool_id in dict.fromkeys(order) if spool_id not in holder)
            holder.update(dict.fromkeys(ids, ticket))
            wanted.append(ids)
        return Claim(ticket, tuple(wanted))

    def is_claimed(self, claim: Claim, spool_id: int) -> bool:
        """Still held by this claim: not when a settle of an older lease failed in between."""
        return self._holder.get(spool_id) == claim.ticket

    def grant(self, claim: Claim, made: Iterable[Iterable[Lease]]) -> None:
        """The claim's leases are durable; what did not become part of one is let go."""
        for leases in made:
            for lease in leases:
                ids = {envelope.spool_id for envelope in lease.envelopes}
                self._envelopes[lease.id] = ids
                self._holder.update(dict.fromkeys(ids, lease.id))
        self.release(claim)

    def release(self, claim: Claim) -> None:
        for ids in claim.orders:
            for spool_id in ids:
                if self._holder.get(spool_id) == claim.ticket:
                    del self._holder[spool_id]

    def free(self, ids: Iterable[int]) -> tuple[int, ...]:
        """Those that nobody holds."""
        return tuple(spool_id for spool_id in ids if spool_id not in self._holder)

    def take(self, batches: Iterable[tuple[int, Sequence[Disposition]]]) -> Taken:
        """The dispositions that count: of a lease's own envelopes, or (lease 0) of those nobody holds."""
        holder = self._holder
        dispositions: list[Disposition] = []
        items: list[tuple[int, int]] = []
        finished: list[int] = []
        returned: dict[int, set[int]] = {}
        for lease, batch in batches:
            if lease == 0:
                dispositions.extend(item for item in batch if item.spool_id not in holder)
                continue
            ids = self._envelopes.get(lease)
            if ids is None:
                continue
            for item in batch:
                if item.spool_id in ids:
                    ids.remove(item.spool_id)
                    del holder[item.spool_id]
                    items.append((lease, item.spool_id))
                    dispositions.append(item)
                    if item.outcome is Outcome.RETURNED:
                        returned.setdefault(lease, set()).add(item.spool_id)
            if not ids:
                del self._envelopes[lease]
                finished.append(lease)
        return Taken(tuple(dispositions), tuple(items), tuple(finished), returned)

    def restore(self, taken: Taken) -> None:
        """The settle did not happen: its envelopes are held again."""
        for lease, spool_id in taken.items:
            self._envelopes.setdefault(lease, set()).add(spool_id)
            self._holder[spool_id] = lease

    def clear(self) -> None:
        self._envelopes.clear()
        self._holder.clear()


def judge_orphans(
    found: Sequence[tuple[int, int, bool]], policy: AmbiguousPolicy, retry_at: float, spread_seconds: float
) -> list[Disposition]:
    """The ends of all orphans at a start; `found` = (spool id, attempt, whether it was leased alone).

    After a death in the middle of a campaign hundreds are retried, each leased alone, and a second death
    then proves nothing against any of them: blame needs SUSPECTS_MAX or fewer. So that the one envelope
    that does kill its process is told from the crowd it goes with, retries are drawn apart, the further the
    more attempts are behind an envelope: sooner or later it is nearly alone in the air.
    """
    blamed = sum(alone for _, _, alone in found) <= SUSPECTS_MAX
    return [
        orphan(
            spool_id,
            attempt,
            policy,
            retry_at + spread_seconds * min(attempt, SPREAD_ATTEMPTS_MAX) * _fraction(spool_id + attempt),
            alone and blamed,
        )
        for spool_id, attempt, alone in found
    ]


def _fraction(number: int) -> float:
    """From [0, 1), far apart for neighbours (Knuth's multiplicative hash); dice would not repeat."""
    return (number * 2_654_435_761 % 2**32) / 2**32


def orphan(spool_id: int, attempt: int, policy: AmbiguousPolicy, retry_at: float, alone: bool) -> Disposition:
    """The end of an envelope's lease whose process is gone; `alone` = it may be what killed it."""
    reason = DelayReason.AMBIGUOUS_RETRY
    if policy is AmbiguousPolicy.HOLD:
        reason = DelayReason.AMBIGUOUS_HELD
    if policy is AmbiguousPolicy.ASSUME_DELIVERED:
        return assumed(spool_id, attempt, "the engine stopped while this was in flight")
    return Disposition(
        spool_id,
        attempt,
        Outcome.AMBIGUOUS,
        Verb.CONTENT,
        "the engine stopped while this was in flight",
        reason,
        due=retry_at,
        crashed=alone,
    )


def parked(spool_id: int, attempt: int, why: str) -> Disposition:
    """The end of an envelope that cannot be opened: parked, so that it stops nobody else."""
    return Disposition(spool_id, attempt, Outcome.QUARANTINED, Verb.IDLE, why, DelayReason.QUARANTINED)


def unpack_lease(packed: bytes) -> list[tuple[int, int]]:
    """(spool id, attempt) of each envelope of a lease on disk."""
    return list(LEASE_ITEM.iter_unpack(packed))


def pack_lease(items: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(LEASE_ITEM.pack(spool_id, attempt) for spool_id, attempt in items)
