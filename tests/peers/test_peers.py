"""Each real server starts privately, takes a message for any domain, and keeps what it was sent.

They are slow to start beside a unit test (up to 2 s) and come from Debian or npm, hence the marker.
Processes and ports are real, so is the clock.
"""

import smtplib
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.peers import PeerMissing, exim, haraka, opensmtpd, postfix, smtp_sink
from bench.peers.certificate import self_signed
from bench.peers.process import PeerFailed, free_port, running
from bench.peers.receiver import Receiver, read_arrived

pytestmark = pytest.mark.peers

SERVERS = {"postfix": postfix, "exim": exim, "opensmtpd": opensmtpd, "haraka": haraka}

HOST = "127.0.0.7"
LETTER = (
    b"From: Anna <anna@sender.example>\r\nTo: bo@one.example\r\nSubject: =?utf-8?q?h=C3=A4?=\r\n"
    b"Date: Tue, 24 Nov 2026 04:27:57 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\n"
    b"a line\r\n..two dots\r\n.\r\n" + b"x" * 900 + b"\r\nlast\r\n"
)


def start(server: ModuleType, folder: Path, **options: bool) -> AbstractContextManager[Receiver]:
    return server.receiving(folder, HOST, **options)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", SERVERS)
def test_a_receiver_keeps_mail_for_any_domain_byte_for_byte(
    name: str, tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer(name)
    with start(SERVERS[name], tmp_path / name) as receiver:
        with smtplib.SMTP(receiver.host, receiver.port, timeout=20) as client:
            client.sendmail("b-token@sender.example", ["bo@one.example"], LETTER)
            client.sendmail("", ["cleo+tag@two.example.net"], LETTER)
        arrived = sorted(receiver.wait_for(2), key=lambda one: one.recipient)
    assert [(one.return_path, one.recipient) for one in arrived] == [
        ("b-token@sender.example", "bo@one.example"),
        ("", "cleo+tag@two.example.net"),
    ]
    for one in arrived:
        assert one.message.startswith(b"Received: ")
        assert one.message.endswith(LETTER)


@pytest.mark.parametrize("name", ["postfix", "exim", "haraka"])
def test_a_receiver_takes_mail_over_starttls_when_asked_to_offer_it(
    name: str, tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer(name)
    with start(SERVERS[name], tmp_path / name, tls=True) as receiver:
        with smtplib.SMTP(receiver.host, receiver.port, timeout=20) as client:
            client.starttls(context=trusting())
            client.sendmail("a@sender.example", ["bo@one.example"], LETTER)
        assert receiver.wait_for(1)[0].message.endswith(LETTER)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_debians_opensmtpd_breaks_every_handshake_and_still_takes_plain_mail(
    kind: str, tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("opensmtpd")
    key = rsa.generate_private_key(65_537, 2_048) if kind == "rsa" else None
    with opensmtpd.receiving(tmp_path / "s", HOST, tls=self_signed(HOST, key)) as receiver:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting()
            context.maximum_version = version
            with (
                smtplib.SMTP(receiver.host, receiver.port, timeout=20) as client,
                pytest.raises(ssl.SSLError),
            ):
                client.starttls(context=context)
        with smtplib.SMTP(receiver.host, receiver.port, timeout=20) as client:
            assert client.ehlo()[0] == 250
            assert client.has_extn("starttls")
            client.sendmail("a@sender.example", ["bo@one.example"], LETTER)
        assert receiver.wait_for(1)[0].recipient == "bo@one.example"


@pytest.mark.parametrize("name", SERVERS)
def test_a_receiver_refuses_the_local_parts_it_was_told_to_refuse(
    name: str, tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer(name)
    with (
        SERVERS[name].receiving(tmp_path / name, HOST, refuse="nobody") as receiver,
        smtplib.SMTP(receiver.host, receiver.port, timeout=20) as client,
    ):
        refused = client.sendmail("a@sender.example", ["nobody1@one.example", "bo@one.example"], LETTER)
        assert [(who, code) for who, (code, _) in refused.items()] == [("nobody1@one.example", 550)]


def test_a_postfix_relay_hands_everything_to_its_next_hop(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("postfix")
    require_peer("haraka")
    with start(haraka, tmp_path / "next") as receiver:
        with (
            postfix.relaying(tmp_path / "relay", (receiver.host, receiver.port)) as (host, port),
            smtplib.SMTP(host, port, timeout=20) as client,
        ):
            for number in range(20):
                client.sendmail("a@sender.example", [f"r{number}@d{number % 5}.example"], LETTER)
            arrived = receiver.wait_for(20)
        assert {one.recipient for one in arrived} == {f"r{n}@d{n % 5}.example" for n in range(20)}


def test_smtp_sink_swallows_mail(tmp_path: Path, require_peer: Callable[[str], None]) -> None:
    require_peer("postfix")
    with smtp_sink.sinking(tmp_path, sessions_max=500) as (host, port), smtplib.SMTP(host, port) as client:
        assert client.sendmail("a@sender.example", ["b@one.example"], LETTER) == {}


def test_stopping_a_server_frees_its_port_and_leaves_no_account(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("postfix")
    port = free_port(HOST)
    accounts = Path("/etc/passwd").read_text() + Path("/etc/group").read_text()
    for attempt in ("first", "second"):
        with postfix.receiving(tmp_path / attempt, HOST, port) as receiver:
            assert receiver.port == port
    assert Path("/etc/passwd").read_text() + Path("/etc/group").read_text() == accounts


def test_a_server_that_ends_at_once_fails_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo no luck today >&2; exit 3"]
    with (
        pytest.raises(PeerFailed, match=r"ended with code 3:\nno luck today"),
        running(command, address=(HOST, free_port(HOST)), log=tmp_path / "log"),
    ):
        pass


def test_a_peer_that_is_not_unpacked_names_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMASS_PEERS", str(tmp_path))
    with (
        pytest.raises(PeerMissing, match=r"peer missing: haraka; cure: python -m bench.peers install"),
        start(haraka, tmp_path / "x"),
    ):
        pass


def test_trace_lines_are_told_apart_from_the_message() -> None:
    arrived = read_arrived(
        b"Return-Path: <a@b>\nX-Original-To: c@d\nDelivered-To: e@f\nReceived: x\n\nbody\n"
    )
    assert (arrived.return_path, arrived.recipient) == ("a@b", "c@d")
    assert arrived.message == b"Received: x\r\n\r\nbody\r\n"


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
