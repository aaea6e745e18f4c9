"""Sessions with real clients on loopback: who gets in, what is taken, and what is durable before 250."""

import smtplib
import socket
from base64 import b64encode
from pathlib import Path

import aiosmtplib
import pytest
import structlog
import trio
import trio_asyncio

from engine.config.units import Rate, Size
from engine.model.content import MessageClass
from engine.model.single import BlobMessage, RawMessage
from services.submission.accounts import write_accounts
from tests.fakes.submission_house import DOMAIN, PASSWORD, an_account, running_worker

pytestmark = pytest.mark.slow

LETTER = b"From: Ann <ann@shop.test>\r\nTo: b@x.test\r\nSubject: hi\r\n\r\n.dot\r\nHello\r\n"
SENDER = "ann@shop.test"


def send(client: smtplib.SMTP, *recipients: str, letter: bytes = LETTER, sender: str = SENDER) -> bytes:
    """MAIL, RCPT and DATA with octets as they are; the last reply."""
    code, text = client.mail(sender)
    for recipient in recipients or ("b@x.test",):
        if code == 250:
            code, text = client.docmd(f"RCPT TO:<{recipient}>")  # as it is: smtplib would mend it
    if code == 250:
        code, text = client.docmd("DATA")
        if code == 354:
            client.send(letter.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            code, text = client.getreply()
    return b"%d %s" % (code, text)


async def test_a_message_is_on_the_bus_when_its_client_hears_250(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:
        reply = await house.talk(lambda client: send(client, "b@x.test", "c@Y.test", "b@x.test"))
        assert reply.startswith(b"250 2.0.0 queued as ")
        one, two = house.singles()
    assert [one.recipient, two.recipient] == ["b@x.test", "c@y.test"]
    assert one.id != two.id
    assert one.message == two.message
    assert isinstance(one.message, RawMessage)
    kind = one.message.kind
    assert (kind.workspace, kind.message_class) == ("shop", MessageClass.TRANSACTIONAL)
    assert (kind.sending_domain, kind.return_path_domain) == (DOMAIN, "bounce.shop.test")
    assert [identity.domain for identity in kind.dkim] == [DOMAIN]
    octets = one.message.octets
    assert octets.endswith(LETTER)
    assert octets.startswith(b"Received: from ")
    assert b"by mail.shop.test with ESMTPSA id " in octets
    assert b"\r\nMessage-ID: <" in octets
    assert b"\r\nDate: " in octets


async def test_tls_from_the_first_octet_is_served_too(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:
        assert (await house.talk(send, implicit=True)).startswith(b"250 ")
        assert len(house.singles()) == 1


async def test_aiosmtplib_sends_with_starttls_and_log_in(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house, trio_asyncio.open_loop():
        await trio_asyncio.aio_as_trio(aiosmtplib.send)(
            LETTER,
            sender=SENDER,
            recipients=["b@x.test"],
            hostname=house.place.host,
            port=house.place.port,
            username="ann",
            password=PASSWORD,
            start_tls=True,
            tls_context=house.context,
        )
        (single,) = house.singles()
    assert single.recipient == "b@x.test"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("initial", [True, False])
async def test_both_mechanisms_with_and_without_an_initial_response(
    tmp_path: Path, mechanism: str, initial: bool
) -> None:
    def say(client: smtplib.SMTP) -> bytes:
        client.user, client.password = "ann", PASSWORD
        client.ehlo()
        method = client.auth_plain if mechanism == "PLAIN" else client.auth_login
        client.auth(mechanism, method, initial_response_ok=initial)
        return send(client)

    async with running_worker(tmp_path) as house:
        assert (await house.talk(say, log_in=False)).startswith(b"250 ")


async def test_without_tls_nothing_is_told_but_to_begin_it(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:

        def say() -> list[int]:
            with smtplib.SMTP(house.place.host, house.place.port, timeout=20) as client:
                client.ehlo()
                assert not client.has_extn("auth")
                login = b64encode(f"\0ann\0{PASSWORD}".encode()).decode()
                return [client.docmd(f"AUTH PLAIN {login}")[0], client.mail(SENDER)[0]]

        assert await trio.to_thread.run_sync(say) == [530, 530]


async def test_without_a_log_in_no_mail_is_taken(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:
        reply = await house.talk(send, log_in=False)
    assert reply == b"503 Error: send HELO first" or reply.startswith(b"530 5.7.0")


async def test_wrong_passwords_are_refused_then_locked_out(tmp_path: Path) -> None:
    def guess(client: smtplib.SMTP, name: str = "ann") -> list[int]:
        client.ehlo()
        wrong = b64encode(f"\0{name}\0wrong".encode()).decode()
        return [client.docmd(f"AUTH PLAIN {wrong}")[0] for _ in range(2)]

    async with running_worker(tmp_path) as house:
        assert await house.talk(guess, log_in=False) == [535, 535]
        assert await house.talk(lambda client: guess(client, "nobody"), log_in=False) == [535, 535]
        assert await house.talk(guess, log_in=False) == [535, 535]
        assert await house.talk(guess, log_in=False) == [535, 454]
        with pytest.raises(smtplib.SMTPAuthenticationError, match="454"):
            await house.talk(send)


async def test_the_third_wrong_password_ends_the_connection(tmp_path: Path) -> None:
    def guess(client: smtplib.SMTP) -> int:
        client.ehlo()
        wrong = b64encode(b"\0ann\0wrong").decode()
        for _ in range(3):
            client.docmd(f"AUTH PLAIN {wrong}")
        assert client.sock is not None
        return len(client.sock.recv(1))

    async with running_worker(tmp_path) as house:
        assert await house.talk(guess, log_in=False) == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sender": "ann@other.test"}, b"550 5.7.1"),
        ({"sender": "ann"}, b"553 5.1.7"),
        ({"letter": LETTER.replace(b"ann@shop.test", b"ann@other.test")}, b"550 5.7.1"),
        ({"letter": LETTER.replace(b"Hello", b"a\nb")}, b"554 5.6.0"),
        ({"letter": LETTER.replace(b"Hello", b"a\rb")}, b"554 5.6.0"),
        ({"letter": LETTER.replace(b"Hello", b"x" * 1_200)}, b"554 5.6.0"),
        ({"letter": LETTER.replace(b"Hello\r\n", b"Hello\r\n" * 2_000)}, b"552 "),
        ({"letter": b"nothing\r\n"}, b"554 5.6.0"),
    ],
)
async def test_what_is_not_taken(tmp_path: Path, changes: dict[str, object], code: bytes) -> None:
    async with running_worker(tmp_path, size_max=Size(8_000)) as house:

        def say(client: smtplib.SMTP) -> tuple[bytes, bytes]:
            refused = send(client, **changes)  # type: ignore[arg-type]
            client.rset()
            return refused, send(client)

        refused, taken = await house.talk(say)
        assert refused.startswith(code), refused
        assert taken.startswith(b"250 ")
        assert len(house.singles()) == 1


async def test_too_many_recipients_and_a_rate_that_is_used_up_are_for_later(tmp_path: Path) -> None:
    async with running_worker(tmp_path, recipients_max=2, messages_per_account=Rate(3, 60.0)) as house:
        reply = await house.talk(lambda client: send(client, "a@x.test", "b@x.test", "c@x.test"))
        assert reply.startswith(b"452 4.5.3")
        reply = await house.talk(lambda client: send(client, "a@x.test", "b@x.test"))
        assert reply.startswith(b"450 4.7.1")
        assert not house.singles()


async def test_a_recipient_that_is_none_is_refused(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:
        for recipient in ("nobody", "a@", "a@b c.test", "a@[127.0.0.1]"):
            reply = await house.talk(lambda client, to=recipient: send(client, to))  # type: ignore[misc]
            assert reply.startswith((b"553 5.1.3", b"501 ")), (recipient, reply)


async def test_a_bus_without_room_is_said_and_nothing_is_lost_for_it(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:
        house.bus.refusals = 1

        def say(client: smtplib.SMTP) -> tuple[bytes, bytes]:
            return send(client), send(client)

        refused, taken = await house.talk(say)
        assert refused.startswith(b"451 4.3.1")
        assert taken.startswith(b"250 ")
        assert len(house.singles()) == 1


async def test_a_bus_that_is_silent_for_too_long_is_said(tmp_path: Path) -> None:
    async with running_worker(tmp_path, durable_timeout=1.0) as house:
        house.bus.delay_seconds = 3.0
        assert (await house.talk(send)).startswith(b"451 4.3.1")


async def test_messages_that_fill_the_memory_are_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.submission.answers.CONTENT_OCTETS_MAX", 8_000_000)
    async with running_worker(tmp_path) as house:

        def say(client: smtplib.SMTP) -> list[bytes]:
            large = send(client, letter=LETTER + b"0123456789\r\n" * 200_000)
            client.rset()
            others = house.desk.room.lease("ann")
            others.take(1_900_000)
            full = send(client)
            others.end()
            client.rset()
            return [large, full, send(client)]

        large, full, taken = await house.talk(say)
        assert large.startswith(b"452 4.3.1")
        assert full.startswith(b"452 4.3.1")
        assert taken.startswith(b"250 ")
        assert house.desk.room.left("ann") == 2_000_000
        assert len(house.singles()) == 1


async def test_a_large_message_travels_as_one_blob(tmp_path: Path) -> None:
    large = LETTER + b"0123456789\r\n" * 80_000
    async with running_worker(tmp_path) as house:
        reply = await house.talk(lambda client: send(client, "b@x.test", "c@x.test", letter=large))
        assert reply.startswith(b"250 ")
        one, two = house.singles()
        assert isinstance(one.message, BlobMessage)
        assert isinstance(two.message, BlobMessage)
        assert (one.message.last, two.message.last) == (False, True)
        octets = await house.bus.read_blob(one.message.digest)
    assert octets is not None
    assert octets.endswith(large)


async def test_a_bare_newline_after_a_command_ends_the_session(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:

        def say() -> bytes:
            with socket.create_connection((house.place.host, house.place.port), timeout=20) as wire:
                wire.sendall(b"EHLO a\n")
                heard = b""
                while piece := wire.recv(4_096):
                    heard += piece
                return heard

        heard = await trio.to_thread.run_sync(say)
    assert b"554 5.5.2" in heard


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n"])
async def test_content_cannot_smuggle_a_second_message(tmp_path: Path, end: bytes) -> None:
    """Whatever looks like an end to another server is content here, and such content is refused."""
    inner = b"MAIL FROM:<ann@shop.test>\r\nRCPT TO:<v@x.test>\r\nDATA\r\n" + LETTER.replace(
        b"\r\n.", b"\r\n.."
    )

    def say(client: smtplib.SMTP) -> bytes:
        client.mail(SENDER)
        client.rcpt("b@x.test")
        client.docmd("DATA")
        client.send(LETTER.replace(b"\r\n.", b"\r\n..") + b"a" + end + inner + b"\r\n.\r\n")
        code, text = client.getreply()
        return b"%d %s" % (code, text)

    async with running_worker(tmp_path) as house:
        assert (await house.talk(say)).startswith(b"554 5.6.0")
        assert not house.singles()


async def test_octets_before_tls_are_not_read_inside_it(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:

        def say() -> bytes:
            with socket.create_connection((house.place.host, house.place.port), timeout=20) as wire:
                heard = b""
                wire.sendall(b"EHLO a\r\n")
                while b"250 HELP" not in heard:
                    heard += wire.recv(4_096)
                wire.sendall(b"STARTTLS\r\nEHLO smuggled\r\n")
                assert wire.recv(4_096).startswith(b"220")
                with house.context.wrap_socket(wire, server_hostname="localhost") as inside:
                    inside.sendall(b"NOOP\r\n")
                    return inside.recv(4_096)

        assert await trio.to_thread.run_sync(say) == b"250 OK\r\n"


async def test_a_client_that_speaks_no_tls_behind_starttls_is_let_go(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:

        def say() -> bytes:
            with socket.create_connection((house.place.host, house.place.port), timeout=20) as wire:
                wire.sendall(b"EHLO a\r\nSTARTTLS\r\n")
                heard = b""
                while b"220 Ready" not in heard:
                    heard += wire.recv(4_096)
                wire.sendall(b"EHLO in clear\r\n" * 10)
                while wire.recv(4_096):
                    pass
                return heard

        with structlog.testing.capture_logs() as lines:
            await trio.to_thread.run_sync(say)
        assert [line["event"] for line in lines] == ["a connection was lost"]
        assert (await house.talk(send)).startswith(b"250 ")


async def test_an_account_that_is_gone_sends_no_more_on_open_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.submission.accounts.LOOK_SECONDS", 0.0)
    async with running_worker(tmp_path) as house:

        def say(client: smtplib.SMTP) -> tuple[bytes, bytes]:
            first = send(client)
            write_accounts(tmp_path / "accounts.json", {"bob": an_account(name="bob")})
            return first, send(client)

        first, second = await house.talk(say)
    assert first.startswith(b"250 ")
    assert second.startswith(b"530 5.7.0")


async def test_more_connections_than_allowed_are_sent_away(tmp_path: Path) -> None:
    async with running_worker(tmp_path, connections_per_address=1) as house:

        def second(client: smtplib.SMTP) -> bytes:
            with socket.create_connection((house.place.host, house.place.port), timeout=20) as wire:
                return wire.recv(4_096)

        assert (await house.talk(second)).startswith(b"421 4.7.0")


async def test_a_stop_lets_what_is_in_hand_become_durable_and_says_goodbye(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as house:
        house.bus.delay_seconds = 1.0
        replies: list[bytes] = []
        idle: list[bytes] = []

        async def hand_in() -> None:
            replies.append(await house.talk(send))

        async def idle_by() -> None:
            def wait(client: smtplib.SMTP) -> bytes:
                assert client.sock is not None
                return client.sock.recv(4_096)

            idle.append(await house.talk(wait))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(idle_by)
            with trio.fail_after(20):
                while not any(each.session and each.session.authenticated for each in house.desk.sessions):
                    await trio.sleep(0.05)
                nursery.start_soon(hand_in)
                while not any(session.busy for session in house.desk.sessions):
                    await trio.sleep(0.05)
            house.stop.set()
        assert replies[0].startswith(b"250 ")
        assert idle[0].startswith(b"421 4.3.2")
        assert len(house.singles()) == 1
