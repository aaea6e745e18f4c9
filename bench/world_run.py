"""`python -m bench world`: a list like a real one through receivers whose limits the engine is not told.

The receivers (`bench.world.mix`) run in a process of their own; the engine is this process, with its real
tree, LMDB with fsync and real sockets, unsigned. It runs twice over the same list and limits: as it ships,
and with the fixed limits of a usual static MTA. Time is from the first submission to the last final
outcome; `optimum_seconds` is what the limits allow at best (`bench.world.optimum` says how that is told),
`rate_refused_share` is of all MAIL commands that the receivers heard. A run that takes longer than
`--patience` times the optimum is stopped, and what is finished by then is told.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from rich.console import Console

from bench import machine
from bench.chart import chart
from bench.letter import bench_content, bench_row
from bench.world.mix import real_list
from bench.world.optimum import Bound, bounds
from bench.world.process import WorldProcess, world_process
from bench.world.spec import WorldSpec
from bench.world_report import panels, provider_rows, summary, tables
from bench.world_watch import Watch
from engine.app import Engine, open_engine
from engine.bus.api import Subscription
from engine.config import load_config
from engine.model.envelope import Chunk, ChunkEntry
from engine.model.event import decode_events
from engine.model.submission import SubmitChunk, SubmitContent, encode_submission
from engine.observe.logs import configure_logs

CAMPAIGN = 1
CHUNK = 1_000  # of a shuffled list, so that each chunk has mail for every provider
BACKLOG_CHUNKS = 16
WATCH_SECONDS = 0.1
LAST_EVENTS_SECONDS = 10.0
FOLD_BATCHES = 512
WIDTH = 120  # of tables in a file or a pipe
FIXED_CONNECTIONS = 10
FIXED_MESSAGES_PER_CONNECTION = 100

# Retries come soon, so that what was deferred is settled within the run and not hours later.
CONFIG = """
[node]
name = "bench"
data = "."

[engine]
smtp_port = {smtp_port}

[engine.retry]
first = "5 s"
factor = 1.5
max = "30 s"
expire_after = "12 h"

[resolver]
servers = ["{resolver}"]
allow_private = true

[limits]
disk_refuse = "200 MB"
disk_stop = "100 MB"
ballast = "10 MB"
"""
FIXED = """
[[engine.site]]
connections = {connections}
messages_per_connection = {messages_per_connection}
{rate}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument(
        "--seconds", type=float, default=150.0, help="what the slowest providers' limits ask for"
    )
    parser.add_argument("--message-bytes", type=int, default=4_000, help="about so many octets a message")
    parser.add_argument("--seed", type=int, default=1, help="another list and other people in trouble")
    parser.add_argument("--patience", type=float, default=3.0, help="stop after so many times the optimum")
    parser.add_argument(
        "--fixed",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"the same again with {FIXED_CONNECTIONS} connections and no rate",
    )
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw rates and windows over time")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.messages < 1 or arguments.seconds <= 0:
        raise SystemExit("bench: --messages and --seconds must be above 0")
    configure_logs("error")
    spec = real_list(arguments.messages, arguments.seconds, arguments.seed)
    recipients = [person.email for person in spec.addresses(arguments.messages, arguments.seed)]
    allowed = bounds(spec, recipients)
    facts: dict[str, Any] = {"cores": machine.cores()}
    facts |= _run_one(arguments, spec, recipients, allowed, fixed=False)
    if arguments.fixed:
        facts["fixed"] = _run_one(arguments, spec, recipients, allowed, fixed=True)
    return facts | machine.versions()


def show(facts: dict[str, Any]) -> None:
    """The facts for people: sums side by side, then the providers of each run."""
    runs = {"adaptive": facts}
    if "fixed" in facts:
        runs["fixed"] = facts["fixed"]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for table in tables(runs):
        console.print(table)


def _run_one(
    arguments: argparse.Namespace,
    spec: WorldSpec,
    recipients: Sequence[str],
    allowed: dict[str, Bound],
    *,
    fixed: bool,
) -> dict[str, Any]:
    """One run in a fresh world and a fresh store; engine and receivers on a core each, if there are two."""
    cores = os.sched_getaffinity(0)
    folder = Path(tempfile.mkdtemp(prefix="emass-bench-"))
    try:
        if len(cores) > 1:
            machine.pin(min(cores))
        return trio.run(_campaign, arguments, spec, recipients, allowed, folder, fixed, max(cores))
    finally:
        os.sched_setaffinity(0, cores)
        shutil.rmtree(folder, ignore_errors=True)


async def _campaign(
    arguments: argparse.Namespace,
    spec: WorldSpec,
    recipients: Sequence[str],
    allowed: dict[str, Bound],
    folder: Path,
    fixed: bool,
    world_core: int,
) -> dict[str, Any]:
    optimum = max(bound.seconds for bound in allowed.values())
    provider_of = {domain: each.name for each in spec.providers for domain in each.domains}
    chunks = _chunks(recipients)
    async with world_process(spec, cpu=world_core) as world:
        config = load_config(_write_config(folder, world, fixed=fixed), {})
        async with open_engine(config) as engine:
            events = engine.parts.bus.subscribe(f"events.{config.node.name}", "bench")
            cpu, world_cpu = machine.cpu_seconds(), machine.cpu_seconds_of(world.pid)
            started = time.perf_counter()
            watch = Watch(provider_of, time.time())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_follow, events, watch)
                nursery.start_soon(_submit, engine, arguments.message_bytes, chunks)
                deadline = started + arguments.patience * max(optimum, 1.0)
                label = "fixed" if fixed else "adaptive"
                seconds = await _until_finished(engine, len(recipients), started, deadline, label)
                used = machine.cpu_seconds() - cpu
                world_used = machine.cpu_seconds_of(world.pid) - world_cpu
                await _until_told(engine, watch)
                nursery.cancel_scope.cancel()
            statistics, timeline = await world.statistics(), await world.timeline()
            if engine.counts(CAMPAIGN).finished < len(recipients):
                engine.hurry()
    if arguments.chart is not None:
        path = arguments.chart.with_stem(arguments.chart.stem + "-fixed") if fixed else arguments.chart
        await trio.Path(path).write_text(_draw(spec, timeline, watch, seconds, len(recipients), fixed))
    providers = provider_rows(spec, allowed, statistics, watch)
    return {
        **summary(allowed, statistics, watch, seconds, used),
        "world_cpu_us_per_message": round(world_used / max(1, watch.finished) * 1e6, 1),
        "providers": providers,
        "adaptions": len(watch.adaptions),
        "adaptions_first": watch.told(),
    }


def _write_config(folder: Path, world: WorldProcess, *, fixed: bool) -> Path:
    host, port = world.resolver
    text = CONFIG.format(smtp_port=world.smtp_port, resolver=f"{host}:{port}")
    if fixed:
        text += fixed_rule()
    path = folder / "emass.toml"
    path.write_text(text, encoding="utf-8")
    return path


def fixed_rule() -> str:
    """The rule of a static MTA: a range whose floor is its ceiling leaves nothing to adapt."""
    from engine.config import units

    ranged = hasattr(units, "CountRange")
    return FIXED.format(
        connections=f'"{FIXED_CONNECTIONS}..{FIXED_CONNECTIONS}"' if ranged else FIXED_CONNECTIONS,
        messages_per_connection=FIXED_MESSAGES_PER_CONNECTION,
        rate='rate = "100000/s..100000/s"' if ranged else "",
    )


def _chunks(recipients: Sequence[str]) -> list[bytes]:
    expires = time.time() + 86_400
    chunks = []
    for start in range(0, len(recipients), CHUNK):
        entries = tuple(
            ChunkEntry(number + 1, recipient, bench_row(number))
            for number, recipient in enumerate(recipients[start : start + CHUNK], start)
        )
        chunks.append(encode_submission(SubmitChunk(Chunk(f"bench-{start}", CAMPAIGN, expires, entries))))
    return chunks


async def _submit(engine: Engine, message_bytes: int, chunks: list[bytes]) -> None:
    """Publish with back-pressure, as `emass send` does."""
    await engine.submit([SubmitContent(bench_content(CAMPAIGN, message_bytes))])
    for chunk in chunks:
        while engine.backlog() > BACKLOG_CHUNKS:  # noqa: ASYNC110 - the backlog rings no bell
            await trio.sleep(0.005)
        await engine.parts.bus.publish(engine.chunk_stream, [chunk])


async def _follow(events: Subscription, watch: Watch) -> None:
    while True:
        for delivery in await events.receive(FOLD_BATCHES):
            watch.add(decode_events(delivery.payload))
            await trio.lowlevel.checkpoint()


async def _until_finished(
    engine: Engine, messages: int, started: float, deadline: float, label: str
) -> float:
    """Wait for the last final outcome or the deadline; returns the seconds since the start."""
    shown = 0.0
    while True:
        finished = engine.counts(CAMPAIGN).finished
        now = time.perf_counter()
        if sys.stderr.isatty() and (now - shown > 1.0 or finished >= messages):
            shown = now
            print(f"\r{label}: {finished:,} of {messages:,}, {now - started:.0f} s ", end="", file=sys.stderr)
        if finished >= messages or now > deadline:
            if sys.stderr.isatty():
                print(file=sys.stderr)
            return now - started
        await trio.sleep(WATCH_SECONDS)


async def _until_told(engine: Engine, watch: Watch) -> None:
    """The journal is a little behind the spool's counters."""
    with trio.move_on_after(LAST_EVENTS_SECONDS):
        while watch.finished < engine.counts(CAMPAIGN).finished:  # noqa: ASYNC110 - nor do they
            await trio.sleep(WATCH_SECONDS)


def _draw(
    spec: WorldSpec, timeline: dict[str, Any], watch: Watch, seconds: float, messages: int, fixed: bool
) -> str:
    how = f"fixed at {FIXED_CONNECTIONS} connections, no rate" if fixed else "not told to the sender"
    note = f"{watch.finished:,} of {messages:,} messages finished after {seconds:.0f} s; limits {how}"
    title = "Rate and connections of one sender at each provider"
    return chart(title, note, panels(spec, timeline, watch), seconds)
