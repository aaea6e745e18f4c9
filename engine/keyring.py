"""Secrets: how they are made, read, derived and destroyed.

Three kinds live here. The *master key* of a node is a file; token keys are derived from it (HKDF,
one per key id and kind), so that a role can be given only the kinds it needs, and so is the key of
suppressed addresses' hashes. *DKIM keys* are PEM files that only signer processes open. *Row keys* seal
recipients' rows at rest: each campaign has a random key, stored next to its data only wrapped by the
day's epoch key; epoch keys live in one small file, and destroying them means rewriting that file
(records deleted from LMDB stay readable in freed pages). A key file that others may read is refused with
the cure. Raises KeyringError.
"""

import base64
import json
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from engine.model.content import DkimAlgorithm

MASTER_KEY_OCTETS = 32
ROW_KEY_OCTETS = 32
ROWS_FILE = "rows.key"  # in the keys folder of a node without a master key
RSA_BITS = 2048  # RFC 8301 3.2: signers use at least 2048
RSA_BITS_MIN = 1024
KEY_FILE_OCTETS_MAX = 64 * 1024  # a key file is small; anything larger is a mistake
TOKEN_KINDS = "bucsrf"  # noqa: S105 - letters, no secret; architecture 8: bounce, unsubscribe, click, personal, reply, feedback


class KeyringError(Exception):
    """A key cannot be used; the message names the file and the cure."""


# --- files -----------------------------------------------------------------------------------------


def read_secret(path: Path) -> bytes:
    """The file's octets. Refuses a file that its group or others may read or write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyringError(f"{path}: cannot read the key: {error.strerror}") from error
    return read_open_secret(descriptor, str(path))


def read_open_secret(descriptor: int, path: str) -> bytes:
    """As `read_secret`, of a file that somebody has opened, who may be allowed more. Closes it."""
    try:
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if mode & 0o077:
                raise KeyringError(
                    f"{path}: others may read this key (mode {mode & 0o777:o}); chmod 600 {path}"
                )
            data = file.read(KEY_FILE_OCTETS_MAX + 1)
    except OSError as error:
        raise KeyringError(f"{path}: cannot read the key: {error.strerror}") from error
    if len(data) > KEY_FILE_OCTETS_MAX:
        raise KeyringError(f"{path}: larger than {KEY_FILE_OCTETS_MAX} octets, not a key file")
    return data


def write_secret(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write durably with mode 0600. Without `replace` an existing file is refused."""
    if os.path.lexists(path) and not replace:  # a link that leads nowhere is somebody's, too
        raise KeyringError(f"{path}: exists already; keys are never overwritten")
    try:
        replace_file(path, data)
    except OSError as error:
        raise KeyringError(f"{path}: cannot write the key: {error.strerror}") from error


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` there atomically and durably, mode 0600: the old file or the new one, whatever happens.

    Whose it was stays; a new file is its folder's owner's. Else what root writes by hand would be unreadable
    for the service that runs as somebody else. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            _keep_owner(file.fileno(), path)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _keep_owner(descriptor: int, path: Path) -> None:
    if os.geteuid() != 0:  # only root can give a file away
        return
    try:
        former = path.lstat()
    except FileNotFoundError:
        former = path.parent.stat()
    fresh = os.fstat(descriptor)
    if (former.st_uid, former.st_gid) != (fresh.st_uid, fresh.st_gid):
        # A root without CAP_CHOWN, or of a container that does not know the number (EINVAL): it stays root's.
        with suppress(OSError):
            os.fchown(descriptor, former.st_uid, former.st_gid)


def sync_folder(folder: Path) -> None:
    """Make the names in it durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- master key and what is derived from it -----------------------------------------------------------


def create_master_key(path: Path) -> None:
    """A fresh master key, hex in one line, mode 0600. Refuses to overwrite."""
    write_secret(path, secrets.token_hex(MASTER_KEY_OCTETS).encode() + b"\n")


def load_master_key(path: Path) -> bytes:
    """The 32 octets of a master key file."""
    text = read_secret(path).strip()
    if not re.fullmatch(rb"[0-9a-fA-F]{64}", text):
        raise KeyringError(f"{path}: not a master key (64 hexadecimal digits); make one with `emass init`")
    return bytes.fromhex(text.decode())


def row_secret(folder: Path, master: str) -> bytes:
    """What the keys of recipients' rows are kept under on this node: its master key, where it has one.

    A node that was given none makes itself a secret that never leaves it. Raises KeyringError.
    """
    if not (folder / master).exists() and not (folder / ROWS_FILE).exists():
        create_master_key(folder / ROWS_FILE)
    return load_row_secret(folder, master)


def load_row_secret(folder: Path, master: str) -> bytes:
    """As `row_secret`, for who only reads: makes nothing."""
    path = folder / master
    return load_master_key(path if path.exists() else folder / ROWS_FILE)


def derive_token_key(master: bytes, key_id: int, kind: str) -> bytes:
    """The 32-octet MAC key of one token kind (HKDF-SHA-256, RFC 5869). `key_id` is 0 to 15."""
    assert kind in TOKEN_KINDS
    assert len(kind) == 1
    assert 0 <= key_id <= 15
    info = f"emass token v1 {kind} {key_id}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(master)


def derive_suppression_key(master: bytes) -> bytes:
    """The 32-octet key of address hashes (HKDF-SHA-256). Of another master key, no suppression is found."""
    info = b"emass suppression v1"
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(master)


# --- DKIM ---------------------------------------------------------------------------------------------


class DkimKey:
    """A private key that signs header digests; made and used in signer processes only."""

    def __init__(self, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def algorithm(self) -> DkimAlgorithm:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return DkimAlgorithm.RSA_SHA256
        return DkimAlgorithm.ED25519_SHA256

    def sign(self, digest: bytes) -> bytes:
        """Sign a 32-octet SHA-256 digest: PKCS#1 v1.5 (RFC 6376 3.3.3) or PureEdDSA over it (RFC 8463 3)."""
        assert len(digest) == 32
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        return self._key.sign(digest)

    def verify(self, digest: bytes, signature: bytes) -> None:
        """Raise cryptography's InvalidSignature unless `signature` is ours: a signer's self-test."""
        public = self._key.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        else:
            public.verify(signature, digest)

    def record(self) -> str:
        """The value of the TXT record to publish at <selector>._domainkey.<domain>."""
        public = self._key.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            der = public.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}"
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}"


def create_dkim_key(path: Path, algorithm: str = "rsa-sha256") -> str:
    """Write a fresh PKCS#8 PEM key with mode 0600 and return its TXT record. Refuses to overwrite."""
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if DkimAlgorithm(algorithm) is DkimAlgorithm.RSA_SHA256:
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(path, pem)
    return DkimKey(key).record()


def load_dkim_key(path: Path) -> DkimKey:
    """Read a PEM private key (PKCS#1 or PKCS#8; RSA of at least 1024 bits, or Ed25519)."""
    return parse_dkim_key(read_secret(path), str(path))


def parse_dkim_key(data: bytes, path: str) -> DkimKey:
    """As `load_dkim_key`, of octets that came another way; `path` names them in errors."""
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyringError(f"{path}: not an unencrypted PEM private key") from error
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < RSA_BITS_MIN:
            raise KeyringError(f"{path}: RSA key of {key.key_size} bits; use {RSA_BITS} (RFC 8301)")
        return DkimKey(key)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return DkimKey(key)
    raise KeyringError(f"{path}: DKIM signs with RSA or Ed25519 keys only")


# --- row keys ---------------------------------------------------------------------------------------------


class RowSealer:
    """Seals rows of one campaign (AES-256-GCM). A nonce is the incarnation's salt and the row's id."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, nonce: bytes, row: bytes, bound: bytes | None = None) -> bytes:
        """`nonce` is 12 octets and never repeats under this key; `bound` stays plain but cannot change."""
        return self._cipher.encrypt(nonce, row, bound)

    def open(self, nonce: bytes, sealed: bytes, bound: bytes | None = None) -> bytes:
        """Raises KeyringError when the octets, or those bound to them, are not what was sealed."""
        try:
            return self._cipher.decrypt(nonce, sealed, bound)
        except InvalidTag as error:
            raise KeyringError("a sealed row does not open: wrong key or damaged record") from error


class RowKeyring:
    """The epoch keys (one a day) in one file, encrypted under a key derived from the master key."""

    def __init__(self, path: Path, master: bytes) -> None:
        self._path = path
        info = b"emass row keyring v1"
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(master)
        self._cipher = AESGCM(derived)
        self._keys: dict[int, bytes] = {}
        if path.exists():
            self._keys = self._load()

    def create_campaign_key(self, day: int) -> bytes:
        """A fresh campaign key, wrapped by the epoch key of `day` (days since 1970) for storing."""
        if day not in self._keys:
            self._keys[day] = secrets.token_bytes(ROW_KEY_OCTETS)
            try:
                self._save()
            except BaseException:  # nothing may be sealed under a key that no file has
                del self._keys[day]
                raise
        nonce = secrets.token_bytes(12)
        head = day.to_bytes(4, "big")
        wrapped = AESGCM(self._keys[day]).encrypt(nonce, secrets.token_bytes(ROW_KEY_OCTETS), head)
        return head + nonce + wrapped

    def sealer(self, wrapped: bytes) -> RowSealer:
        """Unwrap a campaign key. Raises KeyringError when its epoch key was destroyed."""
        day = int.from_bytes(wrapped[:4], "big")
        if day not in self._keys:
            raise KeyringError(f"{self._path}: the row key of day {day} was destroyed or is of another node")
        try:
            key = AESGCM(self._keys[day]).decrypt(wrapped[4:16], wrapped[16:], wrapped[:4])
        except (InvalidTag, ValueError) as error:
            raise KeyringError(f"{self._path}: a campaign key does not unwrap: damaged file") from error
        return RowSealer(key)

    def destroy_before(self, day: int) -> int:
        """Forget all epoch keys older than `day` and rewrite the file; returns how many.

        Raises KeyringError when it cannot be rewritten: they are all known then, as before, and nobody takes
        for destroyed what the file still has.
        """
        former = self._keys
        self._keys = {epoch: key for epoch, key in former.items() if epoch >= day}
        gone = len(former) - len(self._keys)
        if gone:
            try:
                self._save()
            except BaseException:
                self._keys = former
                raise
        return gone

    def _save(self) -> None:
        plain = json.dumps({str(day): key.hex() for day, key in sorted(self._keys.items())}).encode()
        nonce = secrets.token_bytes(12)
        write_secret(self._path, nonce + self._cipher.encrypt(nonce, plain, None), replace=True)

    def _load(self) -> dict[int, bytes]:
        data = read_secret(self._path)
        try:
            plain = self._cipher.decrypt(data[:12], data[12:], None)
            stored = json.loads(plain)
            return {int(day): bytes.fromhex(key) for day, key in stored.items()}
        except (InvalidTag, ValueError) as error:
            raise KeyringError(
                f"{self._path}: does not open with this master key; put back the key file it was made with"
            ) from error
