"""The receiving end of a bench: a process that swallows mail and counts it.

`start_sink` picks Postfix's smtp-sink where it is unpacked or installed (`bench.peers`), else the
project's own C sink (`sink.c`, compiled once into the user's cache), else the Python receiver of
`bench.world`. With a round-trip time only the own one will do: it is a delay line as well. A handle
tells its address, counts and stops it; a sink whose bench dies ends by itself. Synchronous throughout.
Whatever cannot start raises `SinkError` with what to do about it.
"""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from bench.peers import PeerMissing
from bench.peers.process import free_port
from bench.peers.smtp_sink import BACKLOG, smtp_sink_command
from bench.world.manners import Manners
from bench.world.process import child_environment
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec

SOURCE = Path(__file__).with_name("sink.c")
START_SECONDS = 20.0
STOP_SECONDS = 5.0
SESSIONS_MAX = 10_000  # smtp-sink's own default is 256, less than the benches open


class SinkError(Exception):
    """No sink of the wanted kind runs here; the text says why and what to do."""


class Kind(Enum):
    AUTO = "auto"
    SMTP_SINK = "smtp-sink"
    OWN = "own"
    PYTHON = "python"


class Sink:
    """A running sink. `name` says for reports which one it is."""

    def __init__(self, kind: Kind, address: tuple[str, int], process: "subprocess.Popen[bytes]") -> None:
        self.kind = kind
        self.address = address
        self._process = process

    def __repr__(self) -> str:
        return f"<Sink {self.name} at {self.address[0]}:{self.address[1]}>"

    @property
    def name(self) -> str:
        return self.kind.value

    def count(self) -> int:
        """Messages taken so far."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the process; harmless when it has ended. `count` may not be called any more."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _first_line(self) -> dict[str, Any]:
        """What the process prints when it is ready; its error output, which is ours, says why not."""
        try:
            return self._read()
        except SinkError:
            self.stop()
            raise

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SinkError(f"the {self.name} sink has ended (exit code {self._process.wait(STOP_SECONDS)})")
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer


def start_sink(
    kind: str | Kind = Kind.AUTO,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    cpu: int | None = None,
    rtt_ms: float = 0.0,
    chunking: bool = False,
) -> Sink:
    """Start a sink on `host`:`port` (0 = a free one), on core `cpu` only if given. Raises SinkError.

    `rtt_ms` and `chunking` want the own sink; AUTO then skips smtp-sink, which can do neither.
    """
    kind = Kind(kind)
    special = rtt_ms > 0 or chunking
    if rtt_ms and kind in (Kind.SMTP_SINK, Kind.PYTHON):
        raise SinkError(f"the {kind.value} sink has no delay line; use the kind 'own' with a round-trip time")
    if chunking and kind is Kind.SMTP_SINK:
        raise SinkError("smtp-sink offers no CHUNKING; use the kind 'own' or 'python'")
    if kind is Kind.SMTP_SINK or (kind is Kind.AUTO and not special):
        try:
            return SmtpSink.start(host, port, cpu)
        except SinkError:
            if kind is Kind.SMTP_SINK:
                raise
    if kind in (Kind.OWN, Kind.AUTO):
        try:
            return OwnSink.start(host, port, cpu, rtt_ms, chunking)
        except SinkError:
            if kind is Kind.OWN or rtt_ms:
                raise
    return PythonSink.start(host, port, cpu, chunking)


class OwnSink(Sink):
    """`sink.c`: answers SIGUSR1 with its counts."""

    @classmethod
    def start(cls, host: str, port: int, cpu: int | None, rtt_ms: float, chunking: bool) -> Self:
        command = [str(compiled_sink()), "--stdin", "--host", host, "--port", str(port)]
        command += ["--rtt-ms", str(rtt_ms)] + ["--chunking"] * chunking
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        _pin(process.pid, cpu)
        sink = cls(Kind.OWN, (host, port), process)
        sink.address = (host, sink._first_line()["port"])
        return sink

    def statistics(self) -> dict[str, int]:
        """messages, connections, connections_open, octets, protocol_errors."""
        self._process.send_signal(signal.SIGUSR1)
        return self._read()

    def count(self) -> int:
        return self.statistics()["messages"]


class PythonSink(Sink):
    """A world of one plain receiver for any domain."""

    @classmethod
    def start(cls, host: str, port: int, cpu: int | None, chunking: bool) -> Self:
        site = Site((Host("sink.test", address=host),), {})
        provider = ProviderSpec("sink", (site,), Manners(chunking=chunking))
        spec = WorldSpec(name="sink", providers=(provider,), smtp_port=port)
        command = [sys.executable, "-m", "bench.world", "serve", "--spec", "-"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
        )
        _pin(process.pid, cpu)
        sink = cls(Kind.PYTHON, (host, port), process)
        sink._write(msgspec.json.encode(spec))
        sink.address = (host, sink._first_line()["smtp_port"])
        return sink

    def count(self) -> int:
        self._write(b'{"ask":"statistics"}')
        accepted: int = self._read()["totals"]["accepted"]
        return accepted

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()


# The shell ends smtp-sink when our end of its stdin closes: smtp-sink itself reads none.
_GUARD = """
exec 3<&0
"$@" </dev/null 3<&- & child=$!
(cat <&3 >/dev/null; kill $child 2>/dev/null) &
exec 3<&-
wait $child
"""


class SmtpSink(Sink):
    """Postfix's smtp-sink, counting into a file: its output is rewritten at each message."""

    _output: Path

    @classmethod
    def start(cls, host: str, port: int, cpu: int | None) -> Self:
        port = port or free_port(host)
        command = _smtp_sink_command(host, port, cpu)
        handle, name = tempfile.mkstemp(prefix="emass-smtp-sink-")
        with open(handle, "wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        sink = cls(Kind.SMTP_SINK, (host, port), process)
        sink._output = Path(name)
        if not _greets(host, port, process):
            text = sink._output.read_text(errors="replace").strip()
            sink.stop()
            raise SinkError(f"smtp-sink did not start: {text or 'it answers nothing'}")
        return sink

    def count(self) -> int:
        with self._output.open("rb") as output:
            output.seek(max(0, self._output.stat().st_size - 4096))
            found = re.findall(rb"mesg=(\d+)", output.read())
        return int(found[-1]) if found else 0

    def stop(self) -> None:
        super().stop()
        self._output.unlink(missing_ok=True)


def _smtp_sink_command(host: str, port: int, cpu: int | None) -> list[str]:
    try:
        command = smtp_sink_command(host, port, sessions_max=SESSIONS_MAX, core=cpu)
    except PeerMissing as missing:
        places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/libexec/postfix"])
        program = shutil.which("smtp-sink", path=places)
        if program is None:
            raise SinkError(f"there is no smtp-sink: {missing}") from missing
        command = ["taskset", "-c", str(cpu), program] if cpu is not None else [program]
        command += ["-u", "nobody"] if os.geteuid() == 0 else []
        command += ["-m", str(SESSIONS_MAX), f"inet:{host}:{port}", str(BACKLOG)]
    command[-2:-2] = ["-c"]
    return command


def compiled_sink() -> Path:
    """The program made from `sink.c`, compiled at first use and after each change. Raises SinkError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emass"
    identity = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    program = cache / f"sink-{os.uname().machine}-{identity}"
    if program.is_file():
        return program
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise SinkError("the C sink needs a C compiler: install gcc or clang, or use the kind 'python'")
    cache.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed, so that two benches that start together never run half a program.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "sink"
        done = subprocess.run(
            [compiler, "-O2", "-o", str(made), str(SOURCE)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SinkError(f"{compiler} cannot compile the C sink: {done.stderr.strip()}")
        made.rename(program)
    return program


def _pin(pid: int, cpu: int | None) -> None:
    if cpu is not None and cpu in os.sched_getaffinity(0):
        os.sched_setaffinity(pid, {cpu})


def _greets(host: str, port: int, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection((host, port), timeout=5) as probe:
                if probe.recv(512).startswith(b"220"):
                    probe.sendall(b"QUIT\r\n")
                    return True
        except OSError:
            time.sleep(0.02)
    return False
