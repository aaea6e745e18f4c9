"""From the bus into the spool: what is fit, once, and acknowledged only when it is durable."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.intake import chunk_problem, content_problem, intake
from engine.actors.parts import Parts
from engine.actors.spooler import spooler
from engine.actors.stops import Draining
from engine.bus.api import BusFull
from engine.model.content import Content
from engine.model.envelope import CHUNK_ENTRIES_MAX, Chunk, ChunkEntry
from engine.model.event import ChunkRefused, decode_events
from engine.model.submission import (
    Submission,
    SubmitChunk,
    SubmitContent,
    SubmitContentBlob,
    encode_content,
    encode_submission,
)
from engine.runtime.spec import ChildSpec, Context, Strategy, SupervisorSpec
from engine.runtime.supervisor import Tree
from engine.storage import Pending, Space, SpaceLevel, StorageFull
from tests.fakes.engine_house import CAMPAIGN, Desk, chunks, letter, memory_parts, numbered, signed
from tests.fakes.memory_bus import MemoryBus
from tests.fakes.trees import running_tree

STREAM = "chunks.node"


@asynccontextmanager
async def running_intake(parts: Parts) -> AsyncIterator[Tree]:
    desk = Desk()
    start = spooler(parts)

    async def at_desk(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        context.peer = desk.peer
        await start(context, task_status)

    children = (ChildSpec("spooler", at_desk), ChildSpec("intake", intake(parts), mailbox_capacity=0))
    async with running_tree(SupervisorSpec("root", children, strategy=Strategy.REST_FOR_ONE)) as tree:
        yield tree


async def submit(parts: Parts, *submissions: Submission | bytes) -> None:
    await parts.bus.publish(
        STREAM, [item if isinstance(item, bytes) else encode_submission(item) for item in submissions]
    )


async def through(parts: Parts, *submissions: Submission | bytes) -> list[Any]:
    """Submit, wait until all is acknowledged; the log lines."""
    with structlog.testing.capture_logs() as lines:
        await submit(parts, *submissions)
        with trio.fail_after(60):
            while parts.bus.backlog(STREAM, "intake"):
                await trio.sleep(0.1)
    return lines


def refusals(parts: Parts) -> list[ChunkRefused]:
    """What the events tell of refused submissions."""
    batches = [decode_events(data) for _, data in parts.spool.events(0, 10_000)]
    return [event for batch in batches for event in batch.events if isinstance(event, ChunkRefused)]


def a_chunk(*recipients: str, name: str = "c", campaign: int = CAMPAIGN) -> SubmitChunk:
    (chunk,) = chunks(recipients, name=name, campaign=campaign)
    return SubmitChunk(chunk)


async def test_contents_and_chunks_are_accepted_and_acknowledged(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_intake(parts):
        many = [SubmitChunk(chunk) for chunk in chunks(numbered(40), size=4)]
        assert not await through(parts, SubmitContent(letter()), *many)
    assert parts.spool.counts(CAMPAIGN).accepted == 40
    assert parts.bus.get("claims", many[0].chunk.id) == f"node {parts.spool.epoch}".encode()


async def test_a_repeat_is_acknowledged_without_effect(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_intake(parts):
        chunk = a_chunk("a@x.test")
        assert not await through(parts, SubmitContent(letter()), chunk, chunk)
        assert not await through(parts, SubmitContent(letter()), chunk)
    assert parts.spool.counts(CAMPAIGN).accepted == 1


async def test_a_chunk_that_another_claimed_is_refused(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    chunk = a_chunk("a@x.test")
    await parts.bus.create("claims", chunk.chunk.id, b"node-2 epoch")
    async with running_intake(parts):
        (line,) = await through(parts, SubmitContent(letter()), chunk)
    assert line["event"] == "a chunk is claimed by another"
    assert line["claimed"] == "node-2 epoch"
    assert parts.spool.counts(CAMPAIGN).accepted == 0


async def test_our_own_claim_of_a_lost_spool_is_refused(autojump_clock: MockClock) -> None:
    """The same broadcaster with a new, empty spool: whether the chunk was sent is not known."""
    parts = memory_parts()
    chunk = a_chunk("a@x.test")
    await parts.bus.create("claims", chunk.chunk.id, b"node 0123456789abcdef")
    async with running_intake(parts):
        (line,) = await through(parts, SubmitContent(letter()), chunk)
    assert "a spool that this engine has lost" in line["event"]
    assert line["claimed"] == "node 0123456789abcdef"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"campaign": 99}, "campaign 99 has no content"),
        ({"id": ""}, "id is empty, too long or holds NUL"),
        ({"entries": (ChunkEntry(1, "no address", ("A",)),)}, "envelope 0: the address has no @"),
    ],
)
async def test_an_unfit_chunk_is_refused_with_a_line_and_the_next_goes_on(
    change: dict[str, Any], why: str, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    async with running_intake(parts):
        unfit = SubmitChunk(replace(a_chunk("a@x.test").chunk, **change))
        (line,) = await through(parts, SubmitContent(letter()), unfit, a_chunk("b@x.test", name="fit"))
    assert why in line["why"]
    assert (line["writer"], line["sequence"]) == ("node", 2)
    assert parts.spool.counts(CAMPAIGN).accepted == 1
    told = refusals(parts)
    assert [(each.writer, each.sequence) for each in told] == [("node", 2)]
    assert (told[0].chunk, told[0].campaign, told[0].count) == (
        unfit.chunk.id,
        unfit.chunk.campaign,
        len(unfit.chunk.entries),
    )
    assert why in told[0].reason


async def test_what_does_not_decode_is_refused_with_a_line(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_intake(parts):
        lines = await through(
            parts, b"\xff not msgpack", b"\x80", SubmitContent(letter()), a_chunk("a@x.test")
        )
    assert [line["event"] for line in lines] == ["a submission does not decode"] * 2
    assert [(each.chunk, each.sequence) for each in refusals(parts)] == [("", 1), ("", 2)]
    assert parts.spool.counts(CAMPAIGN).accepted == 1


async def test_a_changed_content_is_refused_and_the_first_stays(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_intake(parts):
        (line,) = await through(parts, SubmitContent(letter()), SubmitContent(letter(subject="Other")))
    assert "another content" in line["why"]
    assert parts.spool.content(CAMPAIGN) == letter()


async def test_nothing_is_taken_while_the_disk_has_no_room(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    parts.space = _Room(SpaceLevel.REFUSE_INTAKE)
    async with running_intake(parts):
        await submit(parts, SubmitContent(letter()), a_chunk("a@x.test"))
        await trio.sleep(10)
        assert parts.bus.backlog(STREAM, "intake") == 2
        parts.space.level = SpaceLevel.OPEN
        await trio.sleep(2)
        assert parts.bus.backlog(STREAM, "intake") == 0
    assert parts.spool.counts(CAMPAIGN).accepted == 1


async def test_a_crash_takes_nothing_twice_and_leaves_nothing_out(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_intake(parts) as tree:
        await submit(parts, SubmitContent(letter()))
        for number in range(4):
            every = chunks(numbered(50), size=5, name=f"r{number}")
            await submit(parts, *[SubmitChunk(chunk) for chunk in every])
            await trio.lowlevel.checkpoint()
            tree.kill(("intake", "spooler")[number % 2])
            await trio.sleep(0.5)
        with trio.fail_after(60):
            while parts.bus.backlog(STREAM, "intake"):
                await trio.sleep(0.1)
    assert parts.spool.counts(CAMPAIGN).accepted == 200


def entries(*recipients: str, row: tuple[str, ...] = ("A",), subscriber: int = 1) -> tuple[ChunkEntry, ...]:
    return tuple(ChunkEntry(subscriber, recipient, row) for recipient in recipients)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"entries": entries("a@x.test", "b@xn--mnchen-3ya.test", "ü@x.test")}, ""),
        ({"entries": ()}, ""),
        ({"campaign": 99}, "campaign 99 has no content"),
        ({"campaign": 0}, "campaign 0 is not from 1"),
        ({"campaign": -1}, "campaign -1 is not from 1"),
        ({"campaign": 2**32}, "campaign 4294967296 is not from 1"),
        ({"id": ""}, "the chunk's id"),
        ({"id": "ü" * 101}, "the chunk's id"),
        ({"id": "a\0b"}, "the chunk's id"),
        ({"entries": entries("a@x.test", "a@")}, "envelope 1: the address has no domain"),
        ({"entries": entries("a@X.test")}, "envelope 0: the domain is not in lower-case A-labels"),
        ({"entries": entries("a@münchen.test")}, "envelope 0: the domain is not in lower-case A-labels"),
        ({"entries": entries("a@[127.0.0.1]")}, "envelope 0: the address domain is an address literal"),
        ({"entries": entries("a\r\nRCPT TO:<b@x.test>@x.test")}, "envelope 0: the address"),
        ({"entries": entries("a@x.test", row=())}, "envelope 0: the row has 0 values for 1 fields"),
        ({"entries": entries("a@x.test", row=("A", "B"))}, "envelope 0: the row has 2 values for 1 fields"),
        ({"entries": entries(*["a@x.test"] * (CHUNK_ENTRIES_MAX + 1))}, "more than 5000"),
    ],
)
async def test_what_makes_a_chunk_unfit(
    change: dict[str, Any], problem: str, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    await parts.spool.put_content(letter(), 0.0)
    found = chunk_problem(replace(Chunk("c", CAMPAIGN, 4e9, entries("a@x.test")), **change), parts.spool)
    assert problem in found if problem else not found


@pytest.mark.parametrize(
    "poison",
    [
        {"id": "ü" * 250},
        {"campaign": -1},
        {"campaign": 2**40},
        {"expires_at": float("nan")},
        {"expires_at": float("inf")},
        {"expires_at": -5.0},
        {"entries": entries("a@x.test", subscriber=-1)},
        {"entries": entries("a@x.test", subscriber=2**63)},
    ],
)
async def test_no_chunk_can_make_it_crash(poison: dict[str, Any], autojump_clock: MockClock) -> None:
    """It would come again after each crash, until the engine gave up."""
    parts = memory_parts()
    async with running_intake(parts) as tree:
        bad = SubmitChunk(replace(a_chunk("a@x.test").chunk, **poison))
        await through(parts, SubmitContent(letter()), bad, a_chunk("b@x.test", name="fit"))
        assert [child.crashes for child in tree.statistics().children] == [0, 0]
    assert parts.spool.counts(CAMPAIGN).accepted >= 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (letter(), ""),
        (letter(0), "campaign 0 is not from 1 to 4294967295"),
        (letter(2**32), "is not from 1 to 4294967295"),
        (signed(), "campaign 7 is to be signed with a key that is not configured: test"),
    ],
)
async def test_what_makes_a_content_unfit(content: Content, problem: str, autojump_clock: MockClock) -> None:
    assert problem in content_problem(content, {"other"})
    assert bool(problem) == bool(content_problem(content, {"other"}))
    parts = memory_parts()
    async with running_intake(parts) as tree:
        lines = await through(parts, SubmitContent(content))
        assert len(lines) == bool(problem)
        assert [child.crashes for child in tree.statistics().children] == [0, 0]


class _Room(Space):
    """A disk that says what it is told to say."""

    def __init__(self, level: SpaceLevel) -> None:
        self.level = level
        self.free_octets = 0

    def measure(self) -> SpaceLevel:
        return self.level


async def test_in_a_drain_nothing_is_taken_and_nothing_is_lost(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_intake(parts):
        await trio.sleep(5)  # it waits for a chunk by now
        parts.stops.draining = Draining(1e12, "new kernel", "ann")
        await submit(parts, SubmitContent(letter()), a_chunk("a@x.test"))
        await trio.sleep(60)
        assert parts.spool.counts(CAMPAIGN).accepted == 0
        assert parts.bus.backlog(STREAM, "intake") == 2
        parts.stops.draining = None
        await trio.sleep(5)
    assert parts.spool.counts(CAMPAIGN).accepted == 1


@pytest.mark.parametrize("full", [StorageFull("the disk is full"), BusFull("the bus is full")])
async def test_without_room_it_waits_and_takes_the_same_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, full: Exception
) -> None:
    parts = memory_parts()
    refusals = [full] * 3
    owner, name = (parts.spool, "accept") if isinstance(full, StorageFull) else (parts.bus, "create")
    honest = getattr(owner, name)

    def refuse(*facts: Any) -> Any:
        if refusals:
            error = refusals.pop()
            if isinstance(error, BusFull):
                raise error
            pending: Pending[Any] = Pending()
            pending.fail(error)
            return pending
        return honest(*facts)

    monkeypatch.setattr(owner, name, refuse)
    async with running_intake(parts) as tree:
        lines = await through(parts, SubmitContent(letter()), a_chunk("a@x.test", "b@x.test"))
        assert tree.child_statistics("intake").crashes == 0
        assert tree.child_statistics("spooler").crashes == 0
    assert [line["why"] for line in lines] == [str(full)] * 3
    assert parts.spool.counts(CAMPAIGN).accepted == 2


async def test_a_large_content_comes_as_a_blob(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    digest = await parts.cluster.put_blob(encode_content(letter()))
    async with running_intake(parts):
        assert not await through(parts, SubmitContentBlob(CAMPAIGN, digest), a_chunk("a@x.test"))
    assert parts.spool.content(CAMPAIGN) == letter()


@pytest.mark.parametrize(
    ("data", "campaign", "why"),
    [
        (None, CAMPAIGN, "is not on the bus any more"),
        (b"\xff", CAMPAIGN, "does not decode"),
        (encode_content(letter(8)), CAMPAIGN, "is that of 8"),
    ],
)
async def test_a_blob_that_is_no_content_of_the_campaign_is_refused(
    data: bytes | None, campaign: int, why: str, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    digest = "0" * 64 if data is None else await parts.cluster.put_blob(data)
    async with running_intake(parts):
        (line,) = await through(parts, SubmitContentBlob(campaign, digest))
    assert why in line["why"]
    assert refusals(parts)[0].campaign == CAMPAIGN


async def test_an_engine_whose_standing_is_in_doubt_takes_nothing(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    parts.membership.close("twin", "two engines have one name")
    async with running_intake(parts):
        await submit(parts, SubmitContent(letter()), a_chunk("a@x.test"))
        await trio.sleep(100)
        assert not parts.spool.counts(CAMPAIGN).accepted
        parts.membership.open("twin")
        await trio.sleep(2)
    assert parts.spool.counts(CAMPAIGN).accepted == 1


async def test_over_a_cluster_a_sealed_key_may_come_after_the_campaign(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    cluster = MemoryBus("node")
    parts.cluster = cluster
    async with running_intake(parts):
        await cluster.publish(STREAM, [encode_submission(SubmitContent(signed()))])
        await trio.sleep(5)
        assert parts.spool.content(CAMPAIGN) is None
        parts.dkim_keys = {identity.key: "" for identity in signed().dkim}  # type: ignore[assignment]
        await trio.sleep(2)
    assert parts.spool.content(CAMPAIGN) == signed()


@pytest.mark.parametrize("payload", [b"\xa1\xff", b"\x91" * 100_000, b'{"a": "\xff"}'])
async def test_octets_that_crash_a_decoder_are_refused_like_any_others(
    payload: bytes, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    async with running_intake(parts) as tree:
        await through(parts, payload, SubmitContent(letter()), a_chunk("a@x.test"))
        assert [child.crashes for child in tree.statistics().children] == [0, 0]
    assert parts.spool.counts(CAMPAIGN).accepted == 1
    assert len(refusals(parts)) == 1


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "F" * 64])
async def test_a_digest_that_is_none_is_refused(digest: str, autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running_intake(parts) as tree:
        (line,) = await through(parts, SubmitContentBlob(CAMPAIGN, digest))
        assert [child.crashes for child in tree.statistics().children] == [0, 0]
    assert "digest" in line["why"]
