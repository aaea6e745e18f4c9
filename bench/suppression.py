"""`python -m bench suppression`: what the set of suppressed addresses costs.

Writes a list of addresses, has `emass suppress import` take it into a fresh data folder (real LMDB, real
fsync), and asks the store in this process, as a connection does for each message: addresses that are in
it, spread over all of it, and addresses that are not; for a recipient whose subscriber's number is asked
as well. Memory is what this process has more after the questions: private, and mapped pages of the store.
"""

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import machine
from engine.keyring import derive_suppression_key, load_master_key
from engine.model.content import MessageClass
from engine.mta.policy.suppression import EVERYWHERE, Reason, SuppressionOrder
from engine.mta.policy.suppression_codec import AddressHasher, subscriber_key
from engine.mta.spool.suppressions import open_suppressions

DOMAINS = 1_000
WORKSPACE = "shop"
ROUNDS = 20  # what else the machine does to the caches shows in some of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--lookups", type=int, default=200_000, help="of each kind")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the store lives (default: a temporary one)"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="emass-bench-", dir=arguments.folder))
    try:
        return _run(arguments.entries, arguments.lookups, folder)
    finally:
        shutil.rmtree(folder)


def _run(entries: int, lookups: int, folder: Path) -> dict[str, Any]:
    with (folder / "list.txt").open("w", encoding="ascii") as file:
        file.writelines(f"{address(number)}\n" for number in range(entries))
    (folder / "data").mkdir()
    command = [sys.executable, "-m", "control.cli", "suppress", "import", "list.txt", "--json"]
    root = Path(__file__).parents[1]
    environment = {"PYTHONPATH": str(root), "EMASS_CONFIG": "", "PATH": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=3_600
    )
    imported = json.loads(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    disk = (folder / "data" / "suppressions" / "data.mdb").stat().st_blocks * 512

    dice = random.Random(1)
    hits = [address(dice.randrange(entries)) for _ in range(lookups)]
    misses = [address(entries + dice.randrange(entries)) for _ in range(lookups)]
    hasher = AddressHasher(derive_suppression_key(load_master_key(folder / "data" / "keys" / "master.key")))
    before = machine.memory_mb()
    store = open_suppressions(folder / "data" / "suppressions", hasher)
    first_us = _lookup_us(store.blocked, hits, 0)
    hit_us, miss_us = _lookup_us(store.blocked, hits, 0), _lookup_us(store.blocked, misses, 0)
    after = machine.memory_mb()
    store.apply_now(
        [
            SuppressionOrder(
                adds=True,
                keys=(subscriber_key(WORKSPACE, 1),),
                at_ms=1,
                scope=EVERYWHERE,
                reason=Reason.UNSUBSCRIBED,
            )
        ]
    )
    with_subscriber_us = _lookup_us(store.blocked, misses, 7)
    store.environment.close()
    return {
        "entries": store.keys() - 1,
        "import_seconds": imported["seconds"],
        "import_cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "entries_per_second": round(entries / imported["seconds"]),
        "lookups": lookups,
        "lookup_us_first": first_us,
        "lookup_us_hit": hit_us,
        "lookup_us_miss": miss_us,
        "lookup_us_miss_with_subscriber": with_subscriber_us,
        "private_mb": round(after["rss_mb"] - before["rss_mb"], 1),
        "mapped_mb": round(after["rss_file_mb"] - before["rss_file_mb"], 1),
        "disk_octets": disk,
        "cores": machine.cores(),
        "durability": "a synced commit for each 20,000 keys",
        **machine.versions(),
    }


def address(number: int) -> str:
    return f"first.last{number}@d{number % DOMAINS}.example"


def _lookup_us(blocked: Callable[..., object], recipients: list[str], subscriber: int) -> float:
    """Microseconds of one question, its domain cut beforehand as an envelope's is: the median of rounds.

    Of CPU time: a question waits for nothing, and what else the machine does is no cost of it.
    """
    asked = [(recipient, recipient.rpartition("@")[2]) for recipient in recipients]
    rounds = []
    for start in range(ROUNDS):
        part = asked[start::ROUNDS]
        started = time.thread_time()
        for recipient, domain in part:
            blocked(recipient, domain, subscriber, WORKSPACE, "news.example.org", MessageClass.BULK)
        rounds.append((time.thread_time() - started) / len(part) * 1e6)
    return round(statistics.median(rounds), 2)
