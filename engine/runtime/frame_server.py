"""The child's side of `process`: read frames from stdin, write answers to stdout, end with stdin.

Synchronous and without trio, so that a child starts fast, stays small and may fill a core. When the
parent dies or says stop, stdin closes and `serve_frames` returns. Touches: descriptors 0 and 1, SIGINT.
"""

import os
import signal
import sys
from collections.abc import Callable

from engine.runtime.frames import FRAME_BYTES_MAX, READ_BYTES, FrameBuffer, encode_frame


def serve_frames(handler: Callable[[bytes], bytes | None], *, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
    """The child's life: answer each frame from stdin (None: no answer) until stdin closes.

    Takes stdout for itself: what else prints goes to stderr. Ignores SIGINT, since Ctrl-C reaches the
    whole process group and the parent is the one to say stop. An exception of `handler` ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    answers = os.dup(1)
    os.dup2(2, 1)
    buffer = FrameBuffer(frame_bytes_max)
    while piece := os.read(0, READ_BYTES):
        for frame in buffer.feed(piece):
            answer = handler(frame)
            if answer is not None and not write_whole(answers, encode_frame(answer, frame_bytes_max)):
                return


def write_whole(descriptor: int, piece: bytes) -> bool:
    """Write all of `piece` to a blocking descriptor; False when the reader is gone."""
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        return False
    return True
