"""The kinds of processes that a node runs, as data: command line, readiness, patience.

`kinds_of` reads `[node] runs` and gives them in the order of their start; stopping goes the other way
round. Processes of ours are told `--supervised`: they say "ready" on a pipe and end when their lifeline
closes. A program of others hangs on a *guard* (`guard`), which does that for it, and is ready when its probe
says so. A further kind is a further function here. Touches: the configuration of the nats-server, which is
written before it starts.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio
from msgspec import Struct

from engine.config import Config, Runs
from engine.runtime.supervised import SUPERVISED

RESTARTS_MAX = 5  # architecture: 5 restarts in 60 s
PERIOD_SECONDS = 60.0
ENGINE_READY_SECONDS = 600.0  # 10 million records are read in some 30 s on a good disk, which not all are
ENGINE_STOP_SECONDS = 90.0  # what is on the wire ends: the final dot's time limit may be 10 min, few need it
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
PROBE_SECONDS = 0.1  # between two looks
PROBE_LIMIT_SECONDS = 2.0  # for one look
INFO_OCTETS_MAX = 64 * 1024  # a nats-server's first line has less than 2 KB

# What a service manager says to the root is not for its children.
OWN_VARIABLES = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)

Probe = Callable[[], Awaitable[bool]]


class ProcessKind(Struct, frozen=True):
    """One process: how it is started, when it is ready, how long its end may take."""

    name: str
    argv: tuple[str, ...]
    probe: Probe | None = None  # None: it says so itself
    ready_seconds: float = READY_SECONDS
    stop_seconds: float = STOP_SECONDS  # until nobody waits for its politeness any more
    ends_by_itself: bool = False  # its exit with code 0 is an order carried out, as a drain, and no crash


def kinds_of(config: Config, path: Path) -> tuple[ProcessKind, ...]:
    """What this node runs, in the order of its start. Raises ConfigError and the like of those who know."""
    made = {Runs.BUS: bus_kind, Runs.ENGINE: engine_kind, Runs.SUBMISSION: submission_kind}
    return tuple(made[each](config, path) for each in Runs if each in config.node.runs)


def engine_kind(config: Config, path: Path) -> ProcessKind:
    return ProcessKind(
        "engine",
        ours("engine", path),
        ready_seconds=ENGINE_READY_SECONDS,
        stop_seconds=ENGINE_STOP_SECONDS,
        ends_by_itself=True,
    )


def submission_kind(config: Config, path: Path) -> ProcessKind:
    return ProcessKind("submission", ours("services.submission", path))


def bus_kind(config: Config, path: Path) -> ProcessKind:
    from control.cluster.nats_server import nats_argv

    host, port = config.bus.listen.host, config.bus.listen.port
    return ProcessKind("bus", guarded(*nats_argv(config)), probe=lambda: nats_is_ready(host, port))


def ours(module: str, path: Path) -> tuple[str, ...]:
    """The command line of a process of ours."""
    return (sys.executable, "-m", module, SUPERVISED, str(path))


def guarded(*argv: str) -> tuple[str, ...]:
    """The command line of a program of others, on a guard."""
    return (sys.executable, "-m", "control.node.guard", *argv)


def child_environment(environ: Mapping[str, str], *, json_logs: bool) -> dict[str, str]:
    """What children get of the root's environment."""
    kept = {name: value for name, value in environ.items() if name not in OWN_VARIABLES}
    return kept | {"PYTHONUNBUFFERED": "1"} | ({"EMASS_LOG_FORMAT": "json"} if json_logs else {})


async def nats_is_ready(host: str, port: int) -> bool:
    """Whether a nats-server with JetStream greets there."""
    line = b""
    with trio.move_on_after(PROBE_LIMIT_SECONDS):
        try:
            async with await trio.open_tcp_stream(host, port) as stream:
                while b"\n" not in line and len(line) < INFO_OCTETS_MAX:
                    piece = await stream.receive_some()
                    if not piece:
                        break
                    line += piece
        except (OSError, trio.BrokenResourceError):
            return False
    return has_jetstream(line)


def has_jetstream(line: bytes) -> bool:
    """Whether a nats-server's INFO line says that it keeps streams."""
    verb, _, text = line.partition(b"\n")[0].partition(b" ")
    try:
        told = json.loads(text) if verb == b"INFO" else None
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("jetstream") is True
