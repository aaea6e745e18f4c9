"""The bus of many machines: streams, tables, blobs and questions over NATS JetStream (nats-server 2.9).

`NatsBus` keeps what `engine.bus.api` promises through one connection (nats_link) and the few requests that
it needs (nats_jetstream); this file joins the parts and keeps house. Life: constructor (talks to nobody),
`run` as a task, `close` to let it return. It starts at once, also when no server is there: then calls wait
for one, an `ask` until its deadline, and nothing is lost or refused meanwhile.

What nats-server has to allow: `max_payload: 2MB` (an entry of 1 MB in its frame), and `max_file_store`
above the sum of all streams' caps, which it reserves when a stream is made. nats-server 2.9 answers once a
message is with the kernel, not when it is synced: a killed server loses nothing, a machine without power
may lose two minutes of it unless another replica has them; then writers and watches see a stream that is
behind, say so, and go on from there.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog
import trio

from engine.bus.api import (
    RETENTION_SECONDS,
    STREAM_OCTETS_MAX,
    BusFull,
    check_key,
    check_name,
    check_payload,
    check_payloads,
)
from engine.bus.nats_asks import Asks, NatsQuestions
from engine.bus.nats_blobs import SPEC as BLOBS_SPEC
from engine.bus.nats_blobs import Blobs
from engine.bus.nats_cursors import CURSORS_SPEC
from engine.bus.nats_identity import Identity
from engine.bus.nats_jetstream import JetStream, Refused
from engine.bus.nats_link import Address, Link
from engine.bus.nats_streams import NatsSubscription, Streams
from engine.bus.nats_tables import NatsWatch, Tables
from engine.runtime.clock import Clock, SystemClock

HOUSEKEEPING_SECONDS = 1.0  # what is acknowledged goes this soon
TRIM_SECONDS = 10.0  # facts behind every cursor; looking costs a few requests
FORGET_SECONDS = 3600.0  # deletions are kept for days; looking reads the whole table

log = structlog.get_logger("bus")


class NatsBus:
    """One member on the bus over NATS; see engine.bus.api.Bus for what each call promises."""

    def __init__(
        self,
        servers: Sequence[Address | tuple[str, int]],
        member: str,
        *,
        seed: str | None = None,
        ca_file: Path | None = None,
        replicas: int = 1,
        clock: Clock | None = None,
        stream_octets_max: int = STREAM_OCTETS_MAX,
        retention_seconds: float = RETENTION_SECONDS,
        housekeeping_seconds: float = HOUSEKEEPING_SECONDS,
        trim_seconds: float = TRIM_SECONDS,
    ) -> None:
        """`seed` is an nkey's text. ValueError for one that is none, OSError for an unreadable `ca_file`."""
        addresses = [each if isinstance(each, tuple) else (each.host, each.port) for each in servers]
        self.member = check_name(member)
        self.link = Link(addresses, member, seed=seed, ca_file=ca_file)
        self._jetstream = JetStream(self.link, replicas=replicas)
        self._identity = Identity(self._jetstream)
        clock = clock or SystemClock()
        self._housekeeping_seconds = housekeeping_seconds
        self._trim_seconds = trim_seconds
        self._streams = Streams(
            self._jetstream,
            self._identity,
            member,
            clock,
            stream_octets_max=int(stream_octets_max),  # a configuration's Size is no JSON number
            retention_seconds=retention_seconds,
        )
        self._tables = Tables(
            self._jetstream, self._identity, member, clock, retention_seconds=retention_seconds
        )
        self._blobs = Blobs(self._jetstream)
        self._asks = Asks(self.link)
        self._subscriptions: dict[tuple[str, str], NatsSubscription] = {}

    def __repr__(self) -> str:
        return f"<NatsBus {self.member}: {self.link!r}>"

    @property
    def online(self) -> bool:
        """Whether a server is connected just now."""
        return self.link.online

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_house)
            task_status.started()
            await self.link.run()
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        self.link.close()

    async def bus_id(self) -> str:
        """What tells this bus from another in its place: a random text that was kept when it was new."""
        return await self._identity.read()

    async def prepare(self, streams: Iterable[str], tables: Iterable[str]) -> None:
        """Make what members will use that may not make it themselves; what is there stays as it is."""
        await self._identity.read()
        specs = [CURSORS_SPEC, BLOBS_SPEC]
        specs += [self._streams.spec(check_name(stream)) for stream in streams]
        specs += [self._tables.spec(check_name(table)) for table in tables]
        for spec in specs:
            await self._jetstream.info(spec)

    async def publish(self, stream: str, payloads: Sequence[bytes]) -> int:
        check_name(stream)
        check_payloads(payloads)
        return await self._streams.writer(stream).publish(payloads)

    def subscribe(self, stream: str, consumer: str) -> NatsSubscription:
        key = check_name(stream), check_name(consumer)
        former = self._subscriptions.get(key)
        if former is not None:
            former.close()  # a name runs once at a time
        subscription = self._subscriptions[key] = NatsSubscription(self._streams, stream, consumer)
        return subscription

    async def pending(self, stream: str, consumer: str) -> int:
        return await self._streams.pending(check_name(stream), check_name(consumer))

    async def create(self, table: str, key: str, value: bytes) -> bytes | None:
        check_name(table), check_key(key), check_payload(value)
        try:
            return await self._tables.create(table, key, value)
        except Refused as refused:
            raise _full(table, refused) from refused

    async def put(self, table: str, key: str, value: bytes) -> None:
        check_name(table), check_key(key), check_payload(value)
        try:
            await self._tables.put(table, key, value)
        except Refused as refused:
            raise _full(table, refused) from refused

    async def read(self, table: str, key: str) -> bytes | None:
        return await self._tables.read(check_name(table), check_key(key))

    async def delete(self, table: str, key: str) -> None:
        await self._tables.delete(check_name(table), check_key(key))

    async def read_all(self, table: str) -> dict[str, bytes]:
        return await self._tables.read_all(check_name(table))

    def watch(self, table: str, after: bytes = b"") -> NatsWatch:
        return NatsWatch(self._tables, check_name(table), after)

    async def put_blob(self, data: bytes) -> str:
        return await self._blobs.put(data)

    async def read_blob(self, digest: str) -> bytes | None:
        return await self._blobs.read(digest)

    async def drop_blob(self, digest: str) -> None:
        await self._blobs.drop(digest)

    async def ask(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        return await self._asks.ask(check_name(subject), check_payload(payload), timeout_seconds)

    def serve(self, subject: str) -> NatsQuestions:
        return NatsQuestions(self._asks, check_name(subject))

    async def _keep_house(self) -> None:
        """Trim and forget until cancelled. Refusals must not end it."""
        trimmed_at = forgotten_at = trio.current_time()
        while True:
            await trio.sleep(self._housekeeping_seconds)
            try:
                for subscription in list(self._subscriptions.values()):
                    await subscription.drop()
                if trio.current_time() - trimmed_at >= self._trim_seconds:
                    trimmed_at = trio.current_time()
                    await self._streams.trim()
                if trio.current_time() - forgotten_at >= FORGET_SECONDS:
                    forgotten_at = trio.current_time()
                    await self._tables.forget_deletions()
            except Refused as refused:
                log.warning("the bus could not keep house", member=self.member, why=str(refused))
            except trio.ClosedResourceError:
                return


def _full(table: str, refused: Refused) -> Exception:
    return BusFull(f"table {table}: {refused}") if refused.full else refused
