"""From a route to a peer that is Ready: hosts in trial order, TCP, banner, EHLO, STARTTLS, AUTH.

Decides which host and address is tried next, and what of TLS is asked there: what the recipients' side
demands (`tls_plan`), or what the path's shaping says. A demand that is enforced never falls back, neither
to clear text nor to a certificate of anybody; one that is only watched is counted and then forgotten. A
host whose opportunistic TLS broke is met in clear for an hour. An address with as many connections as it
may have is passed over. Touches: the network. Every trouble is a value; the last one is what the caller
gets when nobody was Ready. Holds no envelopes.
"""

from collections.abc import Hashable

import trio
from msgspec import Struct
from msgspec.structs import replace

from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.actors.remote_addresses import Slot
from engine.actors.tls_plan import TlsPlan, failure_of, plan_for, unmet
from engine.actors.tls_results import TlsTally
from engine.model.content import Content
from engine.model.egress import Credentials, MxHost, Source
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.net.mx import Route, trial_order
from engine.mta.net.network import Wire
from engine.mta.net.session import SessionError
from engine.mta.net.tls import TlsInfo, TlsTerms
from engine.mta.proto.smtp_client import SmtpClient
from engine.mta.proto.smtp_options import ClientOptions, Closed, Event, Ready, SessionFailed, StartTls, TlsUse

HOSTS_TRIED_MAX = 5  # RFC 5321 5.1: at least two; more would only be slow
TLS_BROKEN_SECONDS = 3600.0


class Crowded(Struct, frozen=True):
    """Every address that could be tried has as many connections as one may have: wait, nobody is to blame."""

    addresses: int
    limit: int

    def __str__(self) -> str:
        return f"all {self.addresses} addresses of the site have {self.limit} connections of ours"


class Reached(Struct, frozen=True):
    """A session whose peer said Ready. Whoever has it calls `close` at its end, whatever comes between.

    `authenticated`: the peer proved that it is the one whom the recipients' side, or our configuration,
    names (RFC 8689 4.2.1).
    """

    host: MxHost
    address: str
    session: Wire
    client: SmtpClient
    slot: Slot
    tally: TlsTally
    authenticated: bool = False
    tls_seconds: float = 0.0  # of the handshake

    def counted(self, domain: str) -> None:
        """Mail for this recipient domain goes over it; cheap, to be called for each message."""
        self.tally.counted(domain)

    def close(self) -> None:
        """Close the session and give up the place at its address."""
        self.session.close()
        self.slot.leave()


def requiretls_problem(content: Content, reached: Reached) -> str:
    """Why a content that requires TLS on its whole way must not go here; "" = it may (RFC 8689 4.2.1)."""
    if not content.require_tls:
        return ""
    if not reached.client.tls:
        missing = "speaks no TLS"
    elif not reached.authenticated:
        missing = "is not proven to be the right one by MTA-STS or DANE"
    elif not reached.client.capabilities.require_tls:
        missing = "does not offer REQUIRETLS"
    else:
        return ""
    return f"550 5.7.30 the message requires TLS on its whole way, and {reached.host.name} {missing}"


def _is_ours(trouble: Reply | TransportFailure) -> bool:
    """Our source or machine could not: other addresses would fare no better."""
    return isinstance(trouble, TransportFailure) and trouble.kind in (FailureKind.SOURCE, FailureKind.LOCAL)


class _Trouble(Struct, frozen=True):
    """Why a peer was not Ready, and at which step."""

    answer: Reply | TransportFailure
    verb: Verb

    @property
    def about_tls(self) -> bool:
        """Trouble with TLS itself, octets ahead of the handshake included.

        Whoever could put those there could as well have taken STARTTLS out of the EHLO answer, so meeting
        the host in clear loses nothing that opportunistic TLS ever promised; nothing of it is kept.
        """
        if isinstance(self.answer, Reply):
            return self.verb is Verb.STARTTLS and self.answer.code != 421
        return self.answer.verb in (Verb.TLS, Verb.STARTTLS)


class Dialler:
    """Connects once. `memory` learns whose TLS is broken.

    `credentials` are for a relay. `tally` has what was met under a policy: when nobody was Ready, it is kept
    with the path, for whoever gives back the mail that waited (`judge_granted`).
    """

    def __init__(
        self,
        parts: Parts,
        memory: PathMemory,
        source: Source,
        stop: trio.Event,
        credentials: Credentials | None = None,
    ) -> None:
        self._parts = parts
        self._memory = memory
        self._shaping = memory.shaping
        self._source = source
        self._stop = stop
        self._credentials = credentials or parts.credentials
        self._tls_seconds = 0.0
        self.tally = TlsTally(parts.tls_results, None)

    async def connect(self, route: Route) -> Reached | Reply | TransportFailure | Crowded | None:
        """Try hosts until one is Ready, else the last trouble; None when a stop came between."""
        self.tally = TlsTally(self._parts.tls_results, route.demand)
        reached = await self._connect(route)
        ready = isinstance(reached, Reached)
        self._parts.tls_results.dialled(self._memory.key, self.tally, reached=ready)
        return reached

    async def _connect(self, route: Route) -> Reached | Reply | TransportFailure | Crowded | None:
        tried = crowded = 0
        trouble: Reply | TransportFailure | None = None
        places = self._parts.remote_addresses
        for host in trial_order(list(route.hosts), self._parts.dice, self._source):
            plan = plan_for(route.demand, host.name, self._shaping.tls)
            if plan.refused:
                trouble = self._refuse(host, plan)
                if plan.enforced:
                    continue
                plan = plan_for(None, host.name, self._shaping.tls)
            for address in host.addresses:
                if self._stop.is_set():
                    return None
                if tried >= HOSTS_TRIED_MAX:
                    return trouble
                slot = places.enter(address, exempt=self._memory.hasty)
                if slot is None:
                    crowded += 1
                    continue
                tried += 1
                reached: Reached | Reply | TransportFailure | None = None
                try:
                    reached = await self._meet(host, address, plan, slot)
                finally:
                    if not isinstance(reached, Reached):  # cancelled on the way, too
                        slot.leave()
                if isinstance(reached, Reached) or _is_ours(reached):
                    return reached
                trouble = reached
        if trouble is None and crowded:
            return Crowded(crowded, places.limit)
        return trouble or TransportFailure(
            FailureKind.NO_ADDRESS, Verb.CONNECT, f"no address of the site suits source {self._source.name}"
        )

    async def _meet(
        self, host: MxHost, address: str, plan: TlsPlan, slot: Slot
    ) -> Reached | Reply | TransportFailure:
        """One address, with less and less TLS as far as its plan allows."""
        plan = self._without_broken(host, plan)
        while True:
            reached = await self._try(host, address, plan, slot)
            if isinstance(reached, Reached):
                return reached
            if not reached.about_tls:
                return reached.answer
            if plan.demanding:
                failure = failure_of(reached.answer, plan, host.name, address, self._source.address or "")
                self.tally.failed(host.name, failure)
                if plan.enforced:
                    return unmet(reached.answer, plan, host.name)
                plan = self._without_broken(host, plan_for(None, host.name, self._shaping.tls))
            elif plan.use is TlsUse.OPPORTUNISTIC:
                until = trio.current_time() + TLS_BROKEN_SECONDS
                self._memory.tls_broken_until[host.name] = until
                plan = replace(plan, use=TlsUse.NEVER)
            else:
                return reached.answer

    def _without_broken(self, host: MxHost, plan: TlsPlan) -> TlsPlan:
        broken = self._memory.tls_broken_until.get(host.name, 0.0) > trio.current_time()
        return replace(plan, use=TlsUse.NEVER) if broken and plan.use is TlsUse.OPPORTUNISTIC else plan

    def _refuse(self, host: MxHost, plan: TlsPlan) -> TransportFailure:
        """A host that no session may be made with: nothing is dialled."""
        refusal = TransportFailure(FailureKind.TLS, Verb.TLS, plan.demand.why, plan.refusal)
        self.tally.failed(host.name, failure_of(refusal, plan, host.name, "", self._source.address or ""))
        return unmet(refusal, plan, host.name)

    async def _try(self, host: MxHost, address: str, plan: TlsPlan, slot: Slot) -> Reached | _Trouble:
        """Dial and shake hands, once more without a session to resume if that one was the trouble."""
        key = (host.name, host.port, plan.demand)
        terms = self._terms(plan, key)
        reached = await self._try_once(host, address, plan, terms, slot)
        if terms.session is not None and isinstance(reached, _Trouble) and reached.about_tls:
            self._parts.tls_sessions.forget(key)
            reached = await self._try_once(host, address, plan, replace(terms, session=None), slot)
        return reached

    def _terms(self, plan: TlsPlan, key: Hashable) -> TlsTerms:
        sessions = self._parts.tls_sessions
        demand = plan.demand
        return TlsTerms(
            self._parts.tls_contexts.of(demand.tls),
            demand.tls,
            demand.names,
            demand.tlsa,
            plan.policy,
            self._parts.clock.now(),
            None if plan.use is TlsUse.NEVER else sessions.take(key, trio.current_time()),
            lambda session: sessions.keep(key, session, trio.current_time()),
        )

    async def _try_once(
        self, host: MxHost, address: str, plan: TlsPlan, terms: TlsTerms, slot: Slot
    ) -> Reached | _Trouble:
        session = await self._parts.network.dial(
            self._source, address, host.port, self._shaping.connect_timeout_seconds
        )
        if self._parts.taps:
            place = self._memory.place
            session = self._parts.taps.wrap(session, self._memory.key, place, host.name, address)
        if isinstance(session, TransportFailure):
            return _Trouble(session, session.verb)
        client = SmtpClient(
            ClientOptions(
                ehlo_name=self._source.ehlo_name,
                tls=plan.use,
                credentials=self._credentials,
                verdict=self._memory.verdict,
                pipelining=self._shaping.pipelining,
                chunking=self._shaping.chunking,
                messages_max=self._shaping.messages_per_connection,
            )
        )
        outcome: TlsInfo | _Trouble | None = _Trouble(
            TransportFailure(FailureKind.STOPPED, Verb.EHLO), Verb.EHLO
        )
        try:
            outcome = await self._shake_hands(session, client, terms, plan.server_name(host.name))
        finally:
            if isinstance(outcome, _Trouble):  # cancelled on the way, too
                session.close()
        if isinstance(outcome, _Trouble):
            return outcome
        kind = "none" if outcome is None else "verified" if outcome.verified else "unverified"
        self._parts.tls_kinds[kind] += 1
        if outcome is not None:
            self._parts.tls_sessions.resumed += outcome.resumed
            if plan.demanding:
                self._count(host, address, plan)
        proven = outcome is not None and outcome.verified and plan.enforced
        return Reached(host, address, session, client, slot, self.tally, proven, self._tls_seconds)

    def _count(self, host: MxHost, address: str, plan: TlsPlan) -> None:
        """The session met what was asked, which may be less than the policy was meant to be."""
        if plan.shortfall is None:
            self.tally.met(host.name)
            return
        failure = TransportFailure(FailureKind.TLS, Verb.TLS, "no TLSA record is usable", plan.shortfall)
        self.tally.failed(
            host.name, failure_of(failure, plan, host.name, address, self._source.address or "")
        )

    async def _shake_hands(
        self, session: Wire, client: SmtpClient, terms: TlsTerms, server_name: str
    ) -> TlsInfo | _Trouble | None:
        """What TLS was negotiated once the peer is Ready; None = in clear."""
        info: TlsInfo | None = None
        verb, deadline = Verb.CONNECT, 0.0
        while True:
            waiting = client.time_limit
            assert waiting is not None, "a handshake always waits for something"
            seconds = self._shaping.reply_timeout_seconds or waiting[1]
            if waiting[0] is not verb:  # from its beginning: a peer that dribbles octets gets no more time
                verb, deadline = waiting[0], trio.current_time() + seconds
            events: list[Event] = []
            with trio.move_on_at(deadline) as patience:
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
                        return info
                    case StartTls():
                        began = trio.current_time()
                        met = await session.start_tls(server_name, terms, seconds)
                        self._tls_seconds = trio.current_time() - began
                        if isinstance(met, TransportFailure):
                            client.tls_failed(met)
                            return _Trouble(met, met.verb)
                        info = met
                        client.tls_established(str(met))
                    case SessionFailed():
                        answer = event.reply or event.failure
                        assert answer is not None, "a session fails by an answer or by the wire"
                        return _Trouble(answer, event.verb)
                    case Closed():
                        closed = event.reply or event.failure or TransportFailure(FailureKind.CLOSED, verb)
                        return _Trouble(closed, verb)


def located(failure: TransportFailure, verb: Verb) -> TransportFailure:
    """A session's failure with the verb that only its user knows."""
    return replace(failure, verb=verb) if failure.verb is Verb.IDLE else failure
