"""`python -m bench fairness`: what one site's crowded queue does to those who should not wait for it.

All mail goes to one site that takes `--rate` messages a second over few connections. First `--bulk`
envelopes of one campaign are queued, then transactional messages trickle in, one to a chunk, evenly over
`--seconds`; their wait runs from the engine's acknowledgement (and, told apart, from the submission) to
the delivery as the events tell it. What is not delivered a while after the last submission counts with
the time it has waited so far. Then two workspaces with weights 1 to 3 queue the same amount of bulk mail,
one behind the other, and the shares of what is delivered while both wait are set against the weights.
The real tree on real LMDB with fsync, a sink in a process of its own.
"""

import argparse
import math
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from bench import machine
from bench.letter import bench_content, bench_row
from bench.sink import start_sink
from engine.app import Engine, open_engine
from engine.bus.api import Subscription
from engine.config import load_config
from engine.config.tables import EngineTable
from engine.model.content import MessageClass
from engine.model.envelope import Chunk, ChunkEntry
from engine.model.event import ChunkAccepted, Delivered, EventBatch, decode_events
from engine.model.submission import SubmitChunk, SubmitContent, encode_submission
from engine.mta.net.mx import Route
from engine.mta.net.smarthost import literal_route
from engine.observe.logs import configure_logs

BULK, TRANSACTIONAL = 1, 2  # campaigns of the first run
WEIGHTS = {"maple": 1.0, "oak": 3.0}  # workspaces of the second, one campaign each
CHUNK = 5_000
BACKLOG_CHUNKS = 8
WATCH_SECONDS = 0.02
SETTLING_SECONDS = 2.0  # between the last acceptance and the first measurement
LAST_SECONDS = 10.0  # after the last submission; who waits longer is counted as still waiting
FOLD_BATCHES = 512
CONFIG = """
[node]
name = "bench"
data = "."

[limits]
disk_refuse = "200 MB"
disk_stop = "100 MB"
ballast = "10 MB"

[[engine.site]]
connections = {connections}
messages_per_connection = 1000000
"""
SHARE = """
[[engine.share]]
workspace = "{workspace}"
weight = {weight}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bulk", "--messages", type=int, default=1_000_000, help="queued before the others")
    parser.add_argument("--transactional", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each measurement takes")
    parser.add_argument("--rate", type=int, default=1_000, help="messages a second to the site, 0 = no limit")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--message-bytes", type=int, default=4_000, help="about so many octets a message")
    parser.add_argument("--sink", choices=["auto", "smtp-sink", "own", "python"], default="auto")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    configure_logs("error")
    cores = os.sched_getaffinity(0)
    pinned = len(cores) > 1
    facts: dict[str, Any] = {"cores": machine.cores(), "rate": arguments.rate}
    with start_sink(arguments.sink, cpu=max(cores) if pinned else None) as sink:
        try:
            if pinned:
                machine.pin(min(cores))
            facts["sink"] = sink.name
            facts |= trio.run(_waits, arguments, sink.address)
            facts |= trio.run(_shares, arguments, sink.address)
        finally:
            os.sched_setaffinity(0, cores)
    return facts | machine.versions()


# --- transactional mail behind bulk mail ---


class Waits:
    """Fed with event batches: when each transactional chunk was accepted and delivered, wall seconds."""

    def __init__(self) -> None:
        self.submitted: dict[int, float] = {}
        self.accepted: dict[int, float] = {}
        self.delivered: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"<Waits {len(self.delivered)} of {len(self.submitted)} delivered>"

    def add(self, batch: EventBatch) -> None:
        for event in batch.events:
            if isinstance(event, ChunkAccepted) and event.campaign == TRANSACTIONAL:
                self.accepted[int(event.chunk)] = batch.at
            elif isinstance(event, Delivered) and event.campaign == TRANSACTIONAL:
                self.delivered[event.subscriber] = batch.at

    def facts(self, now: float) -> dict[str, Any]:
        """Percentiles of the waits; who is not delivered has waited until `now`."""
        accepted = sorted(
            max(0.0, self.delivered.get(number, now) - at) for number, at in self.accepted.items()
        )
        submitted = sorted(self.delivered.get(number, now) - at for number, at in self.submitted.items())
        return {
            "transactional": len(self.submitted),
            "transactional_delivered": len(self.delivered),
            "transactional_p50_seconds": percentile(accepted, 0.50),
            "transactional_p99_seconds": percentile(accepted, 0.99),
            "transactional_max_seconds": percentile(accepted, 1.0),
            "transactional_from_submit_p50_seconds": percentile(submitted, 0.50),
            "transactional_from_submit_p99_seconds": percentile(submitted, 0.99),
            "transactional_from_submit_max_seconds": percentile(submitted, 1.0),
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of an ascending sequence do not exceed, to the millisecond; 0 of nothing."""
    if not ordered:
        return 0.0
    return round(ordered[max(1, math.ceil(share * len(ordered))) - 1], 3)


async def _waits(arguments: argparse.Namespace, target: tuple[str, int]) -> dict[str, Any]:
    waits = Waits()
    async with _engine(arguments, target) as engine:
        events = engine.parts.bus.subscribe("events.bench", "bench")
        await engine.submit([SubmitContent(bench_content(BULK, arguments.message_bytes))])
        letter = bench_content(
            TRANSACTIONAL, arguments.message_bytes, message_class=MessageClass.TRANSACTIONAL
        )
        await engine.submit([SubmitContent(letter)])
        accept_seconds = await _queue(engine, BULK, arguments.bulk)
        await trio.sleep(SETTLING_SECONDS)
        queued, began = engine.counts(BULK).deferred, time.perf_counter()
        async with trio.open_nursery() as following:
            following.start_soon(_follow, events, waits)
            async with trio.open_nursery() as submitting:
                for number in range(arguments.transactional):
                    at = began + number * arguments.seconds / arguments.transactional
                    await trio.sleep(max(0.0, at - time.perf_counter()))
                    submitting.start_soon(_submit_one, engine, waits, number)
            seconds = time.perf_counter() - began
            sent = queued - engine.counts(BULK).deferred
            left = engine.counts(BULK).deferred
            with trio.move_on_after(LAST_SECONDS):
                while len(waits.delivered) < arguments.transactional:  # noqa: ASYNC110 - no bell rings
                    await trio.sleep(WATCH_SECONDS)
            facts = waits.facts(time.time())
            following.cancel_scope.cancel()
        engine.hurry()
    return {
        "bulk": arguments.bulk,
        "bulk_accept_seconds": round(accept_seconds, 2),
        "bulk_queued": queued,
        "bulk_left": left,
        "bulk_per_second": round(sent / seconds, 1),
        **facts,
    }


async def _submit_one(engine: Engine, waits: Waits, number: int) -> None:
    entry = ChunkEntry(number, f"to{number}@d0.example", bench_row(number))
    waits.submitted[number] = time.time()
    await engine.submit([SubmitChunk(Chunk(str(number), TRANSACTIONAL, time.time() + 3_600, (entry,)))])


async def _follow(events: Subscription, waits: Waits) -> None:
    while True:
        for delivery in await events.receive(FOLD_BATCHES):
            waits.add(decode_events(delivery.payload))
        await trio.lowlevel.checkpoint()


# --- two workspaces ---


async def _shares(arguments: argparse.Namespace, target: tuple[str, int]) -> dict[str, Any]:
    """What each workspace gets while both have mail waiting."""
    bulk = arguments.bulk
    if arguments.rate:  # enough that neither runs dry, and no more
        bulk = min(bulk, int(arguments.rate * (arguments.seconds + 30.0) * 2))
    campaigns = dict(enumerate(WEIGHTS, 1))
    async with _engine(arguments, target, weighted=True) as engine:
        for campaign, workspace in campaigns.items():
            letter = bench_content(campaign, arguments.message_bytes, workspace=workspace)
            await engine.submit([SubmitContent(letter)])
        for campaign in campaigns:
            await _queue(engine, campaign, bulk // len(campaigns))
        await trio.sleep(SETTLING_SECONDS)
        before = {campaign: engine.counts(campaign).finished for campaign in campaigns}
        with trio.move_on_after(arguments.seconds):
            while all(engine.counts(campaign).deferred for campaign in campaigns):  # noqa: ASYNC110
                await trio.sleep(WATCH_SECONDS)
        sent = {
            campaigns[campaign]: engine.counts(campaign).finished - count
            for campaign, count in before.items()
        }
        engine.hurry()
    return share_facts(sent)


def share_facts(sent: dict[str, int]) -> dict[str, Any]:
    """Shares of what was sent; the error is the largest deviation, relative to what the weight promises."""
    total, weights = max(1, sum(sent.values())), sum(WEIGHTS.values())
    shares = {workspace: count / total for workspace, count in sent.items()}
    promised = {workspace: weight / weights for workspace, weight in WEIGHTS.items()}
    return {
        "shares_messages": sum(sent.values()),
        "shares": {workspace: round(share, 4) for workspace, share in shares.items()},
        "shares_promised": promised,
        "share_error": round(max(abs(shares[name] - promised[name]) / promised[name] for name in WEIGHTS), 4),
    }


# --- an engine with one site ---


@asynccontextmanager
async def _engine(
    arguments: argparse.Namespace, target: tuple[str, int], *, weighted: bool = False
) -> AsyncIterator[Engine]:
    route = await literal_route(f"{target[0]}:{target[1]}")
    assert isinstance(route, Route)
    with _folder() as folder:
        path = folder / "emass.toml"
        await trio.Path(path).write_text(config_text(arguments, weighted=weighted))
        async with open_engine(load_config(path, {}), static_route=route) as engine:
            yield engine


def config_text(arguments: argparse.Namespace, *, weighted: bool) -> str:
    """The configuration file; weights stand in it where this engine knows weights."""
    text = CONFIG.format(connections=arguments.connections)
    if arguments.rate:
        text += f'rate = "{arguments.rate}/s"\n'
    if weighted and "share" in EngineTable.__struct_fields__:
        text += "".join(SHARE.format(workspace=name, weight=weight) for name, weight in WEIGHTS.items())
    return text


async def _queue(engine: Engine, campaign: int, messages: int) -> float:
    """Submit so many envelopes with back-pressure; returns the seconds until all are accepted."""
    started = time.perf_counter()
    for chunk in _chunks(campaign, messages):
        while engine.backlog() > BACKLOG_CHUNKS:  # noqa: ASYNC110 - the backlog rings no bell
            await trio.sleep(WATCH_SECONDS)
        await engine.parts.bus.publish(engine.chunk_stream, [chunk])
    while engine.counts(campaign).accepted < messages:  # noqa: ASYNC110 - nor do the counters
        await trio.sleep(WATCH_SECONDS)
    return time.perf_counter() - started


def _chunks(campaign: int, messages: int) -> Iterator[bytes]:
    expires = time.time() + 86_400
    for start in range(0, messages, CHUNK):
        entries = tuple(
            ChunkEntry(number + 1, f"anna{number}@d{number % 500}.example", bench_row(number))
            for number in range(start, min(messages, start + CHUNK))
        )
        chunk = Chunk(f"bulk-{campaign}-{start}", campaign, expires, entries)
        yield encode_submission(SubmitChunk(chunk))


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="emass-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
