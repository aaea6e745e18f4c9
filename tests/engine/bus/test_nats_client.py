"""nats-py as one connection: who we are is signed, and never shown."""

import base64

import pytest
from nats.aio.msg import Msg

from engine.bus import nkeys
from engine.bus.nats_client import NatsClient, Seed, received


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
