"""One member's connection to NATS: nats-py under trio-asyncio, made anew whenever it is lost.

nats-py carries one connection and no more: its own reconnecting is off, because it replays what nobody
waits for any longer and hides that messages were lost. Each connection has an asyncio loop of its own, so
nothing of a lost one survives. Any trio task may call; what is to be sent goes through one queue, in order,
and one task of the connection takes it from there, so that no caller ever waits inside the asyncio loop.

Answers come to one inbox of this member and wake who asked. `Away` says that an answer will not come: the
connection was lost, or nothing came in time; what was asked may have happened. Touches: one TCP connection
(TLS when a certificate authority is named). On trouble: a server that is away, refuses us or hangs is tried
again with growing pauses, for ever, the next of the list each time; one log line when it goes and one when
it comes. After `close`, who waits ends with trio.ClosedResourceError; what was sent may still be answered.
"""

import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog
import trio
import trio_asyncio
from nats.aio.msg import Msg
from nats.errors import BadSubjectError, MaxPayloadError

from engine.bus.nats_client import NatsClient, Received, Seed, received
from engine.bus.nats_frames import new_id
from engine.bus.nats_names import inbox_prefix
from engine.runtime.crash import leaf_of

CONNECT_SECONDS = 5  # a TLS handshake on a busy machine; one that hangs is left for the next server
REQUEST_SECONDS = 5.0  # nats-server's own limit for a JetStream request
RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 2.0  # a server that comes back is found this soon
LOOK_SECONDS = 0.5
CLOSE_SECONDS = 2.0
HEADERS_OCTETS = 512  # count towards max_payload, too
FAREWELL_SECONDS = 5.0  # for answers that are on their way when the bus is closed
NO_RESPONDERS = "503"
GONE = "gone"  # said to inlets when the connection is lost or the bus closed

log = structlog.get_logger("bus")

# asyncio warns at the end of each TLS connection of a detail between itself and nats-py ("returning true from
# eof_received() has no effect"), which is nobody's trouble; its errors come out as ours.
logging.getLogger("asyncio").setLevel(logging.ERROR)


class Away(Exception):
    """No answer will come: the connection was lost, or none came in time. It may have happened."""


class Address(Protocol):
    """Where a server listens."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class Waiting:
    """Who waits for an answer."""

    __slots__ = ("answer", "event")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.answer: Received | None = None


class Inlet:
    """A subscription of ours: messages of a subject go to a function, in order, on the same thread."""

    __slots__ = ("handle", "queue", "subject")

    def __init__(self, subject: str, queue: str, handle: Callable[[Received], None]) -> None:
        self.subject = subject
        self.queue = queue
        self.handle = handle

    def __repr__(self) -> str:
        return f"<Inlet {self.subject}>"


class Bell:
    """Wakes everybody who waits."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()


Step = Callable[[NatsClient], Awaitable[None]]


class Link:
    """The connection of one member, for the life of its bus."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        member: str,
        *,
        seed: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        if not servers:
            raise ValueError("a bus over NATS needs at least one server")
        self.member = member
        self.generation = 0  # counts connections; what was true of an older one may not be of this
        self.max_payload = 1024 * 1024
        self.closed = trio.Event()
        self.changed = Bell()  # online, offline or closed
        self._servers = list(servers)
        self._seed = None if seed is None else Seed(seed)
        self._tls = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
        self._prefix = f"{inbox_prefix(member)}.{new_id().hex()}"
        self._numbers = 0
        self._client: NatsClient | None = None
        self._outgoing: deque[Step] = deque()
        self._sending = Bell()
        self._waiting: dict[str, Waiting] = {}
        self._answered = Bell()
        self._inlets: dict[Inlet, Any] = {}  # with nats-py's subscription, once there is one
        self._complained: set[str] = set()

    def __repr__(self) -> str:
        return (
            f"<Link of {self.member}: {'online' if self.online else 'offline'}, {len(self._waiting)} waiting>"
        )

    @property
    def online(self) -> bool:
        return self._client is not None

    def check_open(self) -> None:
        """Raises trio.ClosedResourceError after `close`."""
        if self.closed.is_set():
            raise trio.ClosedResourceError(f"the bus of {self.member} is closed")

    def close(self) -> None:
        self.closed.set()
        self._tell_inlets()
        self.changed.ring()

    # --- calls, from any trio task -----------------------------------------------------------------------

    async def wait_online(self) -> None:
        """Until there is a connection. Raises trio.ClosedResourceError."""
        while True:
            self.check_open()
            if self.online:
                return
            await self.changed.wait()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = REQUEST_SECONDS,
    ) -> Received:
        """One message and its answer. Raises Away, also when nobody listens there."""
        if not self.online:
            raise Away(f"no server of the bus is there for {subject}")
        self._numbers += 1
        token = str(self._numbers)
        waiting = self._waiting[token] = Waiting()
        try:
            self.send(subject, payload, f"{self._prefix}.{token}", headers)
            with trio.move_on_after(timeout_seconds):
                await waiting.event.wait()
        finally:
            del self._waiting[token]
            if self.closed.is_set():
                self._answered.ring()
        if waiting.answer is None:
            raise Away(f"no answer to {subject}")
        if waiting.answer.status == NO_RESPONDERS:
            raise Away(f"nobody listens on {subject}")
        return waiting.answer

    def send(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """A message that is not waited for. Has no effect offline. Raises ValueError for one too large."""
        if len(payload) + HEADERS_OCTETS > self.max_payload and self.online:
            raise ValueError(
                f"a message of {len(payload)} octets, and the server takes {self.max_payload}: "
                "raise max_payload in nats-server's configuration"
            )

        async def publish(client: NatsClient) -> None:
            await client.publish(subject, payload, reply, dict(headers) if headers else None)

        self._do(publish)

    def new_inbox(self) -> str:
        """A subject of this member that nobody else uses."""
        self._numbers += 1
        return f"{self._prefix}.in{self._numbers}"

    def open_inlet(self, subject: str, handle: Callable[[Received], None], *, queue: str = "") -> Inlet:
        """Hear a subject from now on, over reconnections too."""
        inlet = Inlet(subject, queue, handle)
        self._inlets[inlet] = None
        self._do(partial(self._subscribe, inlet=inlet))
        return inlet

    def close_inlet(self, inlet: Inlet) -> None:
        subscription = self._inlets.pop(inlet, None)
        if subscription is not None:

            async def unsubscribe(client: NatsClient) -> None:
                if subscription._conn is client:
                    await subscription.unsubscribe()

            self._do(unsubscribe)

    # --- life --------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection until closed."""
        task_status.started()
        pause_seconds = RETRY_SECONDS_MIN
        turn = new_id()[0]
        said = False
        while not self.closed.is_set():
            host, port = self._servers[turn % len(self._servers)]
            turn += 1
            before = self.generation
            try:
                await self._connection(host, port)
                why = "the connection was lost"
            except* Exception as group:  # nats-py's errors are many, and each means the same here
                why = _first(group)
            if self.closed.is_set():
                return
            if self.generation != before:
                pause_seconds, said = RETRY_SECONDS_MIN, False
            if not said:
                said = True
                log.warning("the bus is away", member=self.member, server=f"{host}:{port}", why=why)
            with trio.move_on_after(pause_seconds):
                await self.closed.wait()
            pause_seconds = min(2 * pause_seconds, RETRY_SECONDS_MAX)

    async def _connection(self, host: str, port: int) -> None:
        """One connection, from beginning to end."""
        lost = trio.Event()

        async def on_closed() -> None:
            lost.set()

        def on_loop_error(_: Any, context: dict[str, Any]) -> None:
            log.debug("the connection's loop failed", member=self.member, why=context.get("message"))
            lost.set()

        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(on_loop_error)
            client = NatsClient(self.member, self._prefix, self._seed, self._tls)
            try:
                with trio.fail_after(CONNECT_SECONDS):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._cancel_when_closed, nursery.cancel_scope)
                        await loop.run_aio_coroutine(self._connect(client, host, port, on_closed))
                        nursery.cancel_scope.cancel()
                if self.closed.is_set():
                    return
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_for_life, loop, client)
                    self._go_online(client, host, port)
                    try:
                        await self._until_over(client, lost)
                    finally:
                        self._go_offline()
                    nursery.cancel_scope.cancel()
            finally:
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await loop.run_aio_coroutine(client.close())

    async def _cancel_when_closed(self, scope: trio.CancelScope) -> None:
        await self.closed.wait()
        scope.cancel()

    async def _connect(
        self, client: NatsClient, host: str, port: int, on_closed: Callable[[], Awaitable[None]]
    ) -> None:
        await client.open(
            host, port, on_closed=on_closed, on_error=self._complain, timeout_seconds=CONNECT_SECONDS
        )
        await self._subscribe_inbox(client)

    async def _subscribe_inbox(self, client: NatsClient) -> None:
        skip = len(self._prefix) + 1

        async def on_answer(message: Msg) -> None:
            waiting = self._waiting.get(message.subject[skip:])
            if waiting is not None:
                waiting.answer = received(message)
                waiting.event.set()

        await client.subscribe(f"{self._prefix}.*", cb=on_answer)

    async def _subscribe(self, client: NatsClient, inlet: Inlet) -> None:
        if inlet not in self._inlets:
            return

        async def on_message(message: Msg) -> None:
            if inlet in self._inlets:
                inlet.handle(received(message))

        self._inlets[inlet] = await client.subscribe(inlet.subject, inlet.queue, cb=on_message)

    async def _complain(self, error: Exception) -> None:
        """What nats-py says beside the calls; each text once."""
        text = str(error)
        if self.online and text not in self._complained and len(self._complained) < 100:
            self._complained.add(text)
            log.warning("the bus complains", member=self.member, why=text)

    async def _until_over(self, client: NatsClient, lost: trio.Event) -> None:
        """Until the connection is lost, or the bus is closed and what was sent is answered."""
        async with trio.open_nursery() as nursery:

            async def close_politely() -> None:
                await self.closed.wait()
                with trio.move_on_after(FAREWELL_SECONDS):
                    while self._waiting:
                        await self._answered.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(close_politely)
            while not (lost.is_set() or client.is_closed):  # nats-py may fail while closing, and tell nobody
                with trio.move_on_after(LOOK_SECONDS):
                    await lost.wait()
            nursery.cancel_scope.cancel()

    async def _send_for_life(self, loop: Any, client: NatsClient) -> None:
        async def send_all() -> None:
            while self._outgoing:
                try:
                    await self._outgoing.popleft()(client)
                except (BadSubjectError, MaxPayloadError) as error:  # of this one; the next may be sound
                    log.warning("a message cannot be sent", member=self.member, why=str(error))

        while True:
            if self._outgoing:
                await loop.run_aio_coroutine(send_all())
            else:
                await self._sending.wait()

    def _go_online(self, client: NatsClient, host: str, port: int) -> None:
        self.generation += 1
        self.max_payload = client.max_payload
        self._client = client
        self._complained.clear()
        for inlet in self._inlets:
            self._do(partial(self._subscribe, inlet=inlet))
        log.info("the bus is here", member=self.member, server=f"{host}:{port}")
        self.changed.ring()

    def _go_offline(self) -> None:
        self._client = None
        self._outgoing.clear()
        for waiting in self._waiting.values():
            waiting.event.set()
        self._tell_inlets()
        self.changed.ring()

    def _tell_inlets(self) -> None:
        for inlet in list(self._inlets):
            inlet.handle(Received(inlet.subject, "", b"", {}, GONE))

    def _do(self, step: Step) -> None:
        if self._client is not None:
            self._outgoing.append(step)
            self._sending.ring()


def _first(group: BaseExceptionGroup[Exception]) -> str:
    error = leaf_of(group)
    return str(error) or type(error).__name__
