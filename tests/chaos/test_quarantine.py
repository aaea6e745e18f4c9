"""One envelope kills whoever touches it: it is parked after the second time, and nobody else comes to harm.

The bug is planted in composing, for one recipient: a connection dies with it. What stood beside it goes on
over other connections, gets its mail once (but for what was on the same wire, which is ambiguous), and the
poisoned one is kept for a person to look at.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import structlog

from bench.world.process import world_process
from bench.world.records import read_records
from engine.mta.compose.message import CompiledContent
from tests.fakes.engine_house import CAMPAIGN, letter, running_engine, submit, until
from tests.fakes.kill_nine import calm_world

pytestmark = pytest.mark.slow

MESSAGES = 1_000
POISONED = 400
IN_FLIGHT_MAX = 2 * 16  # messages on the wire of two connections


async def test_an_envelope_that_kills_its_actor_twice_is_parked_and_its_siblings_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record"
    deaths = []
    honest = CompiledContent.compose

    def poisoned(self: CompiledContent, *facts: Any, **more: Any) -> Any:
        if any(getattr(fact, "recipient", "").startswith("victim") for fact in facts):
            deaths.append(1)
            raise RuntimeError("a planted bug")
        return honest(self, *facts, **more)

    monkeypatch.setattr(CompiledContent, "compose", poisoned)
    with structlog.testing.capture_logs():
        async with world_process(calm_world(), record=record) as world:
            people = [person.email for person in world.addresses(MESSAGES)]
            people[POISONED] = "victim@calm.test"
            async with running_engine(tmp_path, world, restarts_max=5) as engine:
                await submit(engine, letter(), people)
                await until(lambda: engine.counts(CAMPAIGN).finished >= MESSAGES - 1)
                await until(lambda: engine.counts(CAMPAIGN).quarantined == 1)
                counts = engine.counts(CAMPAIGN)
                (parked,) = engine.parts.spool.listing(0, 10)
                crashes = {child.name: child.crashes for child in engine.tree.statistics().children}
    got = Counter(accepted.recipient for accepted in read_records(record))
    assert len(deaths) == 2
    assert (counts.delivered, counts.quarantined, counts.deferred) == (MESSAGES - 1, 1, 0)
    assert counts.was_ambiguous <= IN_FLIGHT_MAX  # what shared a flight with it when its connection died
    assert (parked.state, parked.crashes, parked.subscriber) == ("quarantined", 2, POISONED + 1)
    assert sum(got.values()) - len(got) <= counts.was_ambiguous
    assert got.keys() == set(people) - {"victim@calm.test"}
    assert set(crashes.values()) == {0}, "only connections died"
