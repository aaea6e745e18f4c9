"""What a client is answered: who it is, what it may send, and whether its message is durable.

The handler that aiosmtpd asks for each session, and the `Desk` that all sessions of a worker share. A
message is answered with 250 when it is durable on the bus for all its recipients, with 451 when that cannot
be had in time. Touches: accounts, limits, the bus. Runs as asyncio tasks of a trio-asyncio loop.
"""

import asyncio
import secrets
import time
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

import structlog
import trio_asyncio
from aiosmtpd.smtp import AuthResult
from aiosmtpd.smtp import Envelope as SmtpEnvelope
from aiosmtpd.smtp import Session as SmtpSession

from engine.bus.api import PAYLOAD_OCTETS_MAX, Bus, BusFull
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
from services.submission.limits import Connections, Guesses, RateLimit, Room
from services.submission.messages import Prepared, Refusal, Trace, prepare_message
from services.submission.publishing import GROUP_OCTETS_MAX, Publisher
from services.submission.reader import LineTooLong

if TYPE_CHECKING:
    from services.submission.session import SubmissionSession

AUTH_TRIES_MAX = 3  # of a connection
CONTENT_OCTETS_MAX = 256 * 1024 * 1024  # of a worker's unanswered messages: 25 of the largest
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
        self.room = Room(CONTENT_OCTETS_MAX)
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
        if isinstance(octets, AuthResult):
            return octets
        parts = octets.split(b"\0")  # RFC 4616 2: authorization identity, account, password
        if len(parts) != 3:
            return _failed(server, "501 5.5.2 that is no PLAIN response")
        return await self._log_in(server, parts[1], parts[2])

    async def auth_LOGIN(self, server: "SubmissionSession", args: list[str]) -> AuthResult:
        name = await _response(server, args, "Username:")
        if isinstance(name, AuthResult):
            return name
        password = await _response(server, args[:1], "Password:")
        if isinstance(password, AuthResult):
            return password
        return await self._log_in(server, name, password)

    async def _log_in(self, server: "SubmissionSession", login: bytes, password: bytes) -> AuthResult:
        name, address, guesses = login.decode("utf-8", "replace"), server.address, self._desk.guesses
        if (wait := guesses.wait_seconds(address, name, time.monotonic())) > 0:
            return _failed(server, _too_many(wait))
        check = trio_asyncio.trio_as_aio(self._desk.accounts.check)
        account: Account | None = await check(name, password)
        # Others may have guessed wrong while this one was looked at: many at once are no more guesses than
        # one after the other, so that even the right one is not told then.
        wait = guesses.wait_seconds(address, name, time.monotonic())
        if account is None:
            guesses.failed(address, name, time.monotonic())
            log.warning("a log-in failed", account=name[:120], address=address)
        if wait > 0:
            return _failed(server, _too_many(wait))
        if account is None:
            return _failed(server, "535 5.7.8 that account with that password is unknown here")
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
            if entries is None:
                return "552 5.3.4 too large for so many recipients"
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
    ) -> list[bytes] | None:
        """One entry for each recipient; a large message once as a blob. Raises TimeoutError.

        None when even so they are more than the bus takes at once.
        """
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
        expires_at = trace.now + float(self._desk.table.expire_after)

        def entries_of(messages: Iterable[RawMessage | BlobMessage]) -> list[bytes] | None:
            found = [
                encode_single(SubmitSingle(f"{trace.id}.{number}", recipient, expires_at, message))
                for number, (recipient, message) in enumerate(zip(recipients, messages, strict=True))
            ]
            fits = sum(map(len, found)) <= GROUP_OCTETS_MAX and max(map(len, found)) <= PAYLOAD_OCTETS_MAX
            return found if fits else None

        if len(octets) <= RAW_INLINE_OCTETS_MAX and len(octets) * count <= GROUP_OCTETS_MAX:
            entries = entries_of([RawMessage(kind, octets)] * count)
            if entries is not None:
                return entries
        put = trio_asyncio.trio_as_aio(self._desk.bus.put_blob)(octets)
        digest = await asyncio.wait_for(put, float(self._desk.table.durable_timeout))
        return entries_of(BlobMessage(kind, digest, last=number == count - 1) for number in range(count))

    async def _durable(self, entries: Sequence[bytes]) -> Exception | None:
        """None = all of them are durable; else why they are not, or why nobody knows."""
        answered: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        def done(trouble: Exception | None) -> None:
            if not answered.done():
                answered.set_result(trouble)

        self._desk.publisher.hand_in(entries, done)
        return await answered


async def _response(server: "SubmissionSession", args: list[str], challenge: str) -> bytes | AuthResult:
    """What a client answers to a challenge, or has sent with it; else what it hears of it."""
    if len(args) == 1:
        try:
            said = (await server.ask(challenge)).decode("latin-1")
        except LineTooLong:
            return _failed(server, "500 5.5.6 the response is too long")
        if said == "*":
            return _failed(server, "501 5.7.0 given up, as you say")
    else:
        said = "" if args[1] == "=" else args[1]  # RFC 4954 4: "=" is a response of no octets
    try:
        return b64decode(said, validate=True)
    except ValueError:  # octets beyond ASCII, too
        return _failed(server, "501 5.5.2 that is not base64")


def _failed(server: "SubmissionSession", text: str) -> AuthResult:
    """One try less, whatever was wrong; behind the last one the session ends."""
    server.auth_tries += 1
    if server.auth_tries >= AUTH_TRIES_MAX:
        server.leaving = True
    return AuthResult(success=False, handled=False, message=text)


def _too_many(wait: float) -> str:
    return f"454 4.7.0 too many wrong passwords, wait {max(1, round(wait))} s"
