"""`python -m bench spool`: what the durable queue alone costs.

Accepts chunks of envelopes over many domains, each chunk acknowledged after its synced commit; then
leases and settles a part of them in acceptance order, and in random order, with the octets written
per message; last it opens the store again and rebuilds the queues. Real LMDB, real fsync, sealed rows.
"""

import argparse
import json
import random
import secrets
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import trio

from bench import machine
from engine.keyring import RowKeyring
from engine.model.content import Content
from engine.model.disposition import Disposition, Outcome
from engine.model.envelope import Chunk, ChunkEntry
from engine.model.reply import Verb
from engine.mta.queue.scheduled import ScheduledQueues
from engine.mta.spool.lmdb import LmdbSpool
from engine.mta.spool.tables import open_spool_environment
from engine.storage import Committer

CHUNK = 5_000
LEASE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=50_000)
    parser.add_argument("--settle", type=int, default=200_000, help="how many to lease and settle")
    parser.add_argument("--fsync-ms", type=float, default=0.0, help="extra time in each commit")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the store lives (default: a temporary one)"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="emass-bench-", dir=arguments.folder))
    try:
        return trio.run(_run, arguments, folder)
    finally:
        shutil.rmtree(folder)


async def _run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    count, domains = arguments.messages, arguments.domains
    keyring = RowKeyring(folder / "rows.keys", secrets.token_bytes(32))
    result: dict[str, Any] = {
        "messages": count,
        "domains": domains,
        "cores": machine.cores(),
        "durability": f"fdatasync per group commit, +{arguments.fsync_ms} ms",
        **machine.versions(),
    }
    environment = open_spool_environment(folder / "spool")
    committer = Committer(environment, extra_sync_seconds=arguments.fsync_ms / 1000)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        spool = LmdbSpool(environment, committer, keyring, producer="bench")
        await spool.put_content(
            Content(
                campaign=1,
                name="b",
                from_address="a@b.example",
                subject="s",
                text="t",
                return_path_domain="b.example",
            ),
            time.time(),
        )
        queues = ScheduledQueues()
        written = machine.written_octets()
        seconds = 0.0
        for number in range(-(-count // CHUNK)):
            entries = tuple(
                ChunkEntry(
                    i,
                    f"first.last{i}@d{i % domains}.example",
                    (f"First{i}", "Last", "A City", "code-0123456789"),
                )
                for i in range(number * CHUNK, min(count, (number + 1) * CHUNK))
            )
            started = time.perf_counter()
            chunk = Chunk(f"bench-{number}", 1, time.time() + 86_400, entries)
            accepted = await spool.accept(chunk, time.time())
            for offset, domain in enumerate(accepted.domains):
                queues.add(1, domain, accepted.first_id + offset)
            seconds += time.perf_counter() - started
        result["accept_seconds"] = round(seconds, 2)
        result["accept_per_second"] = round(count / seconds)
        result["accept_written_mb"] = round((machine.written_octets() - written) / 1e6, 1)
        result.update(machine.memory_mb())

        half = min(arguments.settle, count) // 2
        for order in ("ordered", "random"):
            ids = (
                list(range(1, half + 1))
                if order == "ordered"
                else random.Random(1).sample(range(half + 1, count), half)
            )
            written, cpu, started = machine.written_octets(), machine.cpu_seconds(), time.perf_counter()
            await _lease_and_settle(spool, ids)
            seconds = time.perf_counter() - started
            result[f"settle_{order}_us"] = round(seconds / half * 1e6, 1)
            result[f"settle_{order}_cpu_us"] = round((machine.cpu_seconds() - cpu) / half * 1e6, 1)
            result[f"settle_{order}_octets"] = round((machine.written_octets() - written) / half)
        result["commit_ms"] = round(committer.commit_seconds * 1e3, 2)
        result["commit_ms_max"] = round(committer.commit_seconds_max * 1e3, 2)
        started = time.perf_counter()
        rebuilt: dict[tuple[int, str], int] = defaultdict(int)
        for entry in spool.queued():
            rebuilt[entry.campaign, entry.domain] += 1
        result["rebuild_seconds"] = round(time.perf_counter() - started, 2)
        committer.close()
    environment.close()
    return result


async def _lease_and_settle(spool: LmdbSpool, ids: list[int]) -> None:
    """Leases of LEASE envelopes, ten at a time (ten connections), settled as one batch each."""
    step = LEASE * 10
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        orders = [part[at : at + LEASE] for at in range(0, len(part), LEASE)]
        now = time.time()
        made = await spool.lease(orders, now)
        batches = []
        for leases in made:
            for lease in leases:
                done = [
                    Disposition(
                        item.spool_id,
                        item.attempt,
                        Outcome.DELIVERED,
                        Verb.CONTENT,
                        "250 2.0.0 Ok: queued as 4F2A1",
                        site="mx.sink.example",
                        source="default",
                        mx_host="mx.sink.example",
                    )
                    for item in lease.envelopes
                ]
                batches.append((lease.id, done))
        await spool.settle(batches, now)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench spool", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    print(json.dumps(run(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
