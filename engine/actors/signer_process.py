"""A signer process: opens the private keys, tests itself, signs digests until its stdin closes.

Run as `python -m engine.actors.signer_process [--box FILE] [--key FILE]...`. Speaks frames (see
`signing_frames`): it says that it is ready first, then answers each frame in order. A key is a PEM file
named at the start, or comes later in a frame, sealed to the box (or to the box that this one has replaced,
while that is there). With `--descriptors`, a number for each file in that order, the files were opened by the
parent, who may be allowed more than this process: it may run as a user of its own. Nothing else of the
engine is loaded here, and the keys are loaded nowhere else. It runs a little nicer than the engine, so that
the loop is never late because of a signature.
"""

import argparse
import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.actors.signing_frames import (
    KEYS_REFUSED,
    LENGTH,
    READY,
    REQUEST,
    is_key_change,
    read_key_change,
)
from engine.keyring import DkimKey, KeyringError, load_dkim_key, parse_dkim_key, read_open_secret
from engine.runtime.frame_server import serve_frames, write_whole
from engine.runtime.frames import encode_frame
from engine.sealing import Boxes, former_of, load_boxes, parse_box

NICENESS = 5
TEST_DIGEST = hashlib.sha256(b"self-test").digest()


class Keys:
    """The private keys of this process, by number."""

    def __init__(self, keys: Sequence[DkimKey], boxes: Boxes | None) -> None:
        self._keys = dict(enumerate(keys))
        self._boxes = boxes

    def sign(self, frame: bytes) -> bytes:
        """The answer to a request frame."""
        answers = []
        for number, digest in REQUEST.iter_unpack(frame):
            key = self._keys.get(number)
            signature = b"" if key is None else key.sign(digest)
            answers.append(LENGTH.pack(len(signature)) + signature)
        return b"".join(answers)

    def change(self, frame: bytes) -> bytes:
        """The answer to a change of keys: nothing, or what is wrong; then the number keeps its key."""
        number, bound, sealed = read_key_change(frame)
        if not sealed:
            self._keys.pop(number, None)
            return b""
        try:
            if self._boxes is None:
                raise KeyringError("this process has no box key to open it with")
            self._keys[number] = tested(parse_dkim_key(self._boxes.open(sealed, bound), "the sealed key"))
        except KeyringError as error:
            return str(error).encode()
        return b""


def tested(key: DkimKey) -> DkimKey:
    """The key, after one signature that verifies."""
    key.verify(TEST_DIGEST, key.sign(TEST_DIGEST))
    return key


def read_keys(arguments: Sequence[str]) -> tuple[list[DkimKey], Boxes | None]:
    """What the command line names, tested. Raises KeyringError."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--box", default="")
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--descriptors", default="")
    given = parser.parse_args(arguments)
    if given.descriptors:
        opened = [int(number) for number in given.descriptors.split(",")]
        files = list(given.key)
        if given.box:
            former = [str(former_of(Path(given.box)))] if len(opened) > len(files) + 1 else []
            files = [given.box, *former, *files]
        read = {file: read_open_secret(number, file) for number, file in zip(opened, files, strict=True)}
        boxes = [parse_box(data, file) for file, data in read.items() if file not in given.key]
        keys = [parse_dkim_key(read[file], file) for file in given.key]
    else:
        boxes = list(load_boxes(Path(given.box)).keys) if given.box else []
        keys = [load_dkim_key(Path(file)) for file in given.key]
    return [tested(key) for key in keys], Boxes(boxes) if boxes else None


def main(arguments: Sequence[str]) -> int:
    # Whoever stops a whole process group means the engine; it still has messages to finish with us.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        listed, boxes = read_keys(arguments)
    except KeyringError as error:
        sys.stderr.write(f"signer: {error}\n")
        return KEYS_REFUSED
    keys = Keys(listed, boxes)
    with suppress(OSError):
        os.nice(NICENESS)

    def answer(frame: bytes) -> bytes:
        return keys.change(frame) if is_key_change(frame) else keys.sign(frame)

    publics = b"".join(key.public for key in boxes.keys) if boxes else b""
    write_whole(1, encode_frame(READY + publics))
    serve_frames(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
