"""The signed token that stands in return paths, links and one-click URLs.

25 octets, 40 characters of lower-case base32 without padding:
version and flag (4 bits), key id (4 bits), acceptance day (2 octets, days since 1970), campaign (4),
subscriber or message id (6), spare (2), MAC (10: the first octets of HMAC-SHA-256 over kind,
payload and sending-domain id). The kind is not in the payload: a token of one kind never passes as
another. Payload and MAC both end on a character boundary (24 + 16), so a message encodes its payload
once and a MAC per kind. Pure; a token that does not verify is None, never an error.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

Kind = Literal["b", "u", "c", "r", "f", "s"]
# bounce; unsubscribe and preferences; click, open and web view; reply; complaint feedback; personal link
KINDS: tuple[Kind, ...] = ("b", "u", "c", "r", "f", "s")

TOKEN_CHARS = 40
PAYLOAD_OCTETS = 15
MAC_OCTETS = 10
KEY_OCTETS = 32
KEY_ID_MAX = 15
DAY_MAX = 0xFFFF
CAMPAIGN_MAX = 0xFFFF_FFFF
SUBSCRIBER_MAX = 0xFFFF_FFFF_FFFF

_VERSION = 1  # 0-7; the fourth bit is the flag
_SINGLE = 0x8
_PAYLOAD_CHARS = 24
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_VALUES = {char: value for value, char in enumerate(_ALPHABET)}
_BLOCK_OCTETS = 64  # SHA-256's, RFC 2104


class TokenKeys(Struct, frozen=True):
    """The MAC keys of a sending domain's tokens: id of the one that signs, and all that verify.

    `keys` maps key id (0-15) to one derived 32-octet key per kind letter. Old ids stay, so that old
    mail's links keep working.
    """

    current: int
    keys: Mapping[int, Mapping[str, bytes]]

    def __post_init__(self) -> None:
        assert self.current in self.keys, "the current token key is missing"
        for key_id, by_kind in self.keys.items():
            assert 0 <= key_id <= KEY_ID_MAX
            assert set(KINDS) <= set(by_kind), "a token key lacks a kind"
            assert all(len(key) == KEY_OCTETS for key in by_kind.values())

    def __repr__(self) -> str:
        return f"<TokenKeys current {self.current}, ids {sorted(self.keys)}>"


class TokenPayload(Struct, frozen=True):
    """What a token says. `single`: `subscriber` is the id of a single message instead."""

    key_id: int
    day: int
    campaign: int
    subscriber: int
    single: bool = False


def mint(
    kind: Kind,
    keys: TokenKeys,
    *,
    day: int,
    campaign: int,
    subscriber: int,
    domain_id: str,
    single: bool = False,
) -> str:
    """A token of `kind`, signed with the current key. Subscriber 0 makes an aggregate one."""
    payload = pack_payload(keys.current, day, campaign, subscriber, single)
    mac = minter(kind, keys, domain_id)(payload)
    return encode_payload(payload) + mac


def verify(kind: Kind, keys: TokenKeys, token: str, domain_id: str) -> TokenPayload | None:
    """What `token` says if it is a genuine one of this kind and domain, else None.

    Letter case does not matter: some mail servers change it in local parts.
    """
    if len(token) != TOKEN_CHARS or not token.isascii():
        return None
    value = 0
    for char in token.lower():
        digit = _VALUES.get(char)
        if digit is None:
            return None
        value = value << 5 | digit
    raw = value.to_bytes(PAYLOAD_OCTETS + MAC_OCTETS, "big")
    payload, mac = raw[:PAYLOAD_OCTETS], raw[PAYLOAD_OCTETS:]
    by_kind = keys.keys.get(payload[0] & 0xF)
    if by_kind is None:
        return None
    expected = hmac.digest(by_kind[kind], _signed(kind, payload, domain_id), "sha256")[:MAC_OCTETS]
    if not hmac.compare_digest(mac, expected):
        return None
    head = payload[0] >> 4
    if head & 0x7 != _VERSION:
        return None
    return TokenPayload(
        key_id=payload[0] & 0xF,
        day=int.from_bytes(payload[1:3], "big"),
        campaign=int.from_bytes(payload[3:7], "big"),
        subscriber=int.from_bytes(payload[7:13], "big"),
        single=bool(head & _SINGLE),
    )


def _signed(kind: Kind, payload: bytes, domain_id: str) -> bytes:
    return kind.encode() + payload + domain_id.encode()


def pack_payload(key_id: int, day: int, campaign: int, subscriber: int, single: bool = False) -> bytes:
    """The 15 octets that all tokens of one message share. Out of range is a caller's bug."""
    assert 0 <= day <= DAY_MAX
    assert 0 <= campaign <= CAMPAIGN_MAX
    assert 0 <= subscriber <= SUBSCRIBER_MAX
    head = (_VERSION | (_SINGLE if single else 0)) << 4 | key_id
    return (head << 112 | day << 96 | campaign << 64 | subscriber << 16).to_bytes(PAYLOAD_OCTETS, "big")


def encode_payload(payload: bytes) -> str:
    """The first 24 characters of a token."""
    n = int.from_bytes(payload, "big")
    p = _PAIRS
    # Written out: this runs for every message, and a loop takes twice as long.
    return (
        f"{p[n >> 110]}{p[n >> 100 & 1023]}{p[n >> 90 & 1023]}{p[n >> 80 & 1023]}"
        f"{p[n >> 70 & 1023]}{p[n >> 60 & 1023]}{p[n >> 50 & 1023]}{p[n >> 40 & 1023]}"
        f"{p[n >> 30 & 1023]}{p[n >> 20 & 1023]}{p[n >> 10 & 1023]}{p[n & 1023]}"
    )


def minter(kind: Kind, keys: TokenKeys, domain_id: str) -> Callable[[bytes], str]:
    """A function from payload to the last 16 characters of its token, for many payloads.

    The HMAC's two key blocks are hashed once here and the states copied, which takes a third of the
    time of `hmac.digest`.
    """
    key = keys.keys[keys.current][kind].ljust(_BLOCK_OCTETS, b"\0")
    inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in key) + kind.encode())
    outer = hashlib.sha256(bytes(octet ^ 0x5C for octet in key))
    domain = domain_id.encode()
    p = _PAIRS

    def mac(payload: bytes) -> str:
        first = inner.copy()
        first.update(payload + domain)
        second = outer.copy()
        second.update(first.digest())
        n = int.from_bytes(second.digest()[:MAC_OCTETS], "big")
        return (
            f"{p[n >> 70]}{p[n >> 60 & 1023]}{p[n >> 50 & 1023]}{p[n >> 40 & 1023]}"
            f"{p[n >> 30 & 1023]}{p[n >> 20 & 1023]}{p[n >> 10 & 1023]}{p[n & 1023]}"
        )

    return mac
