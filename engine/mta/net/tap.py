"""One session written down as it goes on, for people to read: every line, with its time and direction.

`TapedWire` stands between the engine and a wire and tells a `Tape` what passes. The tape cuts octets into
lines, follows the conversation far enough to tell commands from content, masks secrets (whatever belongs to
AUTH, and any line of ours that is no command: a peer that answers out of turn must not uncover them),
escapes control characters (a peer's text reaches a terminal), and shows so many octets of each message. It
is bounded: lines that nobody fetches in time are dropped and counted. Nothing here changes what goes over
the wire, and trouble is the wire's own.
"""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from engine.model.reply import TransportFailure
from engine.mta.net.network import Wire
from engine.mta.net.session import Progress, SessionError
from engine.mta.net.tls import TlsInfo, TlsTerms
from engine.observe.logs import masked

TAPE_OCTETS_MAX = 1_000_000  # of lines that wait to be fetched
FETCH_OCTETS_MAX = 200_000  # of one fetch: four times that as JSON, at worst, and the bus takes 1 MB
LINE_OVERHEAD_OCTETS = 120  # of a line in memory, beside its text: an empty one is not for nothing
LINE_OCTETS_MAX = 2_000  # shown of one line; RFC 5321 4.5.3.1.6 allows 1,000
MASK = b"***"
# What we ever say. Another line is shown by its length alone.
COMMANDS = frozenset(
    {b"EHLO", b"HELO", b"STARTTLS", b"AUTH", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET", b"NOOP", b"QUIT"}
)

SENT, HEARD, NOTED = ">", "<", "-"


class TapeLine(Struct, frozen=True, array_like=True):
    """`seconds` since the session was begun; `way` ">" we, "<" the peer, "-" what we note of it."""

    session: int
    seconds: float
    way: str
    text: str


class Tape:
    """What one tap has heard and nobody has fetched. With `mask` no local part is shown, and no content:
    whom it is to stands in there, too, and a cut would leave half of an address.
    """

    def __init__(self, *, body_octets: int, mask: bool) -> None:
        self.body_octets = 0 if mask else body_octets
        self.mask = mask
        self.dropped = 0
        self.stopped = False
        self._lines: deque[TapeLine] = deque()
        self._octets = 0

    def __repr__(self) -> str:
        return f"<Tape: {len(self._lines)} lines, {self.dropped} dropped>"

    def add(self, line: TapeLine) -> None:
        if self.stopped:
            return
        octets = len(line.text) + LINE_OVERHEAD_OCTETS
        if self._octets + octets > TAPE_OCTETS_MAX:
            self.dropped += 1
            return
        self._octets += octets
        self._lines.append(line)

    def fetch(self, limit: int) -> list[TapeLine]:
        """The next lines, once: up to `limit`, or FETCH_OCTETS_MAX and one line more."""
        lines: list[TapeLine] = []
        octets = 0
        while self._lines and len(lines) < limit and octets < FETCH_OCTETS_MAX:
            lines.append(self._lines.popleft())
            octets += len(lines[-1].text)
        self._octets -= octets + LINE_OVERHEAD_OCTETS * len(lines)
        return lines


class Listener:
    """Follows one session: two streams of octets in, lines out."""

    __slots__ = (
        "_awaits_content",
        "_began",
        "_content",
        "_exact",
        "_heard",
        "_in_auth",
        "_now",
        "_number",
        "_sent",
        "_shown",
        "_tape",
    )

    def __init__(self, tape: Tape, number: int, now: Callable[[], float]) -> None:
        self._tape = tape
        self._number = number
        self._now = now
        self._began = now()
        self._sent = b""  # an unfinished line of ours
        self._heard = b""
        self._in_auth = False
        self._awaits_content = False  # DATA is out
        self._content = False  # content goes on until a lone dot
        self._exact = 0  # or for so many octets more (BDAT)
        self._shown = 0  # octets of this message's content

    def sent(self, octets: bytes) -> None:
        data = self._sent + octets if self._sent else octets
        self._sent = b""
        at = 0  # data is not cut at each line: that would copy a large message once for each of its lines
        while at < len(data):
            if self._exact:
                part = data[at : at + self._exact]
                at += len(part)
                self._exact -= len(part)
                self._show_content(part)
                if not self._exact:
                    self._end_content()
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._sent = data[at:]
                return
            line = data[at:end]
            at = end + 2
            if self._content:
                if line == b".":
                    self._content = False
                    self._end_content()
                    self._write(SENT, line)
                else:
                    self._show_content(line + b"\r\n")
            else:
                self._command(line)

    def heard(self, octets: bytes) -> None:
        *lines, rest = (self._heard + octets).split(b"\n")
        for line in lines:
            self._reply(line.rstrip(b"\r"))
        self._heard = rest[:LINE_OCTETS_MAX]  # a line without an end is the protocol's to cut off

    def flush(self) -> None:
        """No more belongs to what was heard last: show the line that has no end."""
        rest, self._heard = self._heard, b""
        if rest:
            self._reply(rest)

    def note(self, text: str) -> None:
        self._tape.add(TapeLine(self._number, self._now() - self._began, NOTED, text))

    def _command(self, line: bytes) -> None:
        words = line.split(b" ")
        verb = words[0].upper()
        if self._in_auth or verb not in COMMANDS:
            self._write(SENT, MASK if self._in_auth else b"%s (%d octets)" % (MASK, len(line)))
            return
        if verb == b"AUTH":
            self._in_auth = True
            shown = b" ".join(words[:2])
            self._write(SENT, shown + b" " + MASK if len(words) > 2 else shown)
            return
        self._write(SENT, line)
        if verb == b"DATA":
            self._awaits_content = True
            self._shown = 0
        elif verb == b"BDAT" and len(words) > 1 and words[1].isdigit():
            self._exact = int(words[1])
            self._shown = 0

    def _reply(self, line: bytes) -> None:
        code, last = line[:3], line[3:4] != b"-"
        if self._in_auth:
            if code == b"334":
                self._write(HEARD, b"334 " + MASK)
                return
            self._in_auth = not last
        if code == b"354" and last and self._awaits_content:
            self._awaits_content, self._content = False, True
        self._write(HEARD, line)

    def _show_content(self, octets: bytes) -> None:
        room = self._tape.body_octets - self._shown
        self._shown += len(octets)
        if room > 0:
            for line in octets[:room].removesuffix(b"\r\n").split(b"\r\n"):
                self._write(SENT, line)

    def _end_content(self) -> None:
        hidden = self._shown - self._tape.body_octets
        if hidden > 0:
            self.note(f"... {hidden:,} octets of the message more")

    def _write(self, way: str, line: bytes) -> None:
        text = visible(line[:LINE_OCTETS_MAX])
        if len(line) > LINE_OCTETS_MAX:
            text += f"... {len(line) - LINE_OCTETS_MAX:,} octets more"
        if self._tape.mask:
            text = masked(text)
        self._tape.add(TapeLine(self._number, self._now() - self._began, way, text))


class TapedWire:
    """A wire that is listened to."""

    def __init__(self, wire: Wire, listener: Listener) -> None:
        self._wire = wire
        self._listener = listener

    def __repr__(self) -> str:
        return f"<TapedWire {self._wire!r}>"

    async def send(self, data: bytes, progress: Progress | None = None) -> None:
        out = 0

        def counted(count: int) -> None:
            nonlocal out
            out += count
            if progress is not None:
                progress(count)

        self._listener.sent(bytes(data))
        try:
            await self._wire.send(data, counted)
        except SessionError as error:
            self._listener.note(str(error.failure))
            raise
        finally:  # cut short by a time limit, too
            if out < len(data):
                self._listener.note(f"only {out:,} of these {len(data):,} octets were sent")

    async def receive(self) -> bytes:
        try:
            data = await self._wire.receive()
        except SessionError as error:
            self._listener.note(str(error.failure))
            raise
        self._hear(data)
        return data

    def receive_nowait(self) -> bytes | None:
        data = self._wire.receive_nowait()
        if data is not None:
            self._hear(data)
        return data

    async def start_tls(
        self, server_name: str | None, terms: TlsTerms, timeout_seconds: float
    ) -> TlsInfo | TransportFailure:
        self._listener.flush()
        met = await self._wire.start_tls(server_name, terms, timeout_seconds)
        name = f" for {server_name}" if server_name else ""
        self._listener.note(f"TLS{name}: {met}")
        return met

    def close(self) -> None:
        self._listener.flush()
        self._listener.note("closed")
        self._wire.close()

    def _hear(self, data: bytes) -> None:
        if data:
            self._listener.heard(data)
        else:
            self._listener.flush()
            self._listener.note("the peer closed")


def visible(octets: bytes) -> str:
    """As text in which nothing can move a cursor: what is not printable is escaped."""
    text = octets.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
