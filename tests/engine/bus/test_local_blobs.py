"""Blobs as files: whole or not there, whoever writes, and checked when read."""

import hashlib
from pathlib import Path

import pytest
import trio

from engine.bus import local_blobs
from engine.bus.local_blobs import FOLDER, Blobs
from engine.storage import StorageError


def path_of(root: Path, digest: str) -> Path:
    return root / FOLDER / digest[:2] / digest


async def test_a_blob_is_a_file_of_its_digest_for_its_owner_alone(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = await blobs.put(b"letter")
    assert digest == hashlib.sha256(b"letter").hexdigest()
    path = path_of(tmp_path, digest)
    assert path.read_bytes() == b"letter"
    assert path.stat().st_mode & 0o777 == 0o600
    assert await Blobs(tmp_path).read(digest) == b"letter"
    await blobs.drop(digest)
    await blobs.drop(digest)
    assert await blobs.read(digest) is None


async def test_writers_of_the_same_octets_do_not_meet(tmp_path: Path) -> None:
    blobs = [Blobs(tmp_path) for _ in range(8)]
    data = b"letter" * 50_000
    async with trio.open_nursery() as nursery:
        for each in blobs:
            nursery.start_soon(each.put, data)
    digest = hashlib.sha256(data).hexdigest()
    assert await blobs[0].read(digest) == data
    assert [path.name for path in path_of(tmp_path, digest).parent.iterdir()] == [digest]


async def test_a_damaged_blob_is_not_used(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = await blobs.put(b"letter")
    path_of(tmp_path, digest).write_bytes(b"damage")
    assert await blobs.read(digest) is None
    assert await blobs.put(b"letter") == digest
    assert await blobs.read(digest) == b"letter"


async def test_what_is_no_digest_names_no_file(tmp_path: Path) -> None:
    for digest in ("", "../../etc/passwd", "A" * 64):
        with pytest.raises(ValueError, match="no SHA-256"):
            await Blobs(tmp_path).read(digest)
        with pytest.raises(ValueError, match="no SHA-256"):
            await Blobs(tmp_path).drop(digest)


async def test_a_folder_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(StorageError, match=FOLDER):
        await Blobs(tmp_path).put(b"letter")


async def test_a_blob_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_blobs, "BLOB_OCTETS_MAX", 10)
    with pytest.raises(ValueError, match="more than 10"):
        await Blobs(tmp_path).put(b"eleven octe")
    assert await Blobs(tmp_path).put(b"ten octets")
