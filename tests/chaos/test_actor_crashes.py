"""Every actor is crashed on purpose while a campaign flows: nothing lost, doubles only where admitted.

A world in its own process keeps a record of every message that it ever took, so the truth does not
come from the engine. The engine is real: LMDB with fsync, sockets, signer processes. Each static actor
is killed once, and connections, sites and domains at random between; everything right of a crash starts
again. Afterwards the counts add up, each address got its mail unless the world bounced it, and whoever
got two is on the bus as ambiguous.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from bench.world.manners import Manners, Moment, Starttls, bounced, busy, hang_up, shutting_down
from bench.world.process import world_process
from bench.world.records import read_records
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from engine.app import Engine
from engine.model.event import Ambiguous
from engine.runtime.child import ChildState
from tests.fakes.engine_house import (
    CAMPAIGN,
    EventReader,
    running_engine,
    signed,
    submit,
    until,
    until_finished,
    weak_key,
)

MESSAGES = 5_000
STATIC = (
    *("commands", "intake", "scheduler", "resolver", "suppressor"),
    *("journal", "spooler", "signers", "committing"),
)
DYNAMIC = ("connections", "sites", "domains")

WORLD = WorldSpec(
    name="chaos",
    providers=(
        ProviderSpec(
            "giant",
            (
                Site(
                    (Host("mx1.giant.test"), Host("mx2.giant.test")), {"giant.test": 30, "giant.example": 10}
                ),
                Site((Host("mx.hosted.test"),), {f"shop{number}.test": 1 for number in range(12)}),
            ),
            Manners(chunking=True, starttls=Starttls.OFFERED, troubles=(bounced(0.02),)),
        ),
        ProviderSpec(
            "moody",
            (Site((Host("mx.moody.test"),), {"moody.test": 10}),),
            Manners(
                messages_per_connection=40,
                troubles=(
                    hang_up(Moment.RCPT, 0.01),
                    hang_up(Moment.REPLY, 0.01, accepts=True),
                    shutting_down(Moment.RCPT, 0.01),
                ),
            ),
        ),
        ProviderSpec(
            "grey",
            (Site((Host("mx.grey.test"),), {"grey.test": 10}),),
            Manners(greylist_seconds=0.5, troubles=(busy(0.05, 1.0),)),
        ),
        ProviderSpec(
            "plain",
            (Site((Host("dead.plain.test", 5, listens=False), Host("mx.plain.test")), {"plain.test": 10}),),
            Manners(tarpit={"content": 0.01}, pipelining_across=False),
        ),
    ),
    null_mx={"noreply.test": 2},
    missing={"nowhere.test": 2},
)


async def crash_everybody(engine: Engine, seed: int) -> list[str]:
    """Kill static actors, spread over the campaign, with random dynamic ones between."""
    dice = random.Random(seed)
    killed = []
    flowing = []
    static = list(STATIC)
    dice.shuffle(static)
    for name in static:
        for _ in range(3):
            await trio.sleep(dice.uniform(0.05, 0.25))
            supervisor = getattr(engine.parts, dice.choice(DYNAMIC))
            children = supervisor.statistics()
            if children:
                victim = dice.choice(children).name
                supervisor.kill(victim)
                killed.append(victim)
        if engine.counts(CAMPAIGN).deferred:
            flowing.append(name)
        before = engine.tree.child_statistics(name).crashes
        engine.tree.kill(name)
        killed.append(name)
        # A committer finishes its last commit first; whatever stands right of a crash stops and comes back.
        await until(lambda name=name, n=before: engine.tree.child_statistics(name).crashes > n)  # type: ignore[misc]
        await until(lambda: all_run(engine))
    assert len(flowing) > len(STATIC) / 2, "the campaign was over before the crashes were"
    return killed


def all_run(engine: Engine) -> bool:
    return all(child.state is ChildState.RUNNING for child in engine.tree.statistics().children)


@pytest.fixture
def quiet_log() -> Iterator[list[Any]]:
    """Log lines go into a list: formatting some hundred tracebacks would hold up the loop."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.mark.slow
async def test_every_actor_may_crash_and_nothing_is_lost(tmp_path: Path, quiet_log: list[Any]) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    weak_key(tmp_path / "keys" / "test.pem")
    record = tmp_path / "record.jsonl"
    people = [person.email for person in WORLD.addresses(MESSAGES, seed)]
    with trio.fail_after(60):
        async with (
            world_process(WORLD, record=record) as world,
            running_engine(tmp_path, world, restarts_max=100, signers=2) as engine,
        ):
            reader = EventReader(engine.parts.bus.subscribe("events.node", "test"))
            async with trio.open_nursery() as nursery:
                await submit(engine, signed(), people)
                killed = await crash_everybody(engine, seed)
                counts = await until_finished(engine, MESSAGES)
                nursery.cancel_scope.cancel()
            unsettled = engine.parts.unsettled
            leases = engine.parts.spool.open_leases()
            crashes = {
                child.name: child.crashes for child in engine.tree.statistics().children if child.crashes
            }
            await engine.stop()
            with trio.move_on_after(2), suppress(trio.ClosedResourceError):
                await reader.follow()
    expected = world.expected(people).final
    got = Counter(accepted.recipient for accepted in read_records(record))
    delivered_to = {name for name in people if world.spec.predict(name).final == "delivered"}
    print(seed, killed, counts, expected, sum(v > 1 for v in got.values()), crashes)

    assert not unsettled
    assert not leases
    assert set(STATIC) <= crashes.keys()
    assert counts.accepted == MESSAGES == counts.finished + counts.ambiguous + counts.quarantined
    assert not counts.quarantined
    assert counts.bounced == expected["bounced"]
    assert counts.delivered == expected["delivered"]
    assert got.keys() == delivered_to

    subscriber_of = {recipient: number + 1 for number, recipient in enumerate(people)}
    admitted = {event.subscriber for event in reader.events if isinstance(event, Ambiguous)}
    doubled = {recipient for recipient, times in got.items() if times > 1}
    assert {subscriber_of[recipient] for recipient in doubled} <= admitted
    assert len(doubled) <= counts.was_ambiguous == len(admitted)

    final = Counter(
        event.spool_id for event in reader.events if type(event).__name__ in ("Delivered", "Bounced")
    )
    assert reader.accepted == len(final) == MESSAGES
    assert set(final.values()) == {1}
