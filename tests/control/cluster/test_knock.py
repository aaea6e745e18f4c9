"""A knock at the bus's door, answered by doors of all kinds. A real nats-server is in test_joining_live."""

import datetime
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from control.cluster.authority import CERTIFICATE_FILE, KEY_FILE, create_server_certificate
from control.cluster.knock import Answer, knock
from engine.bus.nkeys import new_seed

INFO = {"server_id": "x", "tls_required": True, "nonce": "abc", "jetstream": True}
SEED = new_seed()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    digest = create_server_certificate(folder, ["127.0.0.1"], datetime.datetime.now(datetime.UTC))
    return folder, digest


@contextmanager
def door(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Somebody who answers one visitor."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            visitor, _ = listener.accept()
            with visitor, suppress(OSError):
                serve(visitor)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def nats(folder, info=INFO, says=b"PONG\r\n"):
    def serve(visitor: socket.socket) -> None:
        visitor.sendall(b"INFO " + json.dumps(info).encode() + b"\r\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
        with context.wrap_socket(visitor, server_side=True) as secure:
            told = b""
            while b"PING" not in told:
                piece = secure.recv(4096)
                if not piece:
                    return
                told += piece
            assert SEED.encode() not in told  # the seed is never shown
            secure.sendall(says)

    return serve


def test_who_knows_our_key_lets_us_in_and_shows_its_certificate(keys):
    folder, digest = keys
    with door(nats(folder)) as port:
        came = knock("127.0.0.1", port, SEED, digest)
    assert came.answer is Answer.LET_IN
    assert came.certificate.split() == (folder / CERTIFICATE_FILE).read_bytes().split()


def test_who_does_not_know_our_key_says_so(keys):
    folder, digest = keys
    with door(nats(folder, says=b"-ERR 'Authorization Violation'\r\n")) as port:
        came = knock("127.0.0.1", port, SEED, digest)
    assert (came.answer, came.detail) == (Answer.REFUSED, "Authorization Violation")


def test_another_certificate_ends_it_before_anything_is_said(keys):
    folder, _ = keys
    with door(nats(folder)) as port:
        assert knock("127.0.0.1", port, SEED, bytes(32)).answer is Answer.OTHER_CERTIFICATE


@pytest.mark.parametrize(
    ("first", "word"),
    [
        (b"220 mail.example ESMTP\r\n", "no nats-server"),
        (b"INFO nothing\r\n", "no nats-server"),
        (b"INFO []\r\n", "no nats-server"),
        (b"INFO 5\r\n", "no nats-server"),
        (b'INFO {"tls_required":true,"nonce":[1]}\r\n', "no nats-server"),
        (b'INFO {"tls_required":true,"nonce":"\\ud800"}\r\n', "no nats-server"),
        (b'INFO {"x":' + b"[" * 20_000 + b"\r\n", "no nats-server"),
        (b"INFO " + json.dumps({**INFO, "tls_required": False}).encode() + b"\r\n", "no TLS"),
    ],
)
def test_what_is_no_bus_is_told_apart(first, word):
    with door(lambda visitor: visitor.sendall(first)) as port:
        came = knock("127.0.0.1", port, SEED, bytes(32))
    assert came.answer is Answer.NO_BUS
    assert word in came.detail


def test_a_server_without_keys_is_no_cluster(keys):
    folder, digest = keys
    with door(nats(folder, info={**INFO, "nonce": ""})) as port:
        came = knock("127.0.0.1", port, SEED, digest)
    assert (came.answer, "no keys" in came.detail) == (Answer.NO_BUS, True)


@pytest.mark.parametrize(
    "serve",
    [
        lambda visitor: None,
        lambda visitor: visitor.sendall(b"INFO {"),
        lambda visitor: visitor.sendall(b"x" * 40_000),
        lambda visitor: visitor.sendall(
            b"INFO " + json.dumps(INFO).encode() + b"\r\nthis is no TLS at all\r\n"
        ),
    ],
)
def test_a_door_that_slams_is_unreachable(serve):
    with door(serve) as port:
        assert knock("127.0.0.1", port, SEED, bytes(32), 2.0).answer is Answer.UNREACHABLE


def test_nobody_there_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    came = knock("127.0.0.1", port, SEED, bytes(32))
    assert (came.answer, came.detail) == (Answer.UNREACHABLE, "Connection refused")


def test_silence_is_waited_for_only_so_long():
    with door(lambda visitor: visitor.recv(1)) as port:
        assert knock("127.0.0.1", port, SEED, bytes(32), 0.1).answer is Answer.UNREACHABLE
