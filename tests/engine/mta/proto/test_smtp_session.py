"""The handshake, scripted: each line of a script is what the peer says and what we answer."""

from base64 import b64encode

import pytest

from engine.model.egress import Credentials
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.proto.smtp_client import SmtpClient
from engine.mta.proto.smtp_options import (
    ClientOptions,
    Closed,
    Event,
    Ready,
    SessionFailed,
    StartTls,
    TlsUse,
)

EHLO = b"EHLO me.example.org\r\n"
HELO = b"HELO me.example.org\r\n"
USER = Credentials("user", "secret")
OPEN_USER = Credentials("user", "secret", clear_allowed=True)
PLAIN = b"AUTH PLAIN " + b64encode(b"\0user\0secret") + b"\r\n"


def client_of(**options: object) -> SmtpClient:
    return SmtpClient(ClientOptions(ehlo_name="me.example.org", **options))  # type: ignore[arg-type]


def play(client: SmtpClient, script: list[tuple[bytes, bytes | None]]) -> list[Event]:
    """Say the left side of each line, expect the right one; TLS succeeds when it is asked for."""
    events: list[Event] = []
    for said, answer in script:
        found = client.receive_data(said)
        events += found
        if StartTls() in found and not client.closed:
            client.tls_established("TLSv1.3")
        out = client.next_output()
        assert out == answer
        client.handed_over(len(out or b""))
    return events


READY: list[tuple[str, dict[str, object], list[tuple[bytes, bytes | None]]]] = [
    ("plain", {}, [(b"220 hi\r\n", EHLO), (b"250 hi\r\n", None)]),
    ("slow banner", {}, [(b"220-wait\r\n", None), (b"220 hi\r\n", EHLO), (b"250 hi\r\n", None)]),
    ("HELO on 5xx", {}, [(b"220 hi\r\n", EHLO), (b"502 what\r\n", HELO), (b"250 hi\r\n", None)]),
    (
        "STARTTLS",
        {},
        [
            (b"220 hi\r\n", EHLO),
            (b"250-hi\r\n250-CHUNKING\r\n250 STARTTLS\r\n", b"STARTTLS\r\n"),
            (b"220 go\r\n", EHLO),
            (b"250-hi\r\n250-STARTTLS\r\n250 PIPELINING\r\n", None),
        ],
    ),
    (
        "STARTTLS refused, opportunistic",
        {},
        [
            (b"220 hi\r\n", EHLO),
            (b"250-hi\r\n250 STARTTLS\r\n", b"STARTTLS\r\n"),
            (b"454 not now\r\n", None),
        ],
    ),
    (
        "TLS not wanted",
        {"tls": TlsUse.NEVER},
        [(b"220 hi\r\n", EHLO), (b"250-hi\r\n250 STARTTLS\r\n", None)],
    ),
    (
        "AUTH PLAIN after TLS",
        {"credentials": USER},
        [
            (b"220 hi\r\n", EHLO),
            (b"250-hi\r\n250 STARTTLS\r\n", b"STARTTLS\r\n"),
            (b"220 go\r\n", EHLO),
            (b"250-hi\r\n250 AUTH LOGIN PLAIN\r\n", PLAIN),
            (b"235 ok\r\n", None),
        ],
    ),
    (
        "AUTH LOGIN in clear where allowed",
        {"credentials": OPEN_USER},
        [
            (b"220 hi\r\n", EHLO),
            (b"250-hi\r\n250 AUTH LOGIN\r\n", b"AUTH LOGIN\r\n"),
            (b"334 VXNlcm5hbWU6\r\n", b64encode(b"user") + b"\r\n"),
            (b"334 UGFzc3dvcmQ6\r\n", b64encode(b"secret") + b"\r\n"),
            (b"235 ok\r\n", None),
        ],
    ),
]


@pytest.mark.parametrize(("options", "script"), [line[1:] for line in READY], ids=[line[0] for line in READY])
def test_handshakes_that_become_ready(
    options: dict[str, object], script: list[tuple[bytes, bytes | None]]
) -> None:
    client = client_of(**options)
    events = play(client, script)
    assert isinstance(events[-1], Ready)
    assert client.room() > 0
    assert client.time_limit is None


def test_requiretls_is_a_promise_inside_tls_only() -> None:
    greeting = b"250-hi\r\n250-REQUIRETLS\r\n250 PIPELINING\r\n"
    client = client_of()
    play(client, [(b"220 hi\r\n", EHLO), (greeting, None)])
    assert client.capabilities.pipelining
    assert not client.capabilities.require_tls
    client = client_of()
    offer = b"250-hi\r\n250 STARTTLS\r\n"
    play(client, [(b"220 hi\r\n", EHLO), (offer, b"STARTTLS\r\n"), (b"220 go\r\n", EHLO), (greeting, None)])
    assert client.capabilities.require_tls


def test_nothing_from_before_tls_is_kept() -> None:
    client = client_of()
    (start, ready) = play(client, READY[3][2])
    assert start == StartTls()
    assert isinstance(ready, Ready)
    assert client.capabilities == ready.capabilities
    assert client.capabilities.pipelining
    assert not client.capabilities.chunking
    assert client.tls == "TLSv1.3"


STARTED: list[tuple[bytes, bytes | None]] = [
    (b"220 hi\r\n", EHLO),
    (b"250-hi\r\n250 STARTTLS\r\n", b"STARTTLS\r\n"),
]
FAILED: list[tuple[str, dict[str, object], list[tuple[bytes, bytes | None]], Verb, int | FailureKind]] = [
    ("banner 554", {}, [(b"554 no\r\n", b"QUIT\r\n")], Verb.BANNER, 554),
    ("banner 421", {}, [(b"421 busy\r\n", None)], Verb.BANNER, 421),
    ("banner 354", {}, [(b"354 eh\r\n", b"QUIT\r\n")], Verb.BANNER, 354),
    ("no SMTP", {}, [(b"SSH-2.0-x\r\n", None)], Verb.BANNER, FailureKind.PROTOCOL),
    ("EHLO 4xx", {}, [(b"220 hi\r\n", EHLO), (b"451 later\r\n", b"QUIT\r\n")], Verb.EHLO, 451),
    ("EHLO 421", {}, [(b"220 hi\r\n", EHLO), (b"421 later\r\n", None)], Verb.EHLO, 421),
    (
        "HELO refused",
        {},
        [(b"220 hi\r\n", EHLO), (b"550 no\r\n", HELO), (b"550 no\r\n", b"QUIT\r\n")],
        Verb.HELO,
        550,
    ),
    ("out of turn", {}, [(b"220 hi\r\n250 hi\r\n", None)], Verb.EHLO, FailureKind.PROTOCOL),
    ("injected reply", {}, [*STARTED, (b"220 go\r\n250 x\r\n", None)], Verb.STARTTLS, FailureKind.PROTOCOL),
    ("injected octet", {}, [*STARTED, (b"220 go\r\n2", None)], Verb.STARTTLS, FailureKind.PROTOCOL),
    ("injected rubbish", {}, [*STARTED, (b"220 go\r\nx\r\n", None)], Verb.STARTTLS, FailureKind.PROTOCOL),
    (
        "STARTTLS refused, required",
        {"tls": TlsUse.REQUIRED},
        [*STARTED, (b"454 no\r\n", b"QUIT\r\n")],
        Verb.STARTTLS,
        454,
    ),
    (
        "STARTTLS missing, required",
        {"tls": TlsUse.REQUIRED},
        [(b"220 hi\r\n", EHLO), (b"250 hi\r\n", None)],
        Verb.STARTTLS,
        FailureKind.TLS,
    ),
    (
        "no password in clear",
        {"credentials": USER},
        [(b"220 hi\r\n", EHLO), (b"250-hi\r\n250 AUTH PLAIN\r\n", None)],
        Verb.AUTH,
        FailureKind.TLS,
    ),
    (
        "no mechanism",
        {"credentials": OPEN_USER},
        [(b"220 hi\r\n", EHLO), (b"250-hi\r\n250 AUTH XOAUTH2\r\n", None)],
        Verb.AUTH,
        FailureKind.PROTOCOL,
    ),
    (
        "AUTH refused",
        {"credentials": OPEN_USER},
        [(b"220 hi\r\n", EHLO), (b"250-hi\r\n250 AUTH PLAIN\r\n", PLAIN), (b"535 no\r\n", b"QUIT\r\n")],
        Verb.AUTH,
        535,
    ),
    (
        "AUTH asks for more",
        {"credentials": OPEN_USER},
        [(b"220 hi\r\n", EHLO), (b"250-hi\r\n250 AUTH PLAIN\r\n", PLAIN), (b"334 \r\n", None)],
        Verb.AUTH,
        FailureKind.PROTOCOL,
    ),
]


@pytest.mark.parametrize(
    ("options", "script", "verb", "why"), [line[1:] for line in FAILED], ids=[line[0] for line in FAILED]
)
def test_handshakes_that_fail_are_a_matter_of_the_host(
    options: dict[str, object],
    script: list[tuple[bytes, bytes | None]],
    verb: Verb,
    why: int | FailureKind,
) -> None:
    client = client_of(**options)
    *before, failed, closed = play(client, script)
    assert before == []
    assert isinstance(failed, SessionFailed)
    assert isinstance(closed, Closed)
    assert failed.verb is verb
    assert (failed.reply.code if failed.reply else failed.failure and failed.failure.kind) == why
    assert not closed.clean
    assert client.closed
    assert client.room() == 0
    assert client.receive_data(b"250 x\r\n") == []


def test_octets_that_come_while_tls_is_due_are_an_injection() -> None:
    for injected in (b"250 x\r\n", b"2"):
        client = client_of()
        for said in (b"220 hi\r\n", b"250-hi\r\n250 STARTTLS\r\n"):
            client.receive_data(said)
            client.next_output()
        assert client.receive_data(b"220 go\r\n") == [StartTls()]
        assert client.time_limit == (Verb.TLS, 300)
        failed, closed = client.receive_data(injected)
        assert isinstance(failed, SessionFailed)
        assert isinstance(closed, Closed)


def test_a_failed_tls_handshake_ends_the_session() -> None:
    client = client_of()
    for said in (b"220 hi\r\n", b"250-hi\r\n250 STARTTLS\r\n", b"220 go\r\n"):
        client.receive_data(said)
        client.next_output()
    failure = TransportFailure(FailureKind.TLS, Verb.TLS, "certificate")
    assert client.tls_failed(failure) == [
        SessionFailed(Verb.TLS, None, failure),
        Closed(False, None, failure),
    ]


def test_a_close_during_the_handshake_names_the_step() -> None:
    client = client_of()
    assert client.time_limit == (Verb.BANNER, 300)
    failed, _ = client.receive_data(b"")
    assert isinstance(failed, SessionFailed)
    assert failed.failure == TransportFailure(FailureKind.CLOSED, Verb.BANNER)


def test_quit_before_ready_says_quit_once_the_handshake_is_over() -> None:
    client = client_of()
    client.quit()
    play(client, [(b"220 hi\r\n", EHLO), (b"250 hi\r\n", b"QUIT\r\n")])
    assert client.receive_data(b"221 bye\r\n")[-1].clean  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["", "a b", "a\r\nMAIL", "é.example"])
def test_an_ehlo_name_that_is_no_word_is_a_bug(name: str) -> None:
    with pytest.raises(AssertionError):
        SmtpClient(ClientOptions(ehlo_name=name))
