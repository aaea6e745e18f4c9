"""Who a member of the bus is: nkeys, the Ed25519 keys of NATS, made, written, read and signed with.

A *seed* is the secret and lives in one file of mode 0600; its *public* text is what the server is told. Their
form is NATS's own: a prefix, the 32 octets of the key and a CRC-16 (XMODEM, low octet first), in base32
without padding. Seeds of users alone are known here: e-MASS has neither operators nor accounts of NATS.
Pure; a text that is no seed or no public key is a ValueError which never repeats the text.
"""

import base64
import binascii
import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_PREFIX = 18 << 3  # "S"
USER_PREFIX = 20 << 3  # "U"
KEY_OCTETS = 32
SEED_TEXT_LENGTH = 58  # 2 + 32 + 2 octets in base32
PUBLIC_TEXT_LENGTH = 56  # 1 + 32 + 2 octets


def new_seed() -> str:
    """A fresh user seed, as text that begins with "SU"."""
    return encode_seed(secrets.token_bytes(KEY_OCTETS))


def encode_seed(raw: bytes) -> str:
    """The text of 32 secret octets."""
    assert len(raw) == KEY_OCTETS
    # The seed's prefix is followed by the kind of key, five bits each: NATS packs them over two octets.
    head = bytes((SEED_PREFIX | USER_PREFIX >> 5, (USER_PREFIX & 0x1F) << 3))
    return _armour(head + raw)


def decode_seed(seed: str) -> bytes:
    """The 32 secret octets of a user seed. Raises ValueError."""
    data = _strip(seed.strip(), SEED_TEXT_LENGTH, "seed")
    kind = (data[0] & 0x07) << 5 | data[1] >> 3
    if data[0] & 0xF8 != SEED_PREFIX or kind != USER_PREFIX:
        raise ValueError("not the seed of a user: it begins with SU")
    return data[2:]


def public_of(seed: str) -> str:
    """The public text of a seed, which begins with "U". Raises ValueError."""
    key = Ed25519PrivateKey.from_private_bytes(decode_seed(seed))
    return _armour(bytes((USER_PREFIX,)) + key.public_key().public_bytes_raw())


def check_public(public: str) -> str:
    """A user's public text, if it is one. Raises ValueError."""
    data = _strip(public, PUBLIC_TEXT_LENGTH, "public key")
    if data[0] != USER_PREFIX:
        raise ValueError("not the public key of a user: it begins with U")
    return public


def sign(seed: str, nonce: bytes) -> bytes:
    """The 64 octets that prove to a server who holds the seed. Raises ValueError."""
    return Ed25519PrivateKey.from_private_bytes(decode_seed(seed)).sign(nonce)


def verified(public: str, data: bytes, signature: bytes) -> bool:
    """Whether the holder of that public key's seed signed `data`. Raises ValueError for no public key."""
    octets = _strip(check_public(public), PUBLIC_TEXT_LENGTH, "public key")[1:]
    key = Ed25519PublicKey.from_public_bytes(octets)
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _armour(data: bytes) -> str:
    checked = data + binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(checked).rstrip(b"=").decode()


def _strip(text: str, length: int, what: str) -> bytes:
    if len(text) != length:
        raise ValueError(f"not an nkey {what}: {length} characters, this has {len(text)}")
    try:
        data = base64.b32decode(text + "=" * (-length % 8))
    except (binascii.Error, ValueError):
        raise ValueError(f"not an nkey {what}: a character that base32 does not have") from None
    if _armour(data[:-2]) != text:  # the sum, and the bits behind the last octet
        raise ValueError(f"not an nkey {what}: it has been damaged (its check sum differs)")
    return data[:-2]
