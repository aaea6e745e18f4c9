"""Suppressed while mail flows: from the acknowledgement on, no RCPT for them, whatever way mail takes.

A whole engine on real sockets, and a receiver in another process that notes each RCPT with its time. The
operator's orders go over the bus, one by one; the answer's time is noted by the same clock. Who is picked
is next in line, so that mail for them is leased, composed, signed or on the wire at that moment.
"""

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace

from engine.app import Engine, open_engine
from engine.config.egress import RelayRule, RouteRule
from engine.config.tables import SiteRule
from engine.config.units import CountRange, HostPort
from engine.model.content import Content
from engine.mta.policy.suppression import Reason, Scope, ScopeKind, SuppressionOrder
from engine.mta.policy.suppression_codec import domain_key, encode_order, subscriber_key
from tests.fakes.engine_house import (
    engine_config,
    host_route,
    letter,
    numbered,
    signed,
    submit,
    until,
    until_finished,
    weak_key,
)
from tests.fakes.operator_house import MailWorld, Operator, mail_world, operating

pytestmark = pytest.mark.slow

ADDRESS = "127.0.0.51"
DOMAINS = ("a.test", "b.test", "c.test", "quiet.test")
BIG, SMALL, SIGNED = 100_000, 4_000, 6_000
CHUNK, ORDERS = 5_000, 50
LATEST = 50  # messages behind the newest RCPT: leased and composed, or soon
THINK_SECONDS = 0.01  # where 6,000 would be gone before fifty orders were given, on a busy machine
SECONDS = 75.0
SHOP = Scope(ScopeKind.WORKSPACE, "shop")
LIST_ID, OTHER_LIST = "news.letter.example", "other.letter.example"
CONNECTIONS = (SiteRule(connections=CountRange(8, 8)),)


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with structlog.testing.capture_logs() as lines:
        yield lines


class Suppressing:
    """An operator who suppresses while mail flows, and the times of the answers."""

    def __init__(self, engine: Engine, operator: Operator, world: MailWorld) -> None:
        self.recorder = world.recorder
        self.acknowledged: dict[str, float] = {}  # address or @domain -> from when no RCPT may come
        self.were_on_their_way = 0
        self._hasher = engine.parts.suppressions.hasher
        self._operator = operator

    async def address(self, who: str, scope: Scope | None = None) -> None:
        self.acknowledged[who] = await self.order((self._hasher.key_of(who),), scope)

    async def domain(self, name: str) -> None:
        self.acknowledged[f"@{name}"] = await self.order((domain_key(name),))

    async def subscriber(self, number: int, who: str, workspace: str) -> None:
        key = subscriber_key(workspace, number)
        self.acknowledged[who] = await self.order((key,), Scope(ScopeKind.WORKSPACE, workspace))

    async def order(self, keys: tuple[bytes, ...], scope: Scope | None = None) -> float:
        """When it was answered."""
        order = SuppressionOrder(
            adds=True,
            keys=keys,
            at_ms=int(time.time() * 1000),
            scope=scope or Scope(),
            reason=Reason.MANUAL,
            key_check=self._hasher.check,
        )
        facts = await self._operator.ask("suppress", asked={"order": encode_order(order).hex()})
        at = time.monotonic()
        assert facts["changed"] == len(keys)
        assert not facts.get("still_on_their_way")
        self.were_on_their_way += facts["were_on_their_way"]
        return at

    def too_late(self) -> list[str]:
        """Each RCPT that came after it was promised that none would."""
        late = []
        for one in self.recorder.rcpts():
            promised = (self.acknowledged.get(one.who), self.acknowledged.get(one.who[one.who.index("@") :]))
            late += [f"{one.who} {one.at - at:.4f} s after" for at in promised if at and one.at > at]
        return late


@asynccontextmanager
async def flowing(
    folder: Path, content: Content, people: Sequence[str], *, way: str = "dns", think_seconds: float = 0.0
) -> AsyncIterator[tuple[Engine, Suppressing, MailWorld]]:
    """An engine that sends to `people` by DNS, over a relay or to one host for all."""
    with trio.fail_after(SECONDS):
        hosts = dict.fromkeys(DOMAINS, ADDRESS)
        async with mail_world(folder / "mail", hosts, think_seconds=think_seconds) as world:
            more: dict[str, Any] = {"site": CONNECTIONS}
            port = world.smtp_port
            if way == "relay":
                more["relay"] = (
                    RelayRule(name="hub", host=HostPort.parse(f"{ADDRESS}:{port}"), connections=8),
                )
                more["route"] = (RouteRule(relay="hub"),)
            route = host_route(ADDRESS, port) if way == "route" else None
            async with (
                open_engine(engine_config(folder, world, **more), static_route=route) as engine,
                operating(folder / "data") as operator,
            ):
                await submit(engine, content, people, CHUNK)
                yield engine, Suppressing(engine, operator, world), world


async def next_in_line(world: MailWorld, people: Sequence[str], dice: random.Random) -> str:
    """Somebody whose mail comes soon, once some more has come."""
    seen = len(world.recorder.rcpts())
    await until(lambda: len(world.recorder.rcpts()) > seen, SECONDS)
    newest = world.recorder.rcpts()[-1].who
    return people[min(len(people) - 1, people.index(newest) + dice.randrange(1, LATEST))]


async def suppress_fifty(world: MailWorld, suppressing: Suppressing, people: Sequence[str]) -> int:
    """One by one, over the whole length of the mail; how many were suppressed in the end."""
    dice = random.Random(1)
    for number in range(ORDERS):
        due = number * len(people) // (ORDERS + 10)
        await until(lambda due=due: len(world.recorder.rcpts()) > due, SECONDS)
        if len(world.recorder.rcpts()) > len(people) - len(suppressing.acknowledged) - LATEST:
            break  # the mail was faster
        soon = await next_in_line(world, people, dice)
        anybody = people[dice.randrange(people.index(soon), len(people))]
        who = soon if number % 2 else anybody
        if who not in suppressing.acknowledged:
            await suppressing.address(who)
    return len(suppressing.acknowledged)


async def test_no_rcpt_after_the_answer_while_a_hundred_thousand_flow(tmp_path: Path) -> None:
    people = [f"reader.{number}@{DOMAINS[number % 3]}" for number in range(BIG)]
    async with flowing(tmp_path, letter(), people) as (engine, suppressing, world):
        ordered = await suppress_fifty(world, suppressing, people)
        await until(lambda: engine.counts(7).finished == BIG, SECONDS)
        counts = engine.counts(7)
    check(suppressing, world, counts.delivered, counts.suppressed, BIG)
    assert 40 <= ordered <= ORDERS
    assert 20 <= counts.suppressed <= ordered
    print(f"{ordered} ordered, {counts.suppressed} in time, {suppressing.were_on_their_way} on their way")


async def test_no_rcpt_after_the_answer_while_messages_wait_for_their_signatures(tmp_path: Path) -> None:
    weak_key(tmp_path / "keys" / "test.pem")
    people = [f"reader.{number}@{DOMAINS[number % 3]}" for number in range(SIGNED)]
    async with flowing(tmp_path, signed(), people, think_seconds=THINK_SECONDS) as (
        engine,
        suppressing,
        world,
    ):
        ordered = await suppress_fifty(world, suppressing, people)
        await until(lambda: engine.counts(7).finished == SIGNED, SECONDS)
        counts = engine.counts(7)
    check(suppressing, world, counts.delivered, counts.suppressed, SIGNED)
    assert 20 <= counts.suppressed <= ordered


@pytest.mark.parametrize("way", ["dns", "route", "relay"])
async def test_every_kind_of_key_holds_on_every_way(way: str, tmp_path: Path) -> None:
    content = replace(letter(), workspace="shop", list_id=LIST_ID)
    quiet = numbered(SMALL // 40, "quiet.test")
    people = numbered(SMALL, "a.test")
    people[::40] = quiet
    of_list = Scope(ScopeKind.LIST, "shop", LIST_ID)
    dice = random.Random(2)
    async with flowing(tmp_path, content, people, way=way) as (engine, suppressing, world):
        await suppressing.address(people[-1], SHOP)
        await suppressing.address(people[-2], of_list)
        await suppressing.subscriber(SMALL - 2, people[-3], "shop")
        elsewhere = [await suppressing.order((domain_key("a.test"),), Scope(ScopeKind.WORKSPACE, "other"))]
        elsewhere += [await suppressing.order((subscriber_key("other", SMALL - 3),))]
        for number in range(6):
            who = await next_in_line(world, people, dice)
            if who in suppressing.acknowledged:
                continue
            if number % 3 == 0:
                await suppressing.subscriber(people.index(who) + 1, who, "shop")
            else:
                await suppressing.address(who, (SHOP, of_list)[number % 3 - 1])
        await suppressing.domain("quiet.test")
        counts = await until_finished(engine, SMALL)
        check(suppressing, world, counts.delivered, counts.suppressed, SMALL)
        assert 3 < counts.suppressed < len(quiet) + len(suppressing.acknowledged)
        assert sum(world.recorder.took("@quiet.test").values()) < len(quiet)
        # Who left one list still gets another's mail; who left the workspace, or is its subscriber, does not.
        assert not world.recorder.took().keys() & set(people[-3:])
        await submit(engine, replace(content, campaign=8, list_id=OTHER_LIST), people[-3:])
        await until_finished(engine, 3, campaign=8)
        assert world.recorder.took().keys() & set(people[-3:]) == {people[-2], people[-3]}


def check(suppressing: Suppressing, world: MailWorld, delivered: int, suppressed: int, accepted: int) -> None:
    """Nobody was written to after the answer, nobody twice, and all are accounted for."""
    took = world.recorder.took()
    assert not suppressing.too_late()
    assert delivered + suppressed == accepted
    assert len(took) == sum(took.values()) == delivered
    assert suppressed
