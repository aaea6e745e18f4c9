"""The real network is `dial` and `Session`: octets cross, and a refusal is a value."""

import socket

import trio

from engine.model.egress import Source
from engine.model.reply import FailureKind, TransportFailure
from engine.mta.net.network import SystemNetwork
from engine.mta.net.session import Session

SOURCE = Source("any", "mail.example")


async def test_a_wire_carries_octets_both_ways() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        wire = await SystemNetwork().dial(SOURCE, "127.0.0.1", server.getsockname()[1], 5.0)
        assert isinstance(wire, Session)
        peer, _ = server.accept()
        with peer:
            await wire.send(b"EHLO mail.example\r\n")
            assert peer.recv(100) == b"EHLO mail.example\r\n"
            peer.sendall(b"250 Ok\r\n")
            assert await wire.receive() == b"250 Ok\r\n"
        assert await wire.receive() == b""
        wire.close()


async def test_a_refusal_is_a_value() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    refused = await SystemNetwork().dial(SOURCE, "127.0.0.1", port, 5.0)
    assert isinstance(refused, TransportFailure)
    assert refused.kind is FailureKind.CONNECT_REFUSED
    await trio.lowlevel.checkpoint()
