"""A job over puppets on a jumping clock: who dies, comes back or is retired; nobody is sent to twice."""

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from control.cli.people import Person
from control.job import coordinator as module
from control.job.board import Board
from control.job.campaign_state import Wanted, change_state
from control.job.coordinator import Coordinator
from control.job.cutting import Cutter, chunk_id
from control.job.ledger import Ledger
from control.job.spreading import Bounds
from engine.model.content import Content
from engine.model.event import ChunkAccepted, Event, EventBatch, encode_events
from tests.fakes.broadcaster_puppet import Puppet
from tests.fakes.memory_bus import MemoryBus

JOB, CAMPAIGN = "0123456789abcdef", 7
CONTENT = Content(
    campaign=CAMPAIGN,
    name="n",
    from_address="a@x.example",
    subject="s",
    text="t",
    return_path_domain="x.example",
)
BOUNDS = Bounds(chunks_ahead=2, ahead_seconds=10, waiting_min=1_000)


class House:
    """One bus, its puppets, and a job over them."""

    def __init__(self, folder: Path, people: int, *names: str) -> None:
        self.bus = MemoryBus("operator")
        self.puppets = {name: Puppet(self.bus, name) for name in names}
        self.people = people
        self.path = folder / "ledger"
        self.board: Board
        self.coordinator: Coordinator

    def open(self, weights: dict[str, float] | None = None) -> Coordinator:
        ledger = Ledger(self.path, JOB)
        self.board = Board(ledger, JOB, CAMPAIGN, weights or {})
        people = [
            Person(number, number, f"p{number}@x.test", (), "x.test") for number in range(1, self.people + 1)
        ]
        cutter = Cutter(people, job=JOB, campaign=CAMPAIGN, expires_at=4e9)
        self.coordinator = Coordinator(
            self.bus,
            self.board,
            cutter,
            CONTENT,
            job=JOB,
            author="ann",
            left=lambda: self.people - cutter.people,
            bounds=BOUNDS,
        )
        return self.coordinator

    async def run(self, seconds: float = 600.0, look: Callable[[], bool] = lambda: False) -> None:
        with trio.fail_after(seconds):
            await self.coordinator.run(look)
        self.board.ledger.close()

    @property
    def sent(self) -> Counter[int]:
        return sum((puppet.sent for puppet in self.puppets.values()), Counter())

    def check(self) -> None:
        """Everybody was sent to once, and the board says so."""
        assert self.sent == Counter(range(1, self.people + 1))
        counts = self.board.counts()
        assert counts.accepted == counts.delivered == self.people, counts
        assert [line.state for line in self.board.ledger] == ["finished"] * len(self.board.ledger.chunks)


@asynccontextmanager
async def house(folder: Path, people: int, *names: str) -> AsyncIterator[House]:
    made = House(folder, people, *names)
    async with trio.open_nursery() as nursery:
        for puppet in made.puppets.values():
            nursery.start_soon(puppet.run)
        yield made
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_job_is_shared_by_speed_and_everybody_is_sent_to_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 9_000, "a", "b") as made:
        made.puppets["b"].per_second = 2_000
        made.open()
        await made.run()
    made.check()
    shares = {name: sum(puppet.sent.values()) for name, puppet in made.puppets.items()}
    assert shares["b"] > 2 * shares["a"], shares
    assert all(puppet.contents == 1 for puppet in made.puppets.values())
    assert made.board.warnings == []
    assert made.coordinator.is_over


async def test_weights_name_who_gets_work(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with house(tmp_path, 7_000, "a", "b", "c") as made:
        made.open({"a": 3.0, "b": 1.0})
        await made.run()
    made.check()
    shares = {name: sum(puppet.sent.values()) for name, puppet in made.puppets.items()}
    assert shares["c"] == 0
    assert shares["a"] > 1.5 * shares["b"], shares


async def test_unclaimed_chunks_of_a_dead_broadcaster_move_and_its_copy_does_no_harm(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 5_000, "a", "b") as made, trio.open_nursery() as nursery:
        made.puppets["a"].stuck = True
        made.open()

        async def fate() -> None:
            await trio.sleep(5)
            held = [line for line in made.board.ledger if line.targets == ("a",) and not line.claimed]
            assert held
            made.puppets["a"].kill()
            await trio.sleep(30)
            assert all("b" in line.targets for line in held)
            made.puppets["a"].stuck = False
            nursery.start_soon(made.puppets["a"].run)

        nursery.start_soon(fate)
        await made.run()
        await trio.sleep(60)  # the copies that are left in its stream are taken, and dropped
        nursery.cancel_scope.cancel()
    made.check()


@pytest.mark.slow
async def test_a_living_broadcaster_that_claims_nothing_loses_its_chunks(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 3_000, "a", "b") as made:
        made.puppets["a"].stuck = True
        made.open()
        await made.run()
    made.check()


@pytest.mark.slow
async def test_claimed_chunks_wait_for_their_broadcaster(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 5_000, "a", "b") as made, trio.open_nursery() as nursery:
        made.puppets["a"].per_second = 10
        made.open()

        async def fate() -> None:
            await trio.sleep(10)
            made.puppets["a"].kill()
            await trio.sleep(60)
            now = trio.current_time()
            assert list(made.board.gone(now)) == ["a"]
            assert not made.coordinator.is_over
            made.puppets["a"].per_second = 500
            nursery.start_soon(made.puppets["a"].run)

        nursery.start_soon(fate)
        await made.run()
        nursery.cancel_scope.cancel()
    made.check()


@pytest.mark.slow
async def test_a_retired_broadcasters_people_are_ambiguous_and_never_sent_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 5_000, "a", "b") as made:
        made.puppets["a"].per_second = 10
        made.open()

        async with trio.open_nursery() as nursery:

            async def fate() -> None:
                await trio.sleep(10)
                made.puppets["a"].kill()
                await trio.sleep(30)
                await made.bus.put("retired", "a", b"e1")

            nursery.start_soon(fate)
            await made.run()
    counts = made.board.counts()
    assert counts.accepted == 5_000
    assert counts.deferred == 0
    assert counts.ambiguous == counts.was_ambiguous == 5_000 - counts.delivered > 0
    assert counts.delivered == sum(made.sent.values())
    assert max(made.sent.values()) == 1
    assert {line.state for line in made.board.ledger} == {"finished", "retired"}
    sent = made.sent
    given_up = [number for number in range(1, 5_001) if number not in sent]
    assert all(made.board.outcomes.person(n).broadcaster == "a" for n in given_up)


async def test_a_killed_coordinator_goes_on_and_nothing_is_doubled(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 6_000, "a", "b") as made:
        for tenths in (25, 31, 40, 47, 55):
            made.open()
            with trio.move_on_after(tenths / 10):
                await made.coordinator.run()
            made.board.ledger.close()
        made.open()
        assert made.coordinator.again
        await made.run()
    made.check()


@pytest.mark.parametrize("at", range(1, 9))
async def test_a_coordinator_that_dies_at_any_write_of_its_ledger_loses_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    class Killed(Exception):
        pass

    async with house(tmp_path, 1_000, "a", "b") as made:
        made.open()
        real, calls = Ledger._append, 0

        def append(ledger: Ledger, data: bytes) -> None:
            nonlocal calls
            calls += 1
            if calls >= at:
                real(ledger, data[: len(data) // 2])
                raise Killed
            real(ledger, data)

        monkeypatch.setattr(Ledger, "_append", append)
        with pytest.raises(BaseExceptionGroup) as died:
            await made.run()
        assert died.group_contains(Killed, depth=1) or died.group_contains(Killed)
        monkeypatch.undo()
        os.close(made.board.ledger._file)
        made.open()
        await made.run()
    made.check()


async def test_a_pause_holds_the_coordinator_and_a_resume_lets_it_go_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 6_000, "a") as made, trio.open_nursery() as nursery:
        made.open()

        async def change(wanted: Wanted) -> None:
            await change_state(made.bus, CAMPAIGN, wanted, by="eve", reason="a wrong link", at=1.0)

        async def fate() -> None:
            await trio.sleep(4)
            await change(Wanted.PAUSE)
            await trio.sleep(1)
            before = len(made.board.ledger.chunks)
            await trio.sleep(60)
            assert len(made.board.ledger.chunks) == before
            assert made.coordinator.state.by == "eve"
            await change(Wanted.RUN)

        nursery.start_soon(fate)
        await made.run()
    made.check()


async def test_a_cancelled_job_is_over_when_what_was_taken_is(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 15_000, "a") as made, trio.open_nursery() as nursery:
        made.open()

        async def fate() -> None:
            await trio.sleep(6)
            await change_state(made.bus, CAMPAIGN, Wanted.CANCEL, by="eve", reason="", at=1.0)

        nursery.start_soon(fate)
        await made.run()
    counts = made.board.counts()
    assert counts.accepted == counts.delivered < 15_000
    assert made.coordinator.reading


async def test_a_refused_chunk_goes_to_another_and_one_that_nobody_takes_is_said(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 2_000, "a", "b") as made:
        made.puppets["a"].refuses = "no such key"
        made.open()
        await made.run()
    made.check()
    assert any("a refuses chunk" in warning and "no such key" in warning for warning in made.board.warnings)

    (tmp_path / "other").mkdir()
    async with house(tmp_path / "other", 200, "c") as made:
        made.puppets["c"].refuses = "never"
        made.open()
        await made.run()
    assert made.board.abandoned == 200
    assert made.board.counts().accepted == 0


async def test_a_bus_that_forgot_its_claims_gets_them_back_and_nothing_is_given_out_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 4_000, "a", "b") as made, trio.open_nursery() as nursery:
        made.puppets["a"].per_second = made.puppets["b"].per_second = 100
        made.open()
        lost: list[dict[str, bytes]] = []

        async def fate() -> None:
            await trio.sleep(12)
            lost.append(dict(made.bus.tables["claims"]))
            made.bus.tables["claims"].clear()
            await trio.sleep(10)
            assert lost[0].items() <= made.bus.tables["claims"].items()

        nursery.start_soon(fate)
        await made.run()
    made.check()
    assert lost
    assert any("the bus has forgotten" in warning for warning in made.board.warnings)


async def test_a_chunk_that_the_bus_lost_is_published_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 1_000, "a") as made, trio.open_nursery() as nursery:
        made.puppets["a"].stuck = True
        made.open()

        async def fate() -> None:
            await trio.sleep(5)
            made.bus.cursors[("chunks.a", "intake")] = len(made.bus.streams["chunks.a"])
            made.puppets["a"].kill()
            made.puppets["a"].stuck = False
            await trio.sleep(1)
            nursery.start_soon(made.puppets["a"].run)

        nursery.start_soon(fate)
        await made.run()
        nursery.cancel_scope.cancel()
    made.check()
    assert any("is not on the bus any more" in warning for warning in made.board.warnings)


async def test_a_bus_that_is_full_is_tried_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 1_000, "a") as made:
        made.puppets["a"].stuck = True
        made.open()

        async with trio.open_nursery() as nursery:

            async def fate() -> None:
                await trio.sleep(1)  # nobody else publishes meanwhile
                made.bus.refusals = 3  # the content, the content again, a chunk
                await trio.sleep(30)
                assert made.bus.refusals == 0
                made.puppets["a"].stuck = False

            nursery.start_soon(fate)
            await made.run()
    made.check()
    assert made.board.warnings == []


async def test_a_large_content_travels_as_a_blob(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONTENT_INLINE_OCTETS_MAX", 10)
    async with house(tmp_path, 100, "a") as made:
        made.open()
        await made.run()
    made.check()
    assert len(made.bus.blobs) == 1


async def test_who_watches_may_end_it_and_a_stop_does(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 6_000, "a") as made:
        made.open()
        await made.run(look=lambda: trio.current_time() > 3)
        made.open()
        made.coordinator.stop.set()
        await made.run()
        assert not made.coordinator.is_over
        assert "run" in repr(made.coordinator)
        made.open()
        await made.run()
    made.check()


async def test_nonsense_of_one_broadcaster_ends_no_job_and_no_later_one(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path, 3_000, "a", "b") as made:
        await made.bus.put("status", "\x1b[31m z/engine", b'{"interval": 2.0}')
        await made.bus.create("claims", chunk_id(JOB, 1), b"no-such-name! e1")
        ends: list[Event] = [ChunkAccepted(CAMPAIGN, f"{JOB}-{'9' * 5_000}", 1)]
        ends += [made.puppets["a"].delivered(CAMPAIGN, record) for record in (2**40, -1)]
        batch = EventBatch("a", "another", 1, float("inf"), "a", tuple(ends))
        head = b"\x97\xa1%s\xa1e\x01\xcb\x40\0\0\0\0\0\0\0\xa1a\x90"  # and one field that we do not know
        odd = (b"\xff", head % b"\xff" + b"\x01", head % b"a" + b"\x91" * 100_000)
        for payload in (*odd, encode_events(batch)):
            await made.bus.publish("events.a", [payload])
        for _ in range(2):
            made.open()
            await made.run()
            assert made.coordinator.is_over
    first = made.board.ledger[1]
    assert (first.claimed, made.board.abandoned) == (None, first.count)
    counts = made.board.counts()
    assert counts.accepted == counts.delivered == 3_000 - first.count
    told = "\n".join(made.board.warnings)
    assert "chunk 1 was claimed by somebody who is no broadcaster" in told
    assert "a tells of people whom it was not given" in told
