"""Timelines: every N-th message is followed, and its stages add up to its whole time."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.actors.timelines import STAGES, UNDER_WAY_MAX, Timelines, _Line
from engine.model.disposition import Disposition, Outcome
from engine.model.envelope import Envelope
from engine.runtime.clock import TrioClock


def envelope(spool_id: int, accepted_at: float, attempt: int = 0) -> Envelope:
    return Envelope(spool_id, 7, 1, "ann@a.test", "a.test", (), accepted_at, accepted_at + 9e5, attempt)


async def test_each_stage_is_the_time_between_two_hand_overs(autojump_clock: MockClock) -> None:
    clock = TrioClock()
    lines = Timelines(clock, 4)
    accepted_at = clock.now()
    began = trio.current_time()
    await trio.sleep(1.0)
    lines.looked_up("a.test", began)
    await trio.sleep(2.0)
    lines.offered([7, 8, 9])
    dial = trio.current_time()
    await trio.sleep(4.0)
    ready = trio.current_time()
    await trio.sleep(1.0)
    lines.ordered([8])
    await trio.sleep(0.5)
    lines.granted([envelope(8, accepted_at)])
    await trio.sleep(0.25)
    lines.submitted(8, (dial, ready, 1.5))
    await trio.sleep(3.0)
    lines.answered(8)
    await trio.sleep(0.125)
    lines.settled([(1, [Disposition(8, 0, Outcome.DELIVERED)])])
    (told,) = lines.finished()
    assert dict(zip(STAGES, told.stages, strict=True)) == {
        "deferred": 0.0,
        "dns": 1.0,
        "fairness": 2.0,
        "throttle": 1.0,
        "connect": 2.5,
        "tls": 1.5,
        "commit": 0.5,
        "compose": 0.25,
        "remote": 3.0,
        "settle": 0.125,
    }
    assert told.seconds == pytest.approx(sum(told.stages)) == 11.875
    assert (told.outcome, told.attempts, told.domain) == ("delivered", 1, "a.test")
    assert lines.histograms()["remote"].total == 3.0


async def test_a_retry_tells_how_long_the_message_was_deferred(autojump_clock: MockClock) -> None:
    clock = TrioClock()
    lines = Timelines(clock, 1)
    accepted_at = clock.now()
    lines.offered([8])
    lines.granted([envelope(8, accepted_at)])
    lines.settled([(1, [Disposition(8, 0, Outcome.DEFERRED, due=clock.now() + 300)])])
    assert lines.finished() == []
    await trio.sleep(310)
    lines.offered([8])
    lines.granted([envelope(8, accepted_at, attempt=1)])
    lines.settled([(2, [Disposition(8, 1, Outcome.BOUNCED)])])
    (told,) = lines.finished()
    stages = dict(zip(STAGES, told.stages, strict=True))
    assert (stages["deferred"], stages["fairness"], told.attempts) == (300.0, 10.0, 2)
    assert sum(told.stages) == pytest.approx(told.seconds) == 310


async def test_a_retry_ahead_of_its_time_was_deferred_until_it_went(autojump_clock: MockClock) -> None:
    clock = TrioClock()
    lines = Timelines(clock, 1)
    accepted_at = clock.now()
    lines.offered([8])
    lines.granted([envelope(8, accepted_at)])
    lines.settled([(1, [Disposition(8, 0, Outcome.DEFERRED, due=clock.now() + 3_600)])])
    await trio.sleep(60)
    lines.offered([8])
    lines.ordered([8])
    await trio.sleep(5)
    lines.granted([envelope(8, accepted_at, attempt=1)])
    lines.settled([(2, [Disposition(8, 1, Outcome.DELIVERED)])])
    (told,) = lines.finished()
    stages = dict(zip(STAGES, told.stages, strict=True))
    assert (stages["deferred"], stages["commit"], told.seconds) == (60.0, 5.0, 65.0)


def told_of(lines: Timelines) -> dict[str, float]:
    (told,) = lines.finished()
    assert sum(told.stages) == pytest.approx(told.seconds)
    return dict(zip(STAGES, told.stages, strict=True))


async def test_a_rest_of_its_path_is_throttle_wherever_it_waits_for_the_end_of_it(
    autojump_clock: MockClock,
) -> None:
    clock = TrioClock()
    lines = Timelines(clock, 1)
    accepted_at = clock.now()
    lines.offered([8])
    await trio.sleep(60)  # the site gives it back
    lines.offered([8])
    await trio.sleep(1)
    lines.ordered([8])
    lines.granted([envelope(8, accepted_at)])
    lines.settled([(1, [Disposition(8, 0, Outcome.DELIVERED)])])
    stages = told_of(lines)
    assert (stages["throttle"], stages["fairness"]) == (61.0, 0.0)


async def test_a_message_that_came_back_unsent_waits_for_its_turn_again(autojump_clock: MockClock) -> None:
    clock = TrioClock()
    lines = Timelines(clock, 1)
    accepted_at = clock.now()
    lines.offered([8])
    lines.ordered([8])
    lines.granted([envelope(8, accepted_at)])
    lines.submitted(8, (0.0, 0.0, 0.0))
    await trio.sleep(5)
    lines.answered(8)
    lines.settled([(1, [Disposition(8, 0, Outcome.RETURNED)])])
    await trio.sleep(2)
    lines.offered([8])
    lines.ordered([8])
    lines.granted([envelope(8, accepted_at)])
    await trio.sleep(1)
    lines.settled([(2, [Disposition(8, 0, Outcome.EXPIRED)])])
    told = told_of(lines)
    assert [told[stage] for stage in ("deferred", "fairness", "remote", "settle")] == [5.0, 2.0, 0.0, 1.0]


async def test_mail_of_a_path_without_connections_waited_for_one_and_not_for_the_disk(
    autojump_clock: MockClock,
) -> None:
    clock = TrioClock()
    lines = Timelines(clock, 1)
    accepted_at = clock.now()
    lines.offered([8])
    await trio.sleep(30)
    lines.granted([envelope(8, accepted_at)])
    lines.settled([(1, [Disposition(8, 0, Outcome.EXPIRED)])])
    stages = told_of(lines)
    assert (stages["throttle"], stages["commit"]) == (30.0, 0.0)


async def test_a_retry_that_is_met_after_a_restart_was_deferred_until_then(autojump_clock: MockClock) -> None:
    clock = TrioClock()
    accepted_at = clock.now()
    await trio.sleep(500)
    lines = Timelines(clock, 1)
    lines.offered([8])
    lines.granted([envelope(8, accepted_at, attempt=2)])
    await trio.sleep(1)
    lines.settled([(1, [Disposition(8, 2, Outcome.DELIVERED)])])
    stages = told_of(lines)
    assert (stages["deferred"], stages["fairness"]) == (500.0, 0.0)


async def test_a_clock_that_is_set_back_takes_no_time_away(autojump_clock: MockClock) -> None:
    clock = TrioClock()
    lines = Timelines(clock, 1)
    lines.offered([8])
    lines.granted([envelope(8, clock.now() + 3_600)])
    await trio.sleep(1)
    lines.settled([(1, [Disposition(8, 0, Outcome.DELIVERED)])])
    assert set(told_of(lines).values()) == {0.0}


async def test_only_every_nth_message_is_followed_and_none_when_it_is_off(autojump_clock: MockClock) -> None:
    for every, expected in ((4, [4, 8]), (1, [1, 4, 8]), (0, [])):
        lines = Timelines(TrioClock(), every)
        lines.offered([1, 4, 8])
        lines.granted([envelope(number, TrioClock().now()) for number in (1, 4, 8)])
        lines.settled([(1, [Disposition(number, 0, Outcome.DELIVERED) for number in (1, 4, 8)])])
        assert [told.spool_id for told in lines.finished()] == expected


async def test_messages_whose_end_is_never_told_are_forgotten(autojump_clock: MockClock) -> None:
    lines = Timelines(TrioClock(), 1)
    lines.offered(range(1, UNDER_WAY_MAX + 11))
    assert repr(lines) == f"<Timelines of one in 1: {UNDER_WAY_MAX} under way>"
    lines.granted([envelope(1, TrioClock().now())])
    lines.settled([(1, [Disposition(1, 0, Outcome.DELIVERED)])])
    assert lines.finished() == []


@given(st.lists(st.floats(0, 100), min_size=9, max_size=9), st.floats(0, 100), st.floats(0, 100))
def test_whatever_moments_were_told_the_stages_are_none_below_zero_and_the_whole(
    moments: list[float], accepted: float, tls: float
) -> None:
    lines = Timelines(TrioClock(), 1)
    line = _Line(moments[0])
    line.ordered, line.granted, line.submitted, line.answered, line.due = moments[1:6]
    line.dialled = (moments[6], moments[7], tls)
    line.envelope = envelope(1, 0.0)
    lines._looked_up["a.test"] = (moments[8], moments[3])
    now = max(accepted, 50.0)
    stages = lines._cut(line, accepted, now)
    assert min(stages) >= -1e-9
    assert sum(stages) == pytest.approx(now - accepted, abs=1e-6)


async def test_the_last_ones_are_found_by_id_and_domain(autojump_clock: MockClock) -> None:
    lines = Timelines(TrioClock(), 1)
    lines.offered([1, 2])
    lines.granted([envelope(1, TrioClock().now()), envelope(2, TrioClock().now())])
    lines.settled([(1, [Disposition(number, 0, Outcome.DELIVERED) for number in (1, 2)])])
    assert [told.spool_id for told in lines.finished(spool_id=2)] == [2]
    assert [told.spool_id for told in lines.finished(domain="a.test", limit=1)] == [2]
    assert lines.finished(domain="b.test") == []
