"""A node's keys on the bus are replaced by the real desk, in two steps, wherever it is interrupted."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from control.cluster import join_desk
from control.cluster.join_desk import Desk
from control.cluster.node_seeds import NEXT, REGISTERED, SeedsError, bring_new_seeds, drop_old_seeds
from control.cluster.registry import Applicant, NodeRole, RegistryError, joined, new_registry, with_code
from control.cluster.registry_file import load_registry, save_registry
from engine.bus.nkeys import new_seed, public_of
from engine.config import BusKind
from engine.config.bus import BusTable
from engine.config.tables import Config, KeysTable, NodeTable
from engine.keyring import read_secret, write_secret
from tests.fakes.memory_bus import MemoryBus

PROCESSES = ("agent", "engine", "submission")
NOW = 1_800_000_000.0


def make_seeds(folder: Path, *processes: str) -> dict[str, str]:
    folder.mkdir(parents=True)
    for process in processes:
        write_secret(folder / f"{process}.seed", new_seed().encode() + b"\n")
    return publics(folder)


def publics(folder: Path) -> dict[str, str]:
    return {path.stem: public_of(read_secret(path).decode().strip()) for path in folder.glob("*.seed")}


class House:
    """A hub's registry with one node `a`, whose seeds are in a folder, and the desk that serves it."""

    def __init__(self, folder: Path) -> None:
        self.seeds = folder / "a" / "bus"
        self.data = folder / "hub" / "data"
        hub_keys = make_seeds(folder / "hub" / "keys" / "bus", *PROCESSES, "operator")
        boxes = ("ab" * 32, "cd" * 32)
        registry = new_registry(Applicant("hub", hub_keys, *boxes), NOW)
        code = public_of(new_seed())
        registry = with_code(registry, "a", NodeRole.BROADCASTER, code, NOW, 60)
        applicant = Applicant("a", make_seeds(self.seeds, *PROCESSES), *boxes)
        save_registry(self.data, joined(registry, code, applicant, NOW))
        config = Config(node=NodeTable(name="hub", data=str(self.data)), bus=BusTable(kind=BusKind.NATS))
        config = replace(config, keys=KeysTable(folder=str(folder / "hub" / "keys")))
        self.bus = MemoryBus("hub.agent")
        self.desk = Desk(config, self.bus, lambda: NOW)

    @property
    def keys(self) -> dict[str, tuple[str, ...]]:
        return load_registry(self.data).nodes["a"].keys


@asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[House]:
    house = House(folder)
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.desk.run)
            yield house
            nursery.cancel_scope.cancel()


async def test_new_keys_come_in_beside_the_old_ones_which_go_at_the_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as house:
        old = publics(house.seeds)
        assert await bring_new_seeds(house.bus, "a", house.seeds) == list(PROCESSES)
        new = publics(house.seeds)
        assert not set(old.values()) & set(new.values())
        assert house.keys == {process: (old[process], new[process]) for process in PROCESSES}
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in house.seeds.iterdir())
        await drop_old_seeds(house.bus, "a", house.seeds)
        assert house.keys == {process: (new[process],) for process in PROCESSES}


async def test_a_rotation_that_was_interrupted_goes_on_with_the_seeds_that_it_made(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as house:
        made = new_seed()
        write_secret(house.seeds / f"engine.seed{NEXT}", made.encode() + b"\n")
        with pytest.raises(SeedsError, match="without --finish first"):
            await drop_old_seeds(house.bus, "a", house.seeds)
        await bring_new_seeds(house.bus, "a", house.seeds)
        assert house.keys["engine"][-1] == public_of(made)
        assert publics(house.seeds)["engine"] == public_of(made)


async def test_a_stranger_changes_no_keys(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with at_work(tmp_path) as house:
        before = house.keys
        strange = tmp_path / "strange"
        make_seeds(strange, *PROCESSES)
        with pytest.raises(SeedsError, match="not signed with a key of a"):
            await bring_new_seeds(house.bus, "a", strange)
        with pytest.raises(SeedsError, match="not signed with a key of a"):
            await drop_old_seeds(house.bus, "a", tmp_path / "hub" / "keys" / "bus")
        assert house.keys == before


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"{", "does not decode"),
        (b'{"x":' * 100_000, "does not decode"),
        (b'{"error": ["no room"]}', "does not decode"),
        (b'{"error": "no room"}', "no room"),
    ],
)
async def test_what_the_hub_says_is_passed_on(
    tmp_path: Path, autojump_clock: MockClock, answer: bytes, why: str
) -> None:
    bus: Any = MemoryBus("a.agent")
    make_seeds(tmp_path / "bus", "agent")

    async def ask(*_: object) -> bytes:
        await trio.lowlevel.checkpoint()
        return answer

    bus.ask = ask
    with pytest.raises(SeedsError, match=why):
        await bring_new_seeds(bus, "a", tmp_path / "bus")


async def test_a_hub_that_is_silent_and_a_folder_without_an_agent_are_named(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    before = make_seeds(tmp_path / "bus", *PROCESSES)
    with pytest.raises(SeedsError, match="desk does not answer"):
        await bring_new_seeds(MemoryBus("a.agent"), "a", tmp_path / "bus")
    assert publics(tmp_path / "bus") == before, "what is in force stays until the hub knows the new ones"
    (tmp_path / "bus" / "engine.seed").write_text("no seed")
    with pytest.raises(SeedsError, match="is not there"):
        await bring_new_seeds(MemoryBus("a.agent"), "a", tmp_path)


async def test_a_second_replacement_before_the_first_is_finished_throws_out_nobody_who_runs(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as house:
        running = publics(house.seeds)
        await bring_new_seeds(house.bus, "a", house.seeds)
        new = publics(house.seeds)
        with pytest.raises(SeedsError, match="has two keys already: start the node anew, then"):
            await bring_new_seeds(house.bus, "a", house.seeds)
        assert house.keys == {process: (running[process], new[process]) for process in PROCESSES}
        assert publics(house.seeds) == new
        await drop_old_seeds(house.bus, "a", house.seeds)  # nothing of the second stands in its way
        assert house.keys == {process: (new[process],) for process in PROCESSES}


@pytest.mark.parametrize("replaced", [0, 1, 2, 3])
async def test_who_is_killed_while_seeds_are_put_in_place_goes_on_with_the_same(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, replaced: int
) -> None:
    class Killed(BaseException):
        pass

    left = [replaced]
    replace_file, unlink = Path.replace, Path.unlink

    def until_killed(path: Path, target: Path) -> Path:
        if path.name.endswith(NEXT):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return replace_file(path, target)

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name == REGISTERED:
            raise Killed
        unlink(path, missing_ok)

    async with at_work(tmp_path) as house:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", until_killed)
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(Killed):
                await bring_new_seeds(house.bus, "a", house.seeds)
        registered = house.keys
        with pytest.raises(SeedsError, match="without --finish first"):
            await drop_old_seeds(house.bus, "a", house.seeds)
        assert await bring_new_seeds(house.bus, "a", house.seeds) == list(PROCESSES)
        assert house.keys == registered
        assert publics(house.seeds) == {process: keys[-1] for process, keys in registered.items()}
        await drop_old_seeds(house.bus, "a", house.seeds)
        assert sorted(path.name for path in house.seeds.iterdir()) == [f"{each}.seed" for each in PROCESSES]


async def test_a_hub_that_could_not_write_has_refused_nothing_and_the_seed_is_kept(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bus: Any = MemoryBus("a.agent")
    make_seeds(tmp_path / "bus", "agent")

    async def ask(*_: object) -> bytes:
        await trio.lowlevel.checkpoint()
        return b'{"error": "the hub cannot write its registry: No space left on device"}'

    bus.ask = ask
    with pytest.raises(SeedsError, match="No space left"):
        await bring_new_seeds(bus, "a", tmp_path / "bus")
    assert (tmp_path / "bus" / f"agent.seed{NEXT}").exists(), "the hub may know it already"


async def test_a_hub_that_cannot_read_its_registry_has_refused_nothing(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_work(tmp_path) as house:
        with monkeypatch.context() as patch:
            patch.setattr(join_desk, "load_registry", fails)
            with pytest.raises(SeedsError, match="too many open files"):
                await bring_new_seeds(house.bus, "a", house.seeds)
        kept = read_secret(house.seeds / f"agent.seed{NEXT}").decode().strip()
        await bring_new_seeds(house.bus, "a", house.seeds)
        assert house.keys["agent"][-1] == public_of(kept)


def fails(*_: object) -> Any:
    raise RegistryError("registry.json: cannot be read: too many open files")


async def test_an_old_copy_of_the_folder_cannot_shut_its_node_out(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_work(tmp_path) as house:
        copy = tmp_path / "copy"
        shutil.copytree(house.seeds, copy)
        await bring_new_seeds(house.bus, "a", house.seeds)
        both = house.keys
        with pytest.raises(SeedsError, match="put back the newest copy"):
            await drop_old_seeds(house.bus, "a", copy)
        assert house.keys == both
