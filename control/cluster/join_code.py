"""The one-time code that brings a machine into a cluster: one line to carry from the hub to the node.

It says where the bus is, which certificate the server must show (SHA-256), the node's name, and holds a seed
that opens one door once: whoever has it may ask to join, and nothing else. The hub keeps only the seed's
public part and the end of its time. A check sum finds what was cut off or mistyped. Pure; whatever is no code
is a JoinCodeError of one line that never repeats the code.
"""

import base64
import binascii
import hashlib
import re

import msgspec
from msgspec import Struct

from engine.bus.api import check_name
from engine.bus.nkeys import decode_seed, encode_seed
from engine.config import HostPort, UnitError

PREFIX = "emass-"
VERSION = 1
SUM_OCTETS = 4
FINGERPRINT_OCTETS = 32
CODE_LENGTH_MAX = 600  # a bus address and a name of 255 octets each, and 80 octets of keys, in base64

_FORM = re.compile(r"[A-Za-z0-9_-]+")


class JoinCodeError(Exception):
    """This is no join code that can be used here; the text says why."""


class JoinCode(Struct, frozen=True):
    """What a code says. Its `repr` leaves out the seed."""

    server: HostPort
    fingerprint: bytes  # SHA-256 of the server's certificate
    node: str
    seed: str

    def __repr__(self) -> str:
        return f"<JoinCode of {self.node} at {self.server}>"


def encode_join_code(code: JoinCode) -> str:
    """One line of letters, digits, `-` and `_`."""
    assert len(code.fingerprint) == FINGERPRINT_OCTETS
    body = bytes((VERSION,)) + msgspec.msgpack.encode(
        (str(code.server), code.fingerprint, code.node, decode_seed(code.seed))
    )
    text = base64.urlsafe_b64encode(_sum(body) + body).decode().rstrip("=")
    return PREFIX + text


def decode_join_code(text: str) -> JoinCode:
    """Raises JoinCodeError."""
    line = "".join(text.split())  # a terminal may have wrapped it
    if not line.startswith(PREFIX):
        raise JoinCodeError(f"this is no join code: it begins with {PREFIX} (`emass node add` prints one)")
    armoured = line.removeprefix(PREFIX)
    if len(line) > CODE_LENGTH_MAX or not _FORM.fullmatch(armoured):
        raise JoinCodeError("this join code is damaged: it has characters or a length that none has")
    try:
        data = base64.urlsafe_b64decode(armoured + "=" * (-len(armoured) % 4))
    except (binascii.Error, ValueError):
        raise JoinCodeError("this join code is damaged: part of it is missing") from None
    given, body = data[:SUM_OCTETS], data[SUM_OCTETS:]
    if not body or given != _sum(body):
        raise JoinCodeError("this join code is damaged: copy the whole line that `emass node add` printed")
    if body[0] != VERSION:
        raise JoinCodeError(
            f"this join code is of version {body[0]}, and this e-MASS knows {VERSION}: update it"
        )
    try:
        server, digest, node, raw = msgspec.msgpack.decode(body[1:], type=tuple[str, bytes, str, bytes])
        if len(digest) != FINGERPRINT_OCTETS or len(raw) != FINGERPRINT_OCTETS:
            raise ValueError("an impossible length")
        return JoinCode(HostPort.parse(server), digest, check_name(node), encode_seed(raw))
    except (msgspec.MsgspecError, UnitError, ValueError):
        raise JoinCodeError("this is no join code, though it looks like one") from None


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(b"emass join code" + body).digest()[:SUM_OCTETS]
