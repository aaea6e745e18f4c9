"""An engine says what its spool counts for a campaign."""

from engine.actors.counting import acts
from engine.actors.requests import Request
from engine.mta.spool.api import StateCounts
from tests.fakes.engine_house import CAMPAIGN, Desk, accepted, memory_parts, numbered


async def test_counts_are_the_spools_by_state() -> None:
    parts = memory_parts()
    await accepted(parts, numbered(3))
    counts = acts(parts, Desk().peer)["counts"]
    told = await counts(Request("counts", campaign=CAMPAIGN))
    assert set(told) == {*StateCounts.__struct_fields__, "deferred"}
    assert (told["accepted"], told["deferred"], told["delivered"]) == (3, 3, 0)
    assert (await counts(Request("counts", campaign=99)))["accepted"] == 0
