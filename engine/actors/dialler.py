"""From a route to a peer that is Ready: hosts in trial order, TCP, banner, EHLO, STARTTLS, AUTH.

Decides which host and address is tried next, and whether TLS is tried (a host whose opportunistic TLS
broke is met in clear for an hour; `required` never falls back). Touches: the network. Every trouble is a
value; the last one is what the caller gets when nobody was Ready. Holds no envelopes.
"""

import trio
from msgspec import Struct

from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.config.shaping import TlsPolicy
from engine.model.egress import MxHost, Source
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.net.mx import Route, trial_order
from engine.mta.net.network import Wire
from engine.mta.net.session import SessionError
from engine.mta.net.tls import opportunistic_context
from engine.mta.proto.smtp_client import SmtpClient
from engine.mta.proto.smtp_options import ClientOptions, Closed, Event, Ready, SessionFailed, StartTls, TlsUse

HOSTS_TRIED_MAX = 5  # RFC 5321 5.1: at least two; more would only be slow
TLS_BROKEN_SECONDS = 3600.0

_TLS_USE = {
    TlsPolicy.NEVER: TlsUse.NEVER,
    TlsPolicy.OPPORTUNISTIC: TlsUse.OPPORTUNISTIC,
    TlsPolicy.REQUIRED: TlsUse.REQUIRED,
}
_tls_context = opportunistic_context()


class Reached(Struct, frozen=True):
    """A session whose peer said Ready."""

    host: MxHost
    address: str
    session: Wire
    client: SmtpClient


class Dialler:
    """Connects once. `memory` learns whose TLS is broken."""

    def __init__(self, parts: Parts, memory: PathMemory, source: Source, stop: trio.Event) -> None:
        self._parts = parts
        self._memory = memory
        self._shaping = memory.shaping
        self._source = source
        self._stop = stop

    async def connect(self, route: Route) -> Reached | Reply | TransportFailure | None:
        """Try hosts until one is Ready, else the last trouble; None when a stop came between."""
        tried = 0
        trouble: Reply | TransportFailure | None = None
        for host in trial_order(list(route.hosts), self._parts.dice, self._source):
            for address in host.addresses:
                if self._stop.is_set():
                    return None
                if tried >= HOSTS_TRIED_MAX:
                    return trouble
                tried += 1
                use = self._tls_use(host)
                reached = await self._try(host, address, use)
                if use is TlsUse.OPPORTUNISTIC and _is_tls_trouble(reached):
                    until = trio.current_time() + TLS_BROKEN_SECONDS
                    self._memory.tls_broken_until[host.name] = until
                    reached = await self._try(host, address, TlsUse.NEVER)
                if isinstance(reached, Reached):
                    return reached
                trouble = reached
        return trouble or TransportFailure(
            FailureKind.SOURCE, Verb.CONNECT, f"no address of the site suits source {self._source.name}"
        )

    def _tls_use(self, host: MxHost) -> TlsUse:
        use = _TLS_USE[self._shaping.tls]
        broken = self._memory.tls_broken_until.get(host.name, 0.0) > trio.current_time()
        return TlsUse.NEVER if broken and use is TlsUse.OPPORTUNISTIC else use

    async def _try(self, host: MxHost, address: str, use: TlsUse) -> Reached | Reply | TransportFailure:
        """One dial and handshake."""
        session = await self._parts.network.dial(
            self._source, address, host.port, self._shaping.connect_timeout_seconds
        )
        if isinstance(session, TransportFailure):
            return session
        client = SmtpClient(
            ClientOptions(
                ehlo_name=self._source.ehlo_name,
                tls=use,
                credentials=self._parts.credentials,
                verdict=self._memory.verdict,
                pipelining=self._shaping.pipelining,
                chunking=self._shaping.chunking,
                messages_max=self._shaping.messages_per_connection,
            )
        )
        trouble: Reply | TransportFailure | None = TransportFailure(FailureKind.STOPPED, Verb.EHLO)
        try:
            trouble = await self._shake_hands(session, client, host.name)
        finally:
            if trouble is not None:  # cancelled on the way, too
                session.close()
        return Reached(host, address, session, client) if trouble is None else trouble

    async def _shake_hands(
        self, session: Wire, client: SmtpClient, name: str
    ) -> Reply | TransportFailure | None:
        """None = Ready."""
        while True:
            waiting = client.time_limit
            assert waiting is not None, "a handshake always waits for something"
            verb, seconds = waiting
            events: list[Event] = []
            with trio.move_on_after(seconds) as patience:
                try:
                    if (output := client.next_output()) is not None:
                        await session.send(output, client.handed_over)
                    events = client.receive_data(await session.receive())
                except SessionError as error:
                    events = client.connection_lost(located(error.failure, verb))
            if patience.cancelled_caught:
                events = client.connection_lost(TransportFailure(FailureKind.TIMEOUT, verb, f"{seconds:g} s"))
            for event in events:
                match event:
                    case Ready():
                        return None
                    case StartTls():
                        info = await session.start_tls(name, _tls_context, seconds)
                        if isinstance(info, TransportFailure):
                            client.tls_failed(info)
                            return info
                        client.tls_established(str(info))
                    case SessionFailed():
                        return event.reply or event.failure
                    case Closed():
                        return event.reply or event.failure or TransportFailure(FailureKind.CLOSED, verb)


def _is_tls_trouble(reached: Reached | Reply | TransportFailure) -> bool:
    """Trouble with TLS itself, octets ahead of the handshake included.

    Whoever could put those there could as well have taken STARTTLS out of the EHLO answer, so meeting the
    host in clear loses nothing that opportunistic TLS ever promised; nothing of this session is kept.
    """
    return isinstance(reached, TransportFailure) and reached.verb in (Verb.TLS, Verb.STARTTLS)


def located(failure: TransportFailure, verb: Verb) -> TransportFailure:
    """A session's failure with the verb that only its user knows."""
    return TransportFailure(failure.kind, verb if failure.verb is Verb.IDLE else failure.verb, failure.detail)
