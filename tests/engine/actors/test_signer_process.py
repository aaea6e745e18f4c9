"""The signer process by itself: what it says, what it answers, and how it ends."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.actors.signing_frames import KEYS_REFUSED, LENGTH, REQUEST, add_key, remove_key
from engine.keyring import create_dkim_key, load_dkim_key
from engine.runtime.frames import encode_frame
from engine.sealing import create_box, former_of, rotate_box, seal
from tests.fakes.engine_house import weak_key

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

DIGEST = bytes(range(32))


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    weak_key(tmp_path / "rsa.pem")
    create_dkim_key(tmp_path / "ed.pem", "ed25519-sha256")
    return [tmp_path / "rsa.pem", tmp_path / "ed.pem"]


def start(*keys: Path, box: Path | None = None, descriptors: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    arguments = [*([f"--box={box}"] if box else []), *(f"--key={path}" for path in keys)]
    if descriptors:
        arguments.append("--descriptors=" + ",".join(map(str, descriptors)))
    return subprocess.Popen(
        [sys.executable, "-m", "engine.actors.signer_process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=tuple(descriptors),
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


def end(process: Any) -> None:
    process.stdin.close()
    assert process.wait(10) == 0


def tell(process: Any, frame: bytes) -> bytes:
    process.stdin.write(encode_frame(frame))
    process.stdin.flush()
    return read_frame(process)


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


def test_a_number_that_has_no_key_is_answered_and_the_others_are_signed(
    process: Any, keys: list[Path]
) -> None:
    assert read_frame(process) == b"ready"
    nothing, signature = ask(process, (9, DIGEST), (1, DIGEST))
    assert nothing == b""
    load_dkim_key(keys[1]).verify(DIGEST, signature)
    assert tell(process, remove_key(1)) == b""
    assert ask(process, (1, DIGEST), (0, DIGEST))[0] == b""


def test_sealed_keys_come_are_replaced_and_go(tmp_path: Path, keys: list[Path]) -> None:
    box = tmp_path / "box"
    former = create_box(box)
    current = rotate_box(box)
    rsa, ed = (load_dkim_key(path) for path in keys)
    with start(box=box) as process:
        assert read_frame(process) == b"ready" + current + former
        assert tell(process, add_key(5, b"dkim/a/x", seal(former, keys[0].read_bytes(), b"dkim/a/x"))) == b""
        rsa.verify(DIGEST, ask(process, (5, DIGEST))[0])
        assert tell(process, add_key(5, b"dkim/a/x", seal(current, keys[1].read_bytes(), b"dkim/a/x"))) == b""
        ed.verify(DIGEST, ask(process, (5, DIGEST))[0])
        end(process)


def test_a_sealed_key_that_does_not_open_is_named_and_the_one_before_it_stays(
    tmp_path: Path, keys: list[Path]
) -> None:
    public, foreign = create_box(tmp_path / "box"), create_box(tmp_path / "foreign")
    pem = keys[1].read_bytes()
    good = seal(public, pem, b"dkim/a/x")
    with start(box=tmp_path / "box") as process:
        read_frame(process)
        assert tell(process, add_key(0, b"dkim/a/x", good)) == b""
        for bound, sealed, problem in (
            (b"dkim/a/y", good, b"sealed for something else than 'dkim/a/y'"),
            (b"dkim/b/x", good, b"sealed for something else"),
            (b"dkim/a/x", good[:-1] + bytes((good[-1] ^ 1,)), b"damaged"),
            (b"dkim/a/x", seal(foreign, pem, b"dkim/a/x"), b"is not here; `emass keys seal`"),
            (b"dkim/a/x", seal(public, b"no key", b"dkim/a/x"), b"the sealed key: not an unencrypted PEM"),
            (b"dkim/a/x", b"octets", b"no sealed value"),
        ):
            assert problem in tell(process, add_key(0, bound, sealed))
        load_dkim_key(keys[1]).verify(DIGEST, ask(process, (0, DIGEST))[0])
        end(process)


def test_without_a_box_no_sealed_key_opens(process: Any) -> None:
    read_frame(process)
    assert b"no box key" in tell(process, add_key(3, b"dkim/a/x", seal(bytes(range(32)), b"k", b"dkim/a/x")))


def test_files_that_the_parent_opened_are_read_and_their_modes_looked_at(
    tmp_path: Path, keys: list[Path]
) -> None:
    former = create_box(tmp_path / "box")
    current = rotate_box(tmp_path / "box")
    files = (tmp_path / "box", former_of(tmp_path / "box"), keys[0])
    opened = [os.open(path, os.O_RDONLY) for path in files]
    with start(keys[0], box=tmp_path / "box", descriptors=opened) as process:
        assert read_frame(process) == b"ready" + current + former
        load_dkim_key(keys[0]).verify(DIGEST, ask(process, (0, DIGEST))[0])
        end(process)
    keys[0].chmod(0o644)
    with start(keys[0], descriptors=opened[2:]) as process:
        _, said = process.communicate(timeout=20)
    assert process.returncode == KEYS_REFUSED
    assert said == f"signer: {keys[0]}: others may read this key (mode 644); chmod 600 {keys[0]}\n".encode()
    for descriptor in opened:
        os.close(descriptor)
