"""A signer process: opens the private keys, tests itself, signs digests until its stdin closes.

Run as `python -m engine.actors.signer_process NAME=FILE ...`. Speaks frames (see `signer`): it says
"ready" first, then answers each frame of (key number, digest) with (length, signature) in the same
order. Nothing else of the engine is loaded here, and the keys are loaded nowhere else. It runs a
little nicer than the engine, so that the loop is never late because of a signature.
"""

import hashlib
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from engine.actors.signing_frames import KEYS_REFUSED, LENGTH, REQUEST
from engine.keyring import DkimKey, KeyringError, load_dkim_key
from engine.runtime.frame_server import serve_frames, write_whole
from engine.runtime.frames import encode_frame

NICENESS = 5


def main(arguments: list[str]) -> int:
    # Whoever stops a whole process group means the engine; it still has messages to finish with us.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    keys: list[DkimKey] = []
    try:
        for argument in arguments:
            _, _, path = argument.partition("=")
            key = load_dkim_key(Path(path))
            digest = hashlib.sha256(b"self-test").digest()
            key.verify(digest, key.sign(digest))
            keys.append(key)
    except KeyringError as error:
        sys.stderr.write(f"signer: {error}\n")
        return KEYS_REFUSED
    with suppress(OSError):
        os.nice(NICENESS)

    def answer(frame: bytes) -> bytes:
        signatures = []
        for number, digest in REQUEST.iter_unpack(frame):
            signature = keys[number].sign(digest)
            signatures.append(LENGTH.pack(len(signature)) + signature)
        return b"".join(signatures)

    write_whole(1, encode_frame(b"ready"))
    serve_frames(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
