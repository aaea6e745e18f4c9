"""What replies mean, scripted: each line is what we must write and what the peer then says.

Every script is played with the peer's octets whole, one by one, and cut in two at every point.
"""

import pytest

from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.proto.smtp_options import PipeliningVerdict
from tests.fakes.smtp_peer import results
from tests.fakes.smtp_scripts import (
    CHUNKING,
    KNOWN,
    LETTERS,
    OK3,
    PIPELINING,
    RSET,
    TRIAL,
    Case,
    R,
    U,
    W,
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
        "across: one write and one read a message",
        PIPELINING,
        KNOWN,
        3,
        [
            (envelope(0), OK3),
            (content(0) + envelope(1), b"250 kept\r\n" + OK3),
            (content(1) + envelope(2), b"250 kept\r\n" + OK3),
            (content(2), b"250 kept\r\n"),
            (None, b""),
        ],
        ["0 DELIVERED content 250", "1 DELIVERED content 250", "2 DELIVERED content 250", "closed clean"],
        (W, W, W, W),
    ),
    (
        "across, a recipient refused and DATA too: the next flight opens with RSET",
        PIPELINING,
        KNOWN,
        3,
        [
            (envelope(0), OK3),
            (content(0) + envelope(1), b"250 kept\r\n250 m\r\n550 5.1.1 who\r\n554 none\r\n"),
            (RSET + envelope(2), b"250 rset\r\n" + OK3),
            (content(2), b"250 kept\r\n"),
        ],
        ["0 DELIVERED content 250", "1 REFUSED rcpt 550", "2 DELIVERED content 250"],
        (W, W, W, W),
    ),
    (
        "across, the content refused: the next message goes on",
        PIPELINING,
        KNOWN,
        2,
        [
            (envelope(0), OK3),
            (content(0) + envelope(1), b"554 5.7.1 spam\r\n" + OK3),
            (content(1), b"250 kept\r\n"),
        ],
        ["0 REFUSED content 554", "1 DELIVERED content 250"],
        (W, W, W, W),
    ),
    (
        "recipient refused but DATA taken: a lone dot, alone",
        PIPELINING,
        KNOWN,
        2,
        [
            (envelope(0), b"250 m\r\n550 who\r\n354 go\r\n"),
            (b".\r\n", b"554 none\r\n"),
            (envelope(1), OK3),
            (content(1), b"250 kept\r\n"),
        ],
        ["0 REFUSED rcpt 550", "1 DELIVERED content 250"],
        (W, W, W, W),
    ),
    (
        "a lone dot that is accepted delivered nothing",
        PIPELINING,
        KNOWN,
        1,
        [(envelope(0), b"250 m\r\n450 later\r\n354 go\r\n"), (b".\r\n", b"250 kept\r\n")],
        ["0 REFUSED rcpt 450"],
        (W, W, W, W),
    ),
    (
        "MAIL refused but DATA taken: no dot, the connection ends",
        PIPELINING,
        KNOWN,
        2,
        [(envelope(0), b"550 m\r\n250 rcpt\r\n354 go\r\n"), (None, b"")],
        ["0 REFUSED mail 550", "1 UNSENT data protocol", "closed"],
        (W, W, W, W),
    ),
    (
        "Haraka: 503 behind the dot is not here, and nothing is lost",
        PIPELINING,
        TRIAL,
        2,
        [
            (envelope(0), OK3),
            (content(0) + envelope(1), b"250 kept\r\n" + b"503 5.5.1 pipelined after end of DATA\r\n" * 3),
            (RSET + envelope(1), b"250 rset\r\n" + OK3),
            (content(1), b"250 kept\r\n"),
        ],
        ["0 DELIVERED content 250", "1 DELIVERED content 250"],
        (W, R, U, U),
    ),
    (
        "503 behind the dot, but DATA taken with MAIL refused: close, unsent",
        PIPELINING,
        TRIAL,
        2,
        [
            (envelope(0), OK3),
            (content(0) + envelope(1), b"250 kept\r\n503 no\r\n250 rcpt\r\n354 go\r\n"),
            (None, b""),
        ],
        ["0 DELIVERED content 250", "1 UNSENT data protocol", "closed"],
        (W, R, U, U),
    ),
    (
        "503 to RCPT behind the dot, DATA taken: lone dot, then again",
        PIPELINING,
        TRIAL,
        2,
        [
            (envelope(0), OK3),
            (content(0) + envelope(1), b"250 kept\r\n250 m\r\n503 no\r\n354 go\r\n"),
            (b".\r\n", b"554 none\r\n"),
            (envelope(1), OK3),
            (content(1), b"250 kept\r\n"),
        ],
        ["0 DELIVERED content 250", "1 DELIVERED content 250"],
        (W, R, U, U),
    ),
    (
        "a site on trial that hangs up on the crossing commands is not asked again",
        PIPELINING,
        TRIAL,
        2,
        [(envelope(0), OK3), (content(0) + envelope(1), b"250 kept\r\n"), (None, None)],
        ["0 DELIVERED content 250", "1 UNSENT mail closed", "closed"],
        (W, R, U, U),
    ),
    (
        "421 to a crossing command on trial is held against the form",
        PIPELINING,
        TRIAL,
        2,
        [(envelope(0), OK3), (content(0) + envelope(1), b"250 kept\r\n421 what\r\n"), (None, b"")],
        ["0 DELIVERED content 250", "1 REFUSED mail 421", "closed"],
        (W, R, U, U),
    ),
    (
        "across is not tried before some messages were served",
        PIPELINING,
        PipeliningVerdict(served=2),
        3,
        [
            (envelope(0), OK3),
            (content(0), b"250 kept\r\n"),
            (envelope(1), OK3),
            (content(1) + envelope(2), b"250 kept\r\n" + OK3),
            (content(2), b"250 kept\r\n"),
        ],
        ["0 DELIVERED content 250", "1 DELIVERED content 250", "2 DELIVERED content 250"],
        (W, W, U, U),
    ),
    (
        "improper pipelining: one command at a time from then on",
        PIPELINING,
        PipeliningVerdict(),
        2,
        [
            (envelope(0), b"250 m\r\n250 r\r\n503 5.5.0 Improper use of SMTP command pipelining\r\n"),
            (RSET, b"250 rset\r\n"),
            (mail(0), b"250 m\r\n"),
            (rcpt(0), b"250 r\r\n"),
            (b"DATA\r\n", b"354 go\r\n"),
            (content(0), b"250 kept\r\n"),
            (mail(1), b"250 m\r\n"),
            (rcpt(1), b"250 r\r\n"),
        ],
        ["0 DELIVERED content 250"],
        (R, U, U, U),
    ),
    (
        "replies out of order: nothing more can be trusted",
        PIPELINING,
        KNOWN,
        2,
        [(envelope(0), b"250 m\r\n354 go\r\n"), (None, b"")],
        ["0 UNSENT rcpt protocol", "1 UNSENT rcpt protocol", "closed"],
        (R, W, W, W),
    ),
    (
        "250 to DATA: out of step",
        PIPELINING,
        KNOWN,
        1,
        [(envelope(0), b"250 m\r\n250 r\r\n250 d\r\n"), (None, b"")],
        ["0 UNSENT data protocol", "closed"],
        (R, W, W, W),
    ),
    (
        "a reply before we spoke: one command at a time",
        PIPELINING,
        KNOWN,
        1,
        [(envelope(0), OK3 + b"250 early\r\n"), (content(0), b"250 kept\r\n")],
        ["0 DELIVERED content 250"],
        (R, W, W, W),
    ),
    (
        "OpenSMTPD: no PIPELINING, one command at a time, RSET after a refusal",
        ("8BITMIME",),
        PipeliningVerdict(),
        2,
        [
            (mail(0), b"250 m\r\n"),
            (rcpt(0), b"550 5.1.1 who\r\n"),
            (RSET, b"250 rset\r\n"),
            (mail(1), b"250 m\r\n"),
            (rcpt(1), b"250 r\r\n"),
            (b"DATA\r\n", b"354 go\r\n"),
            (content(1), b"250 kept\r\n"),
            (None, b""),
        ],
        ["0 REFUSED rcpt 550", "1 DELIVERED content 250", "closed clean"],
        (U, U, U, U),
    ),
    (
        "421 to MAIL: its own is refused for now, the rest unsent",
        PIPELINING,
        KNOWN,
        3,
        [(envelope(0), b"421 4.7.0 slow down\r\n"), (None, b"")],
        ["0 REFUSED mail 421", "1 UNSENT mail 421", "2 UNSENT mail 421", "closed"],
        (W, W, W, W),
    ),
    (
        "421 to a final dot",
        PIPELINING,
        KNOWN,
        2,
        [(envelope(0), OK3), (content(0) + envelope(1), b"421 bye\r\n"), (None, b"")],
        ["0 REFUSED content 421", "1 UNSENT content 421", "closed"],
        (W, W, W, W),
    ),
    (
        "421 behind a refused recipient: the first refusal counts",
        PIPELINING,
        KNOWN,
        1,
        [(envelope(0), b"250 m\r\n550 who\r\n421 bye\r\n"), (None, b"")],
        ["0 REFUSED rcpt 550", "closed"],
        (W, W, W, W),
    ),
    ("421 while idle", PIPELINING, KNOWN, 0, [(None, b"421 idle\r\n")], ["closed clean"], (W, W, W, W)),
    ("a close while idle", PIPELINING, KNOWN, 0, [(None, None)], ["closed clean"], (W, W, W, W)),
    (
        "a close behind the final dot is ambiguous, the crossing envelope unsent",
        PIPELINING,
        KNOWN,
        2,
        [(envelope(0), OK3), (content(0) + envelope(1), None)],
        ["0 AMBIGUOUS content closed", "1 UNSENT content closed", "closed"],
        (W, W, W, W),
    ),
    (
        "a close behind the envelope is unsent",
        PIPELINING,
        KNOWN,
        1,
        [(envelope(0), None)],
        ["0 UNSENT mail closed", "closed"],
        (W, W, W, W),
    ),
    (
        "rubbish instead of a reply to the dot",
        PIPELINING,
        KNOWN,
        1,
        [(envelope(0), OK3), (content(0), b"HTTP/1.1 200 Ok\r\n"), (None, b"")],
        ["0 AMBIGUOUS content protocol", "closed"],
        (W, W, W, W),
    ),
    (
        "RSET refused: the session is given up",
        PIPELINING,
        KNOWN,
        2,
        [(envelope(0), b"550 m\r\n503 r\r\n503 d\r\n"), (RSET + envelope(1), b"500 what\r\n"), (None, b"")],
        ["0 REFUSED mail 550", "1 UNSENT rset protocol", "closed"],
        (W, W, W, W),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_script(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(
    ("missing", "kind"),
    [(0, "AMBIGUOUS"), (1, "UNSENT"), (len(content(0)), "UNSENT")],
)
def test_content_not_handed_whole_to_the_kernel_is_unsent(missing: int, kind: str) -> None:
    client = ready(PIPELINING, KNOWN)
    play(client, 1, [(envelope(0), OK3)])
    out = client.next_output()
    assert out == content(0)
    client.handed_over(len(out) - missing)
    failure = TransportFailure(FailureKind.TIMEOUT, Verb.CONTENT)
    assert told(client.connection_lost(failure)) == [f"0 {kind} content timeout", "closed"]


@pytest.mark.parametrize("handed", range(0, len(unit(0) + unit(1)), 7))
def test_units_are_ambiguous_once_their_last_octet_is_handed_over(handed: int) -> None:
    client = ready(CHUNKING, KNOWN)
    for letter in LETTERS[:2]:
        client.submit(letter)
    assert client.next_output() == unit(0) + unit(1)
    client.handed_over(handed)
    found = results(client.peer_closed())
    ends = [len(unit(0)) - len(RSET), len(unit(0) + unit(1)) - len(RSET)]
    assert [found[key].kind.name for key in (0, 1)] == [
        "AMBIGUOUS" if handed >= end else "UNSENT" for end in ends
    ]


def test_a_flight_that_gets_stuck_on_a_new_site_is_not_tried_again() -> None:
    client = ready(PIPELINING, PipeliningVerdict())
    play(client, 1, [(envelope(0), b"250 m\r\n")])
    assert client.time_limit == (Verb.RCPT, 300)
    client.connection_lost(TransportFailure(FailureKind.TIMEOUT, Verb.RCPT))
    assert client.learned.odd


def test_the_second_reply_to_nothing_ends_the_connection() -> None:
    client = ready(PIPELINING, KNOWN)
    assert client.receive_data(b"250 early\r\n") == []
    assert client.learned.odd
    assert told(client.receive_data(b"250 early\r\n")) == ["closed clean"]


def test_abort_settles_by_what_the_kernel_has() -> None:
    client = ready(PIPELINING, KNOWN)
    play(client, 2, [(envelope(0), OK3)])
    out = client.next_output() or b""
    client.handed_over(len(out))
    assert told(client.abort("shutdown")) == [
        "0 AMBIGUOUS content stopped",
        "1 UNSENT content stopped",
        "closed",
    ]
    assert client.abort("again") == []
    assert client.next_output() is None
