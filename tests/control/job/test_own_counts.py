"""Counts of a broadcaster's own spool: what it says, or nothing."""

import json
from typing import Any

import trio
import trio.testing

from control.job.own_counts import ask_counts
from tests.fakes.memory_bus import MemoryBus


async def answered(answer: bytes) -> tuple[dict[str, int] | None, Any]:
    bus = MemoryBus("operator")
    asked: list[Any] = []

    async def serve() -> None:
        for question in await bus.serve("engine.a").receive(1):
            asked.append(json.loads(question.payload))
            await question.answer(answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        told = await ask_counts(bus, "a", 7, 1.0)
    return told, asked[0]


async def test_counts_come_by_state(autojump_clock: trio.testing.MockClock) -> None:
    told, asked = await answered(b'{"accepted": 5, "delivered": 3, "more": 1, "bounced": "x"}')
    assert told == {"accepted": 5, "delivered": 3}
    assert asked == {"command": "counts", "campaign": 7}
    told, _ = await answered(b'{"counts": {"accepted": 5}}')
    assert told == {"accepted": 5}


async def test_who_says_nothing_of_use_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    for answer in (
        b'{"error": "unknown command"}',
        b"[]",
        b"{",
        b'{"counts": 5}',
        b'{"\xff": 1}',
        b"[" * 100_000,
    ):
        assert (await answered(answer))[0] is None
    assert await ask_counts(MemoryBus("operator"), "a", 7, 0.1) is None
