"""The store of suppressions keeps the contract, its word after a crash, and to its own key."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from engine.mta.policy.suppression import SuppressionEntry
from engine.mta.policy.suppression_codec import AddressHasher, domain_key, subscriber_key
from engine.mta.spool import suppressions as module
from engine.mta.spool.suppressions import (
    StoredSuppressions,
    Suppressions,
    consumer_name,
    open_suppressions,
    order_problem,
    slices,
)
from engine.storage import StorageError, StorageFull
from tests.contract.suppressions import HASHER, SuppressionsContract, add, blocked, remove
from tests.fakes.spool_house import quick_folder

MAP_OCTETS = 64 * 1024**2
ANN = HASHER.key_of("ann@x.test")


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as place:
        yield place


def opened(folder: Path, map_octets: int = MAP_OCTETS) -> StoredSuppressions:
    return open_suppressions(folder / "suppressions", HASHER, map_octets=map_octets)


@asynccontextmanager
async def running(folder: Path, map_octets: int = MAP_OCTETS) -> AsyncIterator[StoredSuppressions]:
    store = opened(folder, map_octets)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        store.close()
    store.environment.close()


class TestStoredSuppressions(SuppressionsContract):
    @pytest.fixture
    async def suppressions(self, folder: Path) -> AsyncIterator[Suppressions]:
        async with running(folder) as store:
            yield store


async def test_what_was_acknowledged_is_there_after_a_crash(folder: Path) -> None:
    async with running(folder) as store:
        await store.apply(add(ANN, domain_key("y.test"), subscriber_key("shop", 17)))
        await store.reached("landing", 7)
        (folder / "after").mkdir()
        shutil.copy(folder / "suppressions" / "data.mdb", folder / "after" / "data.mdb")
    after = open_suppressions(folder / "after", HASHER, map_octets=MAP_OCTETS)
    assert (after.keys(), after.positions()) == (3, {"landing": 7})
    for recipient, subscriber in (("ann@x.test", 0), ("bob@y.test", 0), ("bob@x.test", 17)):
        assert blocked(after, recipient, subscriber=subscriber) is not None
    after.environment.close()


async def test_it_runs_again_after_it_was_closed(folder: Path) -> None:
    store = opened(folder)
    for number in (1, 2):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.apply(add(HASHER.key_of(f"a{number}@x.test")))
            store.close()
    assert store.keys() == 2
    store.environment.close()


async def test_nothing_shows_before_it_is_durable(folder: Path) -> None:
    async with running(folder) as store:
        seen: list[SuppressionEntry | None] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.apply, add(ANN))
            while not store.version:
                seen.append(blocked(store))
                await trio.lowlevel.checkpoint()
        assert blocked(store) is not None
        assert not any(seen)  # the version moves when it is there, not before and not long after


async def test_without_room_nothing_is_said_to_be_kept(folder: Path) -> None:
    async with running(folder, map_octets=256 * 1024) as store:
        keys = [HASHER.key_of(f"a{number}@x.test") for number in range(20_000)]
        with pytest.raises(StorageFull):
            await store.apply(add(*keys))
        assert blocked(store, "nobody@x.test") is None
        assert store.keys() < 20_000


def test_another_master_key_is_refused_with_the_cure(folder: Path) -> None:
    opened(folder).environment.close()
    for readonly in (False, True):
        with pytest.raises(StorageError, match=r"another master key.*put back the key file"):
            open_suppressions(folder / "suppressions", AddressHasher(bytes(32)), readonly=readonly)
    opened(folder).environment.close()  # the refusal let go of the lock


def test_two_do_not_write(folder: Path) -> None:
    store = opened(folder)
    with pytest.raises(StorageError, match="another process is writing here"):
        opened(folder)
    store.environment.close()


def test_a_reader_sees_what_stands_beside_the_writer(folder: Path) -> None:
    store = opened(folder)
    store.apply_now([add(ANN)])
    store.environment.close()
    reader = open_suppressions(folder / "suppressions", HASHER, readonly=True)
    assert blocked(reader) is not None
    assert repr(reader) == "<Suppressions: 1 keys, version 0>"
    reader.environment.close()


def test_a_damaged_record_stops_all_mail_to_its_key(folder: Path) -> None:
    store = opened(folder)
    store.apply_now([add(ANN)])
    with store.environment.write() as transaction:
        transaction.put(ANN, b"\xff\xff", db=store.environment.databases["entries"])
    found = blocked(store, workspace="club")
    assert found is not None
    assert "does not decode" in found.source
    store.apply_now([remove(ANN)])
    assert blocked(store) is None
    store.environment.close()


def test_more_domains_than_memory_holds_are_asked_of_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DOMAINS_KEPT_MAX", 3)
    store = opened(folder)
    store.apply_now([add(*(domain_key(f"d{number}.test") for number in range(6)))])
    assert all(blocked(store, f"ann@d{number}.test") for number in range(6))
    store.environment.close()
    again = opened(folder)
    assert all(blocked(again, f"ann@d{number}.test") for number in range(6))
    again.apply_now([remove(domain_key("d0.test"), domain_key("d5.test"))])
    free = [number for number in range(6) if blocked(again, f"ann@d{number}.test") is None]
    assert free == [0, 5]
    again.environment.close()


def test_many_workspaces_do_not_fill_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFIXES_MAX", 2)
    store = opened(folder)
    store.apply_now([add(*(subscriber_key(f"w{number}", 1) for number in range(5)))])
    assert all(blocked(store, subscriber=1, workspace=f"w{number}") for number in range(5))
    assert not blocked(store, subscriber=2, workspace="w1")
    store.environment.close()


def test_a_listing_goes_through_all_keys_in_pages(folder: Path) -> None:
    store = opened(folder)
    store.apply_now([add(*(HASHER.key_of(f"a{number}@x.test") for number in range(7)), domain_key("y.test"))])
    found: list[bytes] = []
    while page := store.listing(found[-1] if found else b"", 3):
        assert len(page) <= 3
        found += [key for key, _ in page]
    assert found == sorted(found)
    assert len(found) == 8
    store.environment.close()


def test_orders_are_cut_in_the_order_of_keys() -> None:
    keys = [HASHER.key_of(f"a{number}@x.test") for number in range(1_201)]
    parts = list(slices(add(*keys), 500))
    assert [len(part.keys) for part in parts] == [500, 500, 201]
    assert [key for part in parts for key in part.keys] == sorted(keys)


def test_hashes_of_another_key_are_no_order_of_ours() -> None:
    assert order_problem(add(ANN), HASHER) == ""
    assert "another master key" in order_problem(add(ANN), AddressHasher(bytes(32)))
    assert order_problem(add(domain_key("y.test")), AddressHasher(bytes(32))) == ""
    assert consumer_name("node-1") == "suppressor.node-1"
