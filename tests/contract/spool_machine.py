"""A random life of a spool against a plain model of the contract, for both kinds of spool.

The model (`Truth`, one per envelope) is written from the table at the top of `engine.mta.spool.api`,
not from the code. After every step the machine compares states, counts, queued envelopes, open leases
and the event log; each rule checks what its own call returned.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.config import AmbiguousPolicy
from engine.model.disposition import FINAL, DelayReason, Disposition, Outcome
from engine.model.event import ChunkAccepted, decode_events
from engine.mta.spool.api import CRASHES_MAX, PROCESS_CRASHES_MAX, STATE_OF_OUTCOME, SUSPECTS_MAX, StateCounts
from tests.contract.spool import NOW, a_chunk, a_content
from tests.fakes.spool_house import SpoolHouse

PARKED = ("ambiguous", "quarantined")


@dataclass
class Truth:
    campaign: int
    state: str = "queued"  # queued, deferred, ambiguous (held), quarantined, or a final state
    attempt: int = 0
    crashes: int = 0
    suspect: bool = False
    was_ambiguous: bool = False
    due: float = 0.0
    given: bool = False  # by take_due, in this incarnation and for this due time
    lease: int = 0
    events: int = 0

    @property
    def gone(self) -> bool:
        return self.state not in ("queued", "deferred", *PARKED)


@dataclass
class Look:
    """What can be seen of a spool."""

    counts: dict[int, StateCounts]
    listing: dict[int, Any]
    queued: list[int]
    events: list[tuple[int, bytes]]
    open_leases: int
    next_due: float | None


@dataclass
class World:
    truths: dict[int, Truth] = field(default_factory=dict)
    chunks: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (first id, count)
    named: dict[int, set[int]] = field(default_factory=dict)  # lease -> what it names on disk
    trimmed_envelopes: Counter[int] = field(default_factory=Counter)
    trimmed_chunks: int = 0
    next_event: int = 1

    def of_lease(self, lease: int) -> list[int]:
        return [key for key, truth in self.truths.items() if truth.lease == lease]

    @property
    def leases(self) -> list[int]:
        return sorted({truth.lease for truth in self.truths.values() if truth.lease})


class SpoolMachine(RuleBasedStateMachine):
    """Subclasses give `call` (run a function of the house, in its loop) and `teardown`."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.now = NOW
        self.last_batch: list[tuple[int, list[Disposition]]] = []

    def call(self, function: Callable[[SpoolHouse], Awaitable[Any]]) -> Any:
        raise NotImplementedError

    @initialize()
    def submit_contents(self) -> None:
        async def act(house: SpoolHouse) -> None:
            for campaign in (1, 2):
                await house.spool.put_content(a_content(campaign), self.now)

        self.call(act)

    # --- acceptance ------------------------------------------------------------------------------------

    @rule(campaign=st.sampled_from([1, 2]), count=st.integers(0, 4), name=st.sampled_from("abcdef"))
    def accept(self, campaign: int, count: int, name: str) -> None:
        async def act(house: SpoolHouse) -> Any:
            return await house.spool.accept(a_chunk(count, name, campaign), self.now)

        acceptance = self.call(act)
        known = self.world.chunks.get(name)
        assert acceptance.known == (known is not None)
        if known is not None:
            assert (acceptance.first_id, acceptance.count) == known
            return
        assert acceptance.first_id > max(self.world.truths, default=0)
        self.world.chunks[name] = (acceptance.first_id, count)
        for offset in range(count):
            self.world.truths[acceptance.first_id + offset] = Truth(campaign)

    # --- leases ----------------------------------------------------------------------------------------

    @rule(data=st.data(), orders=st.integers(1, 3))
    def lease(self, data: st.DataObject, orders: int) -> None:
        ids = st.lists(st.sampled_from([*self.world.truths, 10**9]), max_size=4)
        wanted = [data.draw(ids) for _ in range(orders)]

        async def act(house: SpoolHouse) -> Any:
            return await house.spool.lease(wanted, self.now)

        made = self.call(act)
        assert len(made) == orders
        for order, leases in zip(wanted, made, strict=True):
            free = [
                key
                for key in dict.fromkeys(order)
                if key in self.world.truths
                and not self.world.truths[key].lease
                and not self.world.truths[key].gone
                and self.world.truths[key].state not in PARKED
            ]
            alone = [key for key in free if self.world.truths[key].suspect or self.world.truths[key].crashes]
            plain = [key for key in free if key not in alone]
            held = [[item.spool_id for item in lease.envelopes] for lease in leases]
            assert held == [[key] for key in alone] + ([plain] if plain else [])
            for lease in leases:
                for envelope in lease.envelopes:
                    truth = self.world.truths[envelope.spool_id]
                    assert (envelope.attempt, envelope.crashes) == (truth.attempt, truth.crashes)
                    assert envelope.was_ambiguous == truth.was_ambiguous
                    truth.lease = lease.id
                self.world.named[lease.id] = {envelope.spool_id for envelope in lease.envelopes}

    # --- settling --------------------------------------------------------------------------------------

    def _drawn(self, data: st.DataObject, key: int) -> Disposition:
        outcome = data.draw(st.sampled_from(list(Outcome)))
        return Disposition(
            key,
            self.world.truths[key].attempt,
            outcome,
            reason=data.draw(st.sampled_from([DelayReason.AMBIGUOUS_RETRY, DelayReason.AMBIGUOUS_HELD])),
            due=self.now + data.draw(st.integers(-5, 20)),
            crashed=outcome not in FINAL and data.draw(st.booleans()),
        )

    def _step(self, item: Disposition, crashes_max: int = CRASHES_MAX) -> None:
        """The contract's table, for one disposition that applies."""
        truth = self.world.truths[item.spool_id]
        truth.crashes += item.crashed
        outcome = item.outcome
        if item.crashed and truth.crashes >= crashes_max:
            outcome = Outcome.QUARANTINED
        if item.outcome is Outcome.AMBIGUOUS:
            truth.was_ambiguous = True
        if outcome is not Outcome.RETURNED:
            truth.events += 1
        truth.due, truth.given, truth.lease = 0.0, False, 0
        if outcome in FINAL:
            truth.state = STATE_OF_OUTCOME[outcome]
        elif outcome is Outcome.RETURNED:
            truth.state = "queued"
        elif outcome is Outcome.QUARANTINED:
            truth.state = "quarantined"
        else:
            truth.attempt += 1
            truth.state = "deferred"
            truth.due = item.due
            if outcome is Outcome.AMBIGUOUS and item.reason is DelayReason.AMBIGUOUS_HELD:
                truth.state, truth.due = "ambiguous", 0.0

    @precondition(lambda self: self.world.leases)
    @rule(data=st.data(), again=st.booleans())
    def settle(self, data: st.DataObject, again: bool) -> None:
        batches = []
        for lease in data.draw(st.lists(st.sampled_from(self.world.leases), unique=True, max_size=3)):
            keys = data.draw(st.lists(st.sampled_from(self.world.of_lease(lease)), unique=True))
            batches.append((lease, [self._drawn(data, key) for key in keys]))
        self.last_batch = batches

        async def act(house: SpoolHouse) -> tuple[Any, Any]:
            first = house.spool.settle(batches, self.now)
            second = house.spool.settle(batches, self.now) if again else None
            return await first, None if second is None else await second

        first, second = self.call(act)
        items = [item for _, batch in batches for item in batch]
        assert first.applied == len(items)
        assert second is None or second.applied == 0
        for lease, batch in batches:
            returned = {item.spool_id for item in batch if item.outcome is Outcome.RETURNED}
            self.world.named[lease] -= returned
        for item in items:
            self._step(item)
        queued = {item.spool_id for item in items if self.world.truths[item.spool_id].state == "queued"}
        assert {entry.spool_id for entry in first.requeued} == queued

    @precondition(lambda self: self.last_batch)
    @rule()
    def settle_the_last_batch_again(self) -> None:
        async def act(house: SpoolHouse) -> Any:
            return await house.spool.settle(self.last_batch, self.now)

        assert self.call(act).applied == 0

    @precondition(lambda self: self.world.truths)
    @rule(data=st.data(), shift=st.sampled_from([1, 1_000]))
    def settle_for_a_foreign_lease(self, data: st.DataObject, shift: int) -> None:
        key = data.draw(st.sampled_from(list(self.world.truths)))
        item = self._drawn(data, key)

        async def act(house: SpoolHouse) -> Any:
            return await house.spool.settle([(self.world.truths[key].lease + shift, [item])], self.now)

        assert self.call(act).applied == 0

    @precondition(lambda self: self.world.truths)
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.CANCELLED, Outcome.EXPIRED, Outcome.DEFERRED]))
    def settle_without_a_lease(self, data: st.DataObject, outcome: Outcome) -> None:
        key = data.draw(st.sampled_from(list(self.world.truths)))
        truth = self.world.truths[key]
        attempt = truth.attempt + data.draw(st.sampled_from([0, 0, 0, 1]))
        item = Disposition(key, attempt, outcome, due=self.now + 3)

        async def act(house: SpoolHouse) -> Any:
            return await house.spool.settle([(0, [item])], self.now)

        idle = not truth.lease and not truth.gone and truth.state not in PARKED and attempt == truth.attempt
        assert self.call(act).applied == idle
        if idle:
            self._step(item)

    # --- what an operator does -------------------------------------------------------------------------

    @precondition(lambda self: self.world.truths)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        keys = data.draw(st.lists(st.sampled_from([*self.world.truths, 10**9]), unique=True, max_size=4))

        async def act(house: SpoolHouse) -> Any:
            return await house.spool.requeue(keys)

        settled = self.call(act)
        waits = ("deferred", *PARKED)
        idle = [key for key in keys if key in self.world.truths and not self.world.truths[key].lease]
        moved = [key for key in idle if self.world.truths[key].state in waits]
        assert [entry.spool_id for entry in settled.requeued] == moved
        assert settled.applied == len(moved)
        for key in moved:
            truth = self.world.truths[key]
            if truth.state == "quarantined":
                truth.attempt, truth.crashes, truth.suspect = truth.attempt + 1, 0, True
            truth.state, truth.due, truth.given = "queued", 0.0, False

    @precondition(lambda self: self.world.truths)
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.DELIVERED, Outcome.BOUNCED]))
    def conclude(self, data: st.DataObject, outcome: Outcome) -> None:
        key = data.draw(st.sampled_from(list(self.world.truths)))
        truth = self.world.truths[key]
        attempt = truth.attempt + data.draw(st.sampled_from([0, 0, 0, 1]))

        async def act(house: SpoolHouse) -> Any:
            return await house.spool.conclude([Disposition(key, attempt, outcome)], self.now)

        ends = truth.state in PARKED and attempt == truth.attempt
        assert self.call(act).applied == ends
        if ends:
            self._step(Disposition(key, attempt, outcome))

    # --- time and crashes ------------------------------------------------------------------------------

    @rule(seconds=st.integers(0, 15), limit=st.sampled_from([1, 2, 100]))
    def take_due(self, seconds: int, limit: int) -> None:
        self.now += seconds

        async def act(house: SpoolHouse) -> Any:
            return house.spool.take_due(self.now, limit)

        taken = [entry.spool_id for entry in self.call(act)]
        waiting = sorted(
            (truth.due, key)
            for key, truth in self.world.truths.items()
            if truth.state == "deferred" and not truth.given and truth.due <= self.now
        )
        assert taken == [key for _, key in waiting[:limit]]
        for key in taken:
            self.world.truths[key].given = True

    @rule(policy=st.sampled_from(list(AmbiguousPolicy)), twice=st.booleans())
    def crash(self, policy: AmbiguousPolicy, twice: bool) -> None:
        async def act(house: SpoolHouse) -> Any:
            await house.crash()
            if twice:  # a crash before recovery changes nothing
                await house.crash()
            return await house.spool.recover(self.now, policy, self.now + 7)

        before = {key: truth.lease for key, truth in self.world.truths.items() if truth.lease}
        recovery = self.call(act)
        alone = {key for key, lease in before.items() if len(self.world.named[lease]) == 1}
        reason = DelayReason.AMBIGUOUS_HELD if policy is AmbiguousPolicy.HOLD else DelayReason.AMBIGUOUS_RETRY
        for truth in self.world.truths.values():
            truth.given = False
        for key in before:
            truth = self.world.truths[key]
            truth.suspect = True
            if policy is AmbiguousPolicy.ASSUME_DELIVERED:
                truth.was_ambiguous = True
                self._step(Disposition(key, truth.attempt, Outcome.DELIVERED))
                continue
            item = Disposition(
                key,
                truth.attempt,
                Outcome.AMBIGUOUS,
                reason=reason,
                due=self.now + 7,
                crashed=key in alone and len(alone) <= SUSPECTS_MAX,
            )
            self._step(item, PROCESS_CRASHES_MAX)
        found = Counter(self.world.truths[key].state for key in before)
        assert (recovery.orphans, recovery.held, recovery.quarantined) == (
            len(before),
            found["ambiguous"],
            found["quarantined"],
        )

    # --- events ----------------------------------------------------------------------------------------

    @rule(data=st.data())
    def trim_events(self, data: st.DataObject) -> None:
        before = data.draw(st.integers(0, self.world.next_event + 1))

        async def act(house: SpoolHouse) -> Any:
            old = house.spool.events(0, 10**6)
            await house.spool.trim_events(before)
            return old, house.spool.events(0, 10**6)

        old, new = self.call(act)
        for sequence, octets in old:
            batch = decode_events(octets)
            assert ((sequence, octets) not in new) == (batch.next_sequence <= before)
            if batch.next_sequence <= before:
                for event in batch.events:
                    if isinstance(event, ChunkAccepted):
                        self.world.trimmed_chunks += 1
                    else:
                        self.world.trimmed_envelopes[event.spool_id] += 1

    @invariant()
    def everything_adds_up(self) -> None:
        async def act(house: SpoolHouse) -> Look:
            spool = house.spool
            return Look(
                {campaign: spool.counts(campaign) for campaign in (1, 2)},
                {item.spool_id: item for item in spool.listing(0, 10**6)},
                [entry.spool_id for entry in spool.queued()],
                spool.events(0, 10**6),
                spool.open_leases(),
                spool.next_due(),
            )

        look, truths = self.call(act), self.world.truths
        for key, item in look.listing.items():  # a due time behind the scan was moved to it
            truth = truths[key]
            if truth.due:
                assert truth.due <= item.due
                assert item.due < max(truth.due, self.now) + 0.5
                truth.due = item.due
        alive = {key: truth for key, truth in truths.items() if not truth.gone}
        assert {key: (i.state, i.attempt, i.crashes, i.was_ambiguous) for key, i in look.listing.items()} == {
            key: (t.state, t.attempt, t.crashes, t.was_ambiguous) for key, t in alive.items()
        }
        assert look.queued == [
            key for key, t in alive.items() if t.state == "queued" or (t.state == "deferred" and t.given)
        ]
        assert look.open_leases == len(self.world.leases)
        waiting = [t.due for t in alive.values() if t.state == "deferred" and not t.given]
        assert look.next_due == min(waiting, default=None)
        for campaign, counts in look.counts.items():
            mine = [truth for truth in truths.values() if truth.campaign == campaign]
            expected = StateCounts(accepted=len(mine), was_ambiguous=sum(t.was_ambiguous for t in mine))
            for truth in mine:
                if truth.state not in ("queued", "deferred"):
                    expected.add(truth.state, 1)
            assert counts == expected
            assert counts.deferred == sum(t.state in ("queued", "deferred") for t in mine)
        self._events_are_complete(look.events)

    def _events_are_complete(self, batches: list[tuple[int, bytes]]) -> None:
        """Gap-free, one for each chunk and one for each settle that tells something."""
        seen = Counter(self.world.trimmed_envelopes)
        chunks = self.world.trimmed_chunks
        following = batches[0][0] if batches else self.world.next_event
        for sequence, octets in batches:
            batch = decode_events(octets)
            assert sequence == batch.sequence == following
            following = batch.next_sequence
            for event in batch.events:
                if isinstance(event, ChunkAccepted):
                    chunks += 1
                else:
                    seen[event.spool_id] += 1
        self.world.next_event = max(following, self.world.next_event)
        assert chunks == len(self.world.chunks)
        assert seen == Counter({key: t.events for key, t in self.world.truths.items() if t.events})
