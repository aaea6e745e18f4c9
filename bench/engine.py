"""`python -m bench engine`: a whole campaign through the engine, from the first chunk to the last delivery.

The real tree on real LMDB with fsync, real sockets, personalised letters of about 10 KB. Unsigned, the
engine keeps to one core and the sink to another; signed, everything shares all cores. Time runs from the
first submission to the last settled envelope, CPU is that of the engine process alone. `--queue-first`
accepts everything before the gate opens, and tells what acceptance and a full queue cost. `--queued N`
accepts N envelopes, then sends `--messages` of them and stops: time and CPU are of those alone, so that
runs with different N tell what the depth of the queue costs. `--against postfix` sends the same messages
through a fresh Postfix that relays to the same sink, accept to last delivery at the sink, and gives the
ratio. `--bus nats` carries chunks, claims and events over a nats-server beside the sink instead of this
machine's own bus; publishing the chunks is then part of what is measured.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from bench import machine
from bench.letter import DOMAIN, bench_content, bench_row
from bench.sink import Sink, start_sink
from engine.actors.memory import PathMemory
from engine.actors.path import path_key
from engine.app import Engine, open_engine
from engine.config.bus import BusKind, BusTable
from engine.config.tables import (
    Config,
    DkimKeyFile,
    EngineTable,
    KeysTable,
    LimitsTable,
    NodeTable,
    SiteRule,
)
from engine.config.units import HostPort
from engine.keyring import create_dkim_key, create_master_key
from engine.model.content import DkimAlgorithm, DkimIdentity
from engine.model.envelope import Chunk, ChunkEntry
from engine.model.submission import SubmitChunk, SubmitContent, encode_submission
from engine.mta.net.egress import egress_sources
from engine.mta.net.mx import Route
from engine.mta.net.smarthost import literal_route
from engine.observe.logs import configure_logs

CHUNK = 5_000
CAMPAIGN = 1
BACKLOG_CHUNKS = 8
WATCH_SECONDS = 0.05
STALL_SECONDS = 60.0
DKIM = {
    "rsa2048": DkimAlgorithm.RSA_SHA256,
    "ed25519": DkimAlgorithm.ED25519_SHA256,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--domains", type=int, default=500)
    parser.add_argument("--dkim", choices=["off", *DKIM], default="off")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--message-bytes", type=int, default=10_000, help="about so many octets a message")
    parser.add_argument("--sink", choices=["auto", "smtp-sink", "own", "python"], default="auto")
    parser.add_argument("--chunking", action="store_true", help="the sink offers BDAT (own sink only)")
    parser.add_argument("--rtt-ms", type=float, default=0.0, help="round trip of the line (own sink only)")
    parser.add_argument("--fsync-ms", type=float, default=0.0, help="extra time in each commit")
    parser.add_argument("--queue-first", action="store_true", help="accept everything, then send")
    parser.add_argument("--queued", type=int, default=0, help="accept so many, then send only --messages")
    parser.add_argument(
        "--bus", choices=["local", "nats"], default="local", help="what chunks and events cross"
    )
    parser.add_argument("--against", choices=["postfix"], help="send the same through a peer, too")
    parser.add_argument("--peer-messages", type=int, default=5_000, help="messages for the slower peer")
    parser.add_argument("--folder", type=Path, default=None, help="where the store lives")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    configure_logs("warning")  # to stderr: stdout is for the figures
    kind = "own" if arguments.rtt_ms or arguments.chunking else arguments.sink
    pinned = arguments.dkim == "off" and machine.cores() > 1
    facts: dict[str, Any] = {"cores": machine.cores()}
    with start_sink(
        kind, cpu=1 if pinned else None, rtt_ms=arguments.rtt_ms, chunking=arguments.chunking
    ) as sink:
        allowed = os.sched_getaffinity(0)
        if pinned:
            machine.pin(0)
        with _folder(arguments) as folder, _bus(arguments, folder, cpu=1 if pinned else None) as bus:
            facts |= trio.run(_campaign, arguments, folder, sink.address, sink, bus)
        os.sched_setaffinity(0, allowed)
        if arguments.rtt_ms:
            facts["messages_per_connection_rtt"] = round(
                facts["steady_messages_per_second"] / arguments.connections * arguments.rtt_ms / 1e3, 3
            )
        if arguments.against:
            facts |= _against_postfix(arguments, sink, facts)
    return facts


async def _campaign(
    arguments: argparse.Namespace, folder: Path, target: tuple[str, int], sink: Sink, bus: BusTable
) -> dict[str, Any]:
    """One campaign to `target`; done when everything is settled and the sink has it."""
    config = _config(arguments, folder, bus)
    route = await literal_route(f"{target[0]}:{target[1]}")
    assert isinstance(route, Route)
    content = bench_content(CAMPAIGN, arguments.message_bytes, dkim=_dkim(arguments))
    queued_first = max(arguments.queued, arguments.messages if arguments.queue_first else 0)
    accepted = max(arguments.messages, arguments.queued)
    chunks = _chunks(accepted, arguments.domains)
    if not arguments.queued:  # ready-made, so that their making is not measured; a deep queue would not fit
        chunks = iter(list(chunks))
    before = sink.count()
    async with open_engine(config, static_route=route, extra_sync_seconds=arguments.fsync_ms / 1e3) as engine:
        gate = _gate(engine, config, route)
        if queued_first:
            gate.suspended_until = float("inf")
        cpu, started = machine.cpu_seconds(), time.perf_counter()
        await engine.submit([SubmitContent(content)])
        accepted_seconds = await _submit(engine, chunks, accepted, started)
        if arguments.queued:
            cpu, started = machine.cpu_seconds(), time.perf_counter()
        memory = machine.memory_mb()
        queued = {f"{key}_queued": value for key, value in memory.items()}
        gate.suspended_until = 0.0
        peak, marks = await _until_finished(engine, arguments.messages)
        while sink.count() - before < arguments.messages:  # noqa: ASYNC110 - another process counts
            await trio.sleep(WATCH_SECONDS)
        seconds = time.perf_counter() - started
        used = machine.cpu_seconds() - cpu
        sent = engine.counts(CAMPAIGN).finished if arguments.queued else arguments.messages
        compiled = engine.parts.compiled(CAMPAIGN)
        committer = engine.parts.committer
        assert committer is not None
        durability = (
            f"fdatasync per group commit ({committer.commit_seconds * 1e3:.1f} ms, "
            f"+{arguments.fsync_ms:g} ms)"
        )
        draft = compiled.compose(_sample_envelope(), time.time())
        if sent < accepted:
            engine.hurry()
    return {
        "messages": sent,
        "queued": queued_first,
        "message_bytes": draft.size,
        "domains": arguments.domains,
        "connections": arguments.connections,
        "dkim": arguments.dkim,
        "bus": arguments.bus,
        "sink": sink.name,
        "durability": durability,
        "seconds": round(seconds, 2),
        "messages_per_second": round(sent / seconds, 1),
        "steady_messages_per_second": round(_steady(marks), 1),
        "cpu_us_per_message": round(used / sent * 1e6, 1),
        "accept_seconds": round(accepted_seconds, 2),
        **queued,
        **peak,
        **machine.versions(),
    }


async def _submit(engine: Engine, chunks: Iterator[bytes], messages: int, started: float) -> float:
    """Publish encoded chunks with back-pressure; returns the seconds until all were acknowledged."""
    bus, stream = engine.parts.cluster, engine.chunk_stream
    for chunk in chunks:
        while await bus.pending(stream, "intake") > BACKLOG_CHUNKS:  # noqa: ASYNC110 - it rings no bell
            await trio.sleep(0.005)
        await bus.publish(stream, [chunk])
    while engine.counts(CAMPAIGN).accepted < messages:  # noqa: ASYNC110 - nor do the counters
        await trio.sleep(0.01)
    return time.perf_counter() - started


async def _until_finished(engine: Engine, messages: int) -> tuple[dict[str, float], list[tuple[float, int]]]:
    """Wait for the last settle; the peak of private memory on the way, and (time, finished) marks."""
    peak = machine.memory_mb()
    marks: list[tuple[float, int]] = []
    moved = time.perf_counter()
    while True:
        finished = engine.counts(CAMPAIGN).finished
        now = time.perf_counter()
        if not marks or finished != marks[-1][1]:
            moved = now
            marks.append((now, finished))
        memory = machine.memory_mb()
        peak = {key: max(value, memory[key]) for key, value in peak.items()}
        if finished >= messages:
            return peak, marks
        if now - moved > STALL_SECONDS:
            raise SystemExit(f"bench: nothing moved for {STALL_SECONDS} s: {engine.counts(CAMPAIGN)}")
        await trio.sleep(WATCH_SECONDS)


def _steady(marks: list[tuple[float, int]]) -> float:
    """Messages a second between a fifth and nine tenths of the way: without learning and tail."""
    total = marks[-1][1]
    inner = [mark for mark in marks if total * 0.2 <= mark[1] <= total * 0.9]
    if len(inner) < 2:
        return 0.0
    (then, before), (now, done) = inner[0], inner[-1]
    return (done - before) / (now - then)


def _against_postfix(arguments: argparse.Namespace, sink: Sink, ours: dict[str, Any]) -> dict[str, Any]:
    """The same letters into a fresh Postfix, submitted by our engine; time until the sink has them."""
    from bench.peers import postfix

    fewer = argparse.Namespace(
        **{**vars(arguments), "messages": arguments.peer_messages, "queue_first": False, "queued": 0}
    )
    with (
        _folder(arguments) as folder,
        _folder(arguments) as peer_folder,
        postfix.relaying(peer_folder / "postfix", sink.address) as address,
    ):
        facts = trio.run(_campaign, fewer, folder, address, sink, BusTable())
    rate = facts["messages_per_second"]
    return {
        "peer": f"postfix {postfix.version()}",
        "peer_messages": fewer.messages,
        "peer_messages_per_second": rate,
        "ratio": round(ours["messages_per_second"] / rate, 1),
    }


def _gate(engine: Engine, config: Config, route: Route) -> PathMemory:
    """The memory of the one path: suspended, nothing is sent to it."""
    source = egress_sources(config)[0]
    return engine.parts.path(path_key(source, route.site), route, source, "", trio.current_time())


@contextmanager
def _bus(arguments: argparse.Namespace, folder: Path, *, cpu: int | None) -> Iterator[BusTable]:
    """The bus of the run; a nats-server shares the sink's core, as it would be on another machine."""
    if arguments.bus == "local":
        yield BusTable()
        return
    from bench.peers.nats import NatsServer

    with NatsServer(folder / "nats") as server:
        if cpu is not None:
            os.sched_setaffinity(server.pid, {cpu})
        place = HostPort.parse(f"{server.address[0]}:{server.address[1]}")
        yield BusTable(kind=BusKind.NATS, servers=(place,), seeds="", ca_file="")


def _config(arguments: argparse.Namespace, folder: Path, bus: BusTable) -> Config:
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    create_master_key(keys / KeysTable().master)
    dkim: tuple[DkimKeyFile, ...] = ()
    if arguments.dkim != "off":
        algorithm = DKIM[arguments.dkim]
        create_dkim_key(keys / "bench.pem", algorithm.value)
        dkim = (DkimKeyFile(name="bench", file="bench.pem", algorithm=algorithm),)
    rule = SiteRule(connections=arguments.connections, messages_per_connection=1_000_000)
    return Config(
        node=NodeTable(name="bench", data=str(folder)),
        engine=EngineTable(site=(rule,)),
        keys=KeysTable(folder=str(keys), dkim=dkim),
        limits=LimitsTable(),
        bus=bus,
    )


def _dkim(arguments: argparse.Namespace) -> tuple[DkimIdentity, ...]:
    if arguments.dkim == "off":
        return ()
    return (DkimIdentity(DOMAIN, "b1", "bench", DKIM[arguments.dkim]),)


def _chunks(messages: int, domains: int) -> Iterator[bytes]:
    expires = time.time() + 86_400
    for start in range(0, messages, CHUNK):
        entries = tuple(_entry(n, domains) for n in range(start, min(messages, start + CHUNK)))
        yield encode_submission(SubmitChunk(Chunk(f"bench-{start}", CAMPAIGN, expires, entries)))


def _entry(n: int, domains: int) -> ChunkEntry:
    return ChunkEntry(n + 1, f"anna.lindqvist{n}@d{n % domains}.example", bench_row(n))


def _sample_envelope() -> Any:
    from engine.model.envelope import Envelope

    entry = _entry(123_456, 500)
    now = time.time()
    domain = entry.recipient.rpartition("@")[2]
    return Envelope(1, CAMPAIGN, entry.subscriber, entry.recipient, domain, entry.row, now, now + 3600)


@contextmanager
def _folder(arguments: argparse.Namespace) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="emass-bench-", dir=arguments.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
