"""The SMTP client of one connection, sans-IO: octets in, events and octets out.

The shell owns the socket and the clock. It feeds what it read to `receive_data`, acts on the events,
submits messages while `room()` says so, writes what `next_output` gives and reports every count that
the kernel took with `handed_over` - before it feeds anything read later, since that count decides
whether a lost message is unsent or ambiguous. It reads while it writes, and limits its waiting by
`time_limit`. Anything a peer says, at any moment, is a value; an exception here is a bug of ours.

    handshake (`smtp_session`) -> Ready -> transactions (`smtp_transactions`, `smtp_outbox`) -> Closed

Every transaction submitted gets exactly one `Result`; `Closed` is the last event of each connection.
"""

from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.proto.smtp_capabilities import Capabilities
from engine.mta.proto.smtp_lines import ReplyReader
from engine.mta.proto.smtp_options import (
    ClientOptions,
    Closed,
    Event,
    PipeliningVerdict,
    Ready,
    SessionFailed,
    Transaction,
)
from engine.mta.proto.smtp_session import Handshake
from engine.mta.proto.smtp_transactions import Transactions, not_taken
from engine.mta.proto.smtp_wire import Wire


class SmtpClient:
    """One connection, from the banner to `Closed`. Each input returns the events it caused, in order."""

    def __init__(self, options: ClientOptions) -> None:
        self.tls = ""  # what the shell told of the TLS session; empty = in clear
        self._options = options
        self._wire = Wire()
        self._reader = ReplyReader(options.reply_octets_max, options.reply_lines_max)
        self._handshake = Handshake(options, self._wire)
        self._transactions: Transactions | None = None
        self._closed = False
        self._quitting = False
        self.heard = 0  # whole replies: a time limit begins anew with each, and with nothing less

    def __repr__(self) -> str:
        state = "closed" if self._closed else (self._awaited() or Verb.IDLE).value
        count = self._transactions.open_count if self._transactions else 0
        return f"<SmtpClient at {state}, {count} open, room for {self.room()}>"

    # --- what the shell asks ---

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def capabilities(self) -> Capabilities:
        """As announced last; nothing before EHLO was answered."""
        return self._handshake.capabilities

    @property
    def mail_max(self) -> int:
        """Messages this connection may carry: ours or the peer's MAILMAX (RFC 9422), the smaller."""
        ours = self._options.messages_max
        return min(ours, self.capabilities.mail_max or ours)

    @property
    def learned(self) -> PipeliningVerdict:
        """What to remember of the site, and to give to its next connection."""
        return self._transactions.learned() if self._transactions else self._options.verdict

    @property
    def awaited(self) -> Verb | None:
        """What is waited for; None while nothing is."""
        transactions = self._transactions
        if transactions is None:
            return None if self._closed else self._handshake.verb
        return None if transactions.closed or self._closed else transactions.verb

    @property
    def time_limit(self) -> tuple[Verb, float] | None:
        """What is waited for and for how many seconds at most; None while nothing is."""
        verb = self.awaited
        return None if verb is None else (verb, self._options.time_limits.seconds(verb))

    def room(self) -> int:
        """How many more transactions to submit now, so that the next ones are always at hand."""
        return self._transactions.room() if self._transactions and not self._quitting else 0

    # --- what the shell does ---

    def submit(self, transaction: Transaction) -> list[Event]:
        """Take a message. The list is empty, or its `Result` when this connection cannot carry it."""
        events: list[Event] = []
        if self._transactions is None or self._quitting:
            events.append(not_taken(transaction))
        else:
            self._transactions.submit(transaction, events)
        return events

    def next_output(self) -> bytes | None:
        """All that may be written now, in one piece; None when there is nothing."""
        if self._transactions is not None and not self._closed:
            self._transactions.outbox.build()
        return self._wire.take()

    def handed_over(self, count: int) -> None:
        """The kernel took `count` octets more of what `next_output` gave."""
        self._wire.hand_over(count)

    def receive_data(self, data: bytes) -> list[Event]:
        """Octets from the peer, cut anywhere. Empty data is the end of the stream."""
        if self._closed:
            return []
        if not data:
            return self.peer_closed()
        events: list[Event] = []
        replies = self._reader.feed(data)
        self.heard += len(replies)
        if self._transactions is None:
            replies = self._greet(replies, events)
        if self._transactions is not None:
            self._transactions.on_replies(replies, events)
            self._closed = self._transactions.closed
        if self._closed:
            return events
        if self._reader.trouble:
            self._end(TransportFailure(FailureKind.PROTOCOL, self._verb(), self._reader.trouble), events)
        elif self._handshake.verb is Verb.TLS and self._reader.pending:
            self._end(TransportFailure(FailureKind.PROTOCOL, Verb.TLS, "octets before TLS"), events)
        return events

    def tls_established(self, description: str) -> list[Event]:
        """The shell's TLS handshake went well; the session starts anew inside."""
        self.tls = description
        self._handshake.tls_established()
        return []

    def tls_failed(self, failure: TransportFailure) -> list[Event]:
        """It did not. Whether to come back in clear is the caller's decision."""
        return self.connection_lost(failure)

    def peer_closed(self) -> list[Event]:
        """The peer ended the stream."""
        return self.connection_lost(TransportFailure(FailureKind.CLOSED, self._verb()))

    def connection_lost(self, failure: TransportFailure) -> list[Event]:
        """The socket failed, or `time_limit` ran out."""
        events: list[Event] = []
        if not self._closed:
            self._end(failure, events)
        return events

    def quit(self) -> None:
        """Take no more; finish what was submitted, say QUIT, and close on its answer."""
        self._quitting = True
        if self._transactions is not None:
            self._transactions.outbox.closing = True

    def abort(self, detail: str) -> list[Event]:
        """Leave at once; the shell closes the socket. Open transactions end as if the wire was lost."""
        return self.connection_lost(TransportFailure(FailureKind.STOPPED, self._verb(), detail))

    # --- inside ---

    def _awaited(self) -> Verb | None:
        return self._transactions.verb if self._transactions else self._handshake.verb

    def _verb(self) -> Verb:
        return self._awaited() or Verb.IDLE

    def _greet(self, replies: list[Reply], events: list[Event]) -> list[Reply]:
        """Feed the handshake; what it leaves once it is over belongs to the transactions."""
        for position, reply in enumerate(replies, 1):
            if self._wire.built > self._wire.taken and reply.code != 421:
                verb = self._handshake.verb
                self._end(TransportFailure(FailureKind.PROTOCOL, verb, "a reply before its turn"), events)
                return []
            more_octets = position < len(replies) or self._reader.pending
            event = self._handshake.on_reply(reply, more_octets)
            if event is not None:
                events.append(event)
            if isinstance(event, Ready):
                self._transactions = Transactions(self._options, event.capabilities, self._wire)
                self._transactions.outbox.closing = self._quitting
                return replies[position:]
            if isinstance(event, SessionFailed):
                self._close_failed(event, events)
                return []
        return []

    def _end(self, failure: TransportFailure, events: list[Event]) -> None:
        if self._transactions is not None:
            self._transactions.lost(failure, events)
            self._closed = True
        else:
            failed = SessionFailed(failure.verb, None, failure)
            events.append(failed)
            self._close_failed(failed, events)

    def _close_failed(self, failed: SessionFailed, events: list[Event]) -> None:
        """A peer that refused is told goodbye; the shell may write that or just close."""
        self._closed = True
        self._wire.drop()
        if failed.reply is not None and failed.reply.code != 421:
            self._wire.put(b"QUIT\r\n")
        events.append(Closed(False, failed.reply, failed.failure))
