"""Suppressions in memory keep the contract."""

from collections.abc import AsyncIterator

import pytest
import trio

from engine.mta.spool.suppressions import Suppressions
from engine.mta.spool.suppressions_memory import MemorySuppressions
from tests.contract.suppressions import HASHER, SuppressionsContract, add


class TestMemorySuppressions(SuppressionsContract):
    @pytest.fixture
    async def suppressions(self) -> AsyncIterator[Suppressions]:
        async with trio.open_nursery() as nursery:
            kept = MemorySuppressions(HASHER)
            await nursery.start(kept.run)
            yield kept
            kept.close()


async def test_it_says_how_much_it_holds() -> None:
    kept = MemorySuppressions(HASHER)
    await kept.apply(add(HASHER.key_of("ann@x.test")))
    assert repr(kept) == "<MemorySuppressions: 1 keys, version 1>"
