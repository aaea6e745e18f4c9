"""A site under the control loop: windows, rates, rests, shared places; connections are scripted."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.messages import ConnectionReady, Credit, Want
from engine.actors.path import path_key
from engine.actors.site import REST_GIVES_BACK_SECONDS, TICK_SECONDS
from engine.config.shaping import ProviderRule, ShapingRule, WarmUpPlan
from engine.config.units import CountRange, Rate
from engine.model.event import Adapted
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.policy.governor import Knob
from engine.mta.policy.slots import SLICE_SECONDS
from tests.fakes.engine_house import SOURCE
from tests.fakes.scripted_connections import PATH, House, open_house, start_site
from tests.fakes.trees import until_quiet

REFUSED = TransportFailure(FailureKind.CONNECT_REFUSED, Verb.CONNECT, "refused")
TOO_MANY = Reply(421, None, ("too many connections",))
BROKEN = TransportFailure(FailureKind.CLOSED, Verb.CONTENT, "reset")
WENT_IDLE = TransportFailure(FailureKind.CLOSED, Verb.IDLE, "closed")
DAY = 86_400
Patch = pytest.MonkeyPatch


# --- transactional mail ---------------------------------------------------------------------------------


async def test_transactional_mail_goes_with_the_next_lease(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(4)
        (name,) = house.names
        await house.ready(name)
        await house.offer(4, first=11, urgent=2)
        await house.tell(Want(name, 4))
        assert house.leased() == [11, 12, 1, 2]
        await house.tell(Want(name, 9))
        assert house.leased() == [3, 4, 13, 14]


async def test_transactional_mail_stays_in_front_when_the_spooler_has_no_room(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, spooler_capacity=1, connections=1) as house:
        house.desk.mailbox("spooler").put_nowait("somebody else's")
        await house.offer(3, urgent=1)
        await house.ready(*house.names, want=2)
        await house.offer(1, first=9, urgent=1)
        house.desk.take("spooler")
        await trio.sleep(1)
        assert house.leased() == [1, 9]


async def test_room_is_less_what_transactional_mail_took_beyond_the_places(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1, rate=Rate(1, 1.0)) as house:
        assert house.credits() == [2]
        await house.offer(10, urgent=10)
        (name,) = house.names
        await house.ready(name, want=1)
        await trio.sleep(0.9)
        assert house.credits() == [-7], "nine are left for two places"
        await trio.sleep(3)
        assert not house.credits(), "nothing went, there is nothing to tell"
        await house.tell(Want(name, 9))
        await trio.sleep(0.9)
        assert house.credits() == [-6]


# --- rests ------------------------------------------------------------------------------------------------


async def test_a_path_that_rests_for_longer_gives_its_ids_back_and_goes_on_afterwards(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(5, urgent=2)
        await house.ready(*house.names)
        provider = house.parts.memory[PATH].provider
        provider.rest_until, provider.rest_reason = trio.current_time() + 60, "listed"
        await trio.sleep(1)
        assert house.given_back() == [1, 2, 3, 4, 5]
        assert not house.names, "its connections return what they hold"
        await house.offer(1, first=9)  # it was on its way
        assert house.given_back() == [9]
        await trio.sleep(55)
        assert not house.desk.take("scheduler", Credit)
        assert not house.leased()
        await trio.sleep(5)
        assert house.credits()
        await house.offer(2, first=21)
        await house.ready(*house.names, want=9)
        assert house.leased() == [21, 22]


async def test_a_short_rest_is_waited_for(monkeypatch: Patch, autojump_clock: MockClock) -> None:
    async with open_house(monkeypatch, connections=1) as house:
        await house.offer(5)
        memory = house.parts.memory[PATH]
        memory.suspend(trio.current_time() + REST_GIVES_BACK_SECONDS - 0.1, "a breath")
        await house.ready(*house.names, want=5)
        assert not house.leased()
        await trio.sleep(REST_GIVES_BACK_SECONDS)
        assert house.leased() == [1, 2, 3, 4, 5]
        assert not house.given_back()


async def test_a_receiver_that_lets_nobody_in_is_let_alone_and_then_asked_by_one(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, unknown=True) as house:
        await house.offer(1)
        await house.end(house.names[0], TOO_MANY)
        house.credits()
        now = trio.current_time()
        until, why = house.parts.memory[PATH].rest(now)
        assert (until > now, why) == (True, "the receiver asked for a pause")
        assert not house.names
        await trio.sleep(until - now + TICK_SECONDS)
        await house.offer(100, first=2)
        assert len(house.names) == 1


# --- the window ---------------------------------------------------------------------------------------------


async def test_connections_never_exceed_what_the_control_loop_allows(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, unknown=True) as house:
        governor = house.parts.memory[PATH].governor
        await house.offer(900)
        seen = set()
        for _ in range(100):
            await house.ready(*house.names, want=8)
            governor.delivered(trio.current_time(), 10 * len(house.names), 1.0)  # more carry more
            assert len(house.names) <= governor.connections
            seen.add(len(house.names))
            await trio.sleep(0.1)
        assert {2, 4, 8} <= seen, "it doubles while that helps"
        assert max(seen) <= 20


async def test_a_window_that_shrinks_ends_dials_before_connections_that_work(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=4) as house:
        await house.offer(500)
        await house.ready(*house.names)
        assert len(house.names) == 4
        await house.ready(house.names[3])
        working = [house.names[0], house.names[1], house.names[3]]
        governor = house.parts.memory[PATH].governor
        governor.pin(Knob.CONNECTIONS, 3, trio.current_time(), "a test")
        await trio.sleep(1)
        assert house.names == working
        governor.pin(Knob.CONNECTIONS, 1, trio.current_time(), "a test")
        await trio.sleep(1)
        assert len(house.names) == 1


async def test_sessions_that_break_off_with_a_message_under_way_narrow_the_window(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=8) as house:
        governor = house.parts.memory[PATH].governor
        await house.offer(500)
        for _ in range(6):
            await house.end(house.names[0], WENT_IDLE, reached=True, served=3)
            await house.end(house.names[0], TOO_MANY, reached=True, served=3)
        assert governor.connections == 8, "they had had their fill"
        for _ in range(4):
            await house.end(house.names[0], BROKEN, reached=True, served=3)
        assert governor.connections == 5
        (note,) = [event for event in house.notes() if isinstance(event, Adapted)]
        assert (note.path, note.knob, note.before, note.after) == (PATH, "connections", 8.0, 5.0)


async def test_connections_are_opened_no_faster_than_the_rule_says(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=20, connection_rate=Rate(2, 1.0)) as house:
        began, before = trio.current_time(), house.parts.connections.started_count
        await house.offer(500)
        for _ in range(60):
            await trio.sleep(0.1)
            opened = house.parts.connections.started_count - before
            assert opened <= 2 * (trio.current_time() - began) + 2
        assert opened >= 10


async def test_a_path_rests_after_so_many_failures_in_a_row_as_the_rule_says(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=1, failures_max=3) as house:
        await house.offer(5)
        for _ in range(2):
            await house.end(house.names[0], REFUSED)
            assert house.names, "another one is tried"
        await house.ready(house.names[0])
        await house.end(house.names[0], None, reached=True, served=1)
        for _ in range(2):
            await house.end(house.names[0], REFUSED)
        assert house.names, "one that was ready in between counts"
        await house.end(house.names[0], REFUSED)
        assert not house.names
        assert house.parts.memory[PATH].suspended_until > trio.current_time()


# --- the rate -----------------------------------------------------------------------------------------------


async def test_the_rate_grows_while_it_holds_us_back_and_only_then(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, unknown=True) as house:
        governor = house.parts.memory[PATH].governor
        first = 1

        async def send(step: int, pause: float, rounds: int) -> None:
            nonlocal first
            for _ in range(rounds):
                await house.offer(step, first=first)
                first += step
                await house.ready(*house.names, want=64)
                governor.delivered(trio.current_time(), len(house.leased()), 0.1)
                await trio.sleep(pause)

        await send(1, 0.33, 30)
        assert governor.rate_per_second == 20, "three a second are none the worse for it"
        await send(100, 0.1, 30)
        assert governor.rate_per_second is None or governor.rate_per_second > 100


async def test_what_the_control_loop_changed_reaches_the_journal(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, connections=9) as house:
        await house.offer(500)
        one, two = house.names
        await house.ready(one)
        await house.end(two, TOO_MANY)
        (note,) = house.notes()
        assert isinstance(note, Adapted)
        assert (note.path, note.provider, note.knob, note.after) == (PATH, "mx.test", "connections", 1.0)
        assert "421 too many connections" in note.reason
        await trio.sleep(1)
        assert not house.notes()
        assert not house.parts.notes


# --- doors that sites share ---------------------------------------------------------------------------

BIG: dict[str, Any] = {
    "provider": (ProviderRule(name="big", mx=("big.test",)),),
    "site": (
        ShapingRule(connections=CountRange(1, 8)),
        ShapingRule(provider="big", provider_connections=2),
    ),
}
SITES = ("mx1.big.test", "mx2.big.test")


def of(house: House, site: str) -> list[str]:
    return [name for name in house.names if name.startswith(path_key(SOURCE, site) + "#")]


async def two_sites(house: House) -> list[Any]:
    """Both have enough to do."""
    refs = [await start_site(house, name) for name in SITES]
    for number, ref in enumerate(refs):
        await house.offer(500, first=1 + number * 1_000, ref=ref)
    return refs


async def test_the_places_at_a_provider_are_shared_by_its_sites(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, engine=BIG) as house:
        refs = await two_sites(house)
        slots = house.parts.memory[path_key(SOURCE, SITES[0])].provider.slots
        for _ in range(int(3 * SLICE_SECONDS / 0.1)):
            assert slots.taken == len(house.names) <= 2
            for site, ref in zip(SITES, refs, strict=True):
                for name in of(house, site):
                    await ref.tell(ConnectionReady(name))
            await trio.sleep(0.1)
        assert [len(of(house, site)) for site in SITES] == [1, 1], "the one that came late has its part"


async def test_the_places_of_connections_that_end_or_crash_are_free_for_the_other_site(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with open_house(monkeypatch, engine=BIG) as house:
        one, _ = [await start_site(house, name) for name in SITES]
        await house.offer(500, ref=one)
        both = of(house, SITES[0])
        assert len(both) == 2
        house.parts.sites.kill(path_key(SOURCE, SITES[0]))
        await until_quiet()
        slots = house.parts.memory[path_key(SOURCE, SITES[0])].provider.slots
        assert slots.taken == len(house.names) == 2, "its connections have their places as long as they live"
        for name in both:
            await house.end(name, reached=True, served=1)
        assert slots.taken == 0
        two = house.parts.sites.ref(path_key(SOURCE, SITES[1]))
        await house.offer(500, ref=two)
        assert len(of(house, SITES[1])) == 2
        house.parts.connections.kill(of(house, SITES[1])[0])
        await until_quiet()
        assert slots.taken == len(house.names)


async def test_sites_take_turns_where_there_is_one_place(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    engine = BIG | {"site": (ShapingRule(provider="big", provider_connections=1),)}
    async with open_house(monkeypatch, engine=engine) as house:
        await two_sites(house)
        seconds = dict.fromkeys(SITES, 0)
        for _ in range(60):
            assert len(house.names) <= 1
            for site in SITES:
                seconds[site] += len(of(house, site))
            await trio.sleep(1)
        assert min(seconds.values()) >= 20


async def test_a_site_that_dies_in_line_keeps_nobody_waiting(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    engine = BIG | {"site": (ShapingRule(provider="big", provider_connections=1),)}
    async with open_house(monkeypatch, engine=engine) as house:
        await two_sites(house)
        assert not of(house, SITES[1])
        house.parts.sites.kill(path_key(SOURCE, SITES[1]))
        await until_quiet()
        await house.end(house.names[0], reached=True, served=1)
        await trio.sleep(2 * SLICE_SECONDS)
        assert len(of(house, SITES[0])) == 1


async def test_a_new_source_sends_no_more_than_its_quota_of_the_day(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    engine = {"warmup": (WarmUpPlan(source=SOURCE.name, per_day=(30, 60)),)}
    async with open_house(monkeypatch, engine=engine) as house:
        sent: list[int] = []
        for day in range(2):
            first = 1 + day * 1_000
            await house.offer(200, first=first)
            for _ in range(20):
                await house.ready(*house.names, want=64)
                await trio.sleep(1)
                sent.append(len(house.leased()))
            assert sum(sent) == (30, 60)[day]
            sent.clear()
            assert house.names, "what is leased is counted, and goes"
            assert len(house.given_back()) == 200 - (30, 60)[day]
            assert "warm-up" in house.parts.memory[PATH].rest(trio.current_time())[1]
            await house.parts.sites.stop_child(PATH)
            await trio.sleep(DAY)
            house.ref = await start_site(house)
