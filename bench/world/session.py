"""One SMTP conversation from the receiver's side, without IO.

A `Session` is fed octets and works through them: `output` collects replies (one send answers a whole
pipelined batch), `next_step` says what the shell does after sending: read on, wait, start TLS, close.
It owns framing: command lines, where content ends, tarpits, and which commands may stand in one group
(RFC 2920 3.1); the `Transaction` owns what they mean. Strict: what a correct client never sends is
answered with 500, 501 or 503 and counted by name as a protocol error.
"""

from collections.abc import Callable

from bench.world.answers import Answer, Step, reply_octets
from bench.world.manners import Gate, Starttls
from bench.world.provider import Provider
from bench.world.records import Accepted
from bench.world.transaction import Transaction

COMMAND_OCTETS_MAX = 2048  # RFC 5321 asks for 512 and every extension adds to it
CHUNK_DIGITS_MAX = 20  # RFC 3030 2: chunk-size

_COMMAND, _DATA, _CHUNK = range(3)
_LAST_IN_GROUP = frozenset({b"EHLO", b"HELO", b"DATA", b"VRFY", b"QUIT", b"NOOP", b"STARTTLS"})
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"


class Session:
    """`host` is the name in banner and EHLO reply, `source` the peer's address."""

    def __init__(self, provider: Provider, host: str, source: str, *, tls_possible: bool = True) -> None:
        self.output = bytearray()
        self.next_step = Step.READ
        self.wait_seconds = 0.0
        self._provider = provider
        self._manners = provider.manners
        self._slow_content = (
            "content" in provider.manners.tarpit or provider.manners.tarpit_per_connection > 0
        )
        self._host = host
        self._transaction = Transaction(provider, source, tls_possible=tls_possible)
        self._greeted = False
        self._buffer = bytearray()
        self._at = 0  # everything before it is done with
        self._searched = 0  # no final dot ends before it
        self._waited = False  # the tarpit of the command at `_at` is over
        self._refuse_before = 0  # commands that begin before it came too early (Haraka's manner)
        self._mode = _COMMAND
        self._too_large = False
        self._chunks = bytearray()
        self._chunk_octets = 0
        self._chunk_last = False

    def __repr__(self) -> str:
        return f"<Session of {self._host}: {self._transaction.messages} messages>"

    # --- what the shell calls ---

    @property
    def accepted(self) -> list[Accepted]:
        """Messages taken since the shell last cleared the list; they go to the record before `output`."""
        return self._transaction.accepted

    @property
    def waiting_octets(self) -> int:
        return len(self._buffer)

    def receive(self, octets: bytes | bytearray) -> None:
        self._buffer += octets

    def advance(self, now: float) -> None:
        """Work until more octets are needed or `next_step` is something else than READ."""
        self.next_step = Step.READ
        if not self._greeted:
            self._greet(now)
        work = (self._command, self._data_content, self._chunk_content)
        while self.next_step is Step.READ and work[self._mode](now):
            pass
        if self._at:
            del self._buffer[: self._at]
            self._searched = max(0, self._searched - self._at)
            self._refuse_before = max(0, self._refuse_before - self._at)
            self._at = 0

    def started_tls(self) -> None:
        """The handshake is over: forget everything said before it (RFC 3207 4.2)."""
        self._transaction.reset()
        self._transaction.tls = True
        self._transaction.hello = b""
        self._buffer.clear()

    def timed_out(self) -> None:
        self._answer(Answer("421 4.4.2 Idle for too long", Step.CLOSE))

    # --- replies ---

    def _answer(self, answer: Answer) -> None:
        if answer.line:
            self.output += reply_octets(answer.line, self._manners.enhanced_codes)
        if answer.step is not Step.READ:
            self.next_step = answer.step

    def _fault(self, kind: str, line: str = "", step: Step = Step.READ) -> None:
        self._provider.tally.protocol_errors[kind] += 1
        self._answer(Answer(line, step))

    def _tarpit(self, verb: str) -> bool:
        """Whether this verb has to wait first; asked again after the wait, it need not."""
        if self._waited:
            self._waited = False
            return False
        seconds = self._manners.tarpit.get(verb, 0.0)
        if verb == "content":
            account = self._transaction.account
            seconds += self._manners.tarpit_per_connection * account.connections_open
        if not seconds:
            return False
        self._waited = True
        self.wait_seconds = seconds
        self.next_step = Step.WAIT
        return True

    # --- commands ---

    def _greet(self, now: float) -> None:
        manners, counts = self._manners, self._provider.tally.counts
        if self._tarpit("banner"):
            return
        self._greeted = True
        if self._buffer:
            self._fault("talked_before_banner")
        if (blocked := self._transaction.blocked(Gate.BANNER, now)) is not None:
            self._answer(Answer(blocked.line, Step.CLOSE))
        elif self._transaction.account.over_connections(now):
            counts["connections_refused"] += 1
            self._provider.timeline.add(now, refused=1)
            self._answer(Answer(manners.connections_reply, Step.CLOSE))
        elif manners.banner is not None:
            refused = manners.banner.startswith(("4", "5"))
            counts["connections_refused"] += refused
            line = manners.banner.format(host=self._host)
            self._answer(Answer(line, Step.CLOSE if refused else Step.READ))

    def _command(self, now: float) -> bool:
        buffer, start = self._buffer, self._at
        end = buffer.find(b"\r\n", start)
        if end - start > COMMAND_OCTETS_MAX or (end < 0 and len(buffer) - start > COMMAND_OCTETS_MAX):
            self._fault("command_too_long", "500 5.5.2 Line too long", Step.CLOSE)
            return False
        if end < 0:
            return False
        line = bytes(buffer[start:end])
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        if self._manners.tarpit and self._tarpit(verb.decode("latin-1").lower()):
            return False
        self._at = end + 2
        if start < self._refuse_before:
            self._provider.tally.counts["pipelining_refused"] += 1
            self._answer(Answer("503 5.5.1 Pipelined after end of DATA"))
            return True
        if len(buffer) > self._at:
            self._check_group(verb)
        handler = _HANDLERS.get(verb)
        if b"\n" in line or b"\r" in line or b"\0" in line:
            self._fault("control_in_command", "500 5.5.2 Bare newline or NUL")
        elif handler is None:
            self._fault("unknown_command", "500 5.5.2 Command not recognised")
        else:
            handler(self, rest, now)
        return True

    def _check_group(self, verb: bytes) -> None:
        """More octets stand behind this command: is that allowed? BDAT is followed by its own octets."""
        if verb in _LAST_IN_GROUP:
            self._fault("pipelined_behind_" + verb.decode().lower())
        elif verb != b"BDAT":
            self._check_pipelining()

    def _check_pipelining(self) -> None:
        if not self._manners.pipelining or self._transaction.hello != b"EHLO":
            self._fault("pipelined_unannounced")

    def _ehlo(self, rest: bytes, now: float) -> None:
        if not self._manners.esmtp:
            self._answer(Answer("502 5.5.1 EHLO not implemented"))
        elif self._hello(b"EHLO", rest):
            lines = [self._host, *self._extensions()]
            marks = ["-"] * (len(lines) - 1) + [" "]
            text = "".join(f"250{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True))
            self.output += text.encode()

    def _helo(self, rest: bytes, now: float) -> None:
        if self._hello(b"HELO", rest):
            self.output += f"250 {self._host}\r\n".encode()

    def _hello(self, verb: bytes, rest: bytes) -> bool:
        if len(rest.split()) != 1:
            self._fault("hello_syntax", "501 5.5.4 One host name, please")
            return False
        self._transaction.hello = verb
        self._transaction.reset()
        return True

    def _extensions(self) -> list[str]:
        manners, transaction = self._manners, self._transaction
        starttls = manners.starttls is not Starttls.ABSENT
        offered = {
            "PIPELINING": manners.pipelining,
            f"SIZE {manners.message_octets_max}": manners.size,
            "8BITMIME": manners.eight_bit,
            "SMTPUTF8": manners.smtputf8,
            "DSN": manners.dsn,
            "ENHANCEDSTATUSCODES": manners.enhanced_codes,
            "CHUNKING": manners.chunking,
            "STARTTLS": starttls and transaction.tls_possible and not transaction.tls,
            f"LIMITS MAILMAX={manners.limits_mailmax}": manners.limits_mailmax > 0,
        }
        return [line for line, on in offered.items() if on]

    def _starttls(self, rest: bytes, now: float) -> None:
        manner, transaction = self._manners.starttls, self._transaction
        if manner is Starttls.ABSENT or not transaction.tls_possible or transaction.tls:
            self._fault("starttls_unannounced", "502 5.5.1 STARTTLS not available")
        elif manner is Starttls.UNAVAILABLE:
            self._answer(Answer("454 4.7.0 TLS not available due to temporary reason"))
        else:
            step = Step.GARBLE if manner is Starttls.GARBLED else Step.TLS
            self._answer(Answer("220 2.0.0 Ready to start TLS", step))

    def _mail(self, rest: bytes, now: float) -> None:
        self._answer(self._transaction.mail(rest, now))

    def _rcpt(self, rest: bytes, now: float) -> None:
        self._answer(self._transaction.rcpt(rest, now))

    def _rset(self, rest: bytes, now: float) -> None:
        self._transaction.reset()
        self._chunks.clear()
        self._too_large = False
        self._answer(Answer("250 2.0.0 Ok"))

    def _noop(self, rest: bytes, now: float) -> None:
        self._answer(Answer("250 2.0.0 Ok"))

    def _vrfy(self, rest: bytes, now: float) -> None:
        self._answer(Answer("252 2.1.5 Send some mail, I will try my best"))

    def _quit(self, rest: bytes, now: float) -> None:
        self._answer(Answer("221 2.0.0 Bye", Step.CLOSE))

    # --- content ---

    def _data(self, rest: bytes, now: float) -> None:
        refusal = self._transaction.data_refusal(now)
        if refusal is not None:
            self._answer(refusal)
            return
        self._mode = _DATA
        self._searched = self._at
        self._too_large = False
        self.output += _GO_AHEAD

    def _data_content(self, now: float) -> bool:
        buffer, start = self._buffer, self._at
        if start == len(buffer) or self._hangs_up_inside(now):
            return False
        if self._searched == start and buffer.startswith(b".\r\n", start):
            end, after = start, start + 3
        else:
            # The line of the dot may have begun up to four octets before what came last.
            dot = buffer.find(b"\r\n.\r\n", max(start, self._searched - 4))
            if dot < 0:
                return self._await_more_content()
            end, after = dot + 2, dot + 5
        if self._slow_content and self._tarpit("content"):
            return False
        content = bytes(buffer[start:end])
        self._at = after
        self._mode = _COMMAND
        if len(buffer) > after:
            self._check_pipelining()
            if not self._manners.pipelining_across:
                self._refuse_before = len(buffer)
        self._answer(self._transaction.message(content, now, stuffed=True, too_large=self._too_large))
        return True

    def _await_more_content(self) -> bool:
        waiting = len(self._buffer) - self._at
        self._searched = len(self._buffer) if waiting > 2 else self._at
        if waiting > self._manners.message_octets_max + 5:
            self._too_large = True
            self._at = len(self._buffer) - 5
        return False

    def _bdat(self, rest: bytes, now: float) -> None:
        words = rest.split()
        octets, last = (words[0] if words else b""), [word.upper() for word in words[1:]]
        if not self._manners.chunking:
            self._fault("bdat_unannounced", "502 5.5.1 BDAT not available")
        elif not octets.isdigit() or len(octets) > CHUNK_DIGITS_MAX or last not in ([], [b"LAST"]):
            # Nobody can tell where the chunk ends, so the conversation cannot go on.
            self._fault("bdat_syntax", "501 5.5.4 Syntax: BDAT octets [LAST]", Step.CLOSE)
        else:
            self._chunk_octets = int(octets)
            self._chunk_last = bool(last)
            self._mode = _CHUNK

    def _chunk_content(self, now: float) -> bool:
        octets, transaction = self._chunk_octets, self._transaction
        if self._hangs_up_inside(now) or len(self._buffer) - self._at < octets:
            return False
        if self._slow_content and self._tarpit("content"):
            return False
        chunk = bytes(self._buffer[self._at : self._at + octets])
        self._at += octets
        self._mode = _COMMAND
        refusal = transaction.sequence_refusal("bdat")
        if refusal is not None:
            self._chunks.clear()
            self._answer(refusal)
            return True
        if not transaction.chunking:
            transaction.chunking = True
            self._too_large = False
            self._chunks.clear()
        self._chunks += chunk
        if len(self._chunks) > self._manners.message_octets_max:
            self._too_large = True
            self._chunks.clear()
        if self._chunk_last:
            content = bytes(self._chunks)
            self._chunks.clear()
            self._answer(transaction.message(content, now, stuffed=False, too_large=self._too_large))
        else:
            self._answer(Answer(f"250 2.0.0 {octets} octets received"))
        return True

    def _hangs_up_inside(self, now: float) -> bool:
        if not self._manners.troubles:
            return False
        answer = self._transaction.hangs_up_inside(now)
        if answer is not None:
            self._answer(answer)
        return answer is not None


_HANDLERS: dict[bytes, Callable[[Session, bytes, float], None]] = {
    b"EHLO": Session._ehlo,
    b"HELO": Session._helo,
    b"STARTTLS": Session._starttls,
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"BDAT": Session._bdat,
    b"RSET": Session._rset,
    b"NOOP": Session._noop,
    b"VRFY": Session._vrfy,
    b"QUIT": Session._quit,
}
