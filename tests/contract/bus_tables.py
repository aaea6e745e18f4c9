"""What every bus promises of its tables, watches and blobs; part of `tests/contract/bus.py`."""

import hashlib

import pytest
import trio

from engine.bus.api import Bus
from tests.contract.bus_house import PATIENCE_SECONDS, BusHouse, changes, until_all


class TablesContract:
    async def test_a_table_keeps_the_last_value_of_each_key(self, house: BusHouse) -> None:
        bus, other = await house.open("control"), await house.open("node-1")
        await bus.put("campaigns", "7", b"run")
        await bus.put("campaigns", "7", b"pause")
        await bus.put("campaigns", "8/x", b"")
        await bus.put("campaigns.old", "7", b"other table")
        for reader in (bus, other):
            await until_all(reader, "campaigns", {"7": b"pause", "8/x": b""})
            assert await reader.read("campaigns", "7") == b"pause"
            assert await reader.read("campaigns", "9") is None
        await bus.delete("campaigns", "7")
        await bus.delete("campaigns", "never")
        await until_all(other, "campaigns", {"8/x": b""})
        assert await bus.read("campaigns", "7") is None
        await house.close(bus)
        bus = await house.open("control")
        assert await bus.read_all("campaigns") == {"8/x": b""}

    async def test_create_tells_what_is_there(self, house: BusHouse) -> None:
        bus, other = await house.open("node-1"), await house.open("node-2")
        assert await bus.create("claims", "c1", b"node-1 epoch") is None
        assert await bus.create("claims", "c1", b"node-1 again") == b"node-1 epoch"
        assert await other.create("claims", "c1", b"node-2 epoch") == b"node-1 epoch"
        assert await other.create("claims", "c2", b"node-2 epoch") is None
        await bus.delete("claims", "c1")
        assert await other.create("claims", "c1", b"node-2 epoch") is None

    async def test_a_race_of_members_and_tasks_creates_each_key_once(self, house: BusHouse) -> None:
        buses = [await house.open("node-1"), await house.open("node-2")]
        outcomes: dict[str, list[tuple[bytes, bytes | None]]] = {f"c{number}": [] for number in range(20)}

        async def claim(bus: Bus, key: str, value: bytes) -> None:
            outcomes[key].append((value, await bus.create("claims", key, value)))

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                for key in outcomes:
                    for task in range(2):
                        for bus in buses:
                            nursery.start_soon(claim, bus, key, f"{bus.member} {task}".encode())
        for key, found in outcomes.items():
            [winner] = [value for value, there in found if there is None]
            assert len(found) == 4
            assert {there for _, there in found} == {None, winner}
            assert [await bus.read("claims", key) for bus in buses] == [winner, winner]

    async def test_a_watch_shows_what_is_there_and_then_what_changes(self, house: BusHouse) -> None:
        owner, watcher = await house.open("control"), await house.open("node-1")
        await owner.put("campaigns", "7", b"run")
        watch = watcher.watch("campaigns")
        assert await changes(watch, 1) == [("7", b"run")]
        seen: list[tuple[str, bytes | None]] = []

        async def look() -> None:
            seen.extend(await changes(watch, 2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await owner.put("hosts", "elsewhere", b"x")
            await owner.put("campaigns", "8", b"run")
            await owner.delete("campaigns", "7")
        assert seen == [("8", b"run"), ("7", None)]

    async def test_a_watch_resumes_where_another_stood(self, house: BusHouse) -> None:
        owner, watcher = await house.open("control"), await house.open("node-1")
        for key in ("1", "2", "3"):
            await owner.put("campaigns", key, b"run")
        watch = watcher.watch("campaigns")
        assert await changes(watch, 3) == [("1", b"run"), ("2", b"run"), ("3", b"run")]
        position = watch.position
        await house.close(watcher)
        await owner.put("campaigns", "2", b"pause")
        await owner.delete("campaigns", "3")
        watcher = await house.open("node-1")
        assert await changes(watcher.watch("campaigns", position), 2) == [("2", b"pause"), ("3", None)]

    async def test_a_table_that_nobody_wrote_is_empty(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        assert await bus.read("campaigns", "7") is None
        assert await bus.read_all("campaigns") == {}
        await bus.delete("campaigns", "7")
        assert await bus.read_all("campaigns") == {}

    async def test_the_keys_of_a_table_are_any_text(self, house: BusHouse) -> None:
        bus = await house.open("node-1")
        keys = ["a b", "a/b", "a//b", "/", "a.b", "a=2Eb", "*", ">", "=", "ü/ß", "A", "a"]
        for key in keys:
            await bus.put("hosts", key, key.encode())
        assert await bus.read_all("hosts") == {key: key.encode() for key in keys}
        assert [await bus.read("hosts", key) for key in keys] == [key.encode() for key in keys]
        assert sorted(await changes(bus.watch("hosts"), len(keys))) == sorted(
            (key, key.encode()) for key in keys
        )

    async def test_a_row_of_another_member_is_not_deleted(self, house: BusHouse) -> None:
        owner, other = await house.open("control"), await house.open("node-1")
        await owner.put("campaigns", "7", b"run")
        await until_all(other, "campaigns", {"7": b"run"})
        await other.delete("campaigns", "7")
        assert await other.read("campaigns", "7") == b"run"

    async def test_a_blob_is_kept_under_its_digest(self, house: BusHouse) -> None:
        bus, other = await house.open("control"), await house.open("node-1")
        for data in (b"", b"letter", bytes(range(256)) * 5_000):
            digest = await bus.put_blob(data)
            assert digest == hashlib.sha256(data).hexdigest()
            assert await bus.put_blob(data) == digest
            assert await other.read_blob(digest) == data

    async def test_a_dropped_blob_is_gone_and_can_be_put_again(self, house: BusHouse) -> None:
        bus = await house.open("control")
        digest = await bus.put_blob(b"letter")
        kept = await bus.put_blob(b"another")
        for _ in range(2):
            await bus.drop_blob(digest)
            assert await bus.read_blob(digest) is None
        assert await bus.read_blob(kept) == b"another"
        assert await bus.put_blob(b"letter") == digest
        assert await bus.read_blob(digest) == b"letter"

    @pytest.mark.parametrize("digest", ["", "x" * 64, "A" * 64, "../" + "a" * 61, "a" * 63])
    async def test_what_is_no_digest_is_refused(self, house: BusHouse, digest: str) -> None:
        bus = await house.open("control")
        with pytest.raises(ValueError, match="SHA-256"):
            await bus.read_blob(digest)
        with pytest.raises(ValueError, match="SHA-256"):
            await bus.drop_blob(digest)
