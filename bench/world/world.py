"""A running world in this process: its receivers, its DNS, its record.

`open_world` starts everything a `WorldSpec` tells of: one receiver per listening host, all on one free
high port, and the name server on another. Nothing needs a privilege. A port that is taken on one of the
addresses is given up and another tried. Closing the context ends receivers and connections at once.
"""

import errno
import socket
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bench.world.dns import DnsServer, Zones
from bench.world.people import Person
from bench.world.provider import Provider
from bench.world.receiver import Receiver, listen
from bench.world.records import Accepted, AcceptedSink, RecordFile
from bench.world.spec import Expected, WorldSpec

PORT_TRIES = 20
RESOLVER_ADDRESS = "127.0.0.1"


class World:
    """`providers` by name; `smtp_port` is the one port of all hosts, `resolver` the DNS (host, port)."""

    def __init__(
        self, spec: WorldSpec, sink: AcceptedSink | None = None, *, keep_content: bool = False
    ) -> None:
        self.spec = spec
        self.providers = {
            each.name: Provider(
                each.name,
                each.manners,
                seed=spec.seed,
                domains=each.domains,
                sink=sink,
                keep_content=keep_content,
            )
            for each in spec.providers
        }
        hosts = [
            (self.providers[each.name], host.name, spec.addresses_of_hosts[host.name])
            for each in spec.providers
            for site in each.sites
            for host in site.hosts
            if host.listens
        ]
        listeners = listen_everywhere([address for _, _, address in hosts], spec.smtp_port)
        self.receivers = [
            Receiver(provider, name, listener)
            for (provider, name, _), listener in zip(hosts, listeners, strict=True)
        ]
        self.smtp_port: int = self.receivers[0].port
        self.dns = DnsServer(Zones(spec.records(), troubles=spec.dns_troubles()), RESOLVER_ADDRESS)
        self.resolver = (self.dns.address, self.dns.port)

    def __repr__(self) -> str:
        accepted = sum(p.tally.counts["accepted"] for p in self.providers.values())
        return f"<World {self.spec.name}: {len(self.receivers)} receivers, {accepted} messages accepted>"

    @property
    def domains(self) -> dict[str, float]:
        return self.spec.domains

    def addresses(self, number: int, seed: int = 1) -> list[Person]:
        return self.spec.addresses(number, seed)

    def expected(self, recipients: Iterable[str]) -> Expected:
        return self.spec.expected(recipients)

    def statistics(self) -> dict[str, Any]:
        """Counts by provider, their sums, and DNS queries by outcome."""
        providers = {name: provider.statistics() for name, provider in self.providers.items()}
        totals: dict[str, int] = {}
        for counts in providers.values():
            for name, value in counts.items():
                if isinstance(value, int):
                    totals[name] = totals.get(name, 0) + value
        return {"totals": totals, "providers": providers, "dns": dict(self.dns.zones.queries)}

    def timeline(self) -> dict[str, Any]:
        """For each provider what happened in each second, and the two clocks that put it into wall time."""
        providers = {name: provider.timeline.statistics() for name, provider in self.providers.items()}
        return {"now": trio.current_time(), "at": time.time(), "providers": providers}

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.dns.serve)
            for receiver in self.receivers:
                await nursery.start(receiver.serve)
            task_status.started()


@asynccontextmanager
async def open_world(
    spec: WorldSpec,
    *,
    record: Path | None = None,
    accepted: list[Accepted] | None = None,
    keep_content: bool = False,
) -> AsyncIterator[World]:
    """A world that lives as long as the context. `record` is appended to; so is the list `accepted`."""
    with ExitStack() as stack:
        sinks: list[AcceptedSink] = []
        if record is not None:
            sinks.append(stack.enter_context(RecordFile(record)))
        if accepted is not None:
            sinks.append(accepted.extend)
        world = World(spec, _together(sinks), keep_content=keep_content)
        async with trio.open_nursery() as nursery:
            await nursery.start(world.serve)
            yield world
            nursery.cancel_scope.cancel()


def _together(sinks: list[AcceptedSink]) -> AcceptedSink | None:
    if len(sinks) < 2:
        return sinks[0] if sinks else None

    def pass_on(messages: Iterable[Accepted]) -> None:
        batch = list(messages)
        for sink in sinks:
            sink(batch)

    return pass_on


def listen_everywhere(addresses: list[str], port: int = 0) -> list[socket.socket]:
    """Listening sockets on one port of all addresses; with port 0 a free one. Raises OSError."""
    for _ in range(PORT_TRIES):
        listeners: list[socket.socket] = []
        chosen = port
        try:
            for address in addresses:
                listeners.append(listen(address, chosen))
                chosen = listeners[0].getsockname()[1]
        except OSError as error:
            for listener in listeners:
                listener.close()
            if port or error.errno != errno.EADDRINUSE:
                raise
        else:
            return listeners
    raise OSError(errno.EADDRINUSE, f"no port is free on all of {len(addresses)} addresses")
