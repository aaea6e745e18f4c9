"""`python -m control.node.guard PROGRAM ARGUMENTS`: keeps a program of others from outliving its supervisor.

The guard starts the program and waits. When its own standard input closes, because the supervisor wants an
end or was killed, it ends the program: politely, and after a while by force. Signals to end or to read a
configuration anew are handed on. Should the guard itself be killed, the kernel ends the program: that is
bound to the death of the thread that started it, which is why the supervisor cannot ask for it itself (it
starts its children from short-lived threads). The guard ends as the program did, by the same code or signal.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

POLITE_SECONDS = 15.0  # a nats-server flushes its streams in less than one
HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> int:
    if not argv:
        sys.stderr.write("usage: python -m control.node.guard PROGRAM [ARGUMENTS]\n")
        return 2
    mine = os.getpid()

    def begin() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != mine:  # it died before the kernel was told
            os._exit(1)

    try:
        # Safe, as there is no other thread yet.
        program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=begin)  # noqa: S603, PLW1509
    except OSError as error:
        sys.stderr.write(f"guard: {argv[0]}: cannot be started: {error.strerror}\n")
        return 127

    def hand_on(number: int, frame: FrameType | None) -> None:
        program.send_signal(number)

    for number in HANDED_ON:
        signal.signal(number, hand_on)
    threading.Thread(target=_heed_lifeline, args=(program,), daemon=True).start()
    code = program.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(mine, -code)
    return code


def _heed_lifeline(program: "subprocess.Popen[bytes]") -> None:
    try:
        while os.read(0, 512):
            pass
    except OSError:
        pass
    program.terminate()
    try:
        program.wait(POLITE_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
