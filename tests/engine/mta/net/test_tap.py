"""The tap: the whole conversation with secrets masked, bounded, and nothing of it changed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bus.api import PAYLOAD_OCTETS_MAX
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.session import Progress, SessionError
from engine.mta.net.tap import (
    LINE_OCTETS_MAX,
    TAPE_OCTETS_MAX,
    Listener,
    Tape,
    TapedWire,
    TapeLine,
    visible,
)


def listened(body_octets: int = 100, *, mask: bool = False) -> tuple[Tape, Listener]:
    tape = Tape(body_octets=body_octets, mask=mask)
    return tape, Listener(tape, 1, lambda: 0.0)


def texts(tape: Tape) -> list[str]:
    return [f"{line.way} {line.text}" for line in everything(tape)]


def everything(tape: Tape) -> list[TapeLine]:
    found: list[TapeLine] = []
    while lines := tape.fetch(10_000):
        found += lines
    return found


def test_a_conversation_reads_as_it_was_said() -> None:
    tape, ear = listened(body_octets=9)
    ear.heard(b"220 mx.test\r\n")
    ear.sent(b"EHLO us.test\r\n")
    ear.heard(b"250-mx.test\r\n250 PIPELINING\r\n")
    ear.sent(b"MAIL FROM:<b@us.test>\r\nRCPT TO:<ann@a.test>\r\nDATA\r\n")
    ear.heard(b"250 ok\r\n250 ok\r\n354 go\r\n")
    ear.sent(b"Subject: x\r\n\r\nDATA\r\n.\r\nMAIL FROM:<c@us.test>\r\n")
    ear.heard(b"250 queued\r\n")
    assert texts(tape) == [
        "< 220 mx.test",
        "> EHLO us.test",
        "< 250-mx.test",
        "< 250 PIPELINING",
        "> MAIL FROM:<b@us.test>",
        "> RCPT TO:<ann@a.test>",
        "> DATA",
        "< 250 ok",
        "< 250 ok",
        "< 354 go",
        "> Subject: ",
        "- ... 11 octets of the message more",
        "> .",
        "> MAIL FROM:<c@us.test>",
        "< 250 queued",
    ]


def test_a_refused_data_is_followed_by_commands_and_not_by_content() -> None:
    tape, ear = listened()
    ear.sent(b"DATA\r\n")
    ear.heard(b"503 no recipients\r\n")
    ear.sent(b"RSET\r\n")
    assert texts(tape)[-1] == "> RSET"


def test_content_of_bdat_is_counted_and_not_read_as_commands() -> None:
    tape, ear = listened(body_octets=4)
    ear.sent(b"MAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\nBDAT 16 LAST\r\nAUTH ")
    ear.sent(b"PLAIN x\r\n.\r\nRSET\r\n"[:11] + b"RSET\r\n")
    assert texts(tape) == [
        "> MAIL FROM:<>",
        "> RCPT TO:<a@a.test>",
        "> BDAT 16 LAST",
        "> AUTH",
        "- ... 12 octets of the message more",
        "> RSET",
    ]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ((b"AUTH PLAIN c2VjcmV0\r\n",), ["> AUTH PLAIN ***"]),
        ((b"AUTH PLAIN\r\n", b"c2VjcmV0\r\n"), ["> AUTH PLAIN", "< 334 ***", "> ***"]),
        ((b"AUTH LOGIN\r\n", b"dXNlcg==\r\n"), ["> AUTH LOGIN", "< 334 ***", "> ***"]),
        ((b"auth xoauth2 c2VjcmV0\r\n",), ["> auth xoauth2 ***"]),
    ],
)
def test_secrets_are_masked(said: tuple[bytes, ...], shown: list[str]) -> None:
    tape, ear = listened()
    ear.sent(said[0])
    for more in said[1:]:
        ear.heard(b"334 UGFzc3dvcmQ6\r\n")
        ear.sent(more)
    ear.heard(b"235 2.7.0 welcome\r\n")
    ear.sent(b"MAIL FROM:<>\r\n")
    assert texts(tape) == [*shown, "< 235 2.7.0 welcome", "> MAIL FROM:<>"]


def test_a_peer_that_answers_out_of_turn_uncovers_no_secret() -> None:
    tape, ear = listened()
    ear.sent(b"AUTH LOGIN\r\n")
    ear.heard(b"334 UGFzc3dvcmQ6\r\n235 come in\r\n")
    ear.sent(b"c2VjcmV0\r\n")
    ear.sent(b"c2VjcmV0 more of it\r\n")
    assert texts(tape)[-2:] == ["> *** (8 octets)", "> *** (19 octets)"]


@given(st.lists(st.sampled_from([b"334 x\r\n", b"235 ok\r\n", b"235-", b"354 go\r\n", b"\r\n"]), max_size=8))
def test_whatever_a_peer_says_a_secret_is_never_shown(said: list[bytes]) -> None:
    tape, ear = listened(body_octets=0)
    ear.sent(b"AUTH PLAIN c2VjcmV0\r\n")
    for octets in said:
        ear.heard(octets)
        ear.sent(b"c2VjcmV0\r\n")
    assert "c2VjcmV0" not in " ".join(texts(tape))


def test_the_empty_line_between_header_and_body_is_shown() -> None:
    tape, ear = listened()
    ear.sent(b"DATA\r\n")
    ear.heard(b"354 go\r\n")
    ear.sent(b"Subject: x\r\n\r\nhello\r\n.\r\n")
    assert texts(tape)[2:] == ["> Subject: x", "> ", "> hello", "> ."]


def test_messages_in_one_write_are_told_apart() -> None:
    tape, ear = listened(body_octets=0)
    ear.sent(b"MAIL FROM:<1@us.test>\r\nDATA\r\n")
    ear.heard(b"250 ok\r\n354 go\r\n")
    ear.sent(b"RCPT TO:<no@a.test>\r\n.\r\nMAIL FROM:<2@us.test>\r\nDATA\r\n")
    ear.heard(b"250 ok\r\n250 ok\r\n354 go\r\n")
    ear.sent(b".\r\nQUIT\r\n")
    ours = [text for text in texts(tape) if not text.startswith("<")]
    assert ours == [
        "> MAIL FROM:<1@us.test>",
        "> DATA",
        "- ... 21 octets of the message more",
        "> .",
        "> MAIL FROM:<2@us.test>",
        "> DATA",
        "> .",
        "> QUIT",
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_how_octets_are_cut_changes_nothing(sizes: list[int]) -> None:
    said = b"EHLO us\r\nDATA\r\nBDAT 5 LAST\r\nab\r\ncRSET\r\nQUIT\r\n"
    whole, ear = listened(body_octets=0)
    ear.sent(said)
    cut, ear = listened(body_octets=0)
    at = 0
    for size in sizes:
        ear.sent(said[at : at + size])
        at += size
    ear.sent(said[at:])
    assert texts(cut) == texts(whole)


def test_recipients_are_masked_on_demand() -> None:
    tape, ear = listened(mask=True)
    ear.sent(b"RCPT TO:<ann@a.test>\r\n")
    ear.sent(b"DATA\r\n")
    ear.heard(b"354 go\r\n")
    ear.sent(b"To: ann@a.test\r\n.\r\n")
    ear.heard(b"250 ok for <ann@a.test>\r\n")
    assert texts(tape) == [
        "> RCPT TO:<***@a.test>",
        "> DATA",
        "< 354 go",
        "- ... 16 octets of the message more",
        "> .",
        "< 250 ok for <***@a.test>",
    ]


@given(st.binary(max_size=200))
def test_nothing_a_peer_says_can_move_a_cursor(octets: bytes) -> None:
    assert visible(octets).isprintable()


@given(st.lists(st.binary(max_size=40), max_size=20), st.lists(st.binary(max_size=40), max_size=20))
def test_whatever_passes_is_borne_and_bounded(sent: list[bytes], heard: list[bytes]) -> None:
    tape, ear = listened()
    for octets in sent:
        ear.sent(octets)
    for octets in heard:
        ear.heard(octets)
    assert all(line.text.isprintable() for line in tape.fetch(1_000))


def test_a_tape_that_nobody_fetches_stays_bounded_and_counts_what_it_drops() -> None:
    tape, ear = listened()
    line = b"250 " + b"x" * 990 + b"\r\n"
    for _ in range(2_000):
        ear.heard(line)
    assert tape.dropped > 900
    fetched = 0
    while lines := tape.fetch(10_000):
        fetched += sum(len(each.text) for each in lines)
    assert 0.85 * TAPE_OCTETS_MAX < fetched <= TAPE_OCTETS_MAX
    ear.heard(line)
    assert len(tape.fetch(10)) == 1


def test_empty_lines_are_bounded_like_others() -> None:
    tape, ear = listened()
    ear.heard(b"\n" * 20_000)
    assert len(everything(tape)) + tape.dropped == 20_000
    assert tape.dropped > 10_000


def test_one_fetch_fits_into_an_answer_whatever_a_peer_says() -> None:
    for octets in (b"\x01" * 1_900, b'"' * 1_900, "\U0001f600".encode() * 490):
        tape, ear = listened()
        for _ in range(300):
            ear.heard(b"250-" + octets + b"\r\n")
        count = 0
        while lines := tape.fetch(300):
            count += len(lines)
            assert len(msgspec.json.encode(lines)) < PAYLOAD_OCTETS_MAX - 50_000
        assert count == 300 - tape.dropped


class Copied(bytes):
    """Octets that count how many of them are copied."""

    copied = 0

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        found = super().__getitem__(key)
        Copied.copied += len(found)
        return Copied(found)


def test_a_large_message_is_not_copied_for_each_of_its_lines() -> None:
    tape, ear = listened(body_octets=0)
    ear.sent(b"DATA\r\n")
    ear.heard(b"354 go\r\n")
    message = Copied((b"x" * 70 + b"\r\n") * 10_000 + b".\r\n")
    Copied.copied = 0
    ear.sent(message)
    assert 0 < Copied.copied <= len(message)
    assert texts(tape)[-2:] == ["- ... 720,000 octets of the message more", "> ."]


def test_a_line_without_an_end_is_not_kept() -> None:
    tape, ear = listened()
    for _ in range(100):
        ear.heard(b"x" * 100_000)
    assert len(ear._heard) <= LINE_OCTETS_MAX
    assert texts(tape) == []


def test_half_a_line_is_shown_when_no_more_can_come() -> None:
    tape, ear = listened()
    ear.heard(b"220 he")
    ear.flush()
    ear.flush()
    assert texts(tape) == ["< 220 he"]


class Wire:
    """Says what it is given."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.failing = False

    async def send(self, data: bytes, progress: Progress | None = None) -> None:
        self.log.append(f"send {data.decode()}")
        assert progress is not None
        progress(2 if self.failing else len(data))
        if self.failing:
            raise SessionError(TransportFailure(FailureKind.CLOSED, Verb.IDLE))

    async def receive(self) -> bytes:
        return b"220 hello\r\n"

    def receive_nowait(self) -> bytes | None:
        return None

    async def start_tls(self, *_: object) -> TransportFailure:
        return TransportFailure(FailureKind.TLS, Verb.TLS, "no")

    def close(self) -> None:
        self.log.append("close")


async def test_a_taped_wire_does_what_the_wire_does() -> None:
    tape, ear = listened()
    wire = Wire()
    taped = TapedWire(wire, ear)  # type: ignore[arg-type]
    assert await taped.receive() == b"220 hello\r\n"
    counted: list[int] = []
    await taped.send(b"NOOP\r\n", counted.append)
    assert counted == [6]
    assert taped.receive_nowait() is None
    await taped.start_tls("mx.test", None, 1.0)  # type: ignore[arg-type]
    wire.failing = True
    with pytest.raises(SessionError):
        await taped.send(b"QUIT\r\n")
    taped.close()
    assert wire.log == ["send NOOP\r\n", "send QUIT\r\n", "close"]
    assert texts(tape) == [
        "< 220 hello",
        "> NOOP",
        "- TLS for mx.test: tls at tls: no",
        "> QUIT",
        "- closed at idle",
        "- only 2 of these 6 octets were sent",
        "- closed",
    ]
