"""The octets of suppressions: keys, the keyed hash of an address, records, and orders on the bus.

A key is a letter and what it names: `A` and the hash of an address, `D` and a recipient domain, `S`, a
workspace, NUL and a subscriber's number. No address is ever stored: its hash is BLAKE2b-128 under a key
that is derived from the master key, over `engine.model.address.canonical_v1`. So spellings of one
mailbox are one (case, NFC, needless quotes, IDN); what follows a plus, dots of the local part, and
provider names that mean the same (googlemail.com) are not folded: that is one provider's habit, not a
rule. Raises SuppressionError for octets that are not ours.
"""

import struct
from hashlib import blake2b
from typing import Final

import msgspec

from engine.model.address import Address, AddressError, canonical_v1, normalise_domain
from engine.model.decoding import UNDECODABLE
from engine.mta.policy.suppression import (
    EVERYWHERE,
    Reason,
    Scope,
    ScopeKind,
    SuppressionEntry,
    SuppressionError,
    SuppressionOrder,
    check_name,
)

HASH_OCTETS: Final = 16  # 10 million addresses: a chance of 1e-25 that two are one
CHECK_OCTETS: Final = 8
ADDRESS: Final = b"A"
DOMAIN: Final = b"D"
SUBSCRIBER: Final = b"S"
SUBSCRIBER_MAX: Final = 2**64 - 1

# scope, reason, since ms, at ms, octets of workspace, list id and source; the three texts follow
HEAD: Final = struct.Struct(">BBQQBBB")
_NUMBER: Final = struct.Struct(">Q")
_REASONS: Final = {int(reason): reason for reason in Reason}

_encode_order = msgspec.msgpack.Encoder().encode
_decode_order = msgspec.msgpack.Decoder(SuppressionOrder).decode


class AddressHasher:
    """Address keys under one derived key of 32 octets."""

    __slots__ = ("_fresh", "check")

    def __init__(self, key: bytes) -> None:
        self._fresh = blake2b(key=key, digest_size=HASH_OCTETS)
        # Two stores or messages of different keys know it at once: their hashes mean nothing to each other.
        self.check = blake2b(b"emass suppression check v1", key=key, digest_size=CHECK_OCTETS).digest()

    def __repr__(self) -> str:
        return f"<AddressHasher {self.check.hex()}>"

    def key_of(self, recipient: str) -> bytes:
        """The key of `local@domain`, parsed before: its domain is in lower-case A-labels."""
        digest = self._fresh.copy()
        if recipient.isascii() and '"' not in recipient:
            digest.update(recipient.lower().encode())  # what canonical_v1 comes to for most of the world
        else:
            local, _, domain = recipient.rpartition("@")
            digest.update(canonical_v1(Address(local, domain)))
        return ADDRESS + digest.digest()


# --- keys ------------------------------------------------------------------------------------------------


def hash_key(text: str) -> bytes:
    """The key of an address hash as `emass suppress export` writes it. Raises SuppressionError."""
    try:
        digest = bytes.fromhex(text) if len(text) == 2 * HASH_OCTETS else b""
    except ValueError:
        digest = b""
    if len(digest) != HASH_OCTETS:  # white space between digits is none
        raise SuppressionError("is no address hash (32 hexadecimal digits)")
    return ADDRESS + digest


def domain_key(text: str) -> bytes:
    """Raises SuppressionError."""
    try:
        return DOMAIN + normalise_domain(text).encode()
    except AddressError as error:
        raise SuppressionError(str(error)) from error


def subscriber_key(workspace: str, subscriber: int) -> bytes:
    """Raises SuppressionError."""
    if not workspace:
        raise SuppressionError("a subscriber has a workspace")
    if not 0 < subscriber <= SUBSCRIBER_MAX:
        raise SuppressionError(f"{subscriber} is no subscriber's number")
    return SUBSCRIBER + check_name(workspace).encode() + b"\0" + _NUMBER.pack(subscriber)


def describe_key(key: bytes) -> tuple[str, str]:
    """What kind of key it is, and what it names as people read it. Raises SuppressionError."""
    kind, rest = key[:1], key[1:]
    try:
        if kind == ADDRESS and len(rest) == HASH_OCTETS:
            return "address", rest.hex()
        if kind == DOMAIN and rest:
            return "domain", rest.decode("ascii")
        if kind == SUBSCRIBER and len(rest) > 9 and rest[-9] == 0:
            return "subscriber", f"{rest[:-9].decode()}:{_NUMBER.unpack(rest[-8:])[0]}"
    except UnicodeDecodeError:
        pass
    raise SuppressionError(f"{key[:20].hex()} is no key of a suppression")


def check_keys(keys: tuple[bytes, ...]) -> None:
    """Raises SuppressionError for the first that is none."""
    for key in keys:
        if len(key) != HASH_OCTETS + 1 or key[:1] != ADDRESS:  # nearly all are
            describe_key(key)
            if len(key) > 2 + 253 + 8:
                raise SuppressionError("a key is longer than any name may be")


# --- records ---------------------------------------------------------------------------------------------


def encode_record(entries: tuple[SuppressionEntry, ...]) -> bytes:
    """What stands under one key."""
    parts = []
    for entry in entries:
        scope = entry.scope
        texts = [text.encode() for text in (scope.workspace, scope.list_id, entry.source)]
        head = HEAD.pack(scope.kind, entry.reason, entry.since_ms, entry.at_ms, *map(len, texts))
        parts.append(head + b"".join(texts))
    return b"".join(parts)


def decode_record(record: bytes) -> tuple[SuppressionEntry, ...]:
    """Raises SuppressionError for a record that was not written like this."""
    entries = []
    place, size = 0, len(record)
    try:
        while place < size:
            kind, reason, since, at, workspace, list_id, source = HEAD.unpack_from(record, place)
            first = place + HEAD.size
            second = first + workspace
            third = second + list_id
            place = third + source
            if place > size:
                raise SuppressionError("a record of a suppression is cut off")
            if kind == 0 and second == third == first:
                scope = EVERYWHERE
            else:
                scope = Scope(ScopeKind(kind), record[first:second].decode(), record[second:third].decode())
            entries.append(SuppressionEntry(scope, _REASONS[reason], since, at, record[third:place].decode()))
    except (struct.error, KeyError, ValueError) as error:
        raise SuppressionError(f"a record of a suppression is damaged: {error}") from error
    return tuple(entries)


# --- orders ----------------------------------------------------------------------------------------------


def encode_order(order: SuppressionOrder) -> bytes:
    return _encode_order(order)


def decode_order(payload: bytes) -> SuppressionOrder:
    """Raises SuppressionError for octets that are no order, or one that makes no sense."""
    try:
        order = _decode_order(payload)
    except (*UNDECODABLE, ValueError) as error:
        raise SuppressionError(f"an order about suppressions does not decode: {error}") from error
    check_keys(order.keys)
    return order
