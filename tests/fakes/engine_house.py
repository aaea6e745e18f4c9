"""Engines for tests: a whole one over a folder with short intervals, and parts of one on a jumping clock.

`running_engine` is `engine.app.open_engine` over a temporary folder and a world's ports; `memory_parts`
makes the `Parts` of an engine without disk, bus process, DNS or socket, and `Desk` stands in for the
actors that a test does not run: their mailboxes are read by the test. `letter` and `chunks` make a
campaign; `EventReader` folds what the journal published and insists that no sequence number is missing.
"""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec.structs import replace

from engine.actors.dkim_keys import DkimKeys
from engine.actors.parts import Parts
from engine.app import Engine, open_engine
from engine.bus.api import Subscription
from engine.config.egress import SourceRule
from engine.config.replies import ReplyRules, load_reply_rules
from engine.config.tables import (
    Config,
    DkimKeyFile,
    EngineTable,
    KeysTable,
    LimitsTable,
    NodeTable,
    ResolverTable,
    RetryTable,
)
from engine.config.units import Duration, HostPort, Size
from engine.keyring import TOKEN_KINDS, derive_token_key, write_secret
from engine.model.content import Content, DkimIdentity, MessageClass
from engine.model.egress import MxHost, Source
from engine.model.envelope import Chunk, ChunkEntry, Envelope
from engine.model.event import EnvelopeEvent, EventBatch, decode_events
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.model.submission import SubmitChunk, SubmitContent
from engine.mta.compose.token import TokenKeys
from engine.mta.net.mx import Route
from engine.mta.net.resolver import ResolverStatistics
from engine.mta.policy.classify import Judge
from engine.mta.spool.api import Acceptance, Lease, StateCounts
from engine.mta.spool.memory import MemorySpool
from engine.runtime.clock import TrioClock
from engine.runtime.mailbox import Mailbox
from engine.runtime.ref import Ref
from engine.runtime.spec import Context
from tests.fakes.memory_bus import MemoryBus

CAMPAIGN = 7
DOMAIN = "letter.example"
PATIENCE_SECONDS = 30.0
RETRY = RetryTable(
    first=Duration(0.4), factor=1.5, max=Duration(2.0), jitter=0.2, expire_after=Duration(600.0)
)
RSA_BITS = 1024  # a weak key signs ten times as fast, and these signatures guard nothing
MB = 1024 * 1024


# --- a campaign --------------------------------------------------------------------------------------


def letter(campaign: int = CAMPAIGN, **facts: Any) -> Content:
    """A short personal letter with one-click unsubscribe."""
    content = Content(
        campaign=campaign,
        name=f"letter-{campaign}",
        from_address=f"edith@{DOMAIN}",
        subject="Dear {{ name }}",
        text="Dear {{ name }},\nit is spring.\n",
        fields=("name",),
        return_path_domain=f"bounce.{DOMAIN}",
        unsubscribe_host=f"news.{DOMAIN}",
    )
    return replace(content, **facts)


def transactional(campaign: int = CAMPAIGN) -> Content:
    return letter(campaign, message_class=MessageClass.TRANSACTIONAL)


def signed(campaign: int = CAMPAIGN) -> Content:
    return letter(campaign, dkim=(DkimIdentity(DOMAIN, "test", "test"),))


def chunks(
    recipients: Sequence[str],
    *,
    campaign: int = CAMPAIGN,
    size: int = 500,
    expires_at: float = 4e9,
    name: str = "c",
) -> Iterator[Chunk]:
    for number, start in enumerate(range(0, len(recipients), size)):
        entries = tuple(
            ChunkEntry(start + index + 1, recipient, (f"Reader {start + index}",))
            for index, recipient in enumerate(recipients[start : start + size])
        )
        yield Chunk(f"{campaign}-{name}-{number}", campaign, expires_at, entries)


async def submit(engine: Engine, content: Content, recipients: Sequence[str], size: int = 500) -> None:
    await engine.submit([SubmitContent(content)])
    for chunk in chunks(recipients, campaign=content.campaign, size=size):
        await engine.submit([SubmitChunk(chunk)])


def numbered(count: int, domain: str = "plain.test") -> list[str]:
    return [f"reader.{number}@{domain}" for number in range(count)]


# --- a whole engine -----------------------------------------------------------------------------------


def weak_key(path: Path) -> None:
    """A private key that signs fast."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=RSA_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_secret(path, pem)


def engine_config(folder: Path, world: Any = None, **engine: Any) -> Config:
    """A node over `folder`; `world` (anything with smtp_port and resolver) answers its MX questions."""
    settings: dict[str, Any] = {"retry": RETRY, "signers": 1}
    servers: tuple[HostPort, ...] = (HostPort.parse("127.0.0.1:9"),)
    if world is not None:
        host, port = world.resolver
        servers = (HostPort.parse(f"{host}:{port}"),)
        settings["smtp_port"] = world.smtp_port
    settings["source"] = (SourceRule(name="out", ehlo_name=f"mail.{DOMAIN}"),)
    key = folder / "keys" / "test.pem"
    dkim = (DkimKeyFile(name="test", file="test.pem"),) if key.exists() else ()
    return Config(
        node=NodeTable(name="node", data=str(folder / "data")),
        engine=EngineTable(**(settings | engine)),
        resolver=ResolverTable(servers=servers, allow_private=True),
        keys=KeysTable(folder=str(folder / "keys"), dkim=dkim),
        limits=LimitsTable(
            spool_map=Size(256 * MB), disk_refuse=Size(32 * MB), disk_stop=Size(16 * MB), ballast=Size(MB)
        ),
    )


@asynccontextmanager
async def running_engine(
    folder: Path, world: Any = None, *, route: Route | None = None, restarts_max: int = 5, **engine: Any
) -> AsyncIterator[Engine]:
    """An engine for the length of the block; a test that hangs fails."""
    config = engine_config(folder, world, **engine)
    async with open_engine(config, static_route=route, restarts_max=restarts_max) as running:
        yield running


async def until_finished(engine: Engine, accepted: int, *, campaign: int = CAMPAIGN) -> StateCounts:
    """Wait until so many were accepted and nothing of them waits."""

    def finished() -> bool:
        counts = engine.counts(campaign)
        return counts.accepted >= accepted and not counts.deferred

    await until(finished)
    return engine.counts(campaign)


async def until(holds: Any, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what must come; a bell would be one of the things under test."""
    with trio.fail_after(seconds):
        while not holds():
            await trio.sleep(0.02)


def host_route(host: str, port: int, site: str = "mx.plain.test") -> Route:
    return Route(site, (MxHost(site, (host,), 10, port),), 3600.0)


class EventReader:
    """What the journal published, each event once, in order; a gap is an error."""

    def __init__(self, events: Subscription) -> None:
        self.batches: list[EventBatch] = []
        self.repeats = 0
        self._events = events
        self._next = 1

    @property
    def events(self) -> list[EnvelopeEvent]:
        return [event for batch in self.batches for event in batch.events if isinstance(event, EnvelopeEvent)]

    @property
    def accepted(self) -> int:
        every = [event for batch in self.batches for event in batch.events]
        return sum(getattr(event, "count", 0) for event in every)

    async def follow(self) -> None:
        while True:
            for delivery in await self._events.receive(256):
                self.add(decode_events(delivery.payload))

    def add(self, batch: EventBatch) -> None:
        if batch.sequence < self._next:
            assert batch.next_sequence <= self._next, "a repeated batch is cut otherwise than before"
            self.repeats += 1
            return
        assert batch.sequence == self._next, f"events {self._next} to {batch.sequence - 1} are missing"
        self._next = batch.next_sequence
        self.batches.append(batch)


# --- parts of one ---------------------------------------------------------------------------------------


class FakeResolver:
    """`Resolver.mail_hosts` from a table; a name that is not there does not exist."""

    def __init__(self) -> None:
        self.routes: dict[str, Route | TransportFailure] = {}
        self.asked: list[str] = []
        self.seconds = 0.0
        self.hold: trio.Event | None = None

    async def mail_hosts(self, domain: str) -> Route | TransportFailure:
        self.asked.append(domain)
        await trio.sleep(self.seconds)
        if self.hold is not None:
            await self.hold.wait()
        missing = TransportFailure(FailureKind.NO_SUCH_DOMAIN, Verb.RESOLVE, "no such domain")
        return self.routes.get(domain, missing)

    def statistics(self) -> ResolverStatistics:
        return ResolverStatistics(len(self.asked), 0, 0, len(self.asked), 0, 0)

    def serve(self, *domains: str, site: str | None = None, ttl_seconds: float = 3600.0) -> None:
        for domain in domains:
            name = site or f"mx.{domain}"
            host = MxHost(name, ("127.0.0.1",), 10, 25)
            self.routes[domain] = Route(name, (host,), ttl_seconds)


SOURCE = Source("out", f"mail.{DOMAIN}")


def token_keys() -> TokenKeys:
    return TokenKeys(
        current=0, keys={0: {kind: derive_token_key(bytes(32), 0, kind) for kind in TOKEN_KINDS}}
    )


@cache
def judge() -> Judge:
    """The built-in rules. Reading them takes a tenth of a second, so all tests share one."""
    return Judge(load_reply_rules())


def memory_parts(*, sources: tuple[Source, ...] = (SOURCE,), **engine: Any) -> Parts:
    """Parts without disk or wire, to be used on a jumping clock."""
    clock = TrioClock()
    settings: dict[str, Any] = {"retry": RETRY, "signers": 1}
    parts = Parts(
        config=Config(node=NodeTable(name="node"), engine=EngineTable(**(settings | engine))),
        clock=clock,
        spool=MemorySpool(producer="node"),
        committer=None,
        space=None,
        bus=MemoryBus("node"),
        resolver=FakeResolver(),  # type: ignore[arg-type]
        sources=sources,
        tokens=token_keys(),
        dkim_keys=DkimKeys(),
        static_route=lambda: None,
        dice=random.Random(1),
        replies=ReplyRules((), (), ()),
    )
    parts.judge = judge()
    return parts


async def accepted(
    parts: Parts, recipients: Sequence[str], content: Content | None = None, *, expires_at: float = 4e9
) -> list[int]:
    """Put envelopes into the spool; their ids in order."""
    content = content or letter()
    await parts.spool.put_content(content, parts.clock.now())
    ids: list[int] = []
    every = chunks(recipients, campaign=content.campaign, size=5_000, expires_at=expires_at)
    for number, chunk in enumerate(every):
        chunk = replace(chunk, id=f"{chunk.id}-{len(parts.spool.listing(0, 10**6))}-{number}")  # noqa: PLW2901
        acceptance: Acceptance = await parts.spool.accept(chunk, parts.clock.now())
        ids += range(acceptance.first_id, acceptance.first_id + acceptance.count)
    return ids


def a_lease(lease_id: int, *spool_ids: int, attempt: int = 0, domain: str = "x.test") -> Lease:
    """A lease that no spool knows."""
    return Lease(
        lease_id,
        tuple(
            Envelope(spool_id, CAMPAIGN, 1, f"a{spool_id}@{domain}", domain, ("A",), 0.0, 4e9, attempt)
            for spool_id in spool_ids
        ),
    )


class Desk:
    """The mailboxes of actors that are not there, each read by the test."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self.mailboxes: dict[str, Mailbox[Any]] = {}

    def mailbox(self, name: str, capacity: int | None = None) -> Mailbox[Any]:
        found = self.mailboxes.get(name)
        if found is None:
            found = Mailbox(name, self._capacity if capacity is None else capacity)
            self.mailboxes[name] = found
        return found

    def peer(self, name: str) -> Ref[Any]:
        return Ref(self.mailbox(name))

    def take(self, name: str, kind: type[Any] | None = None) -> list[Any]:
        """Everything that was told to `name` meanwhile, or what is of one kind."""
        found = []
        while (message := self.mailbox(name).get_nowait()) is not None:
            found.append(message)
        return [message for message in found if kind is None or isinstance(message, kind)]

    def context(self, name: str, capacity: int = 1_000) -> Context[Any]:
        """The context of one actor under test; its peers are at this desk."""
        return Context(name, self.mailbox(name, capacity), stop=trio.Event(), peer=self.peer)


@asynccontextmanager
async def alive(parts: Parts, *names: str) -> AsyncIterator[trio.Nursery]:
    """Run the dynamic supervisors of these names (connections, sites, domains)."""
    async with trio.open_nursery() as nursery:
        contexts = []
        for name in names:
            supervisor = getattr(parts, name)
            mailbox: Mailbox[Any] = Mailbox(name, 0)
            context: Context[Any] = Context(name, mailbox, stop=trio.Event())
            contexts.append(context)
            await nursery.start(supervisor.start, context)
        yield nursery
        for context in reversed(contexts):
            context.stop.set()


def ids_of(messages: Iterable[Any]) -> list[int]:
    """The ids of Offers, in order."""
    return [spool_id for message in messages for spool_id in message.ids]
