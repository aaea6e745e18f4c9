"""How sessions end, over real TLS: behind a goodbye nothing is carried out, though it was read already."""

import logging
import smtplib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from services.submission.accounts import Account
from tests.fakes.submission_house import PASSWORD, running_worker

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
