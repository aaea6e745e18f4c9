"""The LMDB spool keeps the contract, through any life, and when commits fail."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings

from engine.config import AmbiguousPolicy
from engine.keyring import RowKeyring
from engine.model.disposition import Outcome
from engine.model.envelope import Chunk, ChunkEntry
from engine.mta.spool.api import SpoolError, StateCounts
from engine.storage import StorageError, StorageFull
from tests.contract.spool import (
    NOW,
    SpoolContract,
    a_chunk,
    a_content,
    a_disposition,
    accepted,
    leased,
    queued_ids,
    states,
)
from tests.contract.spool_machine import SpoolMachine
from tests.contract.spool_operator import SpoolOperatorContract
from tests.contract.spool_trouble import SpoolTroubleContract
from tests.fakes.portal import Portal
from tests.fakes.spool_house import MASTER, LmdbHouse, SpoolHouse, lmdb_house, quick_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture
async def house(folder: Path) -> AsyncIterator[LmdbHouse]:
    async with lmdb_house(folder) as house:
        yield house


class TestLmdbSpool(SpoolContract, SpoolTroubleContract, SpoolOperatorContract):
    pass


class LmdbMachine(SpoolMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = self.stack.enter_context(quick_folder())
        self.portal = Portal(lambda: lmdb_house(folder))
        self.stack.callback(self.portal.close)

    def call(self, function: Callable[[SpoolHouse], Awaitable[Any]]) -> Any:
        return self.portal.call(function)

    def teardown(self) -> None:
        self.stack.close()


@pytest.mark.slow
class TestAnyLife(LmdbMachine.TestCase):
    settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


@pytest.mark.long
class TestAnyLongLife(LmdbMachine.TestCase):
    settings = settings(max_examples=600, stateful_step_count=60, deadline=None)


# --- commits that fail -----------------------------------------------------------------------------------


@pytest.fixture
def full_disk(house: LmdbHouse, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The next commit finds the disk full; later ones do not."""

    def next_commit_fails() -> None:
        begin = house.environment.begin
        left = [1]

        class Full:
            def __init__(self, transaction: Any) -> None:
                self._transaction = transaction

            def __getattr__(self, name: str) -> Any:
                return getattr(self._transaction, name)

            def commit(self) -> None:
                if left:
                    left.pop()
                    self._transaction.abort()
                    raise StorageFull("no room: a test")
                self._transaction.commit()

        monkeypatch.setattr(house.environment, "begin", lambda **kind: Full(begin(**kind)))

    return next_commit_fails


async def test_a_failed_accept_leaves_nothing_and_its_repeat_works(
    house: LmdbHouse, full_disk: Callable[[], None]
) -> None:
    await house.spool.put_content(a_content(), NOW)
    full_disk()
    await house.committer.flush()  # the transaction that is open already
    with pytest.raises(StorageFull):
        await house.spool.accept(a_chunk(3), NOW)
    assert house.spool.listing(0, 10) == []
    assert house.spool.counts(1) == StateCounts()
    acceptance = await house.spool.accept(a_chunk(3), NOW)
    assert not acceptance.known
    assert queued_ids(house.spool) == list(range(acceptance.first_id, acceptance.first_id + 3))


async def test_a_failed_lease_holds_nothing(house: LmdbHouse, full_disk: Callable[[], None]) -> None:
    ids = await accepted(house.spool, 2)
    full_disk()
    await house.committer.flush()
    with pytest.raises(StorageFull):
        await house.spool.lease([ids], NOW)
    assert house.spool.open_leases() == 0
    assert len((await leased(house.spool, ids)).envelopes) == 2


async def test_a_failed_settle_gives_its_leases_back(house: LmdbHouse, full_disk: Callable[[], None]) -> None:
    ids = await accepted(house.spool, 2)
    lease = await leased(house.spool, ids)
    ends = [a_disposition(envelope, Outcome.DELIVERED) for envelope in lease.envelopes]
    full_disk()
    await house.committer.flush()
    first, second = (
        house.spool.settle([(lease.id, ends[:1])], NOW),
        house.spool.settle([(lease.id, ends[1:])], NOW),
    )
    again = house.spool.lease([ids], NOW)
    for pending in (first, second, again):
        with pytest.raises(StorageFull):
            await pending
    assert house.spool.open_leases() == 1
    assert await house.spool.lease([ids], NOW) == [[]], "still held by the first lease"
    assert (await house.spool.settle([(lease.id, ends)], NOW)).applied == 2
    assert house.spool.open_leases() == 0
    assert house.spool.counts(1) == StateCounts(accepted=2, delivered=2)
    await house.crash()
    assert (await house.spool.recover(NOW, AmbiguousPolicy.RETRY, NOW)).orphans == 0


async def test_a_settle_that_raises_keeps_its_envelope_leased_and_the_rest_of_the_group(
    house: LmdbHouse,
) -> None:
    ids = await accepted(house.spool, 2)
    lease = await leased(house.spool, ids)
    returned = [a_disposition(envelope, Outcome.RETURNED) for envelope in lease.envelopes]
    impossible = msgspec.structs.replace(returned[0], outcome=Outcome.DEFERRED, due=-1.0)
    broken = house.spool.settle([(lease.id, [impossible])], NOW)
    whole = house.spool.settle([(lease.id, returned[1:])], NOW)
    again = house.spool.lease([ids], NOW)
    with pytest.raises(AssertionError):
        await broken
    assert (await whole).applied == 1
    ((other,),) = await again
    assert [envelope.spool_id for envelope in other.envelopes] == ids[1:], "the first is not free"
    assert house.spool.open_leases() == 2
    await house.crash()
    assert (await house.spool.recover(NOW, AmbiguousPolicy.RETRY, NOW + 1)).orphans == 2


async def test_a_refused_content_leaves_the_rest_of_its_group_alone(house: LmdbHouse) -> None:
    await house.spool.put_content(a_content(), NOW)
    before = house.spool.accept(a_chunk(2, "before"), NOW)
    refused = house.spool.put_content(a_content(name="changed"), NOW)
    after = house.spool.accept(a_chunk(2, "after"), NOW)
    with pytest.raises(SpoolError):
        await refused
    assert (await before).count == (await after).count == 2
    assert house.spool.counts(1) == StateCounts(accepted=4)


async def test_a_map_without_room_refuses_a_chunk_and_keeps_the_store(house: LmdbHouse) -> None:
    await house.spool.put_content(a_content(), NOW)
    row = ("x" * 40_000,)
    entries = tuple(ChunkEntry(i, f"a{i}@d.example", row) for i in range(500))
    pendings = [house.spool.accept(Chunk(f"big-{i}", 1, NOW + 9, entries), NOW) for i in range(4)]
    for pending in pendings[:3]:
        await pending  # 20 MB each, the map has 64
    with pytest.raises(StorageFull):
        await pendings[3]
    assert len(await accepted(house.spool, 2, "small")) == 2
    assert house.spool.counts(1).accepted == 1_502


# --- keys and folders ------------------------------------------------------------------------------------


async def test_a_campaign_whose_key_was_destroyed_is_quarantined_and_takes_no_chunks(
    house: LmdbHouse, folder: Path
) -> None:
    ids = await accepted(house.spool, 2)
    RowKeyring(folder / "rows.keys", MASTER).destroy_before(10**6)
    await house.crash()
    with pytest.raises(SpoolError, match="destroyed"):
        house.spool.accept(a_chunk(1, "c2"), NOW)
    assert await house.spool.lease([ids], NOW) == [[]]
    assert states(house.spool) == dict.fromkeys(ids, "quarantined")


async def test_addresses_and_rows_are_not_on_the_disk_in_plain(house: LmdbHouse) -> None:
    await house.spool.put_content(a_content(), NOW)
    entry = ChunkEntry(1, "very.secret.name@d0.example", ("Personal Value",))
    acceptance = await house.spool.accept(Chunk("c", 1, NOW + 9, (entry,)), NOW)
    await leased(house.spool, [acceptance.first_id])
    octets = (house.path / "data.mdb").read_bytes()
    assert b"d0.example" in octets
    assert b"very.secret" not in octets
    assert b"Personal" not in octets


async def test_after_the_committer_stopped_every_call_fails(house: LmdbHouse) -> None:
    ids = await accepted(house.spool, 1)
    house.committer.close()
    await house._stopped.wait()
    with pytest.raises(StorageError, match="closed"):
        await house.spool.lease([ids], NOW)
    assert house.spool.open_leases() == 0


async def test_repr_tells_what_is_leased(house: LmdbHouse) -> None:
    await leased(house.spool, await accepted(house.spool, 3))
    assert repr(house.spool) == f"<LmdbSpool {house.path}: 3 leased in 1 leases>"
