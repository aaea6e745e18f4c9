"""Blobs of the local bus: files named by their SHA-256, in one folder that all members share.

    <root>/.blobs/<first two digits>/<digest>

A file is written beside its place, synced and renamed, so a name that exists holds the whole. Two members
that put the same octets write the same file. What is read is checked: a disk that lies is found out,
and who puts a blob that is damaged there writes it again.
On trouble: StorageError with the file and the cure. Work on files is done in a thread.
"""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from engine.bus.api import BLOB_OCTETS_MAX, check_digest
from engine.storage import StorageError

FOLDER = ".blobs"

log = structlog.get_logger("bus")


class Blobs:
    """The blobs of one bus folder."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER

    def __repr__(self) -> str:
        return f"<Blobs in {self._folder}>"

    async def put(self, data: bytes) -> str:
        """As `Bus.put_blob`."""
        if len(data) > BLOB_OCTETS_MAX:
            raise ValueError(f"a blob has {len(data)} octets, more than {BLOB_OCTETS_MAX}")
        return await trio.to_thread.run_sync(self._write, data)

    async def read(self, digest: str) -> bytes | None:
        """As `Bus.read_blob`."""
        return await trio.to_thread.run_sync(self._read, check_digest(digest))

    async def drop(self, digest: str) -> None:
        """As `Bus.drop_blob`."""
        await trio.to_thread.run_sync(lambda: self._path(check_digest(digest)).unlink(missing_ok=True))

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _write(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if self._read(digest) is not None:
            return digest
        temporary = path.with_name(f".{digest}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            for folder in (path.parent, self._folder):
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            with suppress(OSError):  # it may be the folder that is in the way
                temporary.unlink()
            raise StorageError(f"{path}: cannot be written: {error.strerror}; make room there") from error
        return digest

    def _read(self, digest: str) -> bytes | None:
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            log.error("a blob is damaged and is not used", file=str(path))
            return None
        return data
