"""Sealing: secrets that travel over the bus so that one node alone can open them.

A *box key* (X25519) belongs to a node, or to its signer processes; its file stays there and its public half
is told. Whoever knows the public half can seal: a fresh key pair, HKDF-SHA-256 over the shared secret with
both public halves in it, AES-256-GCM. What a value is for (`bound`: a table, a node, a name) is
authenticated with it, so that one cannot be moved to another name or node. A sealed value says which box
key opens it (8 octets), which lets a box key be replaced while values under the former one are still about:
`Boxes` is a current key and perhaps a former one, in two files. Who sealed a value is not proved; that is
the bus's business, where only the hub may write such tables. Raises SealingError, a KeyringError.
"""

import hashlib
import os
import pwd
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from engine.keyring import KeyringError, read_secret, replace_file, sync_folder, write_secret

PUBLIC_OCTETS = 32
KEY_ID_OCTETS = 8
VERSION = 1
UID_MAX = 2**32 - 2  # the highest stands for nobody in setuid's family
PLAIN_OCTETS_MAX = 64 * 1024  # a private key or a ring of token keys is a few KB
OVERHEAD_OCTETS = 1 + KEY_ID_OCTETS + PUBLIC_OCTETS + 16
NODE_BOX = "node.box"  # in the keys folder; opens what is for the node's processes: token keys
FORMER = ".former"  # behind a box file's name, while values under the replaced key are about

RING_ROW = "ring"  # the one row of a node's table of tokens


class SealingError(KeyringError):
    """A value cannot be sealed or opened; the message says why and what to do."""


class BoxKey:
    """A private key that opens what was sealed to its public half."""

    __slots__ = ("_private", "id", "public")

    def __init__(self, private: bytes) -> None:
        assert len(private) == PUBLIC_OCTETS
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    def __repr__(self) -> str:
        return f"<BoxKey {self.id.hex()}>"

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """What was sealed to this key for `bound`. Raises SealingError."""
        opener = sealed_to(sealed)
        if opener != self.id:
            raise SealingError(f"is sealed to the box key {opener.hex()}, not to {self.id.hex()}")
        start = 1 + KEY_ID_OCTETS
        fresh = sealed[start : start + PUBLIC_OCTETS]
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(fresh))
            key, nonce = _derive(shared, fresh, self.public)
            return AESGCM(key).decrypt(nonce, sealed[start + PUBLIC_OCTETS :], _head(self.id) + bound)
        except (InvalidTag, ValueError):  # ValueError: a public half for which there is no shared secret
            raise SealingError(
                f"is damaged, or was sealed for something else than {bound.decode(errors='replace')!r}"
            ) from None


class Boxes:
    """The box keys that one holder opens with, the current one first."""

    __slots__ = ("keys",)

    def __init__(self, keys: Sequence[BoxKey]) -> None:
        assert keys
        self.keys = tuple(keys)

    def __repr__(self) -> str:
        return f"<Boxes {', '.join(key.id.hex() for key in self.keys)}>"

    @property
    def public(self) -> bytes:
        """What others seal to."""
        return self.keys[0].public

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """As `BoxKey.open`, with whichever key it was sealed to. Raises SealingError."""
        opener = sealed_to(sealed)
        for key in self.keys:
            if key.id == opener:
                return key.open(sealed, bound)
        raise SealingError(
            f"is sealed to the box key {opener.hex()}, which is not here; "
            "`emass keys seal` on the hub seals anew"
        )


def seal(public: bytes, plain: bytes, bound: bytes) -> bytes:
    """Seal octets to a box key's public half, for one purpose. Raises SealingError."""
    if len(plain) > PLAIN_OCTETS_MAX:
        raise SealingError(f"{len(plain)} octets are too many to be sealed (at most {PLAIN_OCTETS_MAX})")
    fresh = X25519PrivateKey.generate()
    mine = fresh.public_key().public_bytes_raw()
    try:
        shared = fresh.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise SealingError(f"{public.hex()[:70]} is no public half of a box key") from error
    # The key is used once, so that its nonce may come out of the same derivation.
    key, nonce = _derive(shared, mine, public)
    opener = key_id(public)
    return _head(opener) + mine + AESGCM(key).encrypt(nonce, plain, _head(opener) + bound)


def sealed_to(sealed: bytes) -> bytes:
    """The id of the box key that opens it. Raises SealingError when it is no sealed value."""
    if not OVERHEAD_OCTETS <= len(sealed) <= OVERHEAD_OCTETS + PLAIN_OCTETS_MAX:
        raise SealingError(f"is no sealed value: it has {len(sealed)} octets")
    if sealed[0] != VERSION:
        raise SealingError(f"is sealed in form {sealed[0]}, and this version of e-MASS knows form {VERSION}")
    return sealed[1 : 1 + KEY_ID_OCTETS]


def key_id(public: bytes) -> bytes:
    """The name of a box key within sealed values: the first octets of its SHA-256."""
    return hashlib.sha256(public).digest()[:KEY_ID_OCTETS]


def dkim_table(node: str) -> str:
    """The table of a node's sealed DKIM keys, by name. Each node has its own, which it alone may read."""
    return f"dkim.{node}"


def tokens_table(node: str) -> str:
    """The table with a node's sealed ring of token keys."""
    return f"tokens.{node}"


def dkim_bound(node: str, name: str) -> bytes:
    """What a sealed DKIM key is bound to."""
    return f"dkim/{node}/{name}".encode()


def tokens_bound(node: str) -> bytes:
    """What a sealed ring of token keys is bound to."""
    return f"tokens/{node}".encode()


# --- files --------------------------------------------------------------------------------------------------


def create_box(path: Path, owner: tuple[int, int] | None = None) -> bytes:
    """Write a fresh box key, hex in one line, mode 0600, and return its public half.

    `owner` (uid, gid) is who opens it, where that is somebody else; only root can say so.
    Raises KeyringError.
    """
    key = secrets.token_bytes(PUBLIC_OCTETS)
    write_secret(path, key.hex().encode() + b"\n")
    give_box(path, owner)
    return BoxKey(key).public


def rotate_box(path: Path, owner: tuple[int, int] | None = None) -> bytes:
    """Put a fresh box key in the file's place and keep the replaced one beside it as the former.

    Reads no key, and the file is there at every moment. Raises KeyringError, also while an earlier
    replacement is under way.
    """
    former = former_of(path)
    if former.exists():
        raise KeyringError(
            f"{former}: the last replacement is still under way: not everything has been sealed anew yet"
        )
    key = secrets.token_bytes(PUBLIC_OCTETS)
    fresh = path.with_name(path.name + ".next")
    try:
        fresh.unlink(missing_ok=True)  # of a replacement that was killed before it counted
        replace_file(fresh, key.hex().encode() + b"\n")
        give_box(fresh, owner)
        os.link(path, former)
        fresh.replace(path)
        sync_folder(path.parent)  # before anybody seals to it what only it can open
    except OSError as error:
        raise KeyringError(f"{path}: cannot be replaced: {error.strerror}") from error
    return BoxKey(key).public


def drop_former(path: Path) -> None:
    """Destroy the former box key: everything has been sealed to the current one. Raises KeyringError."""
    try:
        former_of(path).unlink(missing_ok=True)
    except OSError as error:
        raise KeyringError(f"{former_of(path)}: cannot be removed: {error.strerror}") from error


def former_of(path: Path) -> Path:
    """Where the replaced box key of a file is, while there is one."""
    return path.with_name(path.name + FORMER)


def load_boxes(path: Path) -> Boxes:
    """The current box key of a file, and the former one if there is one. Raises KeyringError."""
    keys = [parse_box(read_secret(path), str(path))]
    former = former_of(path)
    try:
        keys.append(parse_box(read_secret(former), str(former)))
    except KeyringError:
        if former.exists():  # it may be dropped at any moment, and then it is not needed
            raise
    return Boxes(keys)


def parse_box(text: bytes, name: str) -> BoxKey:
    """A box file's text. Raises KeyringError; `name` stands for the file in it."""
    try:
        private = bytes.fromhex(text.strip().decode())
    except ValueError:
        private = b""
    if len(private) != PUBLIC_OCTETS:
        raise KeyringError(f"{name}: not a box key (64 hexadecimal digits)")
    return BoxKey(private)


def signer_owner(user: str) -> tuple[int, int] | None:
    """Who signer processes run as: (uid, gid) of a user's name or number; None = as this process.

    Only root may start them as somebody else, and a name that no user has says that this is not wanted.
    """
    if os.geteuid() != 0 or not user:
        return None
    try:
        if user.isascii() and user.isdigit():
            number = int(user)
            if number > UID_MAX:
                return None
            try:
                return number, pwd.getpwuid(number).pw_gid
            except KeyError:  # a number needs no name
                return number, number
        known = pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None
    return known.pw_uid, known.pw_gid


def give_box(path: Path, owner: tuple[int, int] | None) -> None:
    """Make a box file, if it is there, its opener's. Raises KeyringError."""
    if owner is None or not path.exists():
        return
    try:
        os.chown(path, *owner)
    except OSError as error:
        raise KeyringError(f"{path}: cannot be given to user {owner[0]}: {error.strerror}") from error


def _head(opener: bytes) -> bytes:
    return bytes((VERSION,)) + opener


def _derive(shared: bytes, fresh: bytes, public: bytes) -> tuple[bytes, bytes]:
    info = b"emass sealed v1" + fresh + public
    derived = HKDF(algorithm=hashes.SHA256(), length=44, salt=None, info=info).derive(shared)
    return derived[:32], derived[32:]
