"""What a client is answered: who it is, what it may send, and whether its message is durable.

The handler that aiosmtpd asks for each session, and the `Desk` that all sessions of a worker share. A
message is answered with 250 when it is durable on the bus for all its recipients, with 451 when that cannot
be had in time. Touches: accounts, limits, the bus. Runs as asyncio tasks of a trio-asyncio loop.
"""

import asyncio
import secrets
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import structlog
import trio_asyncio
from aiosmtpd.smtp import MISSING, AuthResult
from aiosmtpd.smtp import Envelope as SmtpEnvelope
from aiosmtpd.smtp import Session as SmtpSession

from engine.bus.api import Bus, BusFull
from engine.model.address import AddressError, parse_address
from engine.model.content import MessageClass
from engine.model.single import (
    RAW_INLINE_OCTETS_MAX,
    BlobMessage,
    RawMessage,
    SingleKind,
    SubmitSingle,
    encode_single,
)
from engine.storage import StorageError
from services.submission.accounts import Account, Accounts
from services.submission.config import SubmissionTable
from services.submission.limits import Connections, Guesses, RateLimit
from services.submission.messages import Prepared, Refusal, Trace, prepare_message
from services.submission.publishing import GROUP_OCTETS_MAX, Publisher

if TYPE_CHECKING:
    from services.submission.session import SubmissionSession

AUTH_TRIES_MAX = 3  # of a connection
TRY_LATER = "451 4.3.1 the message cannot be kept now, try again later"

log = structlog.get_logger("submission")


class Desk:
    """What all sessions of a worker share: accounts, limits, the way to the bus."""

    def __init__(
        self, table: SubmissionTable, accounts: Accounts, publisher: Publisher, bus: Bus, hostname: str
    ) -> None:
        rate = table.messages_per_account
        self.table = table
        self.accounts = accounts
        self.publisher = publisher
        self.bus = bus
        self.hostname = hostname
        self.messages = RateLimit(rate.count, rate.seconds)
        self.connections = Connections(table.connections_max, table.connections_per_address)
        self.guesses = Guesses()
        self.sessions: set[SubmissionSession] = set()
        self.taken = 0

    def __repr__(self) -> str:
        return f"<Desk {self.hostname}: {self.connections!r}, {self.taken} taken>"


class Answers:
    """The handler that aiosmtpd asks; one for each session."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    # --- who is it? ---

    async def auth_PLAIN(self, server: "SubmissionSession", args: list[str]) -> AuthResult:
        octets = await _response(server, args, "")
        if octets is None:
            return AuthResult(success=False, handled=True)
        parts = octets.split(b"\0")  # RFC 4616 2: authorization identity, account, password
        if len(parts) != 3:
            await server.push("501 5.5.2 that is no PLAIN response")
            return AuthResult(success=False, handled=True)
        return await self._log_in(server, parts[1], parts[2])

    async def auth_LOGIN(self, server: "SubmissionSession", args: list[str]) -> AuthResult:
        name = await _response(server, args, "Username:")
        password = None if name is None else await _response(server, args[:1], "Password:")
        if name is None or password is None:
            return AuthResult(success=False, handled=True)
        return await self._log_in(server, name, password)

    async def _log_in(self, server: "SubmissionSession", login: bytes, password: bytes) -> AuthResult:
        name, address, guesses = login.decode("utf-8", "replace"), server.address, self._desk.guesses
        server.auth_tries += 1
        server.leaving = server.auth_tries >= AUTH_TRIES_MAX
        wait = guesses.wait_seconds(address, name, time.monotonic())
        if wait > 0:
            text = f"454 4.7.0 too many wrong passwords, wait {max(1, round(wait))} s"
            return AuthResult(success=False, handled=False, message=text)
        check = trio_asyncio.trio_as_aio(self._desk.accounts.check)
        account: Account | None = await check(name, password)
        if account is None:
            guesses.failed(address, name, time.monotonic())
            log.warning("a log-in failed", account=name[:120], address=address)
            return AuthResult(success=False, handled=False)
        server.leaving = False
        guesses.succeeded(address, name)
        return AuthResult(success=True, auth_data=account)

    # --- what may it send? ---

    async def handle_EHLO(
        self,
        server: "SubmissionSession",
        session: SmtpSession,
        envelope: SmtpEnvelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", "250 HELP"]  # the reader keeps what comes early

    async def handle_MAIL(
        self,
        server: "SubmissionSession",
        session: SmtpSession,
        envelope: SmtpEnvelope,
        address: str,
        options: list[str],
    ) -> str:
        account = self._account(session)
        if account is None:
            return "530 5.7.0 authentication required: the account has changed"
        if address != "<>":  # a report has no sender; its author is looked at all the same
            try:
                domain = parse_address(address).domain
            except AddressError:
                return "553 5.1.7 the sender is no address"
            if domain not in account.domains or self._desk.table.rule(domain) is None:
                return "550 5.7.1 this account may not send for that domain"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self,
        server: "SubmissionSession",
        session: SmtpSession,
        envelope: SmtpEnvelope,
        address: str,
        options: list[str],
    ) -> str:
        try:
            parsed = parse_address(address)
        except AddressError:
            return "553 5.1.3 the recipient is no address"
        if not parsed.local.isascii() and not envelope.smtp_utf8:
            return "553 5.6.7 an address beyond ASCII wants SMTPUTF8"
        if str(parsed) in envelope.rcpt_tos:
            return "250 2.1.5 OK"
        if len(envelope.rcpt_tos) >= self._desk.table.recipients_max:
            return "452 4.5.3 too many recipients: send to the others in another transaction"
        account = cast(Account, session.auth_data)
        if not self._desk.messages.take(account.name, time.monotonic()):
            return "450 4.7.1 this account has sent too much for now, try again in a minute"
        envelope.rcpt_tos.append(str(parsed))
        return "250 2.1.5 OK"

    # --- take it ---

    async def handle_DATA(
        self, server: "SubmissionSession", session: SmtpSession, envelope: SmtpEnvelope
    ) -> str:
        account, table, content = self._account(session), self._desk.table, envelope.content
        assert isinstance(content, bytes), "content is not decoded"
        if account is None:
            return "530 5.7.0 authentication required: the account has changed"
        if len(content) * len(envelope.rcpt_tos) > table.fan_out_max:
            return "552 5.3.4 too large for so many recipients"
        trace = Trace(
            helo=session.host_name or "",
            address=server.address,
            hostname=self._desk.hostname,
            protocol="UTF8SMTPSA" if envelope.smtp_utf8 else "ESMTPSA",
            id=f"{int(time.time()):x}.{secrets.token_hex(8)}",
            now=time.time(),
        )
        domains = [domain for domain in account.domains if table.rule(domain) is not None]
        prepared = prepare_message(
            content,
            trace,
            domains,
            smtputf8=bool(envelope.smtp_utf8),
            one_click=account.message_class is not MessageClass.TRANSACTIONAL,
        )
        if isinstance(prepared, Refusal):
            return str(prepared)
        server.busy = True
        try:
            entries = await self._entries(prepared, account, envelope.rcpt_tos, trace)
            trouble = await self._durable(entries)
        except (TimeoutError, BusFull, StorageError):  # of a blob; what was kept of it nobody names
            return TRY_LATER
        finally:
            server.busy = False
        if trouble is not None:
            return TRY_LATER
        self._desk.taken += 1
        return f"250 2.0.0 queued as {trace.id}"

    def _account(self, session: SmtpSession) -> Account | None:
        """The session's account, unless it is gone or changed since."""
        account = cast(Account, session.auth_data)
        if self._desk.accounts.still(account):
            return account
        session.authenticated = False
        return None

    async def _entries(
        self, prepared: Prepared, account: Account, recipients: Sequence[str], trace: Trace
    ) -> list[bytes]:
        """One entry for each recipient; a large message once as a blob. Raises TimeoutError."""
        rule = self._desk.table.rule(prepared.author_domain)
        assert rule is not None, "the author's domain was looked up"
        kind = SingleKind(
            message_class=account.message_class,
            workspace=account.workspace,
            sending_domain=rule.name,
            return_path_domain=rule.return_path or rule.name,
            dkim=rule.identities(),
        )
        octets, count = prepared.octets, len(recipients)
        message: Callable[[int], RawMessage | BlobMessage]
        if len(octets) <= RAW_INLINE_OCTETS_MAX and (len(octets) + 1024) * count <= GROUP_OCTETS_MAX:
            raw = RawMessage(kind, octets)
            message = lambda number: raw  # noqa: E731 - two ways to the same
        else:
            put = trio_asyncio.trio_as_aio(self._desk.bus.put_blob)(octets)
            digest = await asyncio.wait_for(put, float(self._desk.table.durable_timeout))
            message = lambda number: BlobMessage(kind, digest, last=number == count - 1)  # noqa: E731
        expires_at = trace.now + float(self._desk.table.expire_after)
        return [
            encode_single(SubmitSingle(f"{trace.id}.{number}", recipient, expires_at, message(number)))
            for number, recipient in enumerate(recipients)
        ]

    async def _durable(self, entries: Sequence[bytes]) -> Exception | None:
        """None = all of them are durable; else why they are not, or why nobody knows."""
        answered: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        def done(trouble: Exception | None) -> None:
            if not answered.done():
                answered.set_result(trouble)

        self._desk.publisher.hand_in(entries, done)
        return await answered


async def _response(server: "SubmissionSession", args: list[str], challenge: str) -> bytes | None:
    """What a client answers to a challenge, or has sent with it; None = it was told what is wrong."""
    if len(args) == 1:
        octets = await server.challenge_auth(challenge)
        return None if octets is MISSING else octets
    try:
        return b64decode(args[1], validate=True)
    except Base64Error:
        await server.push("501 5.5.2 that is not base64")
        return None
