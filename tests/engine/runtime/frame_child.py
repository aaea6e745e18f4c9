"""The child process of test_process: echoes frames; some words make it misbehave."""

import os
import signal
import sys
import time

from engine.runtime.frame_server import serve_frames
from engine.runtime.frames import encode_frame


def handle(frame: bytes) -> bytes | None:
    match frame:
        case b"exit":
            os._exit(3)
        case b"raise":
            raise ValueError("handler's bug")
        case b"silent":
            return None
        case b"hang":
            time.sleep(60)
        case b"print":
            print("noise", flush=True)
            return b"printed"
        case b"stdout":
            return str(sys.stdout.fileno() == 1 and os.fstat(1) == os.fstat(2)).encode()
        case b"interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            return b"still here"
        case b"read":
            return os.read(int(sys.argv[1]), 100)
        case b"huge":
            return bytes(100_000)
        case b"close":
            os.close(1)
    return b"echo " + frame


if __name__ == "__main__":
    if "torn" in sys.argv:
        os.write(1, encode_frame(b"whole") + b"\x00\x00\x00\x09half")
        sys.exit(0)
    serve_frames(handle)
