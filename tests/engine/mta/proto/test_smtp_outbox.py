"""What goes out: units of BDAT, steps, limits; scripted, and played with the octets cut everywhere."""

import pytest

from engine.mta.proto.smtp_options import PipeliningVerdict
from tests.fakes.smtp_scripts import (
    CHUNKING,
    KNOWN,
    LETTERS,
    NO_ACROSS,
    OK3,
    PIPELINING,
    RSET,
    TRIAL,
    Case,
    Line,
    R,
    U,
    W,
    bdat,
    check_case,
    content,
    envelope,
    mail,
    play,
    rcpt,
    ready,
    told,
    unit,
)

CASES: list[Case] = [
    (
        "units of BDAT: a window in one write, each with its RSET",
        CHUNKING,
        KNOWN,
        3,
        [
            (unit(0) + unit(1) + unit(2), b"250 x\r\n" * 8 + b"250 last\r\n250 x\r\n" * 2),
        ],
        ["0 DELIVERED bdat 250", "1 DELIVERED bdat 250", "2 DELIVERED bdat 250"],
        (W, W, W, W),
    ),
    (
        "a refused recipient inside the window costs only its own message",
        CHUNKING,
        KNOWN,
        2,
        [
            (
                unit(0) + unit(1),
                b"250 m\r\n550 who\r\n503 none\r\n250 rset\r\n250 m\r\n250 r\r\n250 kept\r\n250 rset\r\n",
            )
        ],
        ["0 REFUSED rcpt 550", "1 DELIVERED bdat 250"],
        (W, W, W, W),
    ),
    (
        "Exim crossing return paths: BDAT taken behind a refused MAIL is ambiguous, windows are off",
        CHUNKING,
        KNOWN,
        3,
        [
            (
                unit(0) + unit(1) + unit(2),
                b"250 m\r\n550 who\r\n503 none\r\n250 rset\r\n503 m\r\n250 r\r\n250 kept\r\n",
            ),
            (None, b""),
        ],
        ["0 REFUSED rcpt 550", "1 AMBIGUOUS bdat 250", "2 AMBIGUOUS bdat protocol", "closed"],
        (W, W, W, R),
    ),
    (
        "503 to everything of a crossed unit: windows are off and it goes again alone",
        CHUNKING,
        KNOWN,
        2,
        [
            (
                unit(0) + unit(1),
                b"250 m\r\n250 r\r\n250 kept\r\n250 rset\r\n503 m\r\n503 r\r\n503 b\r\n250 rset\r\n",
            ),
            (unit(1), b"250 m\r\n250 r\r\n250 kept\r\n250 rset\r\n"),
        ],
        ["0 DELIVERED bdat 250", "1 DELIVERED bdat 250"],
        (W, W, W, R),
    ),
    (
        "CHUNKING announced, BDAT unknown: DATA from then on",
        CHUNKING,
        NO_ACROSS,
        1,
        [
            (unit(0), b"250 m\r\n250 r\r\n502 what\r\n250 rset\r\n"),
            (envelope(0), OK3),
            (content(0), b"250 kept\r\n"),
        ],
        ["0 DELIVERED content 250"],
        (W, R, R, R),
    ),
    (
        "a window of one waits for the RSET too",
        CHUNKING,
        NO_ACROSS,
        2,
        [
            (unit(0), b"250 m\r\n250 r\r\n250 kept\r\n"),
            (None, b"250 rset\r\n"),
            (unit(1), b"250 m\r\n250 r\r\n"),
        ],
        ["0 DELIVERED bdat 250"],
        (W, R, W, R),
    ),
    (
        "a window lost: units handed over are ambiguous but for refused recipients",
        CHUNKING,
        KNOWN,
        3,
        [(unit(0) + unit(1) + unit(2), b"250 m\r\n550 who\r\n"), (None, None)],
        ["0 REFUSED rcpt 550", "1 AMBIGUOUS bdat closed", "2 AMBIGUOUS bdat closed", "closed"],
        (W, W, W, W),
    ),
    (
        "421 to a unit: those behind it are unsent",
        CHUNKING,
        KNOWN,
        2,
        [(unit(0) + unit(1), b"250 m\r\n250 r\r\n421 full\r\n"), (None, b"")],
        ["0 REFUSED bdat 421", "1 UNSENT bdat 421", "closed"],
        (W, W, W, W),
    ),
    (
        "BDAT without PIPELINING: one command at a time",
        ("CHUNKING",),
        PipeliningVerdict(),
        2,
        [
            (mail(0), b"250 m\r\n"),
            (rcpt(0), b"250 r\r\n"),
            (bdat(0), b"554 no\r\n"),
            (RSET, b"250 rset\r\n"),
            (mail(1), b"250 m\r\n"),
            (rcpt(1), b"250 r\r\n"),
            (bdat(1), b"250 kept\r\n"),
        ],
        ["0 REFUSED bdat 554", "1 DELIVERED bdat 250"],
        (U, U, W, U),
    ),
    (
        "MAILMAX: QUIT behind the last one that is allowed",
        (*CHUNKING, "LIMITS MAILMAX=2"),
        KNOWN,
        3,
        [
            (unit(0) + unit(1), b"250 x\r\n" * 8),
            (b"QUIT\r\n", b"221 bye\r\n"),
        ],
        ["2 UNSENT mail stopped", "0 DELIVERED bdat 250", "1 DELIVERED bdat 250", "closed clean"],
        (W, W, W, W),
    ),
    (
        "sending again under MAILMAX gives back what no longer fits",
        (*PIPELINING, "LIMITS MAILMAX=3"),
        TRIAL,
        3,
        [
            (envelope(0), OK3),
            (content(0) + envelope(1), b"250 kept\r\n" + b"503 no\r\n" * 3),
            (RSET + envelope(1), b"250 rset\r\n" + OK3),
            (content(1), b"250 kept\r\n"),
            (b"QUIT\r\n", b"221 bye\r\n"),
        ],
        ["0 DELIVERED content 250", "2 UNSENT mail stopped", "1 DELIVERED content 250", "closed clean"],
        (W, R, U, U),
    ),
    (
        "a message above SIZE never reaches the wire",
        (*PIPELINING, "SIZE 10"),
        KNOWN,
        1,
        [(None, b"")],
        ["0 REFUSED mail 552", "closed clean"],
        (W, W, W, W),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_script(case: Case) -> None:
    check_case(case)


def test_a_window_is_bounded_in_messages_and_in_octets() -> None:
    client = ready(CHUNKING, KNOWN, window_messages=3)
    assert client.room() == 5
    play(client, 5, [(unit(0) + unit(1) + unit(2), b"250 x\r\n" * 3)])
    assert client.next_output() == unit(3)
    size = len(LETTERS[0].content)
    client = ready(CHUNKING, KNOWN, window_bytes=2 * size)
    play(client, 3, [(unit(0) + unit(1), b"250 x\r\n" * 4), (unit(2), b"")])
    client = ready(CHUNKING, KNOWN, window_bytes=1)
    play(client, 2, [(unit(0), b"250 x\r\n" * 4), (unit(1), b"")])


def test_room_prepares_ahead_and_ends_with_the_limit() -> None:
    client = ready(PIPELINING, KNOWN, messages_max=5)
    assert client.room() == 4
    play(client, 4, [(envelope(0), OK3)])
    assert client.room() == 0
    play(client, 0, [(content(0) + envelope(1), b"250 kept\r\n" + OK3)])
    assert client.room() == 1
    client.submit(LETTERS[4])
    assert client.room() == 0


def test_quit_finishes_what_was_submitted_and_takes_no_more() -> None:
    client = ready(PIPELINING, KNOWN)
    client.submit(LETTERS[0])
    client.quit()
    assert client.room() == 0
    assert told(client.submit(LETTERS[1])) == ["1 UNSENT mail stopped"]
    script: list[Line] = [
        (envelope(0), OK3),
        (content(0), b"250 kept\r\n"),
        (b"QUIT\r\n", b"221 bye\r\n"),
    ]
    events = play(client, 0, script)
    assert told(events) == ["0 DELIVERED content 250", "closed clean"]
    assert told(client.submit(LETTERS[2])) == ["2 UNSENT mail stopped"]


def test_a_key_submitted_twice_is_a_bug() -> None:
    client = ready(PIPELINING, KNOWN)
    client.submit(LETTERS[0])
    with pytest.raises(AssertionError):
        client.submit(LETTERS[0])
