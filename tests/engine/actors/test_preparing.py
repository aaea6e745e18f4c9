"""Messages composed ahead of their turn: signed in one batch, within their memory, and asked once more."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.feedback import Feedback
from engine.actors.gate import Barred, Gate
from engine.actors.holder import Holder
from engine.actors.messages import Sign
from engine.actors.prepared import Prepared
from engine.actors.preparing import PREPARED_AHEAD, Fitness, Preparing, needs_one_click
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.actors.terms import Terms
from engine.actors.transcript import Dispositions
from engine.config.units import Size
from engine.model.content import Content
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.model.envelope import Envelope
from engine.model.single import (
    RawMessage,
    SingleKind,
    SubmitSingle,
    raw_row,
    single_chunk,
    standing_content,
)
from engine.mta.spool.suppressions_memory import MemorySuppressions
from tests.contract.suppressions import HASHER, add
from tests.fakes.engine_house import (
    CAMPAIGN,
    SOURCE,
    Desk,
    accepted,
    host_route,
    letter,
    memory_parts,
    numbered,
    signed,
    transactional,
)

PATH = "out>mx.test"
BARE = letter(8, unsubscribe_host="")  # bulk that nobody could unsubscribe from


class House:
    """What one connection has at hand; the signers are the test's."""

    def __init__(self, *, public: bool = False, tls_problem: str = "", **engine: Any) -> None:
        self.parts = memory_parts(**engine)
        self.parts.suppressions = MemorySuppressions(HASHER)
        self.desk = Desk()
        self.holder = Holder(f"{PATH}#1")
        self.memory = self.parts.path(
            PATH, host_route("127.0.0.1", 25, "mx.test"), SOURCE, "", trio.current_time()
        )
        terms, feedback = Terms(self.parts, self.memory), Feedback(self.parts, self.memory)
        self.done = Dispositions(self.parts, "mx.test", "out", terms, feedback)
        self.asked: list[int] = []

        def problem(content: Content) -> str:
            self.asked.append(content.campaign)
            return tls_problem

        self.preparing = Preparing(
            self.parts,
            self.holder,
            self.memory,
            self.done,
            Gate(self.parts, "out", "mx.test"),
            Fitness(public=public, tls_problem=problem),
            self.desk.peer("signers"),
            self.desk.peer("connection"),
        )

    async def lease(
        self, recipients: list[str], content: Content | None = None, *, expires_at: float = 4e9
    ) -> list[int]:
        ids = await accepted(self.parts, recipients, content, expires_at=expires_at)
        (leases,) = await self.parts.spool.lease([ids], self.parts.clock.now())
        for lease in leases:
            assert self.holder.grant(lease)
        return ids

    async def prepare(self, left: int = 1_000, *, busy: bool = False) -> None:
        await self.preparing.prepare(left, busy=busy)

    def sign(self) -> None:
        for message in self.desk.take("signers", Sign):
            for slot in message.slots:
                for index in range(len(slot.digests)):
                    slot.put(index, b"s" * 128)

    def send(self) -> list[int]:
        """Take all that may go, as the protocol would."""
        sent = []
        while (item := self.preparing.next_ready()) is not None:
            sent.append(item.envelope.spool_id)
            self.parts.prepared_octets -= item.octets
        return sent

    def told(self) -> dict[int, Disposition]:
        return {item.spool_id: item for _, batch in self.done.take() for item in batch}

    async def stop(self, kind: StopKind = StopKind.SUSPEND, domain: str = "x.test") -> None:
        await self.parts.stops.give(StopOrder(0, kind, Aim(Scope.DOMAIN, domain), "wait", "ann", 0.0))


# --- composing ahead ------------------------------------------------------------------------------------


async def test_a_few_messages_are_composed_ahead_in_the_order_of_their_lease(
    autojump_clock: MockClock,
) -> None:
    house = House()
    ids = await house.lease(numbered(20))
    await house.prepare()
    assert len(house.preparing) == PREPARED_AHEAD
    assert len(house.holder.granted) == 20 - PREPARED_AHEAD
    assert house.preparing.ready
    assert house.parts.prepared_octets == house.preparing.octets > 0
    assert repr(house.preparing) == f"<Preparing {PREPARED_AHEAD} messages>"
    assert house.send() == ids[:PREPARED_AHEAD]
    assert not house.preparing.ready
    assert house.parts.prepared_octets == 0


async def test_no_more_are_composed_than_the_connection_may_still_take(autojump_clock: MockClock) -> None:
    house = House()
    await house.lease(numbered(20))
    await house.prepare(left=3)
    await house.prepare(left=3)
    assert len(house.preparing) == 3
    await house.prepare(left=0)
    assert len(house.preparing) == 3


async def test_all_that_is_composed_together_is_signed_in_one_batch(autojump_clock: MockClock) -> None:
    house = House()
    ids = await house.lease(numbered(5), signed())
    await house.prepare()
    (message,) = house.desk.take("signers", Sign)
    assert len(message.slots) == 5
    assert house.preparing.next_ready() is None, "nothing goes out unsigned"
    for slot in message.slots[:2]:
        slot.put(0, b"s" * 128)
    first = house.preparing.next_ready()
    assert isinstance(first, Prepared)
    assert first.envelope.spool_id == ids[0]
    assert b"DKIM-Signature" in first.content
    assert not house.desk.take("connection"), "its connection is rung when all are there"
    message.slots[2].put(0, b"s" * 128)
    message.slots[3].put(0, b"s" * 128)
    message.slots[4].put(0, b"s" * 128)
    assert len(house.desk.take("connection")) == 1


async def test_a_message_without_a_key_goes_back_and_those_behind_it_go_on(
    autojump_clock: MockClock,
) -> None:
    house = House()
    ids = await house.lease(numbered(3), signed())
    await house.prepare()
    (message,) = house.desk.take("signers", Sign)
    message.slots[0].refuse(0)
    for slot in message.slots[1:]:
        slot.put(0, b"s" * 128)
    assert house.send() == ids[1:]
    (disposition,) = house.told().values()
    assert disposition.spool_id == ids[0]
    assert disposition.outcome is Outcome.RETURNED
    assert disposition.reason is DelayReason.SIGNING
    assert house.parts.prepared_octets == 0


async def test_an_unsigned_message_asks_the_signers_for_nothing(autojump_clock: MockClock) -> None:
    house = House()
    await house.lease(numbered(2))
    await house.prepare()
    assert not house.desk.take("signers")


@pytest.mark.parametrize(("busy", "composed"), [(False, 1), (True, 0)])
async def test_where_memory_is_used_up_one_message_goes_on_and_none_beside_what_is_on_the_wire(
    busy: bool, composed: int, autojump_clock: MockClock
) -> None:
    house = House(prepared_bytes_max=Size(1_000_000))
    house.parts.prepared_octets = 1_000_001  # of other connections
    await house.lease(numbered(5))
    await house.prepare(busy=busy)
    assert len(house.preparing) == composed


LARGE = 400_000  # octets of each large row below


async def heavy_house(count: int, **engine: Any) -> House:
    """A connection that was granted large raw messages."""
    house = House(**engine)
    kind = SingleKind(return_path_domain="bounce.x.test")
    content = standing_content(kind, 1, 0)
    await house.parts.spool.put_content(content, 0.0)
    ids = []
    for number in range(count):
        raw = RawMessage(kind, b"From: a@x.test\r\n\r\n" + b"x" * LARGE + b"\r\n")
        single = SubmitSingle(f"m{number}", "b@x.test", 4e9, raw)
        chunk = single_chunk(single, content.campaign, raw_row(raw.octets))
        ids.append((await house.parts.spool.accept(chunk, 0.0)).first_id)
    ((lease,),) = await house.parts.spool.lease([ids], 0.0)
    assert all(envelope.heavy_octets > LARGE and not envelope.row for envelope in lease.envelopes)
    assert house.holder.grant(lease)
    return house


async def test_large_rows_are_read_only_as_far_as_memory_goes(autojump_clock: MockClock) -> None:
    house = await heavy_house(5, prepared_bytes_max=Size(1_000_000))
    await house.prepare()
    assert len(house.preparing) == 2
    assert house.parts.prepared_octets < 1_000_000
    assert len(house.holder.granted) == 3
    house.send()
    await house.prepare()
    assert len(house.preparing) == 2


async def test_a_large_message_waits_for_memory_and_goes_alone_where_nothing_else_is(
    autojump_clock: MockClock,
) -> None:
    house = await heavy_house(1, prepared_bytes_max=Size(1_000_000))
    house.parts.prepared_octets = 900_000  # of other connections

    async def let_go() -> None:
        await trio.sleep(2)
        house.parts.prepared_octets = 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        await house.prepare()
        assert trio.current_time() == pytest.approx(2.0, abs=0.1)
    assert len(house.preparing) == 1


async def test_a_large_message_that_waited_too_long_for_memory_goes_back(autojump_clock: MockClock) -> None:
    house = await heavy_house(1, prepared_bytes_max=Size(1_000_000))
    house.parts.prepared_octets = 900_000
    await house.prepare(busy=True)
    assert len(house.holder.granted) == 1  # what is on the wire comes first
    await house.prepare()
    (told,) = house.told().values()
    assert (told.outcome, told.reason) == (Outcome.RETURNED, DelayReason.MEMORY)


async def test_a_large_row_that_cannot_be_read_ends_its_envelope(autojump_clock: MockClock) -> None:
    house = await heavy_house(1)
    house.parts.spool.disk.records.clear()  # type: ignore[attr-defined]
    await house.prepare()
    (told,) = house.told().values()
    assert told.outcome is Outcome.RENDER_FAILED


# --- what does not go -----------------------------------------------------------------------------------


async def test_what_has_expired_or_cannot_be_composed_ends_here_and_holds_nobody_up(
    autojump_clock: MockClock,
) -> None:
    house = House()
    (late,) = await house.lease(["a@x.test"], expires_at=house.parts.clock.now() - 1)
    endless = "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}"
    (broken,) = await house.lease(["b@x.test"], letter(9, text=endless))
    (fine,) = await house.lease(["c@x.test"])
    await house.prepare()
    told = house.told()
    assert told[late].outcome is Outcome.EXPIRED
    assert told[broken].outcome is Outcome.RENDER_FAILED
    assert house.holder.current == fine, "whoever dies composing it is blamed on it"
    assert house.send() == [fine]
    assert list(house.holder.held) == [fine]


async def test_the_gate_is_asked_when_a_message_is_composed(autojump_clock: MockClock) -> None:
    house = House()
    await house.parts.suppressions.apply(add(HASHER.key_of("a@x.test")))
    await house.stop(domain="y.test")
    suppressed, suspended, fine = await house.lease(["a@x.test", "b@y.test", "c@z.test"])
    await house.prepare()
    told = house.told()
    assert told[suppressed].outcome is Outcome.SUPPRESSED
    assert (told[suspended].outcome, told[suspended].reason) == (Outcome.RETURNED, DelayReason.SUSPENDED)
    assert house.send() == [fine]


async def test_the_gate_is_asked_again_when_its_answers_may_have_changed(autojump_clock: MockClock) -> None:
    house = House()
    one, two, three, four = await house.lease(["a@x.test", "b@x.test", "c@y.test", "d@z.test"])
    await house.prepare()
    first = house.preparing.next_ready()
    assert first is not None
    house.parts.prepared_octets -= first.octets
    await house.parts.suppressions.apply(add(HASHER.key_of("b@x.test")))
    await house.stop(StopKind.CANCEL, "y.test")
    assert house.send() == [four]
    told = house.told()
    assert one not in told, "what the protocol has is the protocol's"
    assert (told[two].outcome, told[three].outcome) == (Outcome.SUPPRESSED, Outcome.CANCELLED)
    assert house.parts.prepared_octets == 0
    assert house.send() == []


async def test_while_nothing_changes_the_gate_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    house, judged, judge = House(), list[int](), Gate.judge

    def judging(gate: Gate, envelope: Envelope) -> Barred | None:
        judged.append(envelope.spool_id)
        return judge(gate, envelope)

    monkeypatch.setattr(Gate, "judge", judging)
    ids = await house.lease(numbered(5))
    await house.prepare()
    house.send()
    assert judged == ids


async def test_a_message_that_is_barred_while_it_waits_for_its_signature_is_not_sent_with_it(
    autojump_clock: MockClock,
) -> None:
    house = House()
    one, two = await house.lease(["a@x.test", "b@y.test"], signed())
    await house.prepare()
    await house.stop(domain="x.test")
    assert house.send() == []
    assert house.told()[one].reason is DelayReason.SUSPENDED
    house.sign()
    assert house.send() == [two]
    assert house.parts.prepared_octets == 0


@pytest.mark.parametrize(
    ("content", "needed"),
    [
        (letter(), False),
        (letter(unsubscribe_host=""), True),
        (letter(unsubscribe_host="", raw=True), False),
        (transactional(), False),
    ],
)
def test_who_needs_one_click(content: Content, needed: bool) -> None:
    assert needs_one_click(content) == needed


@pytest.mark.parametrize("public", [True, False])
async def test_bulk_without_one_click_goes_to_private_receivers_only(
    public: bool, autojump_clock: MockClock
) -> None:
    house = House(public=public)
    (bare,) = await house.lease(["a@x.test"], BARE)
    (fine,) = await house.lease(["b@x.test"])
    await house.prepare()
    assert house.send() == ([fine] if public else [bare, fine])
    if public:
        told = house.told()[bare]
        assert told.outcome is Outcome.CANCELLED
        assert "one-click" in told.reply


async def test_a_content_that_this_peer_must_not_get_bounces_and_is_judged_once(
    autojump_clock: MockClock,
) -> None:
    house = House(tls_problem="550 5.7.30 the message requires TLS on its whole way")
    ids = await house.lease(numbered(4))
    await house.prepare()
    assert {item.outcome for item in house.told().values()} == {Outcome.BOUNCED}
    assert house.asked == [CAMPAIGN]
    assert not house.holder.held
    assert len(ids) == 4


# --- the end --------------------------------------------------------------------------------------------


async def test_what_is_not_sent_uses_nothing_of_the_path_s_rate(autojump_clock: MockClock) -> None:
    house = House()
    await trio.sleep(10)
    house.memory.throttle.set_rate(1.0, trio.current_time(), burst_seconds=10.0)
    await trio.sleep(10)
    people = numbered(9) + numbered(1, "stopped.test")
    assert house.memory.take(trio.current_time(), 10) == 10
    await house.lease(people)
    await house.stop(domain="stopped.test")
    while house.holder.granted:
        await house.prepare()
        house.send()
    assert next(iter(house.told().values())).reason is DelayReason.SUSPENDED
    assert house.memory.take(trio.current_time(), 10) == 1


async def test_what_is_not_sent_goes_back_composed_or_not(autojump_clock: MockClock) -> None:
    house = House()
    ids = await house.lease(numbered(20), signed())
    await house.prepare()
    house.preparing.return_unsent(DelayReason.STOPPING)
    told = house.told()
    assert sorted(told) == ids
    assert {(item.outcome, item.reason) for item in told.values()} == {
        (Outcome.RETURNED, DelayReason.STOPPING)
    }
    assert (len(house.preparing), house.parts.prepared_octets, house.holder.held) == (0, 0, {})
    house.sign()  # a signature that comes too late finds nobody
    assert house.send() == []
