"""Singles from the bus into the spool: under standing contents, once, told when they are refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.parts import Parts
from engine.actors.single_intake import PLACES_MAX, single_intake, single_problem
from engine.actors.spooler import spooler
from engine.actors.stops import Draining
from engine.bus.api import BusFull
from engine.model.content import DkimIdentity
from engine.model.event import ChunkRefused, decode_events
from engine.model.single import (
    BlobMessage,
    RawMessage,
    SingleKind,
    SubmitSingle,
    TemplateMessage,
    chunk_id,
    encode_single,
    is_standing,
    message_number,
    raw_row,
    standing_content,
)
from engine.model.submission import SubmitContent
from engine.runtime.spec import ChildSpec, Context, Strategy, SupervisorSpec
from engine.runtime.supervisor import Tree
from engine.storage import Pending, StorageFull
from tests.fakes.engine_house import Desk, letter, memory_parts
from tests.fakes.trees import running_tree

STREAM = "chunks.node.single"
KIND = SingleKind(workspace="shop", sending_domain="shop.test", return_path_domain="bounce.shop.test")
MESSAGE = b"From: a@shop.test\r\nSubject: hi\r\n\r\nHello\r\n"
EXPIRES = 4e9


@asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[Tree]:
    desk = Desk()
    start = spooler(parts)

    async def at_desk(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        context.peer = desk.peer
        await start(context, task_status)

    children = (ChildSpec("spooler", at_desk), ChildSpec("single_intake", single_intake(parts)))
    async with running_tree(SupervisorSpec("root", children, strategy=Strategy.REST_FOR_ONE)) as tree:
        yield tree


async def through(parts: Parts, *submissions: SubmitSingle | SubmitContent | bytes) -> list[Any]:
    """Submit, wait until all is acknowledged; the log lines."""
    with structlog.testing.capture_logs() as lines:
        payloads = [item if isinstance(item, bytes) else encode_single(item) for item in submissions]
        await parts.bus.publish(STREAM, payloads)
        with trio.fail_after(60):
            while parts.bus.backlog(STREAM, "intake"):
                await trio.sleep(0.1)
    return [line for line in lines if line["log_level"] != "info"]


def a_single(name: str = "m1", message: Any = None, recipient: str = "b@x.test") -> SubmitSingle:
    return SubmitSingle(name, recipient, EXPIRES, message or RawMessage(KIND, MESSAGE))


async def envelopes(parts: Parts) -> list[Any]:
    ids = [entry.spool_id for entry in parts.spool.queued()]
    if not ids:
        return []
    ((lease,),) = await parts.spool.lease([ids], 0.0)
    return list(lease.envelopes)


def refusals(parts: Parts) -> list[ChunkRefused]:
    batches = [decode_events(data) for _, data in parts.spool.events(0, 1_000)]
    return [event for batch in batches for event in batch.events if isinstance(event, ChunkRefused)]


async def test_raw_singles_stand_under_one_content_of_their_kind(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running(parts):
        other = RawMessage(replace(KIND, workspace="other"), MESSAGE)
        assert not await through(parts, a_single("m1"), a_single("m2"), a_single("m3", other))
    by_number = {each.subscriber: each for each in await envelopes(parts)}
    one, two, three = (by_number[message_number(name)] for name in ("m1", "m2", "m3"))
    assert one.campaign == two.campaign != three.campaign
    assert one.row == raw_row(MESSAGE)
    content = parts.spool.content(one.campaign)
    assert content is not None
    assert content.raw
    assert content.workspace == "shop"
    assert is_standing(one.campaign)
    assert parts.standing(one.campaign).single


async def test_a_repeat_has_no_effect(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running(parts):
        assert not await through(parts, a_single(), a_single())
        assert not await through(parts, a_single())
    assert len(await envelopes(parts)) == 1


async def test_a_blob_is_dropped_when_the_last_that_needs_it_is_in_the_spool(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts()
    digest = await parts.bus.put_blob(MESSAGE)
    async with running(parts):
        first = a_single("m1", BlobMessage(KIND, digest, last=False))
        assert not await through(parts, first)
        assert await parts.bus.read_blob(digest) == MESSAGE
        last = a_single("m2", BlobMessage(KIND, digest), "c@x.test")
        assert not await through(parts, last)
        assert await parts.bus.read_blob(digest) is None
        assert not await through(parts, first, last)  # read again: known, and nobody misses the blob
    assert [each.row for each in await envelopes(parts)] == [raw_row(MESSAGE)] * 2


async def test_a_template_single_goes_by_its_own_content(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    content = letter(9, single=True)
    async with running(parts):
        message = TemplateMessage(9, ("Ann",))
        assert not await through(parts, SubmitContent(content), a_single("m1", message))
    (envelope,) = await envelopes(parts)
    assert (envelope.campaign, envelope.row) == (9, ("Ann",))


@pytest.mark.parametrize("full", [StorageFull("the disk is full"), BusFull("the bus is full")])
async def test_without_room_it_waits_and_takes_the_same_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, full: Exception
) -> None:
    parts = memory_parts()
    refusals_left = [full] * 2
    owner, name = (parts.spool, "accept") if isinstance(full, StorageFull) else (parts.bus, "read_blob")
    honest = getattr(owner, name)

    def refuse(*facts: Any) -> Any:
        if not refusals_left:
            return honest(*facts)
        error = refusals_left.pop()
        if isinstance(error, BusFull):
            raise error
        pending: Pending[Any] = Pending()
        pending.fail(error)
        return pending

    monkeypatch.setattr(owner, name, refuse)
    digest = await parts.bus.put_blob(MESSAGE)
    async with running(parts) as tree:
        lines = await through(parts, a_single("m1", BlobMessage(KIND, digest)))
        assert tree.child_statistics("single_intake").crashes == 0
    assert [line["why"] for line in lines] == [str(full)] * 2
    assert len(await envelopes(parts)) == 1


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        (a_single(recipient="nobody"), "its recipient has no @"),
        (a_single(recipient="b@X.test"), "not in lower-case A-labels"),
        (a_single(""), "its id is empty"),
        (replace(a_single(), expires_at=float("nan")), "its expiry is no time"),
        (replace(a_single(), expires_at=1e12), "its expiry is no time"),
        (a_single(message=BlobMessage(KIND, "00" * 32)), "its blob is gone"),
        (a_single(message=BlobMessage(KIND, "../x")), "the digest of its blob is none"),
        (a_single(message=TemplateMessage(-1)), "campaign -1 is not from 1"),
        (a_single(message=TemplateMessage(2**40)), "campaign 1099511627776 is not from 1"),
        (a_single(message=TemplateMessage(7)), "campaign 7 is no content for single messages"),
        (a_single(message=RawMessage(replace(KIND, dkim=(DkimIdentity("d", "s", "k"),)), b"")), "key"),
    ],
)
async def test_an_unfit_single_is_told_and_the_next_goes_on(
    unfit: SubmitSingle, why: str, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    await parts.spool.put_content(letter(), 0.0)
    async with running(parts) as tree:
        (line,) = await through(parts, unfit, a_single("fit"))
        assert tree.child_statistics("single_intake").crashes == 0
    assert why in line["why"]
    (refused,) = refusals(parts)
    assert (refused.chunk, refused.writer, refused.sequence) == (unfit.id, "node", 1)
    assert why in refused.reason
    assert len(await envelopes(parts)) == 1


async def test_octets_that_are_no_single_are_told(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running(parts):
        (line,) = await through(parts, b"\xff", a_single())
    assert "does not decode" in line["why"]
    assert len(refusals(parts)) == 1
    assert len(await envelopes(parts)) == 1


@pytest.mark.parametrize("octets", [b"\xa1\xff", b"\x91" * 100_000])
async def test_octets_that_crash_a_decoder_are_told_like_any_others(
    octets: bytes, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    async with running(parts) as tree:
        (line,) = await through(parts, octets, a_single())
        assert tree.child_statistics("single_intake").crashes == 0
    assert "does not decode" in line["why"]


@pytest.mark.parametrize("campaign", [-5, 2**40])
async def test_a_content_with_an_impossible_number_is_refused(
    campaign: int, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    async with running(parts) as tree:
        (line,) = await through(parts, SubmitContent(letter(campaign, single=True)))
        assert all(child.crashes == 0 for child in tree.statistics().children)
    assert "is not from 1" in line["why"]


async def test_a_campaigns_content_is_refused_here(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running(parts):
        (line,) = await through(parts, SubmitContent(letter()))
    assert "is no content for single messages" in line["why"]


async def test_a_number_that_is_taken_leads_to_the_next_one(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    day = int(parts.clock.now()) // 86_400
    taken = standing_content(KIND, day, 0)
    await parts.spool.put_content(replace(taken, name="another"), 0.0)
    async with running(parts):
        assert not await through(parts, a_single())
        (envelope,) = await envelopes(parts)
        assert envelope.campaign == standing_content(KIND, day, 1).campaign
    for place in range(1, PLACES_MAX):
        there = standing_content(replace(KIND, workspace="w"), day, place)
        await parts.spool.put_content(replace(there, name="another"), 0.0)
    await parts.spool.put_content(standing_content(replace(KIND, workspace="w"), day, 0), 0.0)
    async with running(parts):  # its own is found again
        assert not await through(parts, a_single("m9", RawMessage(replace(KIND, workspace="w"), MESSAGE)))


async def test_ids_are_forgotten_a_week_after_their_messages_expired(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    now = parts.clock.now()
    old = replace(a_single("old"), expires_at=now - 9 * 86_400)
    young = replace(a_single("young"), expires_at=now - 6 * 86_400)
    async with running(parts):
        assert not await through(parts, old, young)
        await trio.sleep(700)
        assert not parts.spool.knows(chunk_id(old))
        assert parts.spool.knows(chunk_id(young))


async def test_in_a_drain_nothing_is_taken_and_nothing_is_lost(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running(parts):
        await trio.sleep(1)
        parts.stops.draining = Draining(1e12, "new kernel", "ann")
        await parts.bus.publish(STREAM, [encode_single(a_single())])
        await trio.sleep(60)
        assert parts.bus.backlog(STREAM, "intake") == 1
        parts.stops.draining = None
        await trio.sleep(5)
        assert parts.bus.backlog(STREAM, "intake") == 0
    assert len(await envelopes(parts)) == 1


async def test_a_crash_takes_nothing_twice_and_leaves_nothing_out(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    async with running(parts) as tree:
        for number in range(4):
            every = [encode_single(a_single(f"r{number}-{each}")) for each in range(50)]
            await parts.bus.publish(STREAM, every)
            await trio.lowlevel.checkpoint()
            tree.kill(("single_intake", "spooler")[number % 2])
            await trio.sleep(0.5)
        with trio.fail_after(60):
            while parts.bus.backlog(STREAM, "intake"):
                await trio.sleep(0.1)
    assert len(parts.spool.queued()) == 200


def test_what_makes_a_single_unfit_needs_no_spool() -> None:
    assert single_problem(a_single()) == ""
    assert "id" in single_problem(a_single("ü" * 61))
    assert "id" in single_problem(a_single("a\0b"))
