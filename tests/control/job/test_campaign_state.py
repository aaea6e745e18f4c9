"""A campaign's row: who wrote last counts, a cancel is for good, and what cannot be read is a pause."""

import pytest

from control.job.campaign_state import (
    RUNNING,
    TEXT_CHARS_MAX,
    StateError,
    Wanted,
    announce,
    change_state,
    decode_state,
    read_state,
)
from engine.actors.campaign_states import decode_state as as_engines_read_it
from tests.fakes.memory_bus import MemoryBus


async def change(bus: MemoryBus, wanted: Wanted, reason: str = "") -> None:
    await change_state(bus, 7, wanted, by="ann", reason=reason, at=5.0)


async def test_a_campaign_runs_until_somebody_says_otherwise() -> None:
    bus = MemoryBus("operator")
    assert await read_state(bus, 7) == RUNNING
    assert (await announce(bus, 7, by="ann", at=1.0)).state is Wanted.RUN
    await change(bus, Wanted.PAUSE, "x" * 1_000)
    standing = await read_state(bus, 7)
    assert (standing.state, standing.by, len(standing.reason)) == (Wanted.PAUSE, "ann", TEXT_CHARS_MAX)
    assert await announce(bus, 7, by="eve", at=9.0) == standing, "a coordinator that begins changes nothing"
    await change(bus, Wanted.RUN)
    assert (await read_state(bus, 7)).state is Wanted.RUN


async def test_a_cancel_is_for_good() -> None:
    bus = MemoryBus("operator")
    await change(bus, Wanted.CANCEL)
    await change(bus, Wanted.CANCEL, "again")
    for wanted in (Wanted.RUN, Wanted.PAUSE):
        with pytest.raises(StateError, match="cancelled by ann: that is for good"):
            await change(bus, wanted)


async def test_engines_read_the_same_in_the_same_row() -> None:
    bus = MemoryBus("operator")
    for wanted in (Wanted.RUN, Wanted.PAUSE, Wanted.CANCEL):
        await change(bus, wanted, "why")
        row = await bus.read("campaigns", "7")
        assert row is not None
        theirs, ours = as_engines_read_it(row), decode_state(row)
        assert (theirs.state, theirs.by, theirs.reason, theirs.at) == (
            wanted.value,
            ours.by,
            ours.reason,
            ours.at,
        )


@pytest.mark.parametrize(
    "row", [b"", b"[]", b'{"state": "perhaps"}', b'{"state": 1}', b'{"by": "\xff"}', b"[" * 100_000]
)
def test_what_does_not_decode_is_a_pause(row: bytes) -> None:
    assert decode_state(row).state is Wanted.PAUSE
