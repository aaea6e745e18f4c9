"""Octets to and from one peer over a connected socket, in clear or in TLS: the hottest IO of the engine.

A message costs about one `send` and one `recv`, so both try the socket first and visit the
scheduler only when they must wait, or after a run of calls that never waited (the others' turn).
While a send waits for room, what the peer says is read and kept: a peer that blocks on its own
replies would else never take our octets (RFC 2920 3.1 warns of that deadlock). One task uses a
session. Touches: its socket. All trouble is a `SessionError` that carries a `TransportFailure`;
after one, or after a cancelled call, read on if you like, then `close`.
"""

import contextlib
import errno
import select
import socket
import ssl
from collections.abc import Awaitable, Callable

import trio
from msgspec.structs import replace

from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.model.tls_result import TlsResult
from engine.mta.net.dane_check import Mismatch
from engine.mta.net.tls import RECORD_OCTETS_MAX, TlsEngine, TlsInfo, TlsTerms, verification_result

RECEIVE_OCTETS_MAX = 16_384  # one recv: hundreds of replies, or one TLS record
READ_AHEAD_OCTETS_MAX = 262_144  # kept while we send; a flight of 64 messages gets some 16 kB of replies
CALLS_WITHOUT_WAIT_MAX = 16  # then the scheduler has a turn: about 1 ms of one connection's work

_UNSPECIFIC = TlsResult.VALIDATION_FAILURE
_HAS_EPOLL = hasattr(select, "epoll")

Progress = Callable[[int], None]


class SessionError(Exception):
    """The wire failed. `failure.verb` is IDLE: who drives the conversation knows the verb and sets it."""

    def __init__(self, failure: TransportFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Session:
    """One connection. Takes over a connected, non-blocking stream socket, as `dial` returns it."""

    def __init__(self, sock: socket.socket) -> None:
        assert sock.gettimeout() == 0.0, "the socket must be non-blocking"
        self._sock = sock
        self._engine: TlsEngine | None = None
        self._keep: Callable[[ssl.SSLSession], None] | None = None
        self._kept = bytearray()  # plain octets read while sending
        self._ended = False  # the peer sends no more
        self._closed = False
        self._mid_write = False  # part of a write is out: nothing else may follow it
        self._calls_without_wait = 0
        self._both_ways: select.epoll | None = None
        self.tls: TlsInfo | None = None
        self.octets_sent = 0  # on the wire, TLS records included
        self.octets_received = 0

    async def send(self, data: bytes, progress: Progress | None = None) -> None:
        """Hand all of `data` to the kernel. `progress(n)`: n more octets of `data` are with the kernel.

        In TLS a record counts once it is out whole: the peer can read nothing of half a record.
        Raises SessionError; what the peer said before it left can still be received then.
        """
        assert not self._mid_write, "an earlier send was cut short: only close is left"
        self._calls_without_wait += 1
        if self._calls_without_wait > CALLS_WITHOUT_WAIT_MAX:
            await self._give_way()
        if self._engine is None:
            done = self._write_now(data, progress)  # usually all of it, and no further coroutine
            if done < len(data):
                await self._write_rest(data, done, progress)
            return
        view = memoryview(data)
        for start in range(0, len(view), RECORD_OCTETS_MAX):
            piece = view[start : start + RECORD_OCTETS_MAX]
            try:
                record = self._engine.encrypt(piece)
            except ssl.SSLError as error:
                raise _tls_error(error) from error
            await self._write(record, None)
            if progress is not None:
                progress(len(piece))

    async def receive(self) -> bytes:
        """Some octets from the peer, as they come; b"" once it has closed. Raises SessionError."""
        self._calls_without_wait += 1
        if self._calls_without_wait > CALLS_WITHOUT_WAIT_MAX:
            await self._give_way()
        if self._kept:
            kept = bytes(self._kept)
            self._kept.clear()
            return kept
        if self._ended:
            return b""
        if self._engine is None:
            octets = self._read_now()
            return await self._read() if octets is None else octets
        return await self._receive_tls(self._engine)

    def receive_nowait(self) -> bytes | None:
        """What has come meanwhile, b"" if the peer has closed, None if nothing. Trouble counts as closed."""
        if self._kept:
            kept = bytes(self._kept)
            self._kept.clear()
            return kept
        try:
            octets = b"" if self._ended else self._read_now()
            if octets and self._engine is not None:
                self._engine.feed(octets)
                return self._engine.decrypt()
        except (SessionError, ssl.SSLError):
            self._ended = True
            return b""
        return octets

    async def start_tls(
        self, server_name: str | None, terms: TlsTerms, timeout_seconds: float
    ) -> TlsInfo | TransportFailure:
        """Shake hands as a client, after the peer's 220 to STARTTLS. On failure only `close` is left.

        A failure carries the word of a report. `terms.keep` gets what may be resumed when this closes.
        Octets that came before the handshake were not protected and are refused (RFC 3207 6:
        whoever sits in between could put replies there).
        """
        assert self._engine is None, "TLS runs already"
        if trouble := self._unasked_octets():
            return trouble
        try:
            engine = TlsEngine(terms, server_name)
        except (ssl.SSLError, ValueError) as error:
            detail = f"server name: {_reason(error)}"
            return TransportFailure(FailureKind.TLS, Verb.TLS, detail, _UNSPECIFIC)
        try:
            with trio.move_on_after(timeout_seconds):
                met = await self._handshake(engine)
                if isinstance(met, Mismatch):
                    return TransportFailure(FailureKind.TLS, Verb.TLS, met.why, met.result)
                self.tls = met
                self._engine = engine
                self._keep = terms.keep
                return met
        except SessionError as error:
            return replace(error.failure, verb=Verb.TLS, tls=_UNSPECIFIC)
        except ssl.SSLError as error:
            return TransportFailure(FailureKind.TLS, Verb.TLS, _reason(error), verification_result(error))
        detail = f"no handshake in {timeout_seconds:g} s"
        return TransportFailure(FailureKind.TIMEOUT, Verb.TLS, detail, _UNSPECIFIC)

    def close(self) -> None:
        """Close at once, never waits. A task that waits in this session gets a SessionError (STOPPED)."""
        if self._closed:
            return
        self._closed = True
        if self._engine is not None:
            if self._keep is not None and (resumable := self._engine.resumable()) is not None:
                self._keep(resumable)
            if not self._mid_write:
                with contextlib.suppress(OSError):
                    self._sock.send(self._engine.close())
        trio.lowlevel.notify_closing(self._sock)
        if self._both_ways is not None:
            trio.lowlevel.notify_closing(self._both_ways.fileno())
        self._sock.close()

    # -- reading -------------------------------------------------------------------------------

    async def _read(self) -> bytes:
        while True:
            octets = self._read_now()
            if octets is not None:
                return octets
            self._calls_without_wait = 0
            try:
                await trio.lowlevel.wait_readable(self._sock)
            except trio.ClosedResourceError as error:
                raise _closed_here() from error

    def _read_now(self) -> bytes | None:
        """Wire octets that are there, b"" at the end, None when one must wait."""
        try:
            octets = self._sock.recv(RECEIVE_OCTETS_MAX)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise _lost(error) from error
        if not octets:
            self._ended = True
        self.octets_received += len(octets)
        return octets

    async def _receive_tls(self, engine: TlsEngine) -> bytes:
        while True:
            try:
                plain = engine.decrypt()
            except ssl.SSLError as error:
                raise _tls_error(error) from error
            if plain is not None:
                self._ended = self._ended or not plain
                return plain
            if not self._mid_write and (answer := engine.take()):  # e.g. to a key update (RFC 8446 4.6.3)
                await self._write(answer, None)
                continue
            engine.feed(await self._read())

    def _read_ahead(self) -> None:
        """Keep what the peer has said so far."""
        while not self._ended and (octets := self._read_now()) is not None:
            if self._engine is None:
                self._kept += octets
            else:
                self._engine.feed(octets)
                try:
                    while plain := self._engine.decrypt():
                        self._kept += plain
                except ssl.SSLError as error:
                    raise _tls_error(error) from error
            if len(self._kept) > READ_AHEAD_OCTETS_MAX:
                detail = f"sent more than {READ_AHEAD_OCTETS_MAX:,} octets while it was sent to"
                raise SessionError(TransportFailure(FailureKind.PROTOCOL, Verb.IDLE, detail))

    # -- writing -------------------------------------------------------------------------------

    async def _write(self, octets: bytes, progress: Progress | None) -> None:
        done = self._write_now(octets, progress)
        if done < len(octets):
            await self._write_rest(octets, done, progress)

    async def _write_rest(self, octets: bytes, done: int, progress: Progress | None) -> None:
        view = memoryview(octets)
        self._mid_write = True
        while done < len(view):
            await self._wait_for_room()
            done += self._write_now(view[done:], progress)
        self._mid_write = False

    def _write_now(self, octets: bytes | memoryview, progress: Progress | None) -> int:
        try:
            count = self._sock.send(octets)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._mid_write = True
            with contextlib.suppress(SessionError):
                self._read_ahead()  # a 421 may have come before the reset
            raise _lost(error) from error
        self.octets_sent += count
        if progress is not None:
            progress(count)
        return count

    async def _wait_for_room(self) -> None:
        """Wait until the kernel takes octets again, and read ahead meanwhile."""
        self._calls_without_wait = 0
        try:
            if self._ended:
                await trio.lowlevel.wait_writable(self._sock)
            else:
                await self._wait_both_ways()
        except trio.ClosedResourceError as error:
            raise _closed_here() from error
        self._read_ahead()

    async def _wait_both_ways(self) -> None:
        """Wait until the socket is readable or writable."""
        if not _HAS_EPOLL:
            await _either(self._sock)
            return
        # An epoll of our own within trio's: 21 us instead of 111 for a nursery with two tasks.
        with select.epoll() as both:
            both.register(self._sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
            self._both_ways = both
            try:
                await trio.lowlevel.wait_readable(both.fileno())
            finally:
                self._both_ways = None

    # -- the rest ------------------------------------------------------------------------------

    async def _give_way(self) -> None:
        """Let the scheduler have a turn after a run of calls that did not wait.

        At the start of a call, so that a cancellation here loses no octets.
        """
        self._calls_without_wait = 0
        await trio.lowlevel.checkpoint()

    def _unasked_octets(self) -> TransportFailure | None:
        try:
            if not self._kept and not self._ended and self._sock.recv(1, socket.MSG_PEEK) == b"":
                self._ended = True
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            return replace(_lost(error).failure, verb=Verb.STARTTLS)
        if self._ended and not self._kept:
            return TransportFailure(FailureKind.CLOSED, Verb.STARTTLS, "the peer closed the connection")
        return TransportFailure(FailureKind.PROTOCOL, Verb.STARTTLS, "octets came ahead of the handshake")

    async def _handshake(self, engine: TlsEngine) -> TlsInfo | Mismatch:
        while True:
            try:
                info = engine.handshake()
            finally:
                if octets := engine.take():  # a few kB of flights, or the alert that says why not
                    await self._write(octets, None)
            if self._kept:  # read while a flight waited for room: the engine never saw it
                raise SessionError(
                    TransportFailure(FailureKind.PROTOCOL, Verb.TLS, "does not take the handshake")
                )
            if info is not None:
                return info
            octets = await self._read()
            if not octets:
                raise SessionError(TransportFailure(FailureKind.CLOSED, Verb.TLS, "closed in the handshake"))
            engine.feed(octets)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._ended else "open"
        channel = "clear text" if self.tls is None else str(self.tls)
        return f"<Session {state}, {channel}, {self.octets_sent:,} out, {self.octets_received:,} in>"


async def _either(sock: socket.socket) -> None:
    """Portable form of waiting for both directions."""
    async with trio.open_nursery() as nursery:

        async def wait(ready: Callable[[socket.socket], Awaitable[None]]) -> None:
            await ready(sock)
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, trio.lowlevel.wait_readable)
        nursery.start_soon(wait, trio.lowlevel.wait_writable)


def _closed_here() -> SessionError:
    return SessionError(TransportFailure(FailureKind.STOPPED, Verb.IDLE, "closed here"))


def _lost(error: OSError) -> SessionError:
    kind = FailureKind.STOPPED if error.errno == errno.EBADF else FailureKind.CLOSED
    return SessionError(TransportFailure(kind, Verb.IDLE, error.strerror or str(error)))


def _tls_error(error: ssl.SSLError) -> SessionError:
    return SessionError(TransportFailure(FailureKind.TLS, Verb.IDLE, _reason(error)))


def _reason(error: Exception) -> str:
    """The library's own word for it, e.g. "wrong version number", without its file and line."""
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)
    return str(reason).replace("_", " ").lower()
