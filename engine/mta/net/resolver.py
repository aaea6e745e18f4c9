"""Where a domain's mail goes: MX hosts with their addresses, or why there are none; other records, too.

Asks MX, then A and AAAA of each host, follows aliases, and lets `mx` decide by RFC 5321 5.1 and
RFC 7505. The implicit MX is used on NODATA only: after NXDOMAIN there is no domain, after SERVFAIL
nobody knows. An answer is secure when DNSSEC proves it over the whole chain of aliases, as a believed
server says. Answers are cached (`dns_cache`); questions that are alike and under way at the same time
share one look-up. Touches: UDP and TCP sockets through `dns_exchange`, nothing else. Every
outcome is a value; hostile DNS costs at most `deadline_seconds`. On a crash only the cache is lost.
"""

import random
from collections.abc import Callable, Sequence

import dns.exception
import dns.resolver
import trio
from dns.rdatatype import RdataType
from msgspec import Struct
from msgspec.structs import replace

from engine.config.tls import TrustAd
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.addresses import is_literal
from engine.mta.net.dns_cache import CacheLimits, DnsCache
from engine.mta.net.dns_exchange import DnsExchange, ExchangeLimits, Server
from engine.mta.net.dns_message import (
    FAILED_TTL_SECONDS,
    Answer,
    AnswerKind,
    Question,
    failed,
    is_domain_name,
)
from engine.mta.net.mx import Addresses, Exchange, Route, choose_hosts, make_route, trial_order

__all__ = ["Resolver", "ResolverConfig", "Route", "system_servers", "trial_order"]

ALIASES_MAX = 8  # further questions along a CNAME chain; within one response 16 links are followed
QUESTIONS_IN_FLIGHT_MAX = 256  # sockets; 100 domains at once ask mostly one thing at a time
LOCAL_SERVER: Server = ("127.0.0.1", 53)  # resolv.conf(5): used when none is configured


class ResolverConfig(Struct, frozen=True, kw_only=True):
    """Which recursive servers are asked (IP literal, port), and the limits. Seconds throughout.

    `allow_private` lets MX records name private addresses and literals: for tests and closed
    networks only. `own_names` are our EHLO names: an MX host among them is a loop. `trust_ad`:
    which servers are believed when they say that DNSSEC proves an answer.
    """

    servers: tuple[Server, ...]
    allow_private: bool = False
    timeout_seconds: float = 3.0
    attempts: int = 2
    deadline_seconds: float = 30.0
    cache_entries_max: int = 100_000
    ttl_seconds_min: float = 5.0
    ttl_seconds_max: float = 86_400.0
    negative_ttl_seconds_max: float = 600.0  # an accident in a zone is over for us soon after it is
    own_names: tuple[str, ...] = ()
    smtp_port: int = 25
    trust_ad: TrustAd = TrustAd.LOOPBACK


class ResolverStatistics(Struct, frozen=True):
    """What the resolver did so far, and what it holds. A question to several servers counts once for each."""

    questions: int
    failures: int  # look-ups that ended without an answer
    hits: int
    misses: int
    cached: int
    under_way: int


class _LookUp:
    """One question under way; the others that ask the same wait for `done`."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: tuple[Answer, float] | None = None  # None after done = the asker was cancelled


class Resolver:
    """The engine's resolver. `now` gives monotonic seconds; `rng` makes message ids unpredictable.

    Pass another `rng` than the default in tests only: ids guard against forged answers.
    """

    def __init__(
        self, config: ResolverConfig, now: Callable[[], float], rng: random.Random | None = None
    ) -> None:
        self.config = config
        self._now = now
        self._own_names = frozenset(name.lower().removesuffix(".") for name in config.own_names)
        self._cache = DnsCache(
            CacheLimits(
                config.cache_entries_max,
                config.ttl_seconds_min,
                config.ttl_seconds_max,
                config.negative_ttl_seconds_max,
            )
        )
        self._exchange = DnsExchange(
            config.servers,
            ExchangeLimits(config.timeout_seconds, config.attempts),
            now,
            rng or random.SystemRandom(),
            config.trust_ad,
        )
        self._under_way: dict[Question, _LookUp] = {}
        self._failures = 0
        self._room = trio.Semaphore(QUESTIONS_IN_FLIGHT_MAX)

    async def mail_hosts(self, domain: str) -> Route | TransportFailure:
        """The route of a domain (lower-case A-labels). Takes at most `deadline_seconds`; never raises."""
        with trio.move_on_after(self.config.deadline_seconds):
            return await self._mail_hosts(domain.lower().removesuffix("."))
        return _failure(FailureKind.DNS, f"no answer within {self.config.deadline_seconds:g} s")

    async def host_addresses(self, name: str) -> Addresses:
        """A and AAAA of a host as literals, private ones included. Takes at most `deadline_seconds`."""
        with trio.move_on_after(self.config.deadline_seconds):
            return (await self._all_addresses([name.lower().removesuffix(".")])).popitem()[1]
        return Addresses((), 0.0, f"no answer within {self.config.deadline_seconds:g} s")

    async def ask(self, name: str, rdtype: RdataType) -> tuple[Answer, float]:
        """Any record, and the seconds it stays true. Takes at most `deadline_seconds`; FAILED is a value."""
        with trio.move_on_after(self.config.deadline_seconds):
            return await self._answer(Question(name.lower().removesuffix("."), rdtype))
        return failed(f"no answer within {self.config.deadline_seconds:g} s"), FAILED_TTL_SECONDS

    def statistics(self) -> ResolverStatistics:
        cache = self._cache
        asked, failed = self._exchange.questions, self._failures
        return ResolverStatistics(asked, failed, cache.hits, cache.misses, len(cache), len(self._under_way))

    def knows(self, name: str, rdtype: RdataType) -> bool:
        """Whether `ask` would answer at once."""
        return self._cache.get(Question(name, rdtype), self._now()) is not None

    async def _mail_hosts(self, domain: str) -> Route | TransportFailure:
        question = Question(domain, RdataType.MX)
        if not is_domain_name(domain):
            return _failure(FailureKind.NO_SUCH_DOMAIN, "not a domain name")
        answer, ttl_seconds = await self._answer(question)
        implicit = False
        match answer.kind:
            case AnswerKind.NXDOMAIN:
                return _failure(FailureKind.NO_SUCH_DOMAIN, "the domain does not exist")
            case AnswerKind.FAILED:
                return _failure(FailureKind.DNS, answer.detail)
            case AnswerKind.NODATA:
                implicit = True
                exchanges: Sequence[Exchange] = (Exchange(0, domain),)
            case AnswerKind.FOUND:
                exchanges = answer.exchanges
        chosen = choose_hosts(exchanges, self._own_names, allow_private=self.config.allow_private)
        if isinstance(chosen, TransportFailure):
            return chosen
        return make_route(
            chosen,
            await self._all_addresses([exchange.name for exchange in chosen]),
            ttl_seconds=ttl_seconds,
            allow_private=self.config.allow_private,
            implicit=implicit,
            port=self.config.smtp_port,
            secure=answer.secure,
            canonical=answer.canonical,
        )

    async def _all_addresses(self, names: Sequence[str]) -> dict[str, Addresses]:
        """Addresses of every host: from the cache at once, the rest asked for side by side."""
        answers: dict[Question, tuple[Answer, float]] = {}
        unknown: list[Question] = []
        for name in names:
            for rdtype in (RdataType.A, RdataType.AAAA):
                question = Question(name, rdtype)
                if is_literal(name):
                    answers[question] = (_literal_answer(name, rdtype), self.config.ttl_seconds_max)
                elif cached := self._cache.get(question, self._now()):
                    answers[question] = cached
                else:
                    unknown.append(question)
        if unknown:  # seldom: most domains share a few providers' hosts, and a nursery costs 100 us
            async with trio.open_nursery() as nursery:
                for question in unknown:
                    nursery.start_soon(self._collect, question, answers)
        return {
            name: _join(answers[Question(name, RdataType.A)], answers[Question(name, RdataType.AAAA)])
            for name in names
        }

    async def _collect(self, question: Question, answers: dict[Question, tuple[Answer, float]]) -> None:
        answers[question] = await self._answer(question)

    async def _answer(self, question: Question) -> tuple[Answer, float]:
        """The answer and the seconds it stays true; asks each question once however many want it."""
        while True:
            if cached := self._cache.get(question, self._now()):
                return cached
            look_up = self._under_way.get(question)
            if look_up is None:
                return await self._look_up(question)
            await look_up.done.wait()
            if look_up.outcome is not None:
                return look_up.outcome

    async def _look_up(self, question: Question) -> tuple[Answer, float]:
        look_up = self._under_way[question] = _LookUp()
        try:
            answer = await self._follow(question)
            self._failures += answer.kind is AnswerKind.FAILED
            look_up.outcome = answer, self._cache.put(question, answer, self._now())
            return look_up.outcome
        finally:
            # Also when this task was cancelled: then one of those who wait asks in its place.
            del self._under_way[question]
            look_up.done.set()

    async def _follow(self, question: Question) -> Answer:
        """Ask, and go on along aliases where the server did not."""
        name, ttl_seconds, secure = question.name, self.config.ttl_seconds_max, True
        for _ in range(1 + ALIASES_MAX):
            async with self._room:
                answer = await self._exchange.ask(Question(name, question.rdtype))
            if not answer.alias:
                return answer if name == question.name else _aliased(answer, name, ttl_seconds, secure=secure)
            name, ttl_seconds = answer.alias, min(ttl_seconds, answer.ttl_seconds)
            secure = secure and answer.secure
        return failed("CNAME chain is too long or a loop")

    def __repr__(self) -> str:
        asked = self._exchange.questions
        return f"<Resolver {len(self._under_way)} under way, {asked:,} asked, {self._cache!r}>"


def system_servers() -> tuple[Server, ...]:
    """The machine's recursive servers (/etc/resolv.conf); the local host when none are named there."""
    try:
        configured = dns.resolver.Resolver()
    except (dns.exception.DNSException, OSError):
        return (LOCAL_SERVER,)
    servers = tuple((str(host), configured.port) for host in configured.nameservers if is_literal(str(host)))
    return servers or (LOCAL_SERVER,)


def _join(v4: tuple[Answer, float], v6: tuple[Answer, float]) -> Addresses:
    trouble = next((answer.detail for answer, _ in (v4, v6) if answer.kind is AnswerKind.FAILED), "")
    known = [seconds for answer, seconds in (v4, v6) if answer.kind is not AnswerKind.FAILED]
    found = [answer for answer, _ in (v4, v6) if answer.addresses]
    return Addresses(
        v4[0].addresses + v6[0].addresses,
        min(known, default=0.0),
        trouble,
        canonical=v4[0].canonical or v6[0].canonical,
        secure=bool(found) and all(answer.secure for answer in found),
    )


def _literal_answer(text: str, rdtype: RdataType) -> Answer:
    address = text.removeprefix("[").removesuffix("]")
    if (rdtype is RdataType.AAAA) == (":" in address):
        return Answer(AnswerKind.FOUND, addresses=(address,))
    return Answer(AnswerKind.NODATA)


def _aliased(answer: Answer, name: str, ttl_seconds: float, *, secure: bool) -> Answer:
    """The answer at the end of a chain that was followed to `name`: no surer than its weakest link."""
    return replace(
        answer,
        ttl_seconds=min(answer.ttl_seconds, ttl_seconds),
        canonical=answer.canonical or name,
        secure=answer.secure and secure,
    )


def _failure(kind: FailureKind, detail: str) -> TransportFailure:
    return TransportFailure(kind, Verb.RESOLVE, detail)
