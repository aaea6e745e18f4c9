"""Debian's nats-server, privately: one, or a cluster of three, each with a folder and ports of its own.

Synchronous, so that any test can use it: `start`, `kill` (as a power switch would, but for what the kernel
holds), `stop`, `start` again over the same store; a context manager that leaves none behind. A server that
is not unpacked here raises PeerMissing with the cure; one that does not come up raises PeerFailed with the
end of its log.
"""

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from bench.peers.place import home
from bench.peers.process import PeerFailed, free_port

HOST = "127.0.0.1"
START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 5.0
POLL_SECONDS = 0.02

# Kills the server when our end of its standard input closes: when the tests die.
GUARD = 'cat >/dev/null; kill -9 "$0"'

CONFIG = """\
server_name: "{name}"
listen: "{host}:{port}"
http: "{host}:{http_port}"
max_payload: 2MB
write_deadline: "10s"
jetstream {{ store_dir: "{folder}/store", max_file_store: 4TB, max_memory_store: 64MB }}
"""
CLUSTER = """\
cluster {{ name: test, listen: "{host}:{port}", no_advertise: true, routes: [{routes}] }}
"""


class NatsServer:
    """One nats-server over one folder. `more` is put behind its configuration."""

    def __init__(self, folder: Path, *, name: str = "nats", port: int | None = None, more: str = "") -> None:
        self.folder = folder
        self.port = port or free_port(HOST)
        self.address = (HOST, self.port)
        self._http_port = free_port(HOST)
        self._program = home("nats") / "usr/sbin/nats-server"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        head = CONFIG.format(name=name, host=HOST, port=self.port, http_port=self._http_port, folder=folder)
        (folder / "nats.conf").write_text(head + more)

    def __repr__(self) -> str:
        return f"<NatsServer on {self.port}: {'running' if self.running else 'not running'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start it over whatever its store holds; with `wait` until it answers."""
        command = [str(self._program), "-c", str(self.folder / "nats.conf")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, str(self._process.pid)], stdin=subprocess.PIPE
        )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        self._wait(self._answers)

    def wait_healthy(self) -> None:
        """Until it has caught up with its cluster, and could stand in for another."""
        self._wait(self._is_healthy)

    def _wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + START_SECONDS_MAX
        while not ready():
            if not self.running or time.monotonic() > until:
                raise PeerFailed(f"nats-server did not start:\n{self.log()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._end_guard()
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask it to end, politely."""
        if self._process is not None:
            self._end_guard()
            self._process.terminate()
            self._process.wait(STOP_SECONDS_MAX)

    def _end_guard(self) -> None:
        """Before the server is gone, and its number somebody else's."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None

    def freeze(self) -> None:
        """Stop its process where it stands: it holds its connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Lose the store; the server must not run."""
        assert not self.running
        shutil.rmtree(self.folder / "store", ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._http_port}/healthz", timeout=1.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self.address, timeout=1.0) as connection:
                line = connection.makefile("rb").readline()
        except OSError:
            return False
        word, _, info = line.partition(b" ")
        return word == b"INFO" and bool(json.loads(info).get("jetstream"))


@contextmanager
def cluster(folder: Path, count: int = 3) -> Iterator[Sequence[NatsServer]]:
    """A running cluster whose members know each other."""
    routes = [free_port(HOST) for _ in range(count)]
    servers = [
        NatsServer(
            folder / f"n{number}",
            name=f"n{number}",
            more=CLUSTER.format(
                host=HOST,
                port=routes[number],
                routes=", ".join(f"nats-route://{HOST}:{port}" for port in routes),
            ),
        )
        for number in range(count)
    ]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.start(wait=False)
        for server in servers:
            server.wait_healthy()
        yield servers
