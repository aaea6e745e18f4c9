"""An SMTP receiver on one loopback address: sockets around `Session`, on trio.

Written for the plain path: it tries the socket before it waits for it, so a busy connection costs no
scheduler pass per batch, and one send answers everything that one read brought. Accepted messages go to
the provider's sink before their replies leave. On trouble with a socket the connection ends, the
receiver lives on; what was accepted but not answered is the sender's ambiguity, as in the real world.
"""

import contextlib
import socket
import ssl
from functools import partial

import trio

from bench.world.answers import Step
from bench.world.provider import Provider
from bench.world.session import Session
from bench.world.tls import self_signed_context

READ_OCTETS = 262_144  # several pipelined messages of 10 KB at once
BATCHES_PER_TURN = 32  # then other connections get theirs
BACKLOG = 1024
HANDSHAKE_SECONDS = 30.0
LINGER_SECONDS = 0.5  # how long a closing receiver reads on, so that no RST eats its last reply
GARBAGE = b"this is not a TLS record\r\n"


class Receiver:
    """Takes connections on `listener` for `provider`; `host` is its name in banner and EHLO reply."""

    def __init__(self, provider: Provider, host: str, listener: socket.socket) -> None:
        listener.setblocking(False)
        self.provider = provider
        self.host = host
        self.address, self.port = listener.getsockname()[:2]
        self._listener = listener

    def __repr__(self) -> str:
        return f"<Receiver {self.host} at {self.address}:{self.port} of {self.provider!r}>"

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections until cancelled; open ones end with it. The listener is closed."""
        with self._listener:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    try:
                        accepted, peer = self._listener.accept()
                    except BlockingIOError:
                        await trio.lowlevel.wait_readable(self._listener)
                    except OSError:  # out of descriptors, or the peer is gone already
                        await trio.sleep(0.05)
                    else:
                        nursery.start_soon(self._converse, accepted, peer[0])

    async def _converse(self, accepted: socket.socket, source: str) -> None:
        provider = self.provider
        provider.opened(source)
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(provider, self.host, source)
        wire = _Plain(accepted)
        try:
            await _Conversation(session, provider, wire).run()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            provider.tally.counts["connections_lost"] += 1
        finally:
            provider.closed(source)
            accepted.close()


def listen(address: str, port: int = 0) -> socket.socket:
    """A listening socket. Raises OSError where the address or port is taken."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class _Conversation:
    """One connection's life: read, let the session work, record, reply."""

    def __init__(self, session: Session, provider: Provider, wire: "_Plain") -> None:
        self._session = session
        self._provider = provider
        self._wire: _Plain | _Secure = wire
        self._plain = wire
        self._idle_seconds = provider.manners.idle_seconds

    async def run(self) -> None:
        with trio.CancelScope(deadline=trio.current_time() + self._idle_seconds) as self._idle:
            await self._talk()
        if self._idle.cancelled_caught:
            self._session.timed_out()
            with trio.move_on_after(LINGER_SECONDS):
                await self._wire.send(self._session.output)

    async def _talk(self) -> None:
        session = self._session
        now = trio.current_time()
        session.advance(now)
        while True:
            if session.accepted:
                # Before the replies: whoever reads the record after a kill finds all that was promised.
                if self._provider.sink is not None:
                    self._provider.sink(session.accepted)
                session.accepted.clear()
            if session.output:
                await self._wire.send(session.output)
                session.output.clear()
            match session.next_step:
                case Step.READ:
                    octets = await self._wire.read()
                    if not octets:
                        return
                    session.receive(octets)
                case Step.WAIT:
                    self._idle.deadline = trio.current_time() + session.wait_seconds + self._idle_seconds
                    await trio.sleep(session.wait_seconds)
                case Step.TLS:
                    if not await self._start_tls():
                        return
                case Step.GARBLE:
                    # In answer to the hello: with the 220 it would be an injection (RFC 3207 6).
                    if await self._wire.read():
                        await self._wire.send(GARBAGE)
                        await self._wire.linger()
                    return
                case Step.CLOSE:
                    await self._wire.linger()
                    return
                case Step.ABORT:
                    return
            now = trio.current_time()
            # Moving a deadline costs as much as a reply, so it moves in steps of a tenth.
            if self._idle.deadline - now < self._idle_seconds * 0.9:
                self._idle.deadline = now + self._idle_seconds
            session.advance(now)

    async def _start_tls(self) -> bool:
        counts = self._provider.tally.counts
        if self._session.waiting_octets:
            # RFC 3207 4.2 and CVE-2011-0411: nothing may stand behind STARTTLS in the clear.
            return False
        try:
            self._wire = await self._plain.secure(self_signed_context())
        except (trio.BrokenResourceError, trio.TooSlowError):
            counts["tls_failed"] += 1
            return False
        counts["tls_started"] += 1
        self._session.started_tls()
        return True


class _Plain:
    """A non-blocking socket: tries first, waits only when it must."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._turns = 0

    async def read(self) -> bytes:
        self._turns += 1
        if self._turns % BATCHES_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        while True:
            try:
                return self._socket.recv(READ_OCTETS)
            except BlockingIOError:
                self._turns = 0
                await trio.lowlevel.wait_readable(self._socket)

    async def send(self, octets: bytes | bytearray) -> None:
        # Bytes, not a view: the caller's bytearray could not be cleared while one exists.
        rest = bytes(octets)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)

    async def linger(self) -> None:
        """Half-close, then read what still comes, so that our last reply is not lost to an RST."""
        with trio.move_on_after(LINGER_SECONDS), contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while await self.read():
                pass

    async def secure(self, context: ssl.SSLContext) -> "_Secure":
        """Raises trio.BrokenResourceError or TooSlowError when the handshake fails."""
        inner = trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))
        stream = trio.SSLStream(inner, context, server_side=True, https_compatible=True)
        with trio.fail_after(HANDSHAKE_SECONDS):
            await stream.do_handshake()
        return _Secure(stream, self)


class _Secure:
    """The same after STARTTLS."""

    def __init__(self, stream: "trio.SSLStream[trio.SocketStream]", plain: _Plain) -> None:
        self.read = partial(stream.receive_some, READ_OCTETS)
        self.send = stream.send_all
        self._stream = stream
        self._plain = plain

    async def linger(self) -> None:
        with trio.move_on_after(LINGER_SECONDS), contextlib.suppress(trio.BrokenResourceError):
            await self._stream.aclose()
