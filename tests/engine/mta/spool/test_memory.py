"""The in-memory spool keeps the contract, through any life."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import settings

from tests.contract.spool import SpoolContract, a_chunk, a_content
from tests.contract.spool_machine import SpoolMachine
from tests.contract.spool_operator import SpoolOperatorContract
from tests.contract.spool_trouble import SpoolTroubleContract
from tests.fakes.spool_house import MemoryHouse, SpoolHouse


@pytest.fixture
def house() -> MemoryHouse:
    return MemoryHouse()


class TestMemorySpool(SpoolContract, SpoolTroubleContract, SpoolOperatorContract):
    pass


class MemoryMachine(SpoolMachine):
    def __init__(self) -> None:
        super().__init__()
        self.house = MemoryHouse()

    def call(self, function: Callable[[SpoolHouse], Awaitable[Any]]) -> Any:
        """Nothing of it ever waits, so that one step runs it to its end."""
        try:
            function(self.house).__await__().send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("the in-memory spool waited")


@pytest.mark.slow
class TestAnyLife(MemoryMachine.TestCase):
    settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.mark.long
class TestAnyLongLife(MemoryMachine.TestCase):
    settings = settings(max_examples=600, stateful_step_count=60, deadline=None)


async def test_everything_is_done_at_once(house: MemoryHouse) -> None:
    assert house.spool.put_content(a_content(), 0.0).done
    assert house.spool.accept(a_chunk(1), 0.0).result().count == 1
    assert repr(house.spool) == "<MemorySpool memory: 0 leased in 0 leases>"
