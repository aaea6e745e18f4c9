"""A network of model SMTP servers for connections on a jumping clock: no socket, every octet in order.

`ModelNetwork` answers each dial with a `ModelWire` to the peer that the test gave it. `ModelWire.hold`
keeps replies back, as a slow peer does, until `release` lets them go.
"""

import trio

from engine.model.egress import Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.session import Progress
from engine.mta.net.tls import TlsInfo, TlsTerms
from tests.fakes.smtp_peer import ModelPeer
from tests.fakes.trees import until_quiet


class ModelWire:
    """`engine.mta.net.network.Wire` to one model peer."""

    def __init__(self, peer: ModelPeer) -> None:
        self.peer = peer
        self.holding = False
        self.closed = False
        self._inbound = peer.banner()
        self._bell = trio.Event()

    async def send(self, data: bytes, progress: Progress | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self._inbound += self.peer.receive(data)
        if progress is not None:
            progress(len(data))
        self._bell.set()

    async def receive(self) -> bytes:
        while self.holding or not (self._inbound or self.peer.closed):
            self._bell = trio.Event()
            await self._bell.wait()
        await trio.lowlevel.checkpoint()
        return self.receive_nowait() or b""

    def receive_nowait(self) -> bytes | None:
        if self.holding:
            return None
        inbound, self._inbound = self._inbound, b""
        return inbound or (b"" if self.peer.closed else None)

    async def start_tls(
        self, server_name: str | None, terms: TlsTerms, timeout_seconds: float
    ) -> TlsInfo | TransportFailure:
        await trio.lowlevel.checkpoint()
        return TransportFailure(FailureKind.TLS, Verb.TLS, "a model has no TLS")

    def close(self) -> None:
        self.closed = True

    async def release(self) -> None:
        self.holding = False
        self._bell.set()
        await until_quiet()


class ModelNetwork:
    """`engine.mta.net.network.Network` with one peer; a failure instead of it is what every dial gets."""

    def __init__(self, peer: ModelPeer | TransportFailure) -> None:
        self.peer = peer
        self.wires: list[ModelWire] = []

    async def dial(
        self, source: Source, address: str, port: int, timeout_seconds: float
    ) -> ModelWire | TransportFailure:
        await trio.lowlevel.checkpoint()
        if isinstance(self.peer, TransportFailure):
            return self.peer
        wire = ModelWire(self.peer)
        self.wires.append(wire)
        return wire
