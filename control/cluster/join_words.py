"""What a machine that wants to join and the hub's desk say to each other: one question, one answer.

The question is signed with the code's seed, so the desk knows which code it came by whatever carried it.
The answer travels on a connection that the code's fingerprint has proved; secrets in it are sealed to the
machine's own box key. Pure; what does not decode is a ValueError.
"""

import msgspec
from msgspec import Struct

from control.cluster.registry import Applicant
from engine.bus.nkeys import public_of, sign, verified
from engine.model.decoding import UNDECODABLE

VERSION = 1
QUESTION_OCTETS_MAX = 16 * 1024

SKEW_WARN_SECONDS = 30.0  # dates in mail look odd from here on, and logs of two machines no longer line up
SKEW_MAX_SECONDS = 300.0  # a clock so wrong fails elsewhere as well: certificates, DKIM times, days of tokens


class JoinRequest(Struct, frozen=True):
    """Who wants to come in. `at`: its wall clock."""

    applicant: Applicant
    at: float
    software: str = ""
    version: int = VERSION


class _Signed(Struct, frozen=True):
    code: str  # the public key of the code's seed
    request: bytes
    signature: bytes


class JoinAnswer(Struct, frozen=True):
    """What the desk says. With `error` there is nothing else but the hub's clock."""

    at: float
    error: str = ""
    node: str = ""
    role: str = ""
    cluster: str = ""
    hub: str = ""
    servers: tuple[str, ...] = ()
    replicas: int = 1
    certificate: bytes = b""  # PEM: what the servers are judged by
    ring: bytes = b""  # token keys and the suppression key, sealed to the node's box key


def encode_request(request: JoinRequest, seed: str) -> bytes:
    """The question, signed."""
    text = msgspec.json.encode(request)
    return msgspec.json.encode(_Signed(public_of(seed), text, sign(seed, text)))


def decode_request(payload: bytes) -> tuple[str, JoinRequest]:
    """The code's public key, and the request that its seed has signed. Raises ValueError."""
    if len(payload) > QUESTION_OCTETS_MAX:
        raise ValueError("the question is too long")
    try:
        signed = msgspec.json.decode(payload, type=_Signed)
        if not verified(signed.code, signed.request, signed.signature):
            raise ValueError("the question is not signed by its join code")
        request = msgspec.json.decode(signed.request, type=JoinRequest)
    except UNDECODABLE as error:
        raise ValueError(f"the question does not decode: {error}") from None
    if request.version != VERSION:
        raise ValueError(
            f"the node speaks version {request.version} and the hub {VERSION}: update the older one"
        )
    return signed.code, request


def encode_answer(answer: JoinAnswer) -> bytes:
    return msgspec.json.encode(answer)


def decode_answer(payload: bytes) -> JoinAnswer:
    """Raises ValueError."""
    try:
        return msgspec.json.decode(payload, type=JoinAnswer)
    except UNDECODABLE as error:
        raise ValueError(f"the hub's answer does not decode: {error}") from None


def skew_words(seconds: float) -> str:
    """How far one clock is from another."""
    size = abs(seconds)
    amount = f"{size / 60:.0f} min" if size >= 120 else f"{size:.0f} s"
    return f"{amount} {'ahead of' if seconds > 0 else 'behind'}"
