"""What each reply means for the mail transactions of an established SMTP session.

A reply belongs to the oldest command on the wire (`Outbox.expected`); this file decides what it settles,
and what the loss of the connection leaves behind:
  421 to a command            its own message is refused for now, all behind it are unsent
  content not with the kernel unsent
  final dot or last chunk out ambiguous
When the peer's answers no longer fit the questions the connection is given up, since nothing sent on
it later could be trusted. Every transaction that was submitted ends in exactly one `Result`.
"""

from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.proto.smtp_capabilities import Capabilities
from engine.mta.proto.smtp_commands import check_transaction, local_refusal
from engine.mta.proto.smtp_experience import Experience
from engine.mta.proto.smtp_options import (
    ClientOptions,
    Closed,
    Event,
    PipeliningVerdict,
    Result,
    ResultKind,
    Transaction,
)
from engine.mta.proto.smtp_outbox import Open, Outbox
from engine.mta.proto.smtp_wire import Wire

UNASKED_REPLIES_MAX = 1  # one may be a slip of the peer; the second ends the connection

_MAIL, _RCPT, _DATA, _CONTENT = Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT
_BDAT, _QUIT = Verb.BDAT, Verb.QUIT
_DELIVERED, _REFUSED = ResultKind.DELIVERED, ResultKind.REFUSED
_UNSENT, _AMBIGUOUS = ResultKind.UNSENT, ResultKind.AMBIGUOUS


class Transactions:
    """The transactions of one session. `closed` once a `Closed` event was given out."""

    def __init__(self, options: ClientOptions, capabilities: Capabilities, wire: Wire) -> None:
        self.closed = False
        self.experience = Experience(options, capabilities)
        self.outbox = Outbox(options, capabilities, wire, self.experience)
        self._capabilities = capabilities
        self._wire = wire
        self._events: list[Event] = []
        self._unasked = 0

    @property
    def verb(self) -> Verb | None:
        """The command whose answer is awaited; None = nothing is."""
        expected = self.outbox.expected
        return expected[0][0] if expected else None

    @property
    def open_count(self) -> int:
        """Transactions without a result."""
        return len(self.outbox.unsettled)

    def learned(self) -> PipeliningVerdict:
        return self.experience.verdict(self._capabilities)

    def room(self) -> int:
        return 0 if self.closed or self.outbox.closing else self.outbox.room()

    def submit(self, transaction: Transaction, events: list[Event]) -> None:
        """Take a transaction. One that this session cannot carry gets its `Result` at once."""
        assert transaction.key not in self.outbox.unsettled, "a key was submitted twice"
        check_transaction(transaction)
        if self.closed or self.outbox.closing or self.outbox.mail_left() <= 0:
            events.append(not_taken(transaction))
        elif refusal := local_refusal(transaction, self._capabilities):
            events.append(Result(transaction.key, _REFUSED, _MAIL, refusal))
        else:
            opened = Open(transaction)
            self.outbox.unsettled[transaction.key] = opened
            self.outbox.waiting.append(opened)

    # --- replies ---

    def on_replies(self, replies: list[Reply], events: list[Event]) -> None:
        """Settle what these replies decide, in order. What stands behind a `Closed` is not read."""
        self._events = events
        expected = self.outbox.expected
        for reply in replies:
            if self.closed:
                return
            if not expected:
                self._unasked_reply(reply)
                continue
            verb, opened = expected.popleft()
            if verb is _MAIL and opened is not None and reply.code < 300:
                opened.mail_taken = True
                if not opened.flight:  # in a flight the next command is out already
                    self.outbox.step = (_RCPT, opened)
            elif verb is _RCPT and opened is not None and reply.code < 300:
                opened.rcpt_taken = True
                if not opened.flight:
                    self.outbox.step = (_BDAT if opened.unit else _DATA, opened)
            else:
                self._on_reply(verb, opened, reply)

    def _on_reply(self, verb: Verb, opened: Open | None, reply: Reply) -> None:
        if reply.code == 421:
            self._service_closes(verb, opened, reply)
        elif opened is None:
            self._on_control(verb, reply)
        elif verb is _CONTENT:
            self._on_content(opened, reply)
        elif verb is _DATA:
            self._on_data(opened, reply)
        elif verb is _BDAT:
            self._on_bdat(opened, reply)
        elif reply.code < 400:
            self._out_of_step(verb, reply)
        else:
            self._refused(opened, verb, reply)
            if not opened.flight:
                self._end_without_content(opened)

    def _on_data(self, opened: Open, reply: Reply) -> None:
        if reply.code == 354:
            refused = opened.again or opened.refusal is not None
            if refused and not opened.mail_taken:  # a lone dot might deliver an empty mail: say no more
                self._give_up(_DATA, "MAIL was refused and DATA taken")
                return
            if opened.flight and not opened.again:
                self.experience.flight_came_back(opened.crossed, unit=False)
            self.outbox.due = opened
        elif reply.code < 400:
            self._out_of_step(_DATA, reply)
        else:
            self._refused(opened, _DATA, reply)
            if opened.flight and not opened.again:
                self.experience.flight_came_back(opened.crossed, unit=False)
            self._end_without_content(opened)

    def _on_content(self, opened: Open, reply: Reply) -> None:
        if 300 <= reply.code < 400:
            self._out_of_step(_CONTENT, reply)
        elif opened.again:
            self._send_again(opened)
        elif opened.refusal is not None:  # a lone dot: whatever is said of it, nobody got a message
            self._settle_refused(opened)
        elif reply.code < 300:
            self.experience.served += 1
            self._settle(opened, _DELIVERED, _CONTENT, reply)
        else:
            self._settle(opened, _REFUSED, _CONTENT, reply)

    def _on_bdat(self, opened: Open, reply: Reply) -> None:
        self.outbox.unit_answered(opened)
        if 300 <= reply.code < 400:
            self._out_of_step(_BDAT, reply)
        elif reply.code >= 400:
            self._refused(opened, _BDAT, reply)
            if opened.flight and not opened.again:
                self.experience.flight_came_back(opened.crossed, unit=True)
            self._end_without_content(opened)
        elif opened.mail_taken and opened.rcpt_taken:
            if opened.flight:
                self.experience.flight_came_back(opened.crossed, unit=True)
            self.experience.served_by_bdat()
            self._settle(opened, _DELIVERED, _BDAT, reply)
        else:  # content taken for a refused envelope: whose is it? (Exim 4.96 crosses return paths)
            self.experience.refuse_overlap(True, f"BDAT was taken behind a refusal: {reply}")
            self._settle(opened, _AMBIGUOUS, _BDAT, reply)
            self._give_up(_BDAT, "BDAT was taken behind a refusal")

    def _on_control(self, verb: Verb, reply: Reply) -> None:
        """Replies to RSET and QUIT."""
        if verb is _QUIT:
            self._close(reply, None, clean=True)
        elif reply.code >= 400:
            self._give_up(verb, f"RSET was refused: {reply}")
        elif reply.code >= 300:
            self._out_of_step(verb, reply)

    def _refused(self, opened: Open, verb: Verb, reply: Reply) -> None:
        if verb is _RCPT:
            opened.rcpt_refused = True
        if opened.refusal is None and not opened.again:
            opened.again = self.experience.is_about_form(
                verb, reply, flight=opened.flight, crossed=opened.crossed, unit=opened.unit
            )
            if not opened.again:
                opened.refusal = (verb, reply)
                if self.experience.is_session_full(verb, reply):
                    opened.no_more = True
                    self._take_no_more()

    def _take_no_more(self) -> None:
        """What is not begun is for another connection; QUIT follows the last answer."""
        self.outbox.closing = True
        while self.outbox.waiting:
            self._settle(self.outbox.waiting.popleft(), _UNSENT, _MAIL, None, _NO_MORE)

    def _settle_refused(self, opened: Open) -> None:
        """By its first refusal; one that only says "not in this session" has not touched the message."""
        assert opened.refusal is not None, "a transaction ended without a reason"
        if opened.no_more:
            self._settle(opened, _UNSENT, _MAIL, None, _NO_MORE)
        else:
            self._settle(opened, _REFUSED, *opened.refusal)

    def _end_without_content(self, opened: Open) -> None:
        """All its commands are answered and the content was not taken. A unit in flight brings its RSET."""
        self.outbox.dirty = not (opened.flight and opened.unit)
        if opened.again:
            self._send_again(opened)
        else:
            self._settle_refused(opened)

    def _send_again(self, opened: Open) -> None:
        """Back to the queue's head; what no longer fits under the peer's limit is given back."""
        outbox = self.outbox
        outbox.waiting.appendleft(opened)
        while outbox.waiting and outbox.mail_left() < 0:
            last = outbox.waiting.pop()
            self._settle(last, _UNSENT, _MAIL, None, _NO_MORE)

    # --- the end of the connection ---

    def lost(self, failure: TransportFailure, events: list[Event]) -> None:
        """The wire is gone, or we leave it. Each open transaction is settled by how far it got."""
        self._events = events
        self._learn_from_loss(failure)
        clean = not self.outbox.unsettled
        for opened in list(self.outbox.unsettled.values()):
            self._settle_lost(opened, failure)
        self._close(None, failure, clean)

    def _settle_lost(self, opened: Open, failure: TransportFailure) -> None:
        handed_over = 0 < opened.end <= self._wire.handed
        # Behind a refused MAIL a peer that crosses units may still have taken it, a lone unit may not.
        if handed_over and not opened.rcpt_refused and (opened.crossed or opened.refusal is None):
            self._settle(opened, _AMBIGUOUS, _BDAT if opened.unit else _CONTENT, None, failure)
        elif opened.refusal is not None:
            self._settle_refused(opened)
        else:
            self._settle(opened, _UNSENT, failure.verb, None, failure)

    def _learn_from_loss(self, failure: TransportFailure) -> None:
        """A peer that hangs up, or falls silent, on a form that is on trial does not bear it."""
        if failure.kind not in (FailureKind.CLOSED, FailureKind.TIMEOUT):
            return
        experience, note = self.experience, f"lost while on trial: {failure}"
        for _, opened in self.outbox.expected:
            if opened is not None and opened.crossed and experience.on_trial(opened.unit):
                experience.refuse_overlap(opened.unit, note)
        if failure.kind is FailureKind.TIMEOUT and self.outbox.expected:
            verb, first = self.outbox.expected[0]
            if first is not None and first.flight and verb in (_RCPT, _DATA):
                experience.flight_got_stuck(note)

    def _service_closes(self, verb: Verb, opened: Open | None, reply: Reply) -> None:
        """421: answers one command, and the peer does none of those behind it (RFC 5321 3.8)."""
        clean = not self.outbox.unsettled
        if opened is not None:
            self.experience.service_closed(
                reply, flight=opened.flight, crossed=opened.crossed, unit=opened.unit
            )
            if not opened.again:
                self._settle(opened, _REFUSED, *(opened.refusal or (verb, reply)))
        self._give_back(verb, reply)
        self._close(reply, None, clean)

    def _give_back(self, verb: Verb, reply: Reply) -> None:
        """Settle all that is open as not done, since `reply` says that nothing more will be."""
        for opened in list(self.outbox.unsettled.values()):
            if opened.refusal is not None:
                self._settle_refused(opened)
            else:
                self._settle(opened, _UNSENT, verb, reply)

    def _unasked_reply(self, reply: Reply) -> None:
        """A reply while no command waits for one: a goodbye, or the peer lost count."""
        if reply.code >= 400:
            clean = not self.outbox.unsettled
            self._give_back(Verb.IDLE, reply)
            self._close(reply, None, clean)
            return
        self._unasked += 1
        self.experience.refuse_flights(f"a reply to nothing: {reply}")
        if self._unasked > UNASKED_REPLIES_MAX:
            self._give_up(Verb.IDLE, f"a reply to nothing: {reply}")

    def _out_of_step(self, verb: Verb, reply: Reply) -> None:
        """A reply that cannot be the answer to `verb`: the peer answers something else."""
        note = f"{reply.code} cannot answer {verb.value}"
        self.experience.refuse_flights(note)
        self._give_up(verb, note)

    def _give_up(self, verb: Verb, detail: str) -> None:
        self.lost(TransportFailure(FailureKind.PROTOCOL, verb, detail), self._events)

    def _close(self, reply: Reply | None, failure: TransportFailure | None, clean: bool) -> None:
        assert not self.outbox.unsettled, "a connection ends with transactions open"
        self.closed = True
        self.outbox.expected.clear()
        self._wire.drop()
        self._events.append(Closed(clean, reply, failure))

    def _settle(
        self,
        opened: Open,
        kind: ResultKind,
        verb: Verb,
        reply: Reply | None = None,
        failure: TransportFailure | None = None,
    ) -> None:
        key = opened.transaction.key
        assert self.outbox.unsettled.pop(key, None) is opened, "a transaction was settled twice"
        self._events.append(Result(key, kind, verb, reply, failure))


_NO_MORE = TransportFailure(FailureKind.STOPPED, _MAIL, "the connection takes no more messages")


def not_taken(transaction: Transaction) -> Result:
    """The result of a transaction that came when the connection took no more."""
    return Result(transaction.key, _UNSENT, _MAIL, None, _NO_MORE)
