"""A whole engine that writes to a list of people through real sockets, and what it said of each of them.

The letter is the plainest there is and names whom it is for, so that `misdelivered` can tell a lost, doubled
or crossed message from what the receiver kept: the mailbox, the To line, the text and the return path (its
token is opened with the engine's own keys) must all be of one person.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from email import message_from_bytes
from pathlib import Path

import trio
from msgspec import Struct
from msgspec.structs import replace

from bench.peers.receiver import Arrived
from engine.app import Engine, open_engine
from engine.bus.api import Subscription
from engine.config.tables import Config, EngineTable, KeysTable, NodeTable, ResolverTable
from engine.config.tls import TlsTable
from engine.model.content import Content, MessageClass
from engine.model.envelope import Chunk, ChunkEntry
from engine.model.event import EnvelopeEvent, decode_events
from engine.model.submission import SubmitChunk, SubmitContent
from engine.mta.compose.token import TokenKeys, verify
from engine.mta.net.mx import Route

RETURN_DOMAIN = "bounce.interop.example"
NODE = "hop"
EVENTS_WAIT_SECONDS = 0.3  # a stopped engine publishes no more

CONTENT = Content(
    campaign=1,
    name="interop",
    message_class=MessageClass.TRANSACTIONAL,
    from_address="press@interop.example",
    subject="For {{ email }}",
    text="This is meant for {{ email }} and nobody else.\n",
    return_path_domain=RETURN_DOMAIN,
)


class Told(Struct, frozen=True):
    """What one run of an engine told: its events in order, and facts for checks."""

    events: tuple[EnvelopeEvent, ...]
    people: tuple[str, ...]
    tokens: TokenKeys
    resumed: int
    """TLS sessions that were taken up again."""

    def of(self, domain: str) -> list[EnvelopeEvent]:
        return [event for event in self.events if event.domain == domain]


async def write_to(
    people: Sequence[str],
    data: Path,
    *,
    seconds: float,
    engine: EngineTable,
    resolver: ResolverTable | None = None,
    tls: TlsTable | None = None,
    static_route: Route | None = None,
    campaign: int = 1,
    enough: Callable[[list[EnvelopeEvent]], bool] | None = None,
) -> Told:
    """One message to each of `people` through a fresh engine over `data`; `seconds` is its time limit.

    It ends when `enough(events)`; without it, when everybody has had an event. Another engine over the same
    `data` needs another `campaign`.
    """
    config = Config(
        node=NodeTable(name=NODE, data=str(data)),
        engine=engine,
        resolver=resolver or ResolverTable(),
        tls=tls or TlsTable(),
        keys=KeysTable(folder=str(data / "keys")),
    )
    events: list[EnvelopeEvent] = []
    enough = enough or (lambda events: len({event.subscriber for event in events}) == len(people))
    async with open_engine(config, static_route=static_route) as running:
        subscription = running.parts.bus.subscribe(f"events.{NODE}", f"test-{campaign}")
        with trio.move_on_after(seconds):
            await _submit(running, people, campaign)
            while not enough(events):
                await _take(subscription, campaign, events)
        await running.stop()
        with trio.move_on_after(EVENTS_WAIT_SECONDS), suppress(trio.ClosedResourceError):
            while True:
                await _take(subscription, campaign, events)
        told = Told(tuple(events), tuple(people), running.parts.tokens, running.parts.tls_sessions.resumed)
    assert enough(events), f"after {seconds:g} s only {Counter(type(event).__name__ for event in events)}"
    return told


def misdelivered(told: Told, arrived: Sequence[Arrived]) -> list[str]:
    """Whatever of `arrived` is not one whole message of one of the people, by one line each."""
    wrong = []
    for one in arrived:
        message = message_from_bytes(one.message)
        token = one.return_path.removeprefix("b-").partition("@")[0]
        payload = verify("b", told.tokens, token, RETURN_DOMAIN)
        meant = told.people[payload.subscriber - 1] if payload is not None else "nobody"
        text = message.get_payload(decode=True)
        assert isinstance(text, bytes)
        said = f"This is meant for {one.recipient} and nobody else.".encode()
        if not (meant == one.recipient == message["To"] and text.split(b"\r\n")[0] == said):
            wrong.append(f"{one.recipient} got what is for {meant}, {message['To']}: {text!r}")
    twice = Counter(one.recipient for one in arrived)
    return wrong + [f"{who} got {count}" for who, count in twice.items() if count > 1]


async def _submit(running: Engine, people: Sequence[str], campaign: int) -> None:
    entries = tuple(ChunkEntry(number, who) for number, who in enumerate(people, 1))
    chunk = Chunk(f"{campaign}-1", campaign, time.time() + 3600, entries)
    await running.submit([SubmitContent(replace(CONTENT, campaign=campaign)), SubmitChunk(chunk)])


async def _take(subscription: Subscription, campaign: int, events: list[EnvelopeEvent]) -> None:
    for delivery in await subscription.receive(1_000):
        batch = decode_events(delivery.payload).events
        of_people = [event for event in batch if isinstance(event, EnvelopeEvent)]
        events += [event for event in of_people if event.campaign == campaign]
