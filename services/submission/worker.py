"""One worker: its sockets, its sessions, its bus. Several share the ports (SO_REUSEPORT).

`serve` opens all that can fail, runs the bus and the publisher, takes connections until `stop` is set, and
ends politely: nothing new, messages in hand become durable and are answered, everybody else hears 421.
Raises WorkerError with the cure when something cannot be used. On a crash of the process: what was answered
with 250 is on the bus; clients send the rest again. What goes wrong in a connection outside of its session
(a handshake, an accept without a descriptor left) is a line in the log; the others go on.
"""

import asyncio
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import structlog
import trio
import trio_asyncio

from engine.bus.api import Bus
from engine.bus.local import LocalBus
from engine.config.tables import Config
from engine.config.units import HostPort
from engine.keyring import KeyringError
from engine.model.single import single_stream
from engine.storage import StorageError
from services.submission.accounts import Accounts, AccountsError
from services.submission.answers import Desk
from services.submission.bus import open_bus
from services.submission.config import SubmissionTable
from services.submission.publishing import Publisher
from services.submission.session import SubmissionSession

BACKLOG = 1_024
ACCEPTS_AT_ONCE = 16  # without a descriptor left, asyncio fails as often in a row before it waits for 1 s
HANDSHAKE_SECONDS = 30.0  # nobody counts who is in it
TROUBLE_SECONDS = 10.0  # between two lines of one kind
STOP_SECONDS = 10.0  # for messages in hand to become durable
ABORT_SECONDS = 1.0  # for sockets to be closed then, whatever is unread
LOOK_SECONDS = 0.05

log = structlog.get_logger("submission")


class WorkerError(Exception):
    """The worker cannot start; the message names the thing and the cure."""


async def serve(
    config: Config,
    table: SubmissionTable,
    number: int,
    stop: trio.Event,
    *,
    bus: Bus | None = None,
    task_status: trio.TaskStatus[Desk] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run worker `number` (from 1) until `stop`. A `bus` that is given runs already and is left open."""
    try:
        context = tls_context(table)
        accounts = Accounts(Path(table.accounts))
        sockets = [(_listen(place), False) for place in table.listen]
        sockets += [(_listen(place), True) for place in table.listen_tls]
        own = None if bus is not None else open_bus(config, number)
    except (AccountsError, StorageError, KeyringError) as error:
        raise WorkerError(str(error)) from error
    bus = own or bus
    assert bus is not None
    # Its lines name addresses and repeat what clients say, one for each command.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    stream = single_stream(config.node.name)
    publisher = Publisher(bus, stream, float(table.durable_timeout))
    desk = Desk(table, accounts, publisher, bus, table.hostname or socket.getfqdn())
    try:
        async with trio.open_nursery() as nursery:
            if own is not None:
                await nursery.start(own.run)
            nursery.start_soon(publisher.run)
            await _take_connections(desk, context, sockets, stop, task_status)
            if own is not None:
                own.close()
            nursery.cancel_scope.cancel()
    finally:
        for listening, _ in sockets:
            listening.close()
        if isinstance(own, LocalBus):
            own.close_files()


async def _take_connections(
    desk: Desk,
    context: ssl.SSLContext,
    sockets: list[tuple[socket.socket, bool]],
    stop: trio.Event,
    task_status: trio.TaskStatus[Desk],
) -> None:
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(Troubles())  # without one, the first would end the loop
        servers = []
        for listening, implicit in sockets:
            starting = trio_asyncio.aio_as_trio(loop.create_server)
            if implicit:
                server = await starting(
                    lambda: SubmissionSession(desk, loop),
                    sock=listening,
                    backlog=ACCEPTS_AT_ONCE,
                    ssl=context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                )
            else:
                server = await starting(
                    lambda: SubmissionSession(desk, loop, context), sock=listening, backlog=ACCEPTS_AT_ONCE
                )
            listening.listen(BACKLOG)  # asyncio has one number for both
            servers.append(server)
        task_status.started(desk)
        await stop.wait()
        for server in servers:
            server.close()
        for session in list(desk.sessions):
            session.stop()
        with trio.move_on_after(STOP_SECONDS):
            while desk.sessions:  # noqa: ASYNC110 - they are asyncio's and ring no bell here
                await trio.sleep(LOOK_SECONDS)
        for session in list(desk.sessions):
            session.abort()
        with trio.move_on_after(ABORT_SECONDS):
            while desk.sessions:  # noqa: ASYNC110 - as above
                await trio.sleep(LOOK_SECONDS)


class Troubles:
    """What no session answers for: a line in the log, one of a kind in ten seconds, and nothing else."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}  # by kind of exception: they are few

    def __repr__(self) -> str:
        return f"<Troubles of {len(self._said)} kinds>"

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error, what = context.get("exception"), str(context.get("message", ""))[:200]
        kind = type(error).__name__ if error is not None else what[:40]
        now = loop.time()
        if now - self._said.get(kind, -TROUBLE_SECONDS) < TROUBLE_SECONDS:
            return
        self._said[kind] = now
        bug = error if not isinstance(error, OSError) else None
        log.error("trouble with a connection", what=what, why=str(error or "")[:200], exc_info=bug)


def tls_context(table: SubmissionTable) -> ssl.SSLContext:
    """Raises WorkerError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8997
    try:
        context.load_cert_chain(table.tls_cert, table.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise WorkerError(
            f"[submission] tls_cert {table.tls_cert}, tls_key {table.tls_key}: cannot be used ({error})"
        ) from error
    return context


def _listen(place: HostPort) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((place.host, place.port))
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise WorkerError(f"[submission] listen {place}: cannot be used: {error.strerror}") from error
    return listening
