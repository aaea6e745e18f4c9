"""What a connection holds before the protocol does: leased envelopes composed ahead, and signed.

Composes a few messages beyond what the client took, within the engine's memory for them, and has the
signers sign them in one batch. A large message's row is read from the spool only now, when there is room.
What may not go ends here, with its reason: expired, barred by a suppression or an operator, without
one-click, not composable. `next_ready` asks once more about what was barred since. What is left at the end
is given back. Touches: the signers.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import trio
from msgspec.structs import replace

from engine.actors.gate import Barred, Gate
from engine.actors.holder import Holder
from engine.actors.memory import PathMemory
from engine.actors.messages import Sign, SignBatch, SignSlot
from engine.actors.parts import Parts
from engine.actors.prepared import Prepared
from engine.actors.transcript import Dispositions
from engine.model.content import Content, MessageClass
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.model.envelope import Envelope
from engine.model.reply import Verb
from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.message import Draft
from engine.runtime.ref import Ref

TlsProblem = Callable[[Content], str]

UNSIGNED = Barred(Outcome.RETURNED, "no key to sign it with is here", DelayReason.SIGNING)
PREPARED_AHEAD = 8  # messages composed beyond what the client took: one batch to send, one being signed
ROOM_LOOK_SECONDS = 0.05
ROOM_SECONDS = 5.0  # for memory; then a large message goes back to the queue, and others come first
PREPARE_BELOW = 4  # then up to PREPARED_AHEAD at once: composing one a round costs 20 us more (cold caches)


class Preparing:
    """Of one connection. `fitness` says what is wrong with sending a content here at all, or nothing."""

    __slots__ = (
        "_done",
        "_fitness",
        "_gate",
        "_holder",
        "_memory",
        "_parts",
        "_prepared",
        "_ref",
        "_signers",
        "_version",
    )

    def __init__(
        self,
        parts: Parts,
        holder: Holder,
        memory: PathMemory,
        done: Dispositions,
        gate: Gate,
        fitness: "Fitness",
        signers: Ref[Any],
        ref: Ref[Any],
    ) -> None:
        self._parts = parts
        self._holder = holder
        self._memory = memory
        self._done = done
        self._gate = gate
        self._fitness = fitness
        self._signers = signers
        self._ref = ref
        self._prepared: deque[Prepared] = deque()
        self._version = gate.version

    def __len__(self) -> int:
        return len(self._prepared)

    def __repr__(self) -> str:
        return f"<Preparing {len(self._prepared)} messages>"

    @property
    def ready(self) -> bool:
        """Whether the next message may be sent."""
        return bool(self._prepared) and self._prepared[0].ready

    @property
    def octets(self) -> int:
        return sum(item.octets for item in self._prepared)

    async def prepare(self, left: int, *, busy: bool) -> None:
        """Compose ahead, at most `left` in all, and send what is new to the signers in one message.

        `busy`: something of this connection is on the wire, so it can wait for memory.
        """
        holder, prepared, parts = self._holder, self._prepared, self._parts
        slots: list[SignSlot] = []
        batch = SignBatch()
        limit = parts.config.engine.prepared_bytes_max
        while holder.granted and len(prepared) < PREPARED_AHEAD and left > len(prepared):
            if parts.prepared_octets > limit and (prepared or busy):
                break
            heavy = holder.granted[0][1].heavy_octets
            if heavy and not self._has_room(heavy):
                if prepared or busy:
                    break
                if not await self._until_room(heavy):
                    self._return_heavy()
                    continue
            lease_id, envelope = holder.granted.popleft()
            draft = self._compose(lease_id, envelope)
            if draft is None:
                continue
            slot = None
            if draft.digests:
                slot = SignSlot([(item.key, item.digest) for item in draft.digests], self._ref, batch)
                slots.append(slot)
            parts.prepared_octets += len(draft.unsigned)
            prepared.append(Prepared(lease_id, envelope, draft, slot))
        if slots:
            await self._signers.tell(Sign(slots))

    def _has_room(self, octets: int) -> bool:
        """Whether a large message fits beside what the engine holds; one alone always does."""
        held = self._parts.prepared_octets
        return not held or held + octets <= self._parts.config.engine.prepared_bytes_max

    async def _until_room(self, octets: int) -> bool:
        """Wait while nothing of this connection is on the wire; False = others did not make room in time."""
        with trio.move_on_after(ROOM_SECONDS):
            while not self._has_room(octets):  # noqa: ASYNC110 - memory rings no bell
                await trio.sleep(ROOM_LOOK_SECONDS)
            return True
        return False

    def _return_heavy(self) -> None:
        if self._holder.granted:  # a stop may have taken it meanwhile
            self._end(*self._holder.granted.popleft(), Outcome.RETURNED, "", DelayReason.MEMORY)

    def next_ready(self) -> Prepared | None:
        """The next message that may go on the wire now, with its signatures; it is the caller's then."""
        if self._version != self._gate.version:
            self._look_again()
        while self.ready:
            item = self._prepared.popleft()
            if item.slot is None:
                return item
            if not item.slot.refused:
                item.content = item.draft.finish(item.slot.signatures)
                return item
            self._parts.prepared_octets -= item.octets
            self._bar(item.lease_id, item.envelope, UNSIGNED)
        return None

    def return_unsent(self, reason: DelayReason) -> None:
        """What never reached the client goes back; its lease ends."""
        while self._prepared:
            item = self._prepared.popleft()
            self._parts.prepared_octets -= item.octets
            self._end(item.lease_id, item.envelope, Outcome.RETURNED, "", reason)
        while self._holder.granted:
            self._end(*self._holder.granted.popleft(), Outcome.RETURNED, "", reason)

    def _look_again(self) -> None:
        """Something was suppressed or stopped since these were composed."""
        self._version = self._gate.version
        for _ in range(len(self._prepared)):
            item = self._prepared.popleft()
            barred = self._gate.judge(item.envelope)
            if barred is None:
                self._prepared.append(item)
            else:
                self._parts.prepared_octets -= item.octets
                self._bar(item.lease_id, item.envelope, barred)

    def _compose(self, lease_id: int, envelope: Envelope) -> Draft | None:
        now = self._parts.clock.now()
        if now >= self._done.terms.expires_at(envelope):
            self._end(lease_id, envelope, Outcome.EXPIRED, "expired before it could be sent")
            return None
        barred = self._gate.judge(envelope)
        if barred is not None:
            self._bar(lease_id, envelope, barred)
            return None
        self._holder.current = envelope.spool_id
        try:
            compiled = self._parts.compiled(envelope.campaign, envelope.accepted_at)
            unfit = self._fitness.problem(compiled.content)
            if unfit is not None:
                self._bar(lease_id, envelope, unfit)
                return None
            if envelope.heavy_octets:
                row = self._parts.spool.row(envelope.spool_id)
                if row is None:
                    raise RenderError("its row is gone or damaged")
                envelope = replace(envelope, row=row)
            return compiled.compose(envelope, now)
        except (RenderError, ContentError) as error:
            self._end(lease_id, envelope, Outcome.RENDER_FAILED, str(error))
            return None

    def _bar(self, lease_id: int, envelope: Envelope, barred: Barred) -> None:
        self._end(lease_id, envelope, barred.outcome, barred.text, barred.reason)

    def _end(
        self,
        lease_id: int,
        envelope: Envelope,
        outcome: Outcome,
        text: str,
        reason: DelayReason = DelayReason.NONE,
    ) -> None:
        self._holder.drop(envelope.spool_id)
        self._memory.give_back(1)  # it used nothing of the path's rate or of the day's quota
        self._done.add(
            lease_id,
            Disposition(envelope.spool_id, envelope.attempt, outcome, Verb.IDLE, text[:512], reason),
        )


class Fitness:
    """Whether a content may go to this peer at all: kept per content, since a connection sends few."""

    __slots__ = ("_known", "_public", "_tls_problem")

    def __init__(self, *, public: bool, tls_problem: TlsProblem) -> None:
        self._public = public
        self._tls_problem = tls_problem
        self._known: dict[int, Barred | None] = {}

    def problem(self, content: Content) -> Barred | None:
        if content.campaign not in self._known:
            self._known[content.campaign] = self._find(content)
        return self._known[content.campaign]

    def _find(self, content: Content) -> Barred | None:
        if self._public and needs_one_click(content):
            text = "bulk mail without one-click unsubscribe goes to private receivers only"
            return Barred(Outcome.CANCELLED, text)
        trouble = self._tls_problem(content)
        return Barred(Outcome.BOUNCED, trouble) if trouble else None


def needs_one_click(content: Content) -> bool:
    """Bulk mail that nobody could unsubscribe from (RFC 8058 is a promise of this engine).

    Each raw message is looked at when it is composed.
    """
    return (
        not content.raw
        and content.message_class is not MessageClass.TRANSACTIONAL
        and not content.unsubscribe_host
    )
