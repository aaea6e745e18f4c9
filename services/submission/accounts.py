"""Who may hand in mail: the accounts file, its passwords' hashes, and the check of one log-in.

`keys/accounts.json` is written by `emass account` and read again here when it has changed. Passwords are
kept as Argon2id hashes (RFC 9106). A check takes the same time whether the account exists or not, runs in a
thread, and only a few at a time, since each takes tens of milliseconds and 19 MB. What was right a moment
ago is remembered (as an HMAC under a key of this process), so that a client with a connection for each mail
costs no hash. Raises AccountsError with file and cure.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
import trio
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from msgspec import Struct
from msgspec.structs import replace

from engine.keyring import replace_file
from engine.model.address import AddressError, normalise_domain
from engine.model.content import MessageClass
from engine.model.decoding import UNDECODABLE

FILE_OCTETS_MAX = 16 * 1024 * 1024  # some 50,000 accounts
PASSWORD_OCTETS_MAX = 512  # RFC 4616 allows more; nobody types it, and each octet is hashed
PASSWORD_OCTETS_MIN = 8
CHECKS_AT_A_TIME = 2
REMEMBERED_SECONDS = 300.0
REMEMBERED_MAX = 10_000
LOOK_SECONDS = 2.0  # how old what we know of the file may be
# OWASP's minimum for Argon2id: 19 MiB, two passes, one lane: some 25 ms here.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

log = structlog.get_logger("submission")


class AccountsError(Exception):
    """The accounts file, or a change of it, cannot be; the message names the file and the cure."""


class Account(Struct, frozen=True, forbid_unknown_fields=True):
    """One client. `domains`: whose mail it may hand in, as `[[submission.domain]]` knows them."""

    name: str
    password: str  # Argon2id, encoded
    domains: tuple[str, ...]
    workspace: str = "default"
    message_class: MessageClass = MessageClass.TRANSACTIONAL


class AccountsFile(Struct, frozen=True, forbid_unknown_fields=True):
    accounts: tuple[Account, ...] = ()


def read_accounts(path: Path) -> dict[str, Account]:
    """By name; none where there is no file. Raises AccountsError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(FILE_OCTETS_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise AccountsError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise AccountsError(f"{path}: others may read it (mode {mode & 0o777:o}); chmod 600 {path}")
    if len(data) > FILE_OCTETS_MAX:
        raise AccountsError(f"{path}: is larger than {FILE_OCTETS_MAX} octets")
    try:
        found = msgspec.json.decode(data, type=AccountsFile)
    except UNDECODABLE as error:
        raise AccountsError(f"{path}: is no accounts file ({error}); put back a copy") from error
    return {account.name: account for account in found.accounts}


def write_accounts(path: Path, accounts: dict[str, Account]) -> None:
    """Replace the file, whole or not at all, mode 0600. Raises AccountsError."""
    ordered = tuple(accounts[name] for name in sorted(accounts))
    data = msgspec.json.format(msgspec.json.encode(AccountsFile(ordered)), indent=2)
    try:
        replace_file(path, data + b"\n")
    except OSError as error:
        raise AccountsError(f"{path}: cannot be written: {error.strerror}") from error


def hash_password(password: str) -> str:
    """Raises AccountsError for one that is too short or too long."""
    octets = len(password.encode())
    if not PASSWORD_OCTETS_MIN <= octets <= PASSWORD_OCTETS_MAX:
        raise AccountsError(
            f"a password has {PASSWORD_OCTETS_MIN} to {PASSWORD_OCTETS_MAX} octets, not {octets}"
        )
    return _HASHER.hash(password)


def new_password() -> str:
    """A fresh one: 120 bits, readable."""
    return secrets.token_urlsafe(15)


def new_account(
    name: str, password: str, domains: tuple[str, ...], workspace: str, message_class: MessageClass
) -> Account:
    """Raises AccountsError for a name or domain that is none."""
    if not 0 < len(name) <= 120 or any(char.isspace() or not char.isprintable() for char in name):
        raise AccountsError("an account's name is 1 to 120 printable characters without spaces")
    try:
        names = tuple(normalise_domain(domain) for domain in domains)
    except AddressError as error:
        raise AccountsError(f"a domain {error}") from error
    return Account(name, hash_password(password), names, workspace, message_class)


def with_password(account: Account, password: str) -> Account:
    return replace(account, password=hash_password(password))


class Accounts:
    """The accounts of a running worker."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the file. Raises AccountsError."""
        self._path = path
        self._clock = clock
        self._stamp = self._look()
        self._accounts = read_accounts(path)
        self._told: tuple[tuple[int, int, int], str] | None = None  # what was wrong with the file, once
        self._looked = clock()
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._checks = trio.CapacityLimiter(CHECKS_AT_A_TIME)
        # Nobody's password: what a log-in of an unknown name is checked against.
        self._nobody = _HASHER.hash(secrets.token_urlsafe(24))

    def __repr__(self) -> str:
        return f"<Accounts {len(self._accounts)} in {self._path}>"

    def __len__(self) -> int:
        return len(self._accounts)

    async def check(self, name: str, password: bytes) -> Account | None:
        """The account, if the password is its own."""
        self._reread()
        account = self._accounts.get(name)
        hashed = self._nobody if account is None else account.password
        if len(password) > PASSWORD_OCTETS_MAX:
            password, account = b"", None
        proof = hmac.digest(self._key, b"\0".join((name.encode(), hashed.encode(), password)), hashlib.sha256)
        if account is not None and self._right.get(proof, 0.0) > self._clock():
            return account
        right = await trio.to_thread.run_sync(_verify, hashed, password, limiter=self._checks)
        if not right or account is None:
            return None
        self._right[proof] = self._clock() + REMEMBERED_SECONDS
        if len(self._right) > REMEMBERED_MAX:
            self._right.popitem(last=False)
        return account

    def still(self, account: Account) -> bool:
        """Whether the account is what it was: for connections that stay open."""
        self._reread()
        return self._accounts.get(account.name) == account

    def _look(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _reread(self) -> None:
        """A file that cannot be read leaves what was known: nobody is locked out by a slip.

        It is said, since an account that was removed still gets in meanwhile.
        """
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        stamp = self._look()
        if stamp == self._stamp:
            return
        try:
            self._accounts = read_accounts(self._path)
        except AccountsError as error:
            if self._told != (stamp, str(error)):
                self._told = (stamp, str(error))
                log.error("changed accounts cannot be read, the former ones hold", why=str(error))
            return
        self._stamp, self._told = stamp, None


def _verify(hashed: str, password: bytes) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False
