"""Ids that are queued twice, and domains whose look-up died: what the simulation has found.

An id may stand in the queues twice after a crash (once from the scan, once because its lease came back);
the spool leases it once, and the scheduler's own books must bear it as well.
"""

import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.actors import site as site_actor
from engine.actors.messages import BELL
from engine.actors.routing import STALE_SECONDS
from tests.fakes.scripted_paths import path_house
from tests.fakes.trees import until_quiet

Patch = pytest.MonkeyPatch


async def test_a_domain_whose_look_up_died_is_looked_up_again(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"))
        with structlog.testing.capture_logs():
            house.parts.domains.kill("a.test")
            await until_quiet()
        assert house.started == ["a.test", "a.test"]
        path = await house.route("a.test")
        assert await house.credit(path, 9) == [1]


async def test_a_refresh_that_died_is_tried_again_later_and_the_old_route_goes_on(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"), (2, 7, "a.test"))
        path = await house.route("a.test", ttl_seconds=60.0)
        assert await house.credit(path, 1) == [1]
        await trio.sleep(61)
        with structlog.testing.capture_logs():
            house.parts.domains.kill("a.test")
            await until_quiet()
        assert house.started == ["a.test", path, "a.test"], "a look-up that dies must not spin"
        assert await house.credit(path, 1) == [2]
        await house.queue((3, 7, "a.test"))
        await trio.sleep(STALE_SECONDS + 1)
        assert house.started == ["a.test", path, "a.test", "a.test"]
        assert await house.credit(path, 1) == [3]


async def test_a_domain_whose_look_up_died_goes_to_the_path_that_another_domain_has_brought_back(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"))
        path = await house.route("a.test")
        assert await house.credit(path, 9) == [1]
        await house.leased(path, [1])
        await house.leave(path)  # nothing waits: the path is forgotten
        await house.queue((2, 7, "a.test"), (3, 7, "b.test"))
        await house.route("b.test")
        with structlog.testing.capture_logs():
            house.parts.domains.kill("a.test")
            await until_quiet()
        assert sorted(await house.credit(path, 9)) == [2, 3]


async def test_an_id_that_is_queued_twice_is_taken_back_once(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(site_actor, "MAILBOX_CAPACITY", 1)
    async with path_house(monkeypatch) as house:
        await house.queue((1, 7, "a.test"), (2, 7, "a.test"), (2, 7, "a.test"))
        path = await house.route("a.test")
        house.sites[path].ref.try_tell(BELL)  # no room for the offer
        assert await house.credit(path, 9) == []
        assert not house.tree.child_statistics("scheduler").crashes
        assert await house.credit(path, 9) == [1, 2]


async def test_an_id_that_is_queued_twice_counts_once_in_the_active_set(
    monkeypatch: Patch, autojump_clock: MockClock
) -> None:
    async with path_house(monkeypatch, active_set_max=20) as house:
        await house.queue(*[(number, 7, "a.test") for number in range(1, 9)] * 2)
        path = await house.route("a.test")
        taken = await house.credit(path, 100)
        assert set(taken) == set(range(1, 9))
        await house.leased(path, sorted(set(taken)))
        await house.queue(*[(number, 7, "a.test") for number in range(101, 119)])
        assert await house.credit(path, 100) == list(range(101, 119))
