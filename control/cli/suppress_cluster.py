"""Suppressions for every engine of a cluster: published once, and waited for until they hold everywhere.

An order goes onto the stream `suppressions`; each engine applies it and says so, by its acknowledgement and
in its row of `status`. It is *effective* once every living engine has: none sends to those addresses then.
An engine that is away applies it before it sends again, since it reads the stream first. Touches: the bus.
Raises CliError when an engine that lives has not applied it in time; the order stands all the same.
"""

import os
from collections.abc import Callable, Iterable
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
from engine.mta.spool.suppressions import STREAM, consumer_name

LOOK_SECONDS = 0.05
ORDERS_AHEAD = 64  # on the bus and not applied: 25 MB there
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

    @property
    def folder(self) -> Path:
        """Where an import may put its piles for a while."""
        data = Path(self._config.node.data)
        return data if data.is_dir() else Path.cwd()

    def carry_out(self, order: SuppressionOrder) -> dict[str, Any]:
        """Publish it and wait until it is effective. Raises CliError."""
        return self.carry_out_all([order])

    def carry_out_all(
        self, orders: Iterable[SuppressionOrder], show: Callable[[int], object] = lambda _: None
    ) -> dict[str, Any]:
        """As `carry_out`, for many; `show` is told how many keys are published."""
        told: dict[str, Any] = run_on_bus(lambda: _publish(self.place, orders, show))
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


async def _publish(
    place: BusPlace, orders: Iterable[SuppressionOrder], show: Callable[[int], object] = lambda _: None
) -> dict[str, Any]:
    async with as_writer(place) as bus:
        began = trio.current_time()
        roster = Roster()
        for key, row in (await bus.read_all("status")).items():
            roster.hear(key, row, began)
        keys = sequence = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hear, bus, roster)
            for order in orders:
                sequence = await bus.publish(STREAM, [encode_order(order)])
                keys += len(order.keys)
                show(keys)
                await _until_applied(bus, roster, sequence, ORDERS_AHEAD, began)
            published = trio.current_time()
            await _until_applied(bus, roster, sequence, 0, began)
            nursery.cancel_scope.cancel()
        seconds = trio.current_time() - published
        engines = [name for name in roster.names() if await _has_applied(bus, roster, name, sequence)]
    return {
        "keys": keys,
        "writer": bus.member,
        "sequence": sequence,
        "effective_seconds": round(seconds, 3),
        "engines": len(engines),
        "through": "bus",
    }


async def _until_applied(bus: Bus, roster: Roster, sequence: int, ahead: int, began: float) -> None:
    """Until every engine that lives has applied all of ours but `ahead`. Raises CliError when one does not.

    An engine acknowledges an order once it holds there, which is known sooner than its next status.
    """
    since = trio.current_time()
    while late := _late(roster, bus.member, sequence - ahead, began, trio.current_time()):
        pending = [await bus.pending(STREAM, consumer_name(name)) for name in late]
        if max(pending) <= ahead:
            return
        if trio.current_time() - since > EFFECTIVE_SECONDS:
            raise CliError(
                f"published, but {', '.join(late)} has not applied it within {EFFECTIVE_SECONDS:.0f} s"
                " (its log says why); it does before it sends anything after a restart"
            )
        await trio.sleep(LOOK_SECONDS)


async def _has_applied(bus: Bus, roster: Roster, name: str, sequence: int) -> bool:
    status = roster.status(name)
    if status is not None and status.suppressions.get(bus.member, 0) >= sequence:
        return True
    return not await bus.pending(STREAM, consumer_name(name))


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
