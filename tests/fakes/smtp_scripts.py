"""Scripted talk with an SMTP client: what it must write, and what is said then.

`ready` gives a client behind its handshake, `play` goes through a script line by line, `told` puts the
events into short words. Octets of commands and contents come from `letters`.
"""

from collections.abc import Callable, Iterable

from engine.mta.proto.smtp_client import SmtpClient
from engine.mta.proto.smtp_options import (
    ClientOptions,
    Closed,
    Event,
    Knowledge,
    PipeliningVerdict,
    Ready,
    Result,
)
from tests.fakes.smtp_peer import letters, octet_by_octet, results, whole

U, W, R = Knowledge.UNTRIED, Knowledge.WORKS, Knowledge.REFUSED
KNOWN = PipeliningVerdict(inside=W, across=W, chunking=W, windows=W, served=100)
NO_ACROSS = PipeliningVerdict(inside=W, across=R, chunking=W, windows=R, served=100)
TRIAL = PipeliningVerdict(inside=W, served=100)
PIPELINING, CHUNKING = ("PIPELINING",), ("PIPELINING", "CHUNKING")

LETTERS = letters(6)
RSET = b"RSET\r\n"
OK3 = b"250 mail\r\n250 rcpt\r\n354 go\r\n"


def mail(key: int) -> bytes:
    return f"MAIL FROM:<b-{key}@bounce.example.org>\r\n".encode()


def rcpt(key: int) -> bytes:
    return f"RCPT TO:<user{key}@example.net>\r\n".encode()


def envelope(key: int) -> bytes:
    return mail(key) + rcpt(key) + b"DATA\r\n"


def content(key: int) -> bytes:
    return LETTERS[key].content + b".\r\n"


def bdat(key: int) -> bytes:
    return b"BDAT %d LAST\r\n" % len(LETTERS[key].content) + LETTERS[key].content


def unit(key: int) -> bytes:
    return mail(key) + rcpt(key) + bdat(key) + RSET


def ready(extensions: Iterable[str], verdict: PipeliningVerdict, **options: object) -> SmtpClient:
    client = SmtpClient(ClientOptions(ehlo_name="me.example.org", verdict=verdict, **options))  # type: ignore[arg-type]
    client.receive_data(b"220 hi\r\n")
    client.handed_over(len(client.next_output() or b""))
    lines = ["hi", *extensions]
    answer = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
    assert isinstance(client.receive_data(answer.encode())[-1], Ready)
    return client


Line = tuple[bytes | None, bytes | None]  # what we write, what is said then; None: the peer closes
# name, extensions, verdict, messages, script, told, what is learned (inside, across, chunking, windows)
Case = tuple[str, tuple[str, ...], PipeliningVerdict, int, list[Line], list[str], tuple[Knowledge, ...]]


def play(
    client: SmtpClient, count: int, script: list[Line], cut: Callable[[bytes], Iterable[bytes]] = whole
) -> list[Event]:
    events: list[Event] = []
    for letter in LETTERS[:count]:
        events += client.submit(letter)
    for written, said in script:
        out = client.next_output()
        assert out == written
        client.handed_over(len(out or b""))
        if said is None:
            events += client.peer_closed()
        else:
            for piece in cut(said):
                events += client.receive_data(piece)
    return events


def cut_at(point: int) -> Callable[[bytes], Iterable[bytes]]:
    return lambda data: (piece for piece in (data[:point], data[point:]) if piece)


def told(events: list[Event]) -> list[str]:
    """Events as short words: `0 DELIVERED content 250`, `closed clean`."""
    words = []
    for event in events:
        if isinstance(event, Result):
            code = event.reply.code if event.reply else event.failure and event.failure.kind.value
            words.append(f"{event.key} {event.kind.name} {event.verb.value} {code}")
        elif isinstance(event, Closed):
            words.append("closed clean" if event.clean else "closed")
    return words


def check_case(case: Case) -> None:
    """Play it with the peer's octets whole, one by one, and cut in two at every point."""
    _, extensions, verdict, count, script, words, learned = case
    longest = max((len(said) for _, said in script if said), default=0)
    for cut in (whole, octet_by_octet, *(cut_at(point) for point in range(1, longest))):
        client = ready(extensions, verdict)
        events = play(client, count, script, cut)
        if script[-1] == (None, b"") and not client.closed:
            events += client.peer_closed()
        assert told(events) == words
        found = client.learned
        assert (found.inside, found.across, found.chunking, found.windows) == learned
        delivered = sum("DELIVERED" in word for word in words)
        assert found.served == verdict.served + delivered
        results(events)
