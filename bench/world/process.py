"""A world in a process of its own: it outlives a killed engine and uses the other core.

`python -m bench.world serve` reads a spec, prints one line of JSON when it is ready (resolver, SMTP port,
domains), then answers one line of JSON per line it is asked, and ends when its stdin closes or on
SIGTERM: no world is ever left behind. `world_process` is the other end of that pipe, on trio.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from bench.world.people import Person
from bench.world.spec import Expected, WorldSpec
from bench.world.world import World, open_world

READY_SECONDS = 30.0  # importing and binding takes half a second; a loaded machine takes its time
STOP_SECONDS = 5.0
ROOT = Path(__file__).resolve().parents[2]


class WorldError(Exception):
    """The world's process did not start, or is gone."""


class Ready(msgspec.Struct, frozen=True):
    """The first line that a serving world prints."""

    resolver: tuple[str, int]
    smtp_port: int
    domains: dict[str, float]
    pid: int


class WorldProcess:
    """The parent's view of a world that runs elsewhere. Same names as `World` where they mean the same."""

    def __init__(self, spec: WorldSpec, ready: Ready, process: trio.Process, lines: "_Lines") -> None:
        self.spec = spec
        self.resolver = ready.resolver
        self.smtp_port = ready.smtp_port
        self.domains = ready.domains
        self.pid = ready.pid
        self._process = process
        self._lines = lines
        self._one_at_a_time = trio.Lock()

    def __repr__(self) -> str:
        return f"<WorldProcess {self.spec.name}: pid {self.pid}, port {self.smtp_port}>"

    def addresses(self, number: int, seed: int = 1) -> list[Person]:
        return self.spec.addresses(number, seed)

    def expected(self, recipients: Iterable[str]) -> Expected:
        return self.spec.expected(recipients)

    async def statistics(self) -> dict[str, Any]:
        """As `World.statistics`. Raises WorldError when the process is gone."""
        return await self._ask("statistics")

    async def timeline(self) -> dict[str, Any]:
        """As `World.timeline`. Raises WorldError when the process is gone."""
        return await self._ask("timeline")

    async def _ask(self, what: str) -> dict[str, Any]:
        async with self._one_at_a_time:
            assert self._process.stdin is not None
            try:
                await self._process.stdin.send_all(b'{"ask":"%s"}\n' % what.encode())
            except trio.BrokenResourceError as error:
                raise WorldError("the world's process is gone") from error
            answer: dict[str, Any] = msgspec.json.decode(await self._lines.read())
        return answer


@asynccontextmanager
async def world_process(
    spec: WorldSpec,
    *,
    record: Path | None = None,
    keep_content: bool = False,
    cpu: int | None = None,
) -> AsyncIterator[WorldProcess]:
    """Start a world in its own process, pinned to `cpu` if given; it ends with the context."""
    command = [sys.executable, "-m", "bench.world", "serve", "--spec", "-"]
    if record is not None:
        command += ["--record", str(record)]
    if keep_content:
        command.append("--content")
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    # A session of its own: Ctrl-C at the terminal stops the engine politely first, the world after it.
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = _Lines(process.stdout)
    try:
        try:
            with trio.fail_after(READY_SECONDS):
                await process.stdin.send_all(msgspec.json.encode(spec) + b"\n")
                ready = msgspec.json.decode(await lines.read(), type=Ready)
        except (trio.TooSlowError, trio.BrokenResourceError, msgspec.DecodeError) as error:
            raise WorldError("the world did not start; its error output tells why") from error
        yield WorldProcess(spec, ready, process, lines)
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(STOP_SECONDS):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.stdout.aclose()


def child_environment() -> dict[str, str]:
    """Ours, and a PYTHONPATH by which the child finds this package wherever it starts."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


class _Lines:
    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def read(self) -> bytes:
        while b"\n" not in self._buffer:
            octets = await self._stream.receive_some()
            if not octets:
                raise WorldError("the world's process is gone")
            self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


# --- the child's side ---


def load_spec(source: str) -> WorldSpec:
    """`demo`, `-` (one line of stdin) or a JSON file. Raises OSError or msgspec.DecodeError."""
    if source == "demo":
        from bench.world.demo import demo_world

        return demo_world()
    text = _stdin_line() if source == "-" else Path(source).read_bytes()
    return msgspec.json.decode(text, type=WorldSpec)


async def serve(spec: WorldSpec, *, record: Path | None = None, keep_content: bool = False) -> None:
    """Run a world until stdin closes or SIGTERM or SIGINT comes."""
    async with open_world(spec, record=record, keep_content=keep_content) as world:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            _print(Ready(world.resolver, world.smtp_port, world.domains, os.getpid()))
            async with trio.open_nursery() as nursery:

                async def until_signal() -> None:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

                async def until_stdin_closes() -> None:
                    await _answer_questions(world)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_signal)
                nursery.start_soon(until_stdin_closes)


async def _answer_questions(world: World) -> None:
    # A thread reads: stdin may be a file or /dev/null, which epoll refuses.
    while line := await trio.to_thread.run_sync(_stdin_line, abandon_on_cancel=True):
        match line.strip():
            case b'{"ask":"statistics"}':
                _print(world.statistics())
            case b'{"ask":"timeline"}':
                _print(world.timeline())
            case _:
                _print({"error": 'ask {"ask":"statistics"} or {"ask":"timeline"}'})


_stdin_rest = bytearray()


def _stdin_line() -> bytes:
    """The next line of stdin, b"" at its end. Past Python's own buffer, whose lock a reading thread
    would hold when the process ends, which is fatal."""
    while b"\n" not in _stdin_rest:
        octets = os.read(0, 65_536)
        if not octets:
            return b""
        _stdin_rest.extend(octets)
    line, _, rest = bytes(_stdin_rest).partition(b"\n")
    _stdin_rest[:] = rest
    return line + b"\n"


def _print(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()
