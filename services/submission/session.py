"""One client's SMTP session: aiosmtpd's state machine, made strict.

aiosmtpd reads commands and knows their order; `answers` says what they are answered. Here stands what
aiosmtpd leaves open: every line, commands too, ends in CRLF, and a bare LF ends the session, since whoever
sends one may be smuggling (CVE-2023-51764 and its kin); addresses are the engine's kind; passwords are
taken over TLS only; time limits and a polite end. Behind a goodbye nothing is carried out, whatever the
client had sent with it: closing TLS waits for the other side, and aiosmtpd would go on with what it has. Who
does not read the goodbye is cut off half a minute later; a session counts until its socket is closed. On
trouble inside: a log line, 451, and the session goes on.
"""

import asyncio
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, cast

import structlog
from aiosmtpd.smtp import SMTP, TLSSetupException

from services.submission.accounts import Account
from services.submission.answers import Answers, Desk
from services.submission.limits import Lease
from services.submission.reader import PIECE_OCTETS, BareNewline, SessionOver, StrictReader, Unread

GOODBYE_SECONDS = 30.0  # for what is on its way to a client that is sent off; then the socket is closed
COMMAND_OCTETS_MAX = 998  # RFC 5321 4.5.3.1.4 wants 512 and more for parameters; AUTH needs some, too
CONTENT_SECONDS = 10 * 60.0  # for a message; RFC 5321 4.5.3.2.6 has it for its end
CONTENT_OCTETS_PER_SECOND = 4_096  # and more for a large one, at this rate: 10 MB may take 53 min
NO_ROOM = "452 4.3.1 too many messages are on their way in, try again later"

_PATH = re.compile(r'\s*<((?:"(?:[^"\\]|\\.)*"|[^<>"\s])*)>(?:\s+(\S.*))?\s*\Z')

log = structlog.get_logger("submission")


class SubmissionSession(SMTP):
    """One connection. `tls_context` None = it is inside TLS already."""

    def __init__(self, desk: Desk, loop: asyncio.AbstractEventLoop, tls_context: Any = None) -> None:
        super().__init__(
            Answers(desk),
            data_size_limit=int(desk.table.size_max),
            enable_SMTPUTF8=True,
            hostname=desk.hostname,
            ident="ESMTP e-MASS",
            tls_context=tls_context,
            require_starttls=tls_context is not None,
            timeout=float(desk.table.idle_timeout),
            auth_required=True,
            loop=loop,
        )
        # Once more with our reader: a constructor's argument does not exist for it.
        asyncio.StreamReaderProtocol.__init__(
            self,
            StrictReader(loop),
            client_connected_cb=self._cb_client_connected,
            loop=loop,
        )
        # Of this session: aiosmtpd's own is one for all, and grows with each EHLO.
        self.command_size_limits = defaultdict(lambda: COMMAND_OCTETS_MAX)
        self._desk = desk
        self._implicit_tls = tls_context is None
        self.leaving = False
        self.busy = False  # a message is being made durable
        self.auth_tries = 0
        self._heard_at = loop.time()
        self._reads_content = False
        self._content_until = 0.0  # on the loop's clock
        self._content_left = 0  # octets that give it more time
        self._counted_as: str | None = None  # the address
        self._abort_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<SubmissionSession {self.address}{', leaving' if self.leaving else ''}>"

    @property
    def address(self) -> str:
        peer = self.session.peer if self.session is not None else None
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def connection_made(self, transport: Any) -> None:
        if self._implicit_tls:
            self._tls_protocol = transport.get_protocol()  # AUTH asks whether there is one
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._original_transport is not None:  # a handshake may have failed with octets unsent
            cast(asyncio.Transport, self._original_transport).abort()
        super().connection_lost(error)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self._counted_as is not None:
            self._desk.sessions.discard(self)
            self._desk.connections.leave(self._counted_as)
            self._counted_as = None
        closed: asyncio.Future[None] = self._closed  # type: ignore[attr-defined]
        if closed.done() and not closed.cancelled():
            closed.exception()  # it is logged where it arises; asyncio would print it again

    async def push(self, status: Any) -> None:
        """Raises SessionOver behind a goodbye."""
        if self._writer.is_closing():
            raise SessionOver
        await super().push(status)
        if self.leaving:
            self._hang_up()

    def _hang_up(self) -> None:
        """Once: to close a TLS transport again would take it apart while others still use it."""
        assert isinstance(self._reader, StrictReader)
        self._reader.end()
        if self.transport is None:
            return
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(GOODBYE_SECONDS, self.abort)
        if not self.transport.is_closing():
            self.transport.close()

    def abort(self) -> None:
        """Close the socket now, whatever is still unsent."""
        for transport in (self.transport, self._original_transport):
            if transport is not None:
                cast(asyncio.Transport, transport).abort()

    def _say_goodbye(self, reply: str) -> None:
        self.leaving = True
        if self.transport is not None and not self._writer.is_closing():
            self._writer.write(f"{reply}\r\n".encode())
            self._hang_up()

    async def handle_exception(self, error: Exception) -> str:
        if isinstance(error, SessionOver):
            return ""  # to be pushed, which ends the session's task
        if isinstance(error, BareNewline):
            self.leaving = True
            return "554 5.5.2 a bare CR or LF: lines end in CRLF, goodbye"
        if isinstance(error, TLSSetupException | OSError):
            log.info("a connection was lost", address=self.address, why=str(error.__cause__ or error)[:200])
            return "454 4.7.0 TLS is not available now"
        log.exception("a session failed", address=self.address, exc_info=error)
        return "451 4.3.0 trouble here, try again later"

    async def _handle_client(self) -> None:
        address = self.address
        try:
            if self._desk.connections.enter(address):
                self._counted_as = address  # until the socket is closed
                self._desk.sessions.add(self)
                await super()._handle_client()
            else:
                self.leaving = True
                await self.push(f"421 4.7.0 {self.hostname} too many connections, try again later")
        except (SessionOver, ConnectionError):
            pass
        finally:
            self._hang_up()  # the client has left, or half of it: an EOF ends the task, not the socket

    def data_received(self, data: bytes) -> None:
        if self._reads_content:  # a large message may take its time, as long as it comes
            counted = min(len(data), self._content_left)
            self._content_left -= counted
            self._content_until += counted / CONTENT_OCTETS_PER_SECOND
            self._heard_at = min(self.loop.time(), self._content_until)
        super().data_received(data)

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Time begins anew. One timer looks at it: one a command would stay in the loop for minutes."""
        self._heard_at = self.loop.time()
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_later(self._timeout_duration, self._timeout_cb)

    def _timeout_cb(self) -> None:
        left = self._heard_at + self._timeout_duration - self.loop.time()
        if left > 0:
            self._timeout_handle = self.loop.call_later(left, self._timeout_cb)
        elif self.busy:  # it waits for us
            self._timeout_handle = self.loop.call_later(self._timeout_duration, self._timeout_cb)
        else:
            self._say_goodbye(f"421 4.4.2 {self.hostname} heard nothing, or too little, for too long")

    def stop(self) -> None:
        """Say goodbye now, or behind the answer to the message that is being made durable."""
        self.leaving = True
        if not self.busy:
            self._say_goodbye(f"421 4.3.2 {self.hostname} stops, try again later")

    async def ask(self, challenge: str) -> bytes:
        """What the client answers to a challenge of AUTH (RFC 4954 4). Raises LineTooLong."""
        await self.push(f"334 {b64encode(challenge.encode()).decode()}")
        return (await self._reader.readline()).removesuffix(b"\r\n")

    async def smtp_AUTH(self, arg: str) -> None:
        mechanism, _, rest = (arg or "").partition(" ")
        await super().smtp_AUTH(f"{mechanism.upper()} {rest}".strip())

    async def smtp_STARTTLS(self, arg: str) -> None:
        """Raises TLSSetupException."""
        assert self.session is not None
        if self._tls_protocol:
            await self.push("503 5.5.1 TLS is on already")
            return
        await super().smtp_STARTTLS(arg)
        if self._tls_protocol and self.session.ssl is None:
            # Goodbye was said in the middle of the handshake: nobody else tells that the connection is lost.
            raise TLSSetupException from ConnectionAbortedError("ended in the handshake")

    async def smtp_DATA(self, arg: str) -> None:
        """As aiosmtpd's, but content is read in large pieces and ends at nothing but CRLF . CRLF."""
        assert self.envelope is not None
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        if not self.envelope.rcpt_tos:
            await self.push("503 5.5.1 RCPT comes first")
            return
        if arg:
            await self.push("501 5.5.4 DATA has no argument")
            return
        assert self.session is not None
        account = cast(Account, self.session.auth_data).name
        if self._desk.room.left(account) < PIECE_OCTETS:
            await self.push(NO_ROOM)
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        lease = self._desk.room.lease(account)
        try:
            status = await self._take_content(lease)
        finally:
            lease.end()
            self._reads_content = False
        self.envelope = self._create_envelope()
        await self.push(status)

    async def _take_content(self, lease: Lease) -> Any:
        assert isinstance(self._reader, StrictReader)
        assert self.envelope is not None
        size_max = int(self._desk.table.size_max)
        self._content_until = self.loop.time() + CONTENT_SECONDS
        self._content_left = size_max
        self._reads_content = True
        content = await self._reader.read_content(size_max, lease)
        self._reads_content = False
        self._reset_timeout()
        if content is Unread.TOO_LONG:
            return f"552 5.3.4 the message has more than {size_max} octets"
        if content is Unread.NO_ROOM:
            return NO_ROOM
        self.envelope.content = content
        return await self._call_handler_hook("DATA")

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """The path of MAIL or RCPT and what stands behind it; no source routes, no comments."""
        match = _PATH.match(arg)
        if match is None:
            return None, None
        return match[1] or "<>", match[2] or ""

    def _getparams(self, params: Sequence[str]) -> dict[str, Any] | None:
        """Without AUTH=, which tells whose the message was before (RFC 4954 5): here it is the account's."""
        found = super()._getparams(params)
        if found is not None:
            found.pop("AUTH", None)
        return found
