"""What goes out next on an established SMTP session.

Three forms, plainest last (`smtp_experience` says which may be used now):
  units     MAIL, RCPT, BDAT n LAST + content, RSET in one write, several of them in flight (RFC 3030)
  flights   MAIL, RCPT, DATA in one write, the content after 354; where a site bears it the content, its
            final dot and the next MAIL, RCPT, DATA are one write: one round trip per message (RFC 2920)
  steps     one command at a time

`expected` holds the verb and transaction of every command on the wire, oldest first: the order in which
replies come. Output is built when the shell takes it, so that a message submitted meanwhile still rides
along. What the replies mean is decided in `smtp_transactions`, which sets `due`, `step` and `dirty`.
"""

from collections import deque

from engine.model.reply import Reply, Verb
from engine.mta.proto.smtp_capabilities import Capabilities
from engine.mta.proto.smtp_commands import mail_command, rcpt_command, stuffed
from engine.mta.proto.smtp_experience import Experience
from engine.mta.proto.smtp_options import ClientOptions, Transaction
from engine.mta.proto.smtp_wire import Wire

PREPARED_AHEAD = 2  # transactions beyond those in flight that we take: one to ride along, one being built

_MAIL, _RCPT, _DATA, _CONTENT = Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT
_BDAT, _RSET, _QUIT = Verb.BDAT, Verb.RSET, Verb.QUIT


class Open:
    """A transaction that has no result yet, and how its commands were answered so far."""

    __slots__ = (
        "again",
        "crossed",
        "end",
        "flight",
        "mail_taken",
        "no_more",
        "rcpt_refused",
        "rcpt_taken",
        "refusal",
        "transaction",
        "unit",
    )

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.flight = False  # all its commands went out together
        self.unit = False  # by BDAT
        self.renew(crossed=False)

    def renew(self, crossed: bool) -> None:
        """Before its MAIL goes out, for the first time or again."""
        self.crossed = crossed  # behind a transaction that had no final answer yet
        self.mail_taken = False
        self.rcpt_taken = False
        self.rcpt_refused = False
        self.refusal: tuple[Verb, Reply] | None = None  # the first one
        self.no_more = False  # refused because the session is full: for another connection
        self.again = False  # refused for its form: goes back to the queue
        self.end = 0  # stream offset behind its content; 0 = not on the wire


class Outbox:
    """The queue in front of the wire. Its public fields are read and set by `Transactions` only."""

    def __init__(
        self, options: ClientOptions, capabilities: Capabilities, wire: Wire, experience: Experience
    ) -> None:
        assert options.messages_max > 0, "a connection is for one message at least"
        self.mail_max = min(options.messages_max, capabilities.mail_max or options.messages_max)
        self.mail_count = 0  # MAIL commands on the wire so far
        self.closing = False  # QUIT goes out behind the last transaction
        self.unsettled: dict[int, Open] = {}  # by key, oldest first: all that have no result yet
        self.waiting: deque[Open] = deque()  # of those, the ones not begun
        self.expected: deque[tuple[Verb, Open | None]] = deque()
        self.due: Open | None = None  # answered with 354: its content goes out next
        self.step: tuple[Verb, Open] | None = None  # the next single command
        self.dirty = False  # the last transaction ended without a reply to its content: RSET first
        self._unit_octets = 0  # content of the BDAT units in flight
        self._options = options
        self._capabilities = capabilities
        self._wire = wire
        self._experience = experience

    @property
    def in_flight(self) -> int:
        """Transactions that are begun and have no result."""
        return len(self.unsettled) - len(self.waiting)

    def room(self) -> int:
        """How many more transactions are welcome now."""
        experience, waiting = self._experience, len(self.waiting)
        if experience.stepping:
            in_flight_max = 1
        elif experience.units:
            in_flight_max = experience.window()
        else:
            in_flight_max = 2 if experience.may_cross() else 1
        ahead = max(0, in_flight_max - self.in_flight) + PREPARED_AHEAD - waiting
        return max(0, min(ahead, self.mail_left()))

    def mail_left(self) -> int:
        """MAIL commands still free; below zero when one that is sent again took another's place."""
        return self.mail_max - self.mail_count - len(self.waiting)

    def build(self) -> None:
        """Put on the wire all that may go now."""
        if self.due is not None:
            self._put_content(self.due)
            self.due = None
        if self.waiting or self.step is not None:
            if self._experience.stepping:
                self._put_step()
            elif self._experience.units:
                self._put_units()
            else:
                self._put_flight()
        elif not self.unsettled and not self.expected and (self.closing or self.mail_left() <= 0):
            self.closing = True
            self._put(_QUIT, None, b"QUIT\r\n")

    def unit_answered(self, opened: Open) -> None:
        """The answer to its BDAT was read: its content is in flight no more."""
        self._unit_octets -= len(opened.transaction.content)

    def _put(self, verb: Verb, opened: Open | None, octets: bytes) -> None:
        self._wire.put(octets)
        self.expected.append((verb, opened))

    def _put_reset(self) -> None:
        if self.dirty:
            self._put(_RSET, None, b"RSET\r\n")
            self.dirty = False

    def _put_content(self, opened: Open) -> None:
        """Behind a 354. A refused recipient makes it a lone dot (RFC 2920 3.1)."""
        wire = self._wire
        if opened.refusal is None and not opened.again:
            transaction = opened.transaction
            wire.put(stuffed(transaction.content) if transaction.dotted else transaction.content)
            opened.end = wire.built + 3
        wire.put(b".\r\n")
        self.expected.append((_CONTENT, opened))

    def _begin(self, *, flight: bool, unit: bool, crossed: bool) -> Open:
        opened = self.waiting.popleft()
        opened.flight = flight
        opened.unit = unit
        opened.renew(crossed)
        self.mail_count += 1
        assert self.mail_count <= self.mail_max, "more MAIL commands than the peer allows"
        return opened

    def _put_flight(self) -> None:
        expected = self.expected
        crossed = len(expected) == 1 and expected[0][0] is _CONTENT
        if expected and not (crossed and self._experience.may_cross()):
            return
        if crossed:
            before = expected[0][1]
            if before is None or not before.end:  # a lone dot: wait for what becomes of it
                return
        else:
            self._put_reset()
        opened = self._begin(flight=True, unit=False, crossed=crossed)
        transaction, capabilities = opened.transaction, self._capabilities
        mail, rcpt = mail_command(transaction, capabilities), rcpt_command(transaction, capabilities)
        self._wire.put(f"{mail}\r\n{rcpt}\r\nDATA\r\n".encode())
        expected.extend(((_MAIL, opened), (_RCPT, opened), (_DATA, opened)))

    def _put_units(self) -> None:
        """As many units as the window holds; a window of one starts on a silent wire only."""
        wire, expected, window = self._wire, self.expected, self._experience.window()
        while self.waiting:
            in_flight = self.in_flight
            size = len(self.waiting[0].transaction.content)
            if window == 1 and expected:
                return
            if in_flight and (in_flight >= window or self._unit_octets + size > self._options.window_bytes):
                return
            self._put_reset()
            opened = self._begin(flight=True, unit=True, crossed=in_flight > 0)
            transaction, capabilities = opened.transaction, self._capabilities
            mail, rcpt = mail_command(transaction, capabilities), rcpt_command(transaction, capabilities)
            wire.put(f"{mail}\r\n{rcpt}\r\nBDAT {size} LAST\r\n".encode())
            wire.put(transaction.content)
            opened.end = wire.built
            self._unit_octets += size
            wire.put(b"RSET\r\n")
            expected.extend(((_MAIL, opened), (_RCPT, opened), (_BDAT, opened), (_RSET, None)))

    def _put_step(self) -> None:
        if self.expected:
            return
        if self.step is None:
            if self.dirty:
                self._put_reset()
                return
            self.step = (_MAIL, self._begin(flight=False, unit=self._experience.units, crossed=False))
        verb, opened = self.step
        self.step = None
        transaction = opened.transaction
        if verb is _MAIL:
            self._put(_MAIL, opened, f"{mail_command(transaction, self._capabilities)}\r\n".encode())
        elif verb is _RCPT:
            self._put(_RCPT, opened, f"{rcpt_command(transaction, self._capabilities)}\r\n".encode())
        elif verb is _DATA:
            self._put(_DATA, opened, b"DATA\r\n")
        else:
            self._wire.put(b"BDAT %d LAST\r\n" % len(transaction.content))
            self._put(_BDAT, opened, transaction.content)
            opened.end = self._wire.built
            self._unit_octets += len(transaction.content)
