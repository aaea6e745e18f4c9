"""The way to peers, as the actors see it: dial a host, get a wire or the reason why not.

`SystemNetwork` is the real one (`dial` and `Session`). It stands behind a protocol so that a whole engine
can run on another network: the simulation's, which has no sockets and loses octets at will. Decides
nothing, keeps nothing. A `Wire` promises what `Session` documents; all trouble is a value or a SessionError.
"""

from typing import Protocol

from engine.model.egress import Source
from engine.model.reply import TransportFailure
from engine.mta.net.dial import dial
from engine.mta.net.session import Progress, Session
from engine.mta.net.tls import TlsInfo, TlsTerms


class Wire(Protocol):
    """One connection to one peer; see `Session` for what each call promises."""

    async def send(self, data: bytes, progress: Progress | None = None) -> None: ...

    async def receive(self) -> bytes: ...

    def receive_nowait(self) -> bytes | None: ...

    async def start_tls(
        self, server_name: str | None, terms: TlsTerms, timeout_seconds: float
    ) -> TlsInfo | TransportFailure: ...

    def close(self) -> None: ...


class Network(Protocol):
    """Where connections come from."""

    async def dial(
        self, source: Source, address: str, port: int, timeout_seconds: float
    ) -> Wire | TransportFailure:
        """Connect from `source` to an IP literal and port; never raises for the network."""
        ...


class SystemNetwork:
    """The kernel's sockets."""

    async def dial(
        self, source: Source, address: str, port: int, timeout_seconds: float
    ) -> Wire | TransportFailure:
        dialled = await dial(source, address, port, timeout_seconds)
        return dialled if isinstance(dialled, TransportFailure) else Session(dialled)
