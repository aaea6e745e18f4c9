"""What the events tell of one envelope, from the bus and from the spool, each once."""

from pathlib import Path

import trio

from control.cli.history import events_of
from engine.bus.local import LocalBus
from engine.model.event import Deferred, Delivered, EventBatch, encode_events
from engine.mta.spool.reader import SpoolReader
from engine.mta.spool.tables import open_spool_environment
from tests.fakes.spool_house import quick_folder


def told(kind: type[Deferred | Delivered], spool_id: int, attempt: int) -> Deferred | Delivered:
    return kind(7, 1, spool_id, "x.test", attempt, "rcpt", "450 later", "", "", "", "", "mx.x.test", "", 0.1)


def batch(sequence: int, *events: Deferred | Delivered) -> bytes:
    return encode_events(EventBatch("node", "epoch", sequence, 1_000.0 + sequence, "node", events))


async def publish(folder: Path, *batches: bytes) -> None:
    bus = LocalBus(folder / "bus", "node")
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        await bus.publish("events.node", list(batches))
        bus.close()
    bus.close_files()


def test_the_events_of_one_envelope_are_found_among_others() -> None:
    with quick_folder() as folder:
        open_spool_environment(folder / "spool", map_octets=64 * 1024**2).close()
        first = batch(1, told(Deferred, 4_711, 0), told(Deferred, 99, 0))
        second = batch(3, told(Delivered, 4_711, 1))
        trio.run(publish, folder, first, batch(7, told(Delivered, 99, 1)), second, first)
        with SpoolReader(folder / "spool") as spool:
            found = events_of(folder, spool, 4_711)
            assert [(event["event"], event["attempt"], event["at"]) for event in found] == [
                ("deferred", 0, 1_001.0),
                ("delivered", 1, 1_003.0),
            ]
            assert found[0]["mx_host"] == "mx.x.test"
            assert events_of(folder, spool, 4_712) == []


def test_a_folder_without_a_bus_tells_nothing() -> None:
    with quick_folder() as folder:
        open_spool_environment(folder / "spool", map_octets=64 * 1024**2).close()
        with SpoolReader(folder / "spool") as spool:
            assert events_of(folder, spool, 1) == []
