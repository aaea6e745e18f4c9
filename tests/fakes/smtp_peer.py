"""A model SMTP server over bytes, and a shell that lets a client talk to it without a socket.

`ModelPeer` implements RFC 5321 with PIPELINING, CHUNKING and LIMITS as far as the client uses them and
keeps what it accepted, so a test can hold the client's results against the truth. `refuse(verb, n)`
gives the reply to the n-th command of a verb, None = the positive one. Manners of real servers:
`deaf_behind_dot` (Haraka: 503 to what stands behind a final dot in one read), `keeps_sender` (Exim: a
failed unit is not reset, the next MAIL is nested), `ignores_reset` (that, and RSET does not help).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from engine.mta.proto.smtp_client import SmtpClient
from engine.mta.proto.smtp_options import Event, Result, Transaction

Refuse = Callable[[str, int], str | None]


class ModelPeer:
    def __init__(
        self,
        *extensions: str,
        refuse: Refuse = lambda verb, n: None,
        deaf_behind_dot: bool = False,
        keeps_sender: bool = False,
        ignores_reset: bool = False,
    ) -> None:
        self.extensions = extensions
        self.refuse = refuse
        self.deaf_behind_dot = deaf_behind_dot
        self.keeps_sender = keeps_sender
        self.ignores_reset = ignores_reset
        self.accepted: list[tuple[str, tuple[str, ...], bytes]] = []
        self.commands: list[str] = []
        self.closed = False
        self._counts: Counter[str] = Counter()
        self._buffer = b""
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._content = False
        self._chunk: int | None = None

    def banner(self) -> bytes:
        return b"220 model.example.net ESMTP\r\n"

    def receive(self, data: bytes) -> bytes:
        """Octets from the client; the replies they cause."""
        self._buffer += data
        out = b""
        deaf = False
        while not self.closed:
            if self._content:
                body, end, rest = (b"\r\n" + self._buffer).partition(b"\r\n.\r\n")
                if not end:
                    break
                self._buffer, self._content = rest, False
                out += self._accept("content", body[2:] + b"\r\n" if body else b"")
                deaf = self.deaf_behind_dot
            elif self._chunk is not None:
                if len(self._buffer) < self._chunk:
                    break
                body, self._buffer = self._buffer[: self._chunk], self._buffer[self._chunk :]
                self._chunk = None
                out += self._accept("BDAT", body)
            else:
                line, end, rest = self._buffer.partition(b"\r\n")
                if not end:
                    break
                self._buffer = rest
                self.commands.append(line.decode())
                out += b"503 5.5.1 pipelined after end of DATA\r\n" if deaf else self._command(line.decode())
        return out

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []

    def _said(self, verb: str) -> str | None:
        self._counts[verb] += 1
        text = self.refuse(verb, self._counts[verb])
        if text is not None and text.startswith("421"):
            self.closed = True
        return text

    def _command(self, line: str) -> bytes:
        verb, _, rest = line.partition(" ")
        text = self._said(verb)
        if verb == "BDAT":  # its octets come in any case
            self._chunk = int(rest.split()[0])
            self._bdat_refusal = text
            return b""
        if text is None:
            text = getattr(self, f"_on_{verb.lower()}")(rest)
        return f"{text}\r\n".encode() if text else b""

    def _on_ehlo(self, rest: str) -> str:
        lines = ["model.example.net", *self.extensions]
        return "\r\n".join([f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"])

    def _on_mail(self, rest: str) -> str:
        if self._sender is not None:
            return "503 5.5.1 nested MAIL"
        self._sender = rest.split("<")[1].split(">", maxsplit=1)[0]
        return "250 2.1.0 Ok"

    def _on_rcpt(self, rest: str) -> str:
        if self._sender is None:
            return "503 5.5.1 need MAIL"
        self._recipients.append(rest.split("<")[1].split(">", maxsplit=1)[0])
        return "250 2.1.5 Ok"

    def _on_data(self, rest: str) -> str:
        if not self._recipients:
            return "554 5.5.1 no valid recipients"
        self._content = True
        return "354 go on"

    def _on_rset(self, rest: str) -> str:
        if not self.ignores_reset:
            self._reset()
        return "250 2.0.0 Ok"

    def _on_quit(self, rest: str) -> str:
        self.closed = True
        return "221 2.0.0 Bye"

    def _accept(self, verb: str, content: bytes) -> bytes:
        refusal = self._said("content") if verb == "content" else self._bdat_refusal
        if not self._recipients and refusal is None:
            refusal = "503 5.5.1 no valid recipients"
        if refusal is None:
            assert self._sender is not None
            self.accepted.append((self._sender, tuple(self._recipients), content))
            self._reset()
            return f"250 2.0.0 Ok: queued as {len(self.accepted)}\r\n".encode()
        if not (self.keeps_sender or self.ignores_reset) or verb == "content":
            self._reset()
        return f"{refusal}\r\n".encode()


def letters(count: int) -> list[Transaction]:
    """Transactions with keys from 0, each with its own return path, recipient and content."""
    return [
        Transaction(
            key=key,
            mail_from=f"b-{key}@bounce.example.org",
            recipient=f"user{key}@example.net",
            content=f"Subject: {key}\r\n\r\nLetter {key}\r\n".encode(),
        )
        for key in range(count)
    ]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def octet_by_octet(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def converse(
    client: SmtpClient,
    peer: ModelPeer,
    transactions: Iterable[Transaction],
    cut: Callable[[bytes], Iterable[bytes]] = whole,
) -> list[Event]:
    """Let them talk until the end of the connection, as a shell would; every event in order."""
    todo = list(transactions)
    events: list[Event] = []
    inbound = peer.banner()
    while not client.closed:
        for piece in cut(inbound):
            events += client.receive_data(piece)
            while todo and client.room():
                events += client.submit(todo.pop(0))
        if not todo and client.room():
            client.quit()
        out = client.next_output()
        if out is None:
            if not client.closed:
                events += client.peer_closed()
            break
        client.handed_over(len(out))
        inbound = b"".join(peer.receive(piece) for piece in (out,))
        if not inbound and peer.closed:
            events += client.peer_closed()
    for transaction in todo:
        events += client.submit(transaction)
    return events


def results(events: Iterable[Event]) -> dict[int, Result]:
    """The one result of each key; two for a key are a failure."""
    found: dict[int, Result] = {}
    for event in events:
        if isinstance(event, Result):
            assert event.key not in found, f"two results for {event.key}"
            found[event.key] = event
    return found
