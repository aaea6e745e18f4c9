"""One knock at a nats-server's door: who is there, with which certificate, and would it let us in?

A bus that is away is waited for, whatever the reason; this is how a person learns the reason. It speaks
the first lines of the protocol of NATS (INFO, TLS, CONNECT with a signed nonce, PING) and hangs up; nothing
is subscribed or published. Blocking, `SECONDS` at most: call it from a thread or a command. Every outcome is
a value; nothing is raised for what a server or a network does.
"""

import base64
import hashlib
import json
import socket
import ssl
import time
from enum import Enum

import msgspec
from msgspec import Struct

from engine.bus.nkeys import public_of, sign
from engine.model.decoding import UNDECODABLE

SECONDS = 5.0
LINE_OCTETS_MAX = 32 * 1024  # an INFO line is under 1 KB; a cluster's list of servers makes it longer


class Answer(Enum):
    LET_IN = "let in"
    UNREACHABLE = "unreachable"  # no connection, or it broke
    NO_BUS = "no bus"  # something else listens there, or a server without keys or TLS
    OTHER_CERTIFICATE = "other certificate"
    REFUSED = "refused"  # the server does not know our key


class Knock(Struct, frozen=True):
    """What came of it. `certificate` is what the server showed, in PEM."""

    answer: Answer
    detail: str = ""
    certificate: bytes = b""


class _Info(Struct, frozen=True):
    """What of a server's first line is looked at."""

    tls_required: bool = False
    nonce: str = ""


def knock(host: str, port: int, seed: str, fingerprint: bytes, seconds: float = SECONDS) -> Knock:
    """Knock with a seed at a server that must show the certificate with that SHA-256."""
    end = time.monotonic() + seconds
    try:
        with socket.create_connection((host, port), timeout=seconds) as plain:
            told = _line(plain, end)
            if not told.startswith(b"INFO "):
                return Knock(Answer.NO_BUS, "no nats-server listens there")
            try:
                info = msgspec.json.decode(told.removeprefix(b"INFO "), type=_Info)
            except UNDECODABLE:
                return Knock(Answer.NO_BUS, "no nats-server listens there")
            if not info.tls_required:
                return Knock(Answer.NO_BUS, "the nats-server there has no TLS")
            with _any_server().wrap_socket(plain, server_hostname=host) as secure:
                return _inside(secure, info.nonce, seed, fingerprint, end)
    except (OSError, _HungUp) as error:
        return Knock(Answer.UNREACHABLE, getattr(error, "strerror", None) or str(error))


def _inside(secure: ssl.SSLSocket, nonce: str, seed: str, fingerprint: bytes, end: float) -> Knock:
    shown = secure.getpeercert(binary_form=True)
    assert shown is not None  # a server without a certificate ends the handshake
    if hashlib.sha256(shown).digest() != fingerprint:
        return Knock(Answer.OTHER_CERTIFICATE)
    certificate = ssl.DER_cert_to_PEM_cert(shown).encode()
    if not nonce:
        return Knock(Answer.NO_BUS, "the nats-server there asks for no keys", certificate)
    hello = {
        "nkey": public_of(seed),
        "sig": base64.urlsafe_b64encode(sign(seed, nonce.encode())).decode().rstrip("="),
        "verbose": False,
        "pedantic": False,
        "tls_required": True,
        "lang": "python",
        "version": "1",
        "protocol": 1,
    }
    secure.sendall(b"CONNECT " + json.dumps(hello).encode() + b"\r\nPING\r\n")
    while True:
        told = _line(secure, end)
        if told.startswith(b"-ERR"):
            return Knock(
                Answer.REFUSED, told.removeprefix(b"-ERR").decode(errors="replace").strip(" '"), certificate
            )
        if told == b"PONG":
            return Knock(Answer.LET_IN, "", certificate)


class _HungUp(Exception):
    """The other side said nothing more."""


def _line(stream: socket.socket, end: float) -> bytes:
    """One line, an octet at a time: what follows it may be the beginning of TLS."""
    got = bytearray()
    while not got.endswith(b"\r\n"):
        left = end - time.monotonic()
        if left <= 0 or len(got) > LINE_OCTETS_MAX:
            raise _HungUp("it did not answer as a nats-server does")
        stream.settimeout(left)
        octet = stream.recv(1)
        if not octet:
            raise _HungUp("it hung up")
        got += octet
    return bytes(got[:-2])


def _any_server() -> ssl.SSLContext:
    """Speaks TLS with anybody: the certificate's digest is compared, which is stricter than any authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
