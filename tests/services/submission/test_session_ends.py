"""How sessions end, over real TLS: behind a goodbye nothing is carried out, though it was read already; and
nobody who is sent off keeps a place, or takes the others along."""

import errno
import logging
import smtplib
import socket
import ssl
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from engine.config.units import Duration
from services.submission.accounts import Account
from tests.fakes.submission_house import PASSWORD, SubmissionHouse, running_worker

pytestmark = pytest.mark.slow

SENDER = "ann@shop.test"
LETTER = b"From: Ann <ann@shop.test>\r\nTo: b@x.test\r\nSubject: hi\r\n\r\nHello\r\n"
SMUGGLED = b"MAIL FROM:<ann@shop.test>\r\nRCPT TO:<v@x.test>\r\n%sDATA\r\n" + LETTER + b".\r\n"


def say_all(client: smtplib.SMTP, octets: bytes) -> bytes:
    """All in one write, and what is heard until the server has left."""
    assert client.sock is not None
    client.sock.sendall(octets)
    heard = b""
    while piece := client.sock.recv(4_096):
        heard += piece
    return heard


def complaints(caplog: pytest.LogCaptureFixture, lines: list[Any]) -> list[str]:
    logged = [line["event"] for line in lines if line["log_level"] in ("warning", "error")]
    return logged + [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("octets", "goodbye"),
    [
        (SMUGGLED % b"NOOP a\n", b"554 5.5.2"),
        (b"NOOP a\n" + SMUGGLED % b"", b"554 5.5.2"),
        (b"QUIT\r\n" + SMUGGLED % b"", b"221 Bye"),
        (b"WHAT\r\n" * 5 + SMUGGLED % b"", b"502 5.5.1"),
    ],
)
async def test_behind_a_goodbye_nothing_is_carried_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, implicit: bool, octets: bytes, goodbye: bytes
) -> None:
    async with running_worker(tmp_path) as house:

        def say(client: smtplib.SMTP) -> bytes:
            client.ehlo()
            return say_all(client, octets)

        with structlog.testing.capture_logs() as lines:
            heard = await house.talk(say, implicit=implicit)
            assert heard.splitlines()[-1].startswith(goodbye), heard
            with trio.fail_after(20):
                while house.desk.sessions:
                    await trio.sleep(0.02)
        assert not house.singles()
        assert not complaints(caplog, lines)


async def test_behind_the_third_wrong_password_nothing_is_carried_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, right = (b64encode(f"\0ann\0{word}".encode()) for word in ("wrong", PASSWORD))
    octets = b"AUTH PLAIN %s\r\n" % wrong * 3 + b"AUTH PLAIN %s\r\n" % right + SMUGGLED % b""

    def say(client: smtplib.SMTP) -> bytes:
        client.ehlo()
        return say_all(client, octets)

    async with running_worker(tmp_path) as house:
        heard = await house.talk(say, log_in=False)
        assert [line[:3] for line in heard.splitlines()] == [b"535"] * 3
        assert not house.singles()
        assert not complaints(caplog, [])


async def test_behind_too_many_unknown_commands_no_password_is_looked_at(tmp_path: Path) -> None:
    wrong = b64encode(b"\0ann\0wrong")

    def say(client: smtplib.SMTP) -> bytes:
        client.ehlo()
        return say_all(client, b"WHAT\r\n" * 5 + b"AUTH PLAIN %s\r\n" % wrong)

    async with running_worker(tmp_path) as house:
        heard = await house.talk(say, log_in=False)
        assert heard.splitlines()[-1].startswith(b"502 ")
        assert repr(house.desk.guesses) == "<Guesses of 0 keys>"


@pytest.mark.parametrize("implicit", [False, True])
async def test_a_message_that_is_whole_when_a_stop_comes_is_not_taken_behind_the_421(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, implicit: bool
) -> None:
    async with running_worker(tmp_path) as house, trio.open_nursery() as nursery:
        heard: list[bytes] = []

        def say(client: smtplib.SMTP) -> bytes:
            assert client.sock is not None
            client.mail(SENDER)
            client.rcpt("b@x.test")
            client.docmd("DATA")
            client.send(LETTER)
            trio.from_thread.run_sync(half_way.set)
            return say_all(client, b"more\r\n")

        async def talk() -> None:
            heard.append(await house.talk(say, implicit=implicit))

        half_way = trio.Event()
        nursery.start_soon(talk)
        with trio.fail_after(20):
            await half_way.wait()
            (session,) = house.desk.sessions
            session.data_received(b"the rest\r\n.\r\n")  # its task has not seen it when the stop comes
            session.stop()
            while house.desk.sessions or not heard:
                await trio.sleep(0.02)
        assert heard[0].splitlines() == [b"421 4.3.2 mail.shop.test stops, try again later"]
        assert not house.singles()
        assert not complaints(caplog, [])


async def test_behind_a_stop_nothing_is_carried_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running_worker(tmp_path) as house, trio.open_nursery() as nursery:
        honest, checking, answer = house.desk.accounts.check, trio.Event(), trio.Event()
        heard: list[bytes] = []

        async def slow_check(name: str, password: bytes) -> Account | None:
            checking.set()
            await answer.wait()
            return await honest(name, password)

        house.desk.accounts.check = slow_check  # type: ignore[method-assign]
        right = b64encode(f"\0ann\0{PASSWORD}".encode())

        def say(client: smtplib.SMTP) -> bytes:
            client.ehlo()
            return say_all(client, b"AUTH PLAIN %s\r\n" % right + SMUGGLED % b"")

        async def talk() -> None:
            heard.append(await house.talk(say, log_in=False))

        nursery.start_soon(talk)
        with trio.fail_after(20):
            await checking.wait()
        for session in list(house.desk.sessions):
            session.stop()
        answer.set()
        with trio.fail_after(20):
            while house.desk.sessions or not heard:
                await trio.sleep(0.02)
        assert heard[0].splitlines() == [b"421 4.3.2 mail.shop.test stops, try again later"]
        assert not house.singles()
        assert not complaints(caplog, [])


def call(house: SubmissionHouse) -> socket.socket:
    return socket.create_connection((house.place.host, house.place.port), timeout=20)


def heard_until(wire: socket.socket, word: bytes) -> bytes:
    heard = b""
    while word not in heard:
        piece = wire.recv(4_096)
        assert piece, heard
        heard += piece
    return heard


def begin_tls(wire: socket.socket) -> None:
    wire.sendall(b"EHLO a\r\n")
    heard_until(wire, b"250 HELP")
    wire.sendall(b"STARTTLS\r\n")
    heard_until(wire, b"220 Ready")


async def nobody_is_counted(house: SubmissionHouse) -> None:
    with trio.fail_after(10):
        while house.desk.connections.open or house.desk.sessions:
            await trio.sleep(0.02)


async def test_tls_inside_tls_is_refused_and_takes_nobody_along(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:

        def say() -> bytes:
            with call(house) as wire:
                begin_tls(wire)
                with house.context.wrap_socket(wire, server_hostname="localhost") as inside:
                    inside.sendall(b"STARTTLS\r\n")
                    heard = heard_until(inside, b"\r\n")
                    inside.sendall(b"EHLO in no second TLS\r\n")
                    return heard + heard_until(inside, b"250 HELP")

        assert (await trio.to_thread.run_sync(say)).startswith(b"503 5.5.1")
        assert (await house.talk(lambda client: client.ehlo()[0], implicit=True)) == 250


@pytest.mark.parametrize("implicit", [False, True])
async def test_without_descriptors_left_the_worker_waits_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implicit: bool
) -> None:
    honest, failures = socket.socket.accept, iter(range(40))

    def accept(listening: socket.socket) -> tuple[socket.socket, Any]:
        if next(failures, None) is not None:
            raise OSError(errno.EMFILE, "too many open files")
        return honest(listening)

    async with running_worker(tmp_path) as house:
        with structlog.testing.capture_logs() as lines:
            monkeypatch.setattr("socket.socket.accept", accept)
            assert await house.talk(lambda client: client.ehlo()[0], implicit=implicit) == 250
        assert [line["event"] for line in lines] == ["trouble with a connection"]


async def test_a_handshake_that_we_end_gives_its_place_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_worker(tmp_path, idle_timeout=Duration(1)) as house:
        wire = await trio.to_thread.run_sync(call, house)
        with wire, structlog.testing.capture_logs() as lines:
            await trio.to_thread.run_sync(begin_tls, wire)
            assert house.desk.connections.open == 1
            await nobody_is_counted(house)
        assert not complaints(caplog, lines)


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_client_that_never_reads_is_cut_off_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, half_closed: bool
) -> None:
    monkeypatch.setattr("services.submission.session.GOODBYE_SECONDS", 0.3)
    async with running_worker(tmp_path, idle_timeout=Duration(1)) as house:
        with await trio.to_thread.run_sync(call, house) as wire, structlog.testing.capture_logs() as lines:

            def flood() -> None:
                wire.settimeout(0.5)
                with suppress(TimeoutError):
                    while True:
                        wire.sendall(b"EHLO x\r\n" * 5_000)
                if half_closed:
                    wire.shutdown(socket.SHUT_WR)

            await trio.to_thread.run_sync(flood)
            await nobody_is_counted(house)
        assert not complaints(caplog, lines)


async def test_a_tls_client_that_never_says_goodbye_is_cut_off_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.submission.session.GOODBYE_SECONDS", 0.3)
    async with running_worker(tmp_path) as house:

        def say() -> ssl.SSLSocket:
            wire = call(house)
            begin_tls(wire)
            inside = house.context.wrap_socket(wire, server_hostname="localhost")
            inside.sendall(b"QUIT\r\n")
            return inside

        with structlog.testing.capture_logs() as lines:
            inside = await trio.to_thread.run_sync(say)
            with inside:
                await nobody_is_counted(house)
        assert not complaints(caplog, lines)


async def test_a_message_that_drips_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.submission.session.CONTENT_SECONDS", 1.0)
    async with running_worker(tmp_path, idle_timeout=Duration(1)) as house:

        def say(client: smtplib.SMTP) -> bytes:
            assert client.sock is not None
            client.mail(SENDER)
            client.rcpt("b@x.test")
            client.docmd("DATA")
            client.sock.settimeout(0.3)
            for _ in range(30):
                client.send(b"x")
                with suppress(TimeoutError):
                    return client.sock.recv(4_096)
            return b""

        assert (await house.talk(say)).startswith(b"421 4.4.2")
        await nobody_is_counted(house)
        assert repr(house.desk.room).startswith("<Room 0 of ")
        assert not complaints(caplog, [])


async def test_a_large_message_has_longer_than_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.submission.session.CONTENT_SECONDS", 0.0)
    async with running_worker(tmp_path, idle_timeout=Duration(1)) as house:

        def say(client: smtplib.SMTP) -> int:
            client.mail(SENDER)
            client.rcpt("b@x.test")
            client.docmd("DATA")
            client.send(LETTER + b"0123456789\r\n" * 2_000)  # worth 6 s
            for _ in range(6):
                time.sleep(0.5)
                client.send(b"more\r\n")
            client.send(b".\r\n")
            return client.getreply()[0]

        assert await house.talk(say) == 250
