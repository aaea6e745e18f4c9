"""Which way each message leaves: pools of sources, relays with a login, reroutes, a source that is lost.

A whole engine on real sockets. The receivers note the address that a peer came from and the one that it
came to, so each message tells by which source and to which host it went.
"""

import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace

from engine.actors import routing, source_states
from engine.app import Engine, open_engine
from engine.config.egress import RelayRule, RouteRule, SourceRule
from engine.config.tables import SiteRule
from engine.config.units import CountRange, Duration, HostPort
from engine.keyring import write_secret
from tests.fakes.apart import apart
from tests.fakes.engine_house import (
    RETRY,
    engine_config,
    letter,
    numbered,
    submit,
    until,
    until_finished,
)
from tests.fakes.operator_house import MailWorld, Operator, mail_world, operating
from tests.fakes.recorder import Recorder, recording

pytestmark = pytest.mark.slow

HOSTS = {"a.test": "127.0.0.51", "b.test": "127.0.0.52", "c.test": "127.0.0.53"}
HUB = "127.0.0.61"
ONE, TWO = "127.0.0.31", "127.0.0.32"
SOURCES = (
    SourceRule(name="one", ehlo_name="one.letter.example", address=ONE),
    SourceRule(name="two", ehlo_name="two.letter.example", address=TWO),
)
LOGIN = ("edith", "in spring")
LATER = 9  # a campaign after the first
THINK_SECONDS = 0.01
EACH = 60
SECONDS = 60.0
MOVES_SECONDS = 2.0


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with structlog.testing.capture_logs() as lines:
        yield lines


class House:
    """A running engine, the recipients' hosts, and a relay."""

    def __init__(self, engine: Engine, operator: Operator, world: MailWorld, hub: Recorder) -> None:
        self.engine = engine
        self.operator = operator
        self.hosts = world.recorder
        self.hub = hub


@asynccontextmanager
async def house(
    folder: Path, *routes: RouteRule, methods: str = "PLAIN LOGIN", think_seconds: float = 0.0, **more: Any
) -> AsyncIterator[House]:
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    write_secret(keys / "hub", LOGIN[1].encode() + b"\n")
    with trio.fail_after(SECONDS):
        async with (
            mail_world(folder / "mail", HOSTS, think_seconds=think_seconds) as world,
            recording(folder / "hub", HUB, login=LOGIN, methods=methods, think_seconds=think_seconds) as hub,
        ):
            relay = RelayRule(
                name="hub", host=HostPort.parse(f"{HUB}:{hub.port}"), user=LOGIN[0], password_file="hub"
            )
            facts: dict[str, Any] = {
                "source": SOURCES,
                "pools": {"east": ["one"], "west": ["two"]},
                "relay": (relay,),
                "route": routes,
                "site": (SiteRule(connections=CountRange(4, 4)),),
            }
            config = engine_config(folder, world, **(facts | more))
            async with open_engine(config) as engine, operating(folder / "data") as operator:
                yield House(engine, operator, world, hub)


def ways(recorder: Recorder, people: Sequence[str]) -> set[tuple[str, str]]:
    """From where and to where mail for these people went."""
    of = set(people)
    return {(one.source, one.host) for one in recorder.noted() if one.what == "took" and one.who in of}


@pytest.mark.parametrize("methods", ["PLAIN", "LOGIN"])
async def test_each_message_leaves_as_the_narrowest_rule_says(methods: str, tmp_path: Path) -> None:
    rules = (
        RouteRule(campaign=21, relay="hub"),
        RouteRule(workspace="shop", pool="west"),
        RouteRule(domain="b.test", pool="east"),
    )
    everybody = {
        campaign: [f"{campaign}.{who}" for domain in HOSTS for who in numbered(EACH, domain)]
        for campaign in (7, 21, 22)
    }
    async with house(tmp_path, *rules, methods=methods) as at:
        for campaign, people in everybody.items():
            content = replace(letter(campaign), workspace="default" if campaign == 7 else "shop")
            await submit(at.engine, content, people)
        for campaign in everybody:
            counts = await until_finished(at.engine, 3 * EACH, campaign=campaign)
            assert counts.delivered == 3 * EACH
        logins = [one.who for one in at.hub.noted() if one.what == "login"]
        sessions = {one.source for one in at.hub.noted()}
        plain, relayed, shop = everybody.values()
        assert at.hub.took() == dict.fromkeys(relayed, 1)
        assert at.hosts.took() == dict.fromkeys(plain + shop, 1)
        # The default way: one source for each domain, always the same.
        of_domain = [ways(at.hosts, [who for who in plain if who.endswith(each)]) for each in HOSTS]
        assert [len(each) for each in of_domain] == [1, 1, 1]
        assert of_domain[1] == {(ONE, HOSTS["b.test"])}, "its domain's rule"
        by_workspace = [who for who in shop if not who.endswith("b.test")]
        assert ways(at.hosts, by_workspace) == {(TWO, HOSTS["a.test"]), (TWO, HOSTS["c.test"])}
        assert ways(at.hosts, [who for who in shop if who.endswith("b.test")]) == of_domain[1]
    assert set(logins) == {LOGIN[0]}
    assert sessions <= {ONE, TWO}


async def test_a_running_campaign_is_rerouted_over_a_relay_and_back(tmp_path: Path) -> None:
    people = numbered(1_200, "a.test")
    async with house(tmp_path, think_seconds=THINK_SECONDS) as at:
        await submit(at.engine, letter(), people)
        await until(lambda: len(at.hosts.rcpts()) > 100)
        await at.operator.on("reroute", "campaign", "7", to="hub")
        moved = trio.current_time()
        await until(lambda: len(at.hub.rcpts()) > 100)
        over_relay = trio.current_time() - moved
        by_mx = len(at.hosts.rcpts())
        await trio.sleep(0.5)
        assert len(at.hosts.rcpts()) == by_mx, "what was on its way is over long since"
        await at.operator.on("resume", "campaign", "7")
        back = trio.current_time()
        await until(lambda: len(at.hosts.rcpts()) > by_mx)
        print(f"first 100 over the relay {over_relay:.2f} s, back {trio.current_time() - back:.2f} s after")
        assert trio.current_time() - back < MOVES_SECONDS
        await until(lambda: len(at.hosts.rcpts()) > by_mx + 100)
        relayed = len(at.hub.rcpts())
        await trio.sleep(0.5)
        assert len(at.hub.rcpts()) == relayed
        counts = await until_finished(at.engine, len(people))
        took = at.hosts.took() + at.hub.took()
    assert counts.delivered == len(people)
    assert took == dict.fromkeys(people, 1)


@apart("net")
async def test_a_source_whose_address_is_lost_rests_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = "10.99.0.1"
    ip("link", "set", "lo", "up")
    ip("addr", "add", f"{lost}/32", "dev", "lo")
    monkeypatch.setattr(source_states, "SUSPEND_SECONDS_FIRST", 0.5)
    monkeypatch.setattr(routing, "TTL_SECONDS_MAX", 0.5)  # a domain goes back to its source by its next route
    sources = (
        SourceRule(name="gone", ehlo_name="gone.letter.example", address=lost, weight=1_000),
        SourceRule(name="stays", ehlo_name="stays.letter.example", address=TWO),
    )
    # An open session hangs when its address goes: short sessions and little patience, so that it ends soon.
    hasty = SiteRule(
        connections=CountRange(2, 2),
        messages_per_connection=20,
        reply_timeout=Duration(1),
        final_timeout=Duration(1),
    )
    people = numbered(1_000, "a.test")
    async with house(
        tmp_path, think_seconds=THINK_SECONDS, source=sources, pools={}, site=(hasty,), retry=RETRY
    ) as at:
        states = at.engine.parts.source_states
        await submit(at.engine, letter(), people)
        await until(lambda: len(at.hosts.rcpts()) > 50)
        assert {one.source for one in at.hosts.rcpts()} == {lost}
        ip("addr", "del", f"{lost}/32", "dev", "lo")
        await until(lambda: not states.usable("gone"))
        (row,) = [row for row in states.rows(trio.current_time()) if row["source"] == "gone"]
        assert row["suspended_why"].startswith("source gone is suspended: ")
        seen = len(at.hosts.rcpts())
        await until(lambda: len(at.hosts.rcpts()) > seen + 60)
        assert {one.source for one in at.hosts.rcpts()[seen:]} == {TWO}
        ip("addr", "add", f"{lost}/32", "dev", "lo")
        await until(lambda: states.usable("gone"))
        counts = await until_finished(at.engine, len(people))
        took = at.hosts.took()
        await until(lambda: "a.test" not in at.engine.parts.routes)  # nothing waits, and its route is over
        seen = len(at.hosts.rcpts())
        await submit(at.engine, letter(LATER), numbered(20, "a.test"))
        await until_finished(at.engine, 20, campaign=LATER)
        assert {one.source for one in at.hosts.rcpts()[seen:]} == {lost}
    assert counts.delivered == len(people)
    assert took.keys() == set(people)
    assert sum(took.values()) - len(people) <= counts.was_ambiguous


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
