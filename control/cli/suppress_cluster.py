"""Suppressions for every engine of a cluster: published once, and waited for until they hold everywhere.

An order goes onto the stream `suppressions`; each engine applies it and says so in its row of `status`. It is
*effective* once every living engine has: from then on none sends to those addresses. An engine that is away
applies it before it sends again, since it reads the stream first. Touches: the bus. Raises CliError when an
engine that lives has not applied it in time; the order stands all the same.
"""

import os
from pathlib import Path
from typing import Any

import trio

from control.cli.cluster_bus import BusPlace, as_writer, bus_of_config, parse_bus, run_on_bus
from control.cli.errors import CliError, InputError
from control.cli.job import JOB_FILE
from control.config import load
from control.job.roster import Roster
from engine.app import load_keys
from engine.bus.api import Bus, PositionLost
from engine.config import BusKind, Config
from engine.mta.policy.suppression import SuppressionOrder
from engine.mta.policy.suppression_codec import AddressHasher, encode_order
from engine.mta.spool.suppressions import STREAM

EFFECTIVE_SECONDS = 30.0  # to wait for engines that live; two are usual
INTERVALS_SILENT = 2.5  # who has not written for so long is not there


class Cluster:
    """The bus that orders go to, and how addresses are hashed there."""

    def __init__(self, place: BusPlace, config: Config) -> None:
        self.place = place
        self._config = config

    def hasher(self) -> AddressHasher:
        """As every engine of the installation makes hashes. Raises KeyringError."""
        return AddressHasher(load_keys(self._config).suppression)

    def carry_out(self, order: SuppressionOrder) -> dict[str, Any]:
        """Publish it and wait until it is effective. Raises CliError."""
        told: dict[str, Any] = run_on_bus(lambda: _publish(self.place, order))
        return told


def find_cluster(
    data: str, bus_text: str, seed_file: str, ca_file: str, named_config: str | None
) -> Cluster | None:
    """The cluster that a command's options mean; None = a data folder of this machine is meant."""
    if not bus_text and (seed_file or ca_file):
        raise InputError("--bus-seed and --bus-ca belong to --bus")
    if not bus_text and named_config is None and (Path(data) / JOB_FILE).exists():
        return None
    config = load(named_config, os.environ, Path.cwd())
    if bus_text:
        return Cluster(parse_bus(bus_text, seed_file, ca_file), config)
    return Cluster(bus_of_config(config), config) if config.bus.kind is BusKind.NATS else None


def say(done: dict[str, Any]) -> str:
    """What was done, for people."""
    where = f"on {done['engines']} engines" if done["engines"] else "(no engine is there: when one starts)"
    return f"{done['keys']:,} in force {where} after {done['effective_seconds']:.1f} s"


async def _publish(place: BusPlace, order: SuppressionOrder) -> dict[str, Any]:
    async with as_writer(place) as bus:
        began = trio.current_time()
        sequence = await bus.publish(STREAM, [encode_order(order)])
        roster = Roster()
        with trio.move_on_after(EFFECTIVE_SECONDS):
            await _until_effective(bus, roster, sequence)
        seconds = trio.current_time() - began
        late = _late(roster, bus.member, sequence, began, trio.current_time())
    if late:
        raise CliError(
            f"published, but {', '.join(late)} has not applied it within {seconds:.0f} s (its log says why);"
            " it does before it sends anything after a restart"
        )
    engines = len(roster.live(trio.current_time()))
    return {
        "keys": len(order.keys),
        "writer": bus.member,
        "sequence": sequence,
        "effective_seconds": round(seconds, 3),
        "engines": engines,
        "through": "bus",
    }


async def _until_effective(bus: Bus, roster: Roster, sequence: int) -> None:
    began = trio.current_time()
    for key, row in (await bus.read_all("status")).items():
        roster.hear(key, row, began)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hear, bus, roster)
        while _late(roster, bus.member, sequence, began, trio.current_time()):  # noqa: ASYNC110
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()


async def _hear(bus: Bus, roster: Roster) -> None:
    while True:
        try:
            async for key, row in bus.watch("status"):
                roster.hear(key, row, trio.current_time())
        except PositionLost:
            await trio.lowlevel.checkpoint()


def _late(roster: Roster, writer: str, sequence: int, began: float, now: float) -> list[str]:
    """Who may live and has not applied it."""
    late = []
    for name in roster.names():
        status = roster.status(name)
        assert status is not None
        silent = roster.silent_seconds(name, now)
        patience = INTERVALS_SILENT * status.interval
        there = now - began < patience if silent is None else silent < patience
        if there and status.suppressions.get(writer, 0) < sequence:
            late.append(name)
    return late
