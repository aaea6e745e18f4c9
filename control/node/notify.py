"""The words that systemd wants to hear of a service of Type=notify: ready, still alive, stopping.

They are datagrams to a socket named in the environment (sd_notify(3)); without it nothing is said. The
watchdog's word comes from the loop that watches over the processes: when that stands still, systemd restarts
the service. A word that cannot be sent at once is dropped, since nothing here may wait for a manager.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

import trio

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"
PER_PERIOD = 3  # sd_watchdog_enabled(3) recommends half the time; one lost word more is allowed for
STATUS_CHARS_MAX = 200


class Notifier:
    """Speaks to the service manager, if there is one."""

    def __init__(self, environ: Mapping[str, str], pid: int | None = None) -> None:
        self._address = _address(environ.get(SOCKET_VARIABLE, ""))
        self._socket = None if self._address is None else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if self._socket is not None:
            self._socket.setblocking(False)
        self.watchdog_seconds = _watchdog_seconds(environ, os.getpid() if pid is None else pid)

    def __repr__(self) -> str:
        watchdog = f", watchdog {self.watchdog_seconds:g} s" if self.watchdog_seconds else ""
        return f"<Notifier {'to systemd' if self._socket else 'to nobody'}{watchdog}>"

    def ready(self, status: str = "") -> None:
        self._tell("READY=1", _status(status))

    def status(self, status: str) -> None:
        self._tell(_status(status))

    def reloading(self, monotonic: float) -> None:
        """Its configuration is being read; `ready` says that this is over."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1e6)}")

    def stopping(self, status: str = "") -> None:
        self._tell("STOPPING=1", _status(status))

    async def watch(self) -> None:
        """Say in time that this loop is alive; returns at once when nobody wants to hear it."""
        while self.watchdog_seconds:
            self._tell("WATCHDOG=1")
            await trio.sleep(self.watchdog_seconds / PER_PERIOD)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _tell(self, *lines: str) -> None:
        if self._socket is None or self._address is None:
            return
        with suppress(OSError):  # a manager that does not listen
            self._socket.sendto("\n".join(line for line in lines if line).encode(), self._address)


def _address(named: str) -> str | None:
    if named.startswith("@"):
        return "\0" + named[1:]
    return named if named.startswith("/") else None


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    meant = environ.get(WATCHDOG_PID_VARIABLE, str(pid))
    period = environ.get(WATCHDOG_VARIABLE, "")
    return int(period) / 1e6 if period.isdecimal() and int(period) > 0 and meant == str(pid) else None


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:STATUS_CHARS_MAX]}" if text else ""
