"""Receivers on real sockets: a client of the standard library, TLS, hang-ups, limits, idle ends."""

import smtplib
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
import trio

from bench.world.manners import PLAIN, Manners, Moment, Starttls, hang_up, shutting_down
from bench.world.provider import Provider
from bench.world.receiver import Receiver, listen

ENVELOPE = b"MAIL FROM:<s@from.test>\r\nRCPT TO:<anna@box.test>\r\nDATA\r\n"
MESSAGE = b"Message-ID: <1@from.test>\r\n\r\nHello\r\n.\r\n"
LETTER = "Message-ID: <2@from.test>\r\nSubject: x\r\n\r\n.dot\r\nend\r\n"


@asynccontextmanager
async def receiving(manners=PLAIN):
    """Yields (provider, messages, address) of a running receiver."""
    messages = []
    provider = Provider("p", manners, sink=messages.extend, keep_content=True)
    receiver = Receiver(provider, "mx.box.test", listen("127.0.0.1"))
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.serve)
        with trio.fail_after(10):
            yield provider, messages, (receiver.address, receiver.port)
        nursery.cancel_scope.cancel()


class Client:
    """A raw conversation: write octets, read complete replies."""

    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    async def ask(self, octets, replies=1):
        """Send octets, then read so many replies; returns their codes. "" stands for the end."""
        if octets:
            await self.stream.send_all(octets)
        codes = []
        while len(codes) < replies:
            while b"\n" not in self.buffer:
                more = await self.stream.receive_some()
                if not more:
                    return [*codes, ""]
                self.buffer += more
            line, _, self.buffer = self.buffer.partition(b"\n")
            if line[3:4] == b" ":
                codes.append(line[:3].decode())
        return codes


async def connected(address):
    client = Client(await trio.open_tcp_stream(*address))
    assert await client.ask(b"") == ["220"]
    assert await client.ask(b"EHLO a\r\n") == ["250"]
    return client


async def test_the_standard_library_delivers_a_message():
    async with receiving() as (provider, messages, address):

        def send():
            with smtplib.SMTP(*address) as client:
                return client.sendmail("s@from.test", ["anna@box.test"], LETTER)

        assert await trio.to_thread.run_sync(send) == {}
    assert messages[0].content.decode() == LETTER
    assert provider.statistics()["protocol_errors"] == 0


async def test_the_standard_library_delivers_over_starttls():
    async with receiving(Manners(starttls=Starttls.REQUIRED)) as (provider, messages, address):

        def send():
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with smtplib.SMTP(*address) as client:
                client.starttls(context=context)
                client.sendmail("s@from.test", ["anna@box.test"], LETTER)
                client.sendmail("s@from.test", ["bert@box.test"], LETTER)

        await trio.to_thread.run_sync(send)
    assert [message.tls for message in messages] == [True, True]
    assert provider.tally.counts["accepted_tls"] == 2
    assert provider.statistics()["protocol_errors"] == 0


async def test_garbled_tls_fails_the_handshake_and_the_next_connection_works():
    async with receiving(Manners(starttls=Starttls.GARBLED)) as (_, messages, address):

        def shake_hands():
            context = ssl._create_unverified_context()
            with smtplib.SMTP(*address) as client:
                client.starttls(context=context)

        with pytest.raises((ssl.SSLError, smtplib.SMTPServerDisconnected)):
            await trio.to_thread.run_sync(shake_hands)
        client = await connected(address)
        assert await client.ask(ENVELOPE, 3) == ["250", "250", "354"]
        assert await client.ask(MESSAGE) == ["250"]
        await client.stream.aclose()
    assert len(messages) == 1


async def test_many_pipelined_messages_on_several_connections_are_all_taken():
    async def send(address):
        client = await connected(address)
        await client.ask(ENVELOPE, 3)
        for _ in range(50):
            assert await client.ask(MESSAGE + ENVELOPE, 4) == ["250", "250", "250", "354"]
        await client.ask(MESSAGE)
        assert await client.ask(b"QUIT\r\n", 2) == ["221", ""]
        await client.stream.aclose()

    async with receiving() as (provider, messages, address):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(send, address)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert provider.statistics()["connections_open"] == 0
    assert len(messages) == 4 * 51
    assert provider.statistics()["protocol_errors"] == 0


@pytest.mark.parametrize("accepts", [False, True])
async def test_a_hang_up_before_the_reply_leaves_the_client_without_one(accepts):
    async with receiving(Manners(troubles=(hang_up(Moment.REPLY, 1.0, accepts=accepts),))) as (
        _,
        messages,
        address,
    ):
        client = await connected(address)
        await client.ask(ENVELOPE, 3)
        assert await client.ask(MESSAGE) == [""]
        assert len(messages) == accepts
        again = await connected(address)
        await again.ask(ENVELOPE, 3)
        assert await again.ask(MESSAGE) == ["250"]
        await client.stream.aclose()
        await again.stream.aclose()
    assert [message.answered for message in messages] == [False] * accepts + [True]


async def test_a_421_reaches_the_client_though_more_commands_stood_behind():
    async with receiving(Manners(troubles=(shutting_down(Moment.MAIL, 1.0),))) as (_, _, address):
        client = await connected(address)
        assert await client.ask(ENVELOPE, 2) == ["421", ""]
        await client.stream.aclose()


async def test_connections_over_the_limit_are_refused_until_one_ends():
    async with receiving(Manners(connections_max=1)) as (provider, _, address):
        first = await connected(address)
        second = Client(await trio.open_tcp_stream(*address))
        assert await second.ask(b"", 2) == ["421", ""]
        await second.stream.aclose()
        await first.stream.aclose()
        while provider.open_connections:
            await trio.sleep(0.001)
        third = await connected(address)
        await third.stream.aclose()
    assert provider.tally.counts["connections_refused"] == 1


async def test_a_tarpit_delays_but_loses_nothing():
    async with receiving(Manners(tarpit={"banner": 0.02, "rcpt": 0.02})) as (_, messages, address):
        begin = trio.current_time()
        client = await connected(address)
        await client.ask(ENVELOPE, 3)
        await client.ask(MESSAGE)
        assert trio.current_time() - begin >= 0.04
        await client.stream.aclose()
    assert len(messages) == 1


async def test_an_idle_client_gets_421():
    async with receiving(Manners(idle_seconds=0.05)) as (_, _, address):
        client = await connected(address)
        assert await client.ask(b"", 2) == ["421", ""]
        await client.stream.aclose()


async def test_a_client_that_resets_its_connection_harms_nobody():
    async with receiving() as (provider, _, address):
        rude = socket.create_connection(address)
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        rude.sendall(b"EHLO a\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        rude.close()
        client = await connected(address)
        await client.stream.aclose()
        while provider.open_connections:
            await trio.sleep(0.001)
