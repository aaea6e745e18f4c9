"""What is suppressed or stopped while a message waits for its turn on a connection; its peer is a model."""

import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.actors.messages import ConnectionEnded
from engine.actors.stops import Aim, Scope, StopKind, StopOrder
from engine.model.disposition import DelayReason, Outcome
from engine.model.reply import FailureKind, TransportFailure, Verb
from tests.contract.suppressions import HASHER, add
from tests.fakes.engine_house import letter, numbered, signed
from tests.fakes.model_line import ADDRESS, NAME, Line, model_line

D, R = Outcome.DELIVERED, Outcome.RETURNED
ANN, BOB, EVE = "ann@x.test", "bob@x.test", "eve@y.test"


async def suppress(line: Line, recipient: str) -> None:
    await line.parts.suppressions.apply(add(HASHER.key_of(recipient)))


async def stop(
    line: Line, kind: StopKind = StopKind.SUSPEND, scope: Scope = Scope.DOMAIN, value: str = "x.test"
) -> StopOrder:
    return await line.parts.stops.give(StopOrder(0, kind, Aim(scope, value), "wait", "ann", 0.0))


async def test_whoever_is_suppressed_when_it_is_leased_gets_nothing(autojump_clock: MockClock) -> None:
    async with model_line("PIPELINING") as line:
        await line.open()
        await suppress(line, ANN)
        ann, bob = await line.send([ANN, BOB])
        assert (line.told[ann].outcome, line.told[bob].outcome) == (Outcome.SUPPRESSED, D)
        assert line.told[ann].reply == "manual (installation)"
        assert line.recipients == [BOB]


async def test_whoever_is_suppressed_while_a_message_waits_for_its_signature_gets_nothing(
    autojump_clock: MockClock,
) -> None:
    async with model_line("PIPELINING") as line:
        await line.open()
        ann, bob, eve = await line.send([ANN, BOB, EVE], signed())
        assert not line.told
        await suppress(line, BOB)
        assert await line.sign_all() == 3
        assert [line.told[each].outcome for each in (ann, bob, eve)] == [D, Outcome.SUPPRESSED, D]
        assert line.recipients == [ANN, EVE]
        assert (await line.end()).served == 2


async def test_whoever_is_suppressed_while_a_message_waits_for_room_gets_nothing(
    autojump_clock: MockClock,
) -> None:
    async with model_line() as line:
        await line.open()
        line.wire.holding = True
        ids = await line.send(numbered(12))
        taken = line.under_way
        late = numbered(12)[len(taken)]
        assert 0 < len(taken) < 8, "the protocol takes no more than it has use for"
        await suppress(line, late)
        await suppress(line, taken[0])  # too late for it: what the protocol has goes on
        await line.wire.release()
        await line.collect()
        assert line.told.pop(ids[len(taken)]).outcome is Outcome.SUPPRESSED
        assert {item.outcome for item in line.told.values()} == {D}
        assert line.recipients == [each for each in numbered(12) if each != late]
        await line.end()


@pytest.mark.parametrize(
    ("kind", "outcome", "reason", "text"),
    [
        (StopKind.SUSPEND, R, DelayReason.SUSPENDED, "suspended by ann: wait"),
        (StopKind.CANCEL, Outcome.CANCELLED, DelayReason.NONE, "cancelled by ann: wait"),
    ],
)
@pytest.mark.parametrize("composed", [True, False])
async def test_what_an_operator_stops_goes_back_or_is_over(
    kind: StopKind,
    outcome: Outcome,
    reason: DelayReason,
    text: str,
    composed: bool,
    autojump_clock: MockClock,
) -> None:
    async with model_line("PIPELINING") as line:
        await line.open()
        if not composed:
            await stop(line, kind)
        ann, eve = await line.send([ANN, EVE], signed())
        if composed:
            await stop(line, kind)
        await line.sign_all()
        told = line.told[ann]
        assert (told.outcome, told.reason, told.reply) == (outcome, reason, text)
        assert line.told[eve].outcome is D
        assert line.recipients == [EVE]
        await line.end()


async def test_what_is_let_go_on_before_its_turn_is_sent(autojump_clock: MockClock) -> None:
    async with model_line("PIPELINING") as line:
        await line.open()
        await line.send([ANN], signed())
        await line.parts.stops.end(await stop(line))
        await line.sign_all()
        assert line.recipients == [ANN]


async def test_a_connection_whose_messages_are_all_barred_asks_for_others_and_says_goodbye_when_idle(
    autojump_clock: MockClock,
) -> None:
    async with model_line("PIPELINING") as line:
        await line.open()
        await line.send([ANN, BOB], signed())
        await stop(line)
        await line.sign_all()
        assert {item.outcome for item in line.told.values()} == {R}
        await line.send([EVE], letter(8))
        assert line.recipients == [EVE]
        await trio.sleep(600)
        (ended,) = line.desk.take("site", ConnectionEnded)
        assert (ended.served, ended.trouble, ended.crashed) == (1, None, False)
        assert line.wire.closed


async def test_what_is_under_way_is_what_the_protocol_has(autojump_clock: MockClock) -> None:
    async with model_line() as line:
        await line.open()
        assert list(line.parts.under_way) == [NAME]
        assert line.under_way == []
        line.wire.holding = True
        await line.send([ANN, BOB], signed())
        assert line.under_way == [], "what waits for its signature can still be stopped"
        await line.sign_all()
        assert line.under_way == [ANN, BOB]
        await line.wire.release()
        assert line.under_way == []
        await line.end()


async def test_nothing_is_under_way_after_a_crash(autojump_clock: MockClock) -> None:
    async with model_line() as line:
        await line.open()
        line.wire.holding = True
        (ann,) = await line.send([ANN])
        assert line.under_way == [ANN]
        with structlog.testing.capture_logs():
            line.parts.connections.kill(NAME)
            await line.collect()
        assert line.told[ann].outcome is R, "of its content nothing was out"
        await line.end()


# --- an end that nobody is to blame for -----------------------------------------------------------------


async def test_where_every_address_is_crowded_nobody_is_to_blame_and_the_path_waits(
    autojump_clock: MockClock,
) -> None:
    async with model_line(engine={"connections_per_address": 1}) as line:
        place = line.parts.remote_addresses.enter(ADDRESS)
        assert place is not None
        now = trio.current_time()
        await line.open()
        assert not line.network.wires, "nothing was dialled"
        end = await line.end()
        assert (end.reached, end.served, end.trouble, end.crashed) == (False, 0, None, False)
        assert (line.memory.failures, line.memory.rest(now)) == (0, (0.0, ""))
        assert line.memory.openings(now, 1) == 0
        place.leave()
        await trio.sleep(60)
        assert line.memory.openings(trio.current_time(), 1) == 1


async def test_a_connection_gives_back_its_place_at_the_address(autojump_clock: MockClock) -> None:
    async with model_line() as line:
        await line.open()
        assert line.parts.remote_addresses.count(ADDRESS) == 1
        await line.end()
        assert line.parts.remote_addresses.count(ADDRESS) == 0
        assert line.wire.closed


@pytest.mark.parametrize("kind", [FailureKind.SOURCE, FailureKind.LOCAL])
async def test_trouble_of_ours_is_told_as_such_and_what_was_leased_goes_back_unharmed(
    kind: FailureKind, autojump_clock: MockClock
) -> None:
    failure = TransportFailure(kind, Verb.CONNECT, "cannot assign address")
    async with model_line(failure=failure) as line:
        ids = await line.send([ANN, BOB])
        await line.open()
        assert (await line.end()).trouble == failure
        assert [(line.told[each].outcome, line.told[each].attempt) for each in ids] == [(R, 0)] * 2
