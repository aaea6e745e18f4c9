"""An operator beside a running engine, and the mail that flows meanwhile.

`operating` asks the engine over the bus as `emass queue` and `emass suppress` do, as a member of its own.
`mail_world` is a recorder behind a DNS of MX records, each host on an address of its own, in the form that
`engine_house.engine_config` takes.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bench.world.dns import DnsServer, Zones
from engine.bus.local import LocalBus
from engine.model.submission import Submission, encode_submission
from tests.fakes.recorder import Recorder, recording

ANSWER_SECONDS = 30.0
A_WHILE_SECONDS = 0.02


class Operator:
    def __init__(self, bus: LocalBus, node: str) -> None:
        self._bus = bus
        self._node = node

    def __repr__(self) -> str:
        return f"<Operator of {self._node}>"

    async def ask(self, command: str, **request: Any) -> dict[str, Any]:
        """The engine's answer; a refusal fails the test."""
        payload = json.dumps({"command": command, "reason": "a test", "author": "ann"} | request).encode()
        answer: dict[str, Any] = json.loads(
            await self._bus.ask(f"engine.{self._node}", payload, ANSWER_SECONDS)
        )
        assert "error" not in answer, answer
        return answer

    async def submit(self, submissions: Sequence[Submission]) -> None:
        """Put work on the bus, as whoever is in another process does."""
        await self._bus.publish(f"chunks.{self._node}", [encode_submission(item) for item in submissions])

    async def on(self, command: str, subject: str, value: str, **asked: Any) -> dict[str, Any]:
        """An act on some mail."""
        return await self.ask(command, subject=subject, subject_value=value, asked=asked)


@asynccontextmanager
async def operating(data: Path, node: str = "node") -> AsyncIterator[Operator]:
    """`data` is the engine's data folder."""
    bus = LocalBus(data / "bus", f"cli-{os.getpid()}", temporary=True)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            yield Operator(bus, node)
            bus.close()
    finally:
        bus.close_files()


class MailWorld:
    """`recorder` is what listens, `smtp_port` and `resolver` where the engine finds it."""

    def __init__(self, recorder: Recorder, resolver: tuple[str, int]) -> None:
        self.recorder = recorder
        self.smtp_port = recorder.port
        self.resolver = resolver

    def __repr__(self) -> str:
        return f"<MailWorld {self.recorder!r}>"


@asynccontextmanager
async def mail_world(
    folder: Path, hosts: Mapping[str, str], *, think_seconds: float = 0.0
) -> AsyncIterator[MailWorld]:
    """`hosts`: recipient domain -> address of its one MX host, mx.DOMAIN."""
    records: dict[str, dict[str, list[str]]] = {}
    for domain, address in hosts.items():
        records[domain] = {"MX": [f"10 mx.{domain}."]}
        records[f"mx.{domain}"] = {"A": [address]}
    dns = DnsServer(Zones(records), "127.0.0.1")
    async with (
        recording(folder, *dict.fromkeys(hosts.values()), think_seconds=think_seconds) as recorder,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(dns.serve)
        yield MailWorld(recorder, (dns.address, dns.port))
        nursery.cancel_scope.cancel()
