"""`python -m bench submission`: how fast one submission worker takes mail, and how soon that mail is
delivered.

A worker process takes messages over TLS from clients in another process, and makes each durable on a local
bus (with fsync) before its 250: on connections that are used again, step by step and pipelined, and with
one connection for each mail. Then an engine with `--bulk` envelopes queued for the same site sends what
trickles in over `--seconds`: the wait from the client's last octet to the receiver's 250, as the events
tell it.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from bench import machine
from bench.fairness import percentile
from bench.letter import bench_content, bench_row
from bench.peers.certificate import self_signed
from bench.sink import start_sink
from bench.submission_load import Handed, Load, Report
from engine.app import Engine, open_engine
from engine.bus.api import Subscription
from engine.config import load_config
from engine.keyring import create_dkim_key
from engine.model.envelope import Chunk, ChunkEntry
from engine.model.event import Delivered, decode_events
from engine.model.single import message_number
from engine.model.submission import SubmitChunk, SubmitContent, encode_submission
from engine.mta.net.mx import Route
from engine.mta.net.smarthost import literal_route
from engine.observe.logs import configure_logs
from engine.runtime.supervised import READY_VARIABLE
from services.submission.accounts import Account, hash_password, write_accounts

ACCOUNT, PASSWORD, DOMAIN = "bench", "bench-password", "bench.example"
BULK = 1  # campaign
CHUNK = 5_000
BACKLOG_CHUNKS = 8
WATCH_SECONDS = 0.02
SETTLING_SECONDS = 2.0
LAST_SECONDS = 10.0  # after the last message; who waits longer is counted as still waiting
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
{rate}
[[keys.dkim]]
name = "bench"
file = "bench.pem"

[submission]
listen = ["127.0.0.1:{port}"]
hostname = "mail.bench.example"
tls_cert = "certificate.pem"
tls_key = "key.pem"
messages_per_account = "1000000/s"
connections_per_address = 10000
workers = 1

[[submission.domain]]
name = "bench.example"
dkim = [{{ key = "bench", selector = "s1" }}]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=8_000, help="of each measurement of speed")
    parser.add_argument("--clients", type=int, default=32, help="connections that hand in at a time")
    parser.add_argument("--message-bytes", type=int, default=4_000, help="about so many octets a message")
    parser.add_argument("--bulk", type=int, default=1_000_000, help="queued before the others; 0 = none")
    parser.add_argument("--transactional", type=int, default=2_000, help="handed in behind them")
    parser.add_argument("--seconds", type=float, default=30.0, help="over so many seconds")
    parser.add_argument("--rate", type=int, default=1_000, help="messages a second to the site, 0 = no limit")
    parser.add_argument("--connections", type=int, default=10, help="to the site")
    parser.add_argument("--sink", choices=["auto", "smtp-sink", "own", "python"], default="auto")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    configure_logs("error")
    facts: dict[str, Any] = {"cores": machine.cores(), "message_bytes": arguments.message_bytes}
    with start_sink(arguments.sink) as sink:
        facts["sink"] = sink.name
        facts |= trio.run(_speeds, arguments)
        facts |= trio.run(_waits, arguments, sink.address)
    return facts | machine.versions()


# --- how fast it takes mail ---


async def _speeds(arguments: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    ways = {
        "reused": {},
        "pipelined": {"pipelined": True},
        "one_each": {"reuse": False, "messages": max(1, arguments.messages // 8)},
    }
    for name, change in ways.items():
        with _folder(arguments) as (folder, port), _worker(folder) as worker:
            load = _load(arguments, port, **change)
            before = machine.cpu_seconds_of(worker.pid)
            report = await _run_load(load)
            cpu = machine.cpu_seconds_of(worker.pid) - before
            facts[f"{name}_per_second"] = round(load.messages / report.seconds, 1)
            facts[f"{name}_worker_cpu_us"] = round(cpu / load.messages * 1e6)
            facts[f"{name}_p99_seconds"] = percentile(
                sorted(each.taken - each.sent for each in report.handed), 0.99
            )
    return facts


def _load(arguments: argparse.Namespace, port: int, **change: Any) -> Load:
    facts: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "account": ACCOUNT,
        "password": PASSWORD,
        "sender": f"a@{DOMAIN}",
        "recipient": "to{}@d0.example",
        "messages": arguments.messages,
        "connections": arguments.clients,
        "message_bytes": arguments.message_bytes,
    }
    return Load(**(facts | change))


async def _run_load(load: Load) -> Report:
    words = [sys.executable, "-m", "bench.submission_load", msgspec.json.encode(load).decode()]
    done = await trio.run_process(words, capture_stdout=True)
    return msgspec.json.decode(done.stdout, type=Report)


# --- how soon it is delivered ---


async def _waits(arguments: argparse.Namespace, target: tuple[str, int]) -> dict[str, Any]:
    delivered: dict[int, float] = {}
    with _folder(arguments) as (folder, port):
        async with _engine(folder, target) as engine:
            with _worker(folder):
                events = engine.parts.bus.subscribe("events.bench", "bench")
                if arguments.bulk:
                    await _queue(engine, arguments.bulk, arguments.message_bytes)
                    await trio.sleep(SETTLING_SECONDS)
                before, began = engine.counts(BULK).finished, time.perf_counter()
                async with trio.open_nursery() as following:
                    following.start_soon(_follow, events, delivered)
                    load = _load(
                        arguments,
                        port,
                        messages=arguments.transactional,
                        connections=4,
                        seconds=arguments.seconds,
                    )
                    report = await _run_load(load)
                    bulk_sent = engine.counts(BULK).finished - before
                    seconds = time.perf_counter() - began
                    with trio.move_on_after(LAST_SECONDS):
                        while len(delivered) < arguments.transactional:  # noqa: ASYNC110 - no bell rings
                            await trio.sleep(WATCH_SECONDS)
                    following.cancel_scope.cancel()
            engine.hurry()
    facts = wait_facts(report.handed, delivered, time.time())
    return {"bulk_queued": arguments.bulk, "bulk_per_second": round(bulk_sent / seconds, 1), **facts}


def wait_facts(handed: list[Handed], delivered: dict[int, float], now: float) -> dict[str, Any]:
    """Percentiles of the waits from the client's last octet; who is not delivered has waited until `now`."""
    waits = sorted(delivered.get(message_number(f"{each.id}.0"), now) - each.sent for each in handed)
    taken = sorted(each.taken - each.sent for each in handed)
    return {
        "transactional": len(handed),
        "transactional_delivered": len(delivered),
        "accept_p50_seconds": percentile(taken, 0.50),
        "accept_p99_seconds": percentile(taken, 0.99),
        "transactional_p50_seconds": percentile(waits, 0.50),
        "transactional_p99_seconds": percentile(waits, 0.99),
        "transactional_max_seconds": percentile(waits, 1.0),
    }


async def _follow(events: Subscription, delivered: dict[int, float]) -> None:
    while True:
        for delivery in await events.receive(512):
            batch = decode_events(delivery.payload)
            for event in batch.events:
                if isinstance(event, Delivered) and event.campaign != BULK:
                    delivered[event.subscriber] = batch.at
        await trio.lowlevel.checkpoint()


async def _queue(engine: Engine, messages: int, message_bytes: int) -> None:
    """Bulk mail for the same site, with back-pressure; returns when all is accepted."""
    await engine.submit([SubmitContent(bench_content(BULK, message_bytes))])
    expires = time.time() + 86_400
    for start in range(0, messages, CHUNK):
        entries = tuple(
            ChunkEntry(number + 1, f"anna{number}@d{number % 500}.example", bench_row(number))
            for number in range(start, min(messages, start + CHUNK))
        )
        chunk = encode_submission(SubmitChunk(Chunk(f"bulk-{start}", BULK, expires, entries)))
        while engine.backlog() > BACKLOG_CHUNKS:  # noqa: ASYNC110 - the backlog rings no bell
            await trio.sleep(WATCH_SECONDS)
        await engine.parts.bus.publish(engine.chunk_stream, [chunk])
    while engine.counts(BULK).accepted < messages:  # noqa: ASYNC110 - nor do the counters
        await trio.sleep(WATCH_SECONDS)


# --- the house ---


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def _folder(arguments: argparse.Namespace) -> Iterator[tuple[Path, int]]:
    folder = Path(tempfile.mkdtemp(prefix="emass-bench-"))
    try:
        port = _free_port()
        rate = f'rate = "{arguments.rate}/s"\n' if arguments.rate else ""
        text = CONFIG.format(connections=arguments.connections, rate=rate, port=port)
        (folder / "emass.toml").write_text(text)
        (folder / "keys").mkdir(mode=0o700)
        create_dkim_key(folder / "keys" / "bench.pem")
        self_signed("127.0.0.1").write(folder)
        account = Account(ACCOUNT, hash_password(PASSWORD), (DOMAIN,))
        write_accounts(folder / "keys" / "accounts.json", {ACCOUNT: account})
        yield folder, port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _worker(folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A submission worker in a process of its own, which takes connections."""
    ready, told = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "services.submission", "--supervised", str(folder / "emass.toml")],
        stdin=subprocess.PIPE,
        env={**os.environ, READY_VARIABLE: str(told)},
        pass_fds=(told,),
    ) as process:
        os.close(told)
        try:
            if not os.read(ready, 64):
                raise RuntimeError("the submission worker did not start")
            yield process
        finally:
            os.close(ready)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


@asynccontextmanager
async def _engine(folder: Path, target: tuple[str, int]) -> AsyncIterator[Engine]:
    route = await literal_route(f"{target[0]}:{target[1]}")
    assert isinstance(route, Route)
    async with open_engine(load_config(folder / "emass.toml", {}), static_route=route) as engine:
        yield engine
