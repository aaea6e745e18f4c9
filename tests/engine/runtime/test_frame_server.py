"""The child's side of the frames, over plain pipes in its own interpreter."""

import os
import subprocess
import sys
from pathlib import Path

from engine.runtime.frame_server import write_whole
from engine.runtime.frames import FrameBuffer, encode_frame, encode_frames

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run_child(octets: bytes) -> tuple[int, list[bytes]]:
    """Feed `octets`, close stdin; the return code and the frames it answered."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.runtime.frame_child"],
        input=octets,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        check=False,
        timeout=30,
    )
    return done.returncode, FrameBuffer().feed(done.stdout)


def test_it_answers_in_order_and_ends_with_its_input() -> None:
    assert run_child(encode_frames([b"a", b"silent", b"b"])) == (0, [b"echo a", b"echo b"])


def test_input_that_ends_within_a_frame_is_the_parents_death_not_a_crash() -> None:
    assert run_child(encode_frame(b"a") + b"\x00\x00\x00\x09half") == (0, [b"echo a"])


def test_a_garbled_length_ends_the_process() -> None:
    assert run_child(b"GET / HTTP/1.1\r\n")[0] == 1


def test_trio_is_not_loaded() -> None:
    code = "import sys, engine.runtime.frame_server; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=False).returncode == 0


def test_writing_to_a_reader_that_is_gone_is_a_value() -> None:
    reader, writer = os.pipe()
    assert write_whole(writer, b"a" * 100)
    os.close(reader)
    assert not write_whole(writer, b"a")
    os.close(writer)
