"""The signer process by itself: what it says, what it answers, and how it ends."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.actors.signing_frames import KEYS_REFUSED, LENGTH, REQUEST
from engine.keyring import create_dkim_key, load_dkim_key
from engine.runtime.frames import encode_frame
from tests.fakes.engine_house import weak_key

DIGEST = bytes(range(32))


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    weak_key(tmp_path / "rsa.pem")
    create_dkim_key(tmp_path / "ed.pem", "ed25519-sha256")
    return [tmp_path / "rsa.pem", tmp_path / "ed.pem"]


def start(*keys: Path) -> subprocess.Popen[bytes]:
    arguments = [f"{path.stem}={path}" for path in keys]
    return subprocess.Popen(
        [sys.executable, "-m", "engine.actors.signer_process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def process(keys: list[Path]) -> Iterator[Any]:
    with start(*keys) as running:
        yield running
        running.kill()


def read_frame(process: Any) -> bytes:
    (length,) = struct.unpack(">I", process.stdout.read(4))
    frame: bytes = process.stdout.read(length)
    return frame


def ask(process: Any, *requests: tuple[int, bytes]) -> list[bytes]:
    process.stdin.write(encode_frame(b"".join(REQUEST.pack(*request) for request in requests)))
    process.stdin.flush()
    frame, position, signatures = read_frame(process), 0, []
    while position < len(frame):
        (length,) = LENGTH.unpack_from(frame, position)
        position += LENGTH.size
        signatures.append(frame[position : position + length])
        position += length
    return signatures


def test_it_is_ready_then_signs_in_order_and_ends_with_its_stdin(process: Any, keys: list[Path]) -> None:
    assert read_frame(process) == b"ready"
    signatures = ask(process, (0, DIGEST), (1, DIGEST), (0, DIGEST[::-1]))
    rsa, ed = (load_dkim_key(path) for path in keys)
    rsa.verify(DIGEST, signatures[0])
    ed.verify(DIGEST, signatures[1])
    rsa.verify(DIGEST[::-1], signatures[2])
    process.stdin.close()
    assert process.wait(10) == 0


def test_a_signal_to_the_whole_group_does_not_end_it(process: Any) -> None:
    assert read_frame(process) == b"ready"
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(process.pid, number)
    assert len(ask(process, (0, DIGEST))) == 1


@pytest.mark.parametrize("content", [None, b"no key at all"])
def test_a_key_it_cannot_use_is_one_line_that_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with start(path) as process:
        _, said = process.communicate(timeout=20)
    assert process.returncode == KEYS_REFUSED
    assert said.startswith(f"signer: {path}".encode())
    assert said.count(b"\n") == 1
