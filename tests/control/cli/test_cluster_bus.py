"""Which bus is meant, and coming onto it: one line for whatever is wrong."""

from pathlib import Path
from typing import Any

import pytest
import trio

from control.cli import cluster_bus as module
from control.cli.cluster_bus import (
    BusPlace,
    as_writer,
    bus_of_config,
    on_bus,
    parse_bus,
    place_of,
    run_on_bus,
)
from control.cli.errors import CliError, InputError
from engine.bus.local import LocalBus
from engine.config import Config, HostPort, Size
from engine.config.bus import BusKind, BusTable
from engine.config.tables import KeysTable, NodeTable
from tests.fakes.memory_bus import MemoryBus


def test_a_folder_or_servers(tmp_path: Path) -> None:
    assert parse_bus(f"local:{tmp_path}") == BusPlace(folder=str(tmp_path))
    place = parse_bus("10.0.0.1, [::1]:4333", "seed", "ca.pem")
    assert place.servers == ("10.0.0.1:4222", "[::1]:4333")
    assert (place.seed_file, place.ca_file) == (str(Path("seed").absolute()), str(Path("ca.pem").absolute()))
    assert str(place) == "10.0.0.1:4222, [::1]:4333"
    assert str(parse_bus(f"local:{tmp_path}")) == f"local:{tmp_path}"


@pytest.mark.parametrize("text", ["local:", "a:b:c", "host:99999", ""])
def test_what_is_no_bus_is_named(text: str) -> None:
    with pytest.raises(InputError, match="--bus"):
        parse_bus(text)
    with pytest.raises(InputError, match="without --bus-seed"):
        parse_bus("local:x", "seed")


def test_the_bus_of_a_configuration() -> None:
    alone = Config(node=NodeTable(name="a", data="/d"))
    assert bus_of_config(alone) == BusPlace(folder="/d/bus")
    nats = Config(
        keys=KeysTable(folder="/k"),
        bus=BusTable(
            kind=BusKind.NATS, servers=(HostPort.parse("10.0.0.1:4222"),), replicas=3, stream_max=Size(10**8)
        ),
    )
    place = bus_of_config(nats)
    assert (place.seed_file, place.ca_file) == ("/k/bus/operator.seed", "/k/bus-ca.pem")
    assert (place.servers, place.replicas, place.stream_octets_max) == (("10.0.0.1:4222",), 3, 10**8)


async def test_a_bus_is_opened_with_what_the_configuration_says_of_its_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Any] = {}

    class Opened(MemoryBus):
        def __init__(self, servers: Any, member: str, **more: Any) -> None:
            super().__init__(member)
            told.update(more, servers=servers)

    monkeypatch.setattr("engine.bus.nats.NatsBus", Opened)
    async with on_bus(BusPlace(servers=("10.0.0.1:4222",), replicas=3, stream_octets_max=10**8)):
        pass
    assert (told["servers"], told["replicas"]) == ([("10.0.0.1", 4222)], 3)
    assert told["stream_octets_max"] == 10**8


def test_options_mean_a_bus_or_the_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    assert place_of("10.0.0.1", "", "", None).servers == ("10.0.0.1:4222",)
    (tmp_path / "emass.toml").write_text('[bus]\nfolder = "shared"\n')
    assert place_of("", "", "", None).folder == str(tmp_path / "shared")
    with pytest.raises(InputError, match="belong to --bus"):
        place_of("", "seed", "", None)


async def test_a_nameless_member_leaves_nothing_behind_and_a_writer_stays(tmp_path: Path) -> None:
    place = BusPlace(folder=str(tmp_path))
    async with as_writer(place) as bus:
        await bus.put("campaigns", "7", b"pause")
    async with on_bus(place) as bus:
        assert bus.member.startswith("operator-")
        assert await bus.read("campaigns", "7") == b"pause"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["operator"]


async def test_a_bus_that_is_not_there_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="is no folder of a bus"):
        async with on_bus(BusPlace(folder=str(tmp_path / "none"))):
            pass
    with pytest.raises(InputError, match=r"ca\.pem: is not there"):
        async with on_bus(parse_bus("127.0.0.1:9", "", str(tmp_path / "ca.pem"))):
            pass
    seed = tmp_path / "seed"
    seed.write_text("nonsense")
    seed.chmod(0o600)
    with pytest.raises(InputError, match="not an nkey seed"):
        async with on_bus(parse_bus("127.0.0.1:9", str(seed))):
            pass
    monkeypatch.setattr(module, "TAKEN_SECONDS", 0.0)
    (tmp_path / "bus").mkdir()
    taken = LocalBus(tmp_path / "bus", "operator")
    with pytest.raises(CliError, match="writing here"):
        async with on_bus(BusPlace(folder=str(tmp_path / "bus")), "operator"):
            pass
    taken.close_files()


async def test_two_writers_to_a_remote_bus_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKEN_SECONDS", 0.0)
    lock = await module._take_lock(tmp_path / "lock")
    with pytest.raises(CliError, match="another command is writing"):
        await module._take_lock(tmp_path / "lock")
    trio.lowlevel.notify_closing(lock)
    import os

    os.close(lock)
    with pytest.raises(CliError, match="cannot be opened"):
        await module._take_lock(tmp_path / "none" / "lock")


def test_errors_rise_as_they_are() -> None:
    async def fail() -> None:
        async with trio.open_nursery():
            raise CliError("plainly")

    with pytest.raises(CliError, match="plainly"):
        run_on_bus(fail)

    async def give() -> int:
        await trio.sleep(0)
        return 7

    assert run_on_bus(give) == 7
