"""nats-py as one connection: who we are is signed, and never shown."""

import base64
import socket

import pytest
import trio
from nats.aio.msg import Msg

from bench.peers.nats import NatsServer
from engine.bus import nkeys
from engine.bus.nats_client import NatsClient, Received, Seed, received
from tests.fakes.nats_house import NatsHouse

PATIENCE_SECONDS = 20.0


def test_a_seed_signs_and_does_not_show_itself() -> None:
    text = nkeys.new_seed()
    seed = Seed(text)
    assert nkeys.verified(seed.public, b"nonce", base64.b64decode(seed.sign("nonce")))
    assert text not in repr(seed)
    assert seed.public in repr(seed)


def test_what_is_no_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="nkey seed"):
        Seed("SUABC")


def test_what_the_server_says_in_place_of_a_message_is_its_status() -> None:
    client = NatsClient("node-1", "emass.i.node-1.x", None, None)
    message = received(Msg(client, "a", "b", b"data", None))
    assert (message.subject, message.reply, message.data, message.status) == ("a", "b", b"data", "")
    assert received(Msg(client, "a", "", b"", {"Status": "503"})).status == "503"


@pytest.mark.slow
async def test_a_message_that_nats_py_cannot_take_apart_does_not_end_its_reading(
    nats_members: NatsHouse, nats_server: NatsServer
) -> None:
    bus = await nats_members.open("a")
    await bus.put("campaigns", "7", b"run")
    heard: list[Received] = []
    bus.link.open_inlet("emass.t.campaigns.*", heard.append)
    await bus.read("campaigns", "7")  # which the server answers once it knows of the inlet

    def send() -> None:
        with socket.create_connection(nats_server.address) as wire:
            wire.sendall(
                b'CONNECT {"verbose":false,"headers":true}\r\n'
                b"PUB emass.t.campaigns.\xff emass.i.\xfe 1\r\nx\r\n"
                b"HPUB emass.t.campaigns.8 8 9\r\nNATS/1.0x\r\n"
                b"HPUB emass.t.campaigns.9 15 16\r\nNATS/1.0 \xff\xff\r\n\r\nx\r\nPING\r\n"
            )
            wire.settimeout(PATIENCE_SECONDS)
            answered = b""
            while b"PONG" not in answered:
                more = wire.recv(4096)
                assert more, answered
                answered += more

    await trio.to_thread.run_sync(send)
    await bus.put("campaigns", "10", b"run")
    with trio.fail_after(PATIENCE_SECONDS):
        while len(heard) < 4:
            await trio.sleep(0.01)
        watch = bus.watch("campaigns")
        assert [await anext(watch) for _ in range(2)] == [("7", b"run"), ("10", b"run")]
    assert heard[0].subject == "emass.t.campaigns.\\xff"
    assert bus.link.generation == 1
