"""`emass queue show`: what waits in a data folder, why, and what the engine over it is doing.

Reads the spool as another process may (read-only, no lock), so it costs a running engine nothing but
one question over the bus for what is in its memory. When no engine runs there, it says so and shows
what the disk holds.
"""

import fcntl
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import trio
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.cli.errors import InputError
from control.cli.progress import describe_seconds
from control.cli.report import STATES
from control.cli.visible import short
from engine.bus.api import NoAnswer
from engine.bus.local import LocalBus
from engine.mta.spool.api import Listed, StateCounts
from engine.mta.spool.reader import SpoolReader
from engine.storage import StorageError

PAGE = 20_000
DOMAINS_SHOWN_MAX = 25
ENVELOPES_SHOWN_MAX = 50
ASK_SECONDS = 2.0


@click.group()
def command() -> None:
    """Show what waits, why, and act on it.

    \b
    Example:
      emass queue show --data emass-people-20260102-030405
    """


@command.command()
@click.option("--data", metavar="DIR", default="data", show_default=True, help="The engine's data folder.")
@click.option("--domain", metavar="NAME", help="Only this recipient domain.")
@click.option(
    "--state",
    type=click.Choice(["queued", "deferred", "ambiguous", "quarantined"]),
    help="Only envelopes in this state.",
)
@click.option("--envelopes", is_flag=True, help="List envelopes (the first 50), not domains.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(data: str, domain: str | None, state: str | None, envelopes: bool, as_json: bool) -> int:
    """Show what waits, by domain and state.

    \b
    Example:
      emass queue show --data emass-people-20260102-030405 --state deferred --envelopes
    """
    folder = Path(data)
    if not (folder / "spool" / "data.mdb").exists():
        raise InputError(f"{folder}: holds no queue (name the data folder with --data)")
    try:
        facts = _facts(folder, domain, state)
    except StorageError as error:
        raise InputError(str(error)) from error
    facts["engine"] = trio.run(_ask_engine, folder)
    if as_json:
        print(json.dumps(facts))
    else:
        _print(facts, envelopes)
    return 0


def _facts(folder: Path, domain: str | None, state: str | None) -> dict[str, Any]:
    domains: dict[str, Counter[str]] = {}
    next_due: dict[str, float] = {}
    shown: list[Listed] = []
    with SpoolReader(folder / "spool") as spool:
        after = 0
        while page := spool.listing(after, PAGE):
            after = page[-1].spool_id
            for item in page:
                if (domain and item.domain != domain) or (state and item.state != state):
                    continue
                domains.setdefault(item.domain, Counter())[item.state] += 1
                if item.due:
                    next_due[item.domain] = min(item.due, next_due.get(item.domain, item.due))
                if len(shown) < ENVELOPES_SHOWN_MAX:
                    shown.append(item)
        counts = {campaign: spool.counts(campaign) for campaign in spool.campaigns()}
    now = time.time()
    return {
        "data": str(folder),
        "waiting": sum(sum(counter.values()) for counter in domains.values()),
        "campaigns": {str(campaign): _count_facts(item) for campaign, item in counts.items()},
        "domains": [
            {
                "domain": name,
                **counter,
                "next_attempt_seconds": round(max(0.0, next_due[name] - now), 1)
                if name in next_due
                else None,
            }
            for name, counter in sorted(domains.items(), key=lambda pair: -sum(pair[1].values()))
        ],
        "envelopes": [
            {
                "id": item.spool_id,
                "domain": item.domain,
                "state": item.state,
                "attempts": item.attempt,
                "next_attempt_seconds": _from_now(item.due, now),
                "expires_in_seconds": round(item.expires_at - now),
                "was_ambiguous": item.was_ambiguous,
            }
            for item in shown
        ],
    }


def _from_now(due: float, now: float) -> float | None:
    return round(max(0.0, due - now), 1) if due else None


def _count_facts(counts: StateCounts) -> dict[str, int]:
    return {"accepted": counts.accepted} | {name: getattr(counts, name) for name in STATES}


async def _ask_engine(folder: Path) -> dict[str, Any] | None:
    """What the running engine says of itself, or None when none runs there."""
    bus_folder = folder / "bus"
    members = [path.name for path in bus_folder.iterdir()] if bus_folder.is_dir() else []
    nodes = [name for name in members if not name.startswith(("cli-", "."))]
    if not nodes or not _is_written(folder / "spool"):
        return None
    bus = LocalBus(bus_folder, f"cli-{os.getpid()}")
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            answer = await _ask_one(bus, nodes)
            bus.close()
    finally:
        bus.close_files()
        LocalBus.remove_member(bus_folder, f"cli-{os.getpid()}")
    return answer


def _is_written(spool: Path) -> bool:
    """Whether a process holds the writer's lock: waiting for an answer that cannot come takes seconds."""
    try:
        lock = os.open(spool / "writer.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


async def _ask_one(bus: LocalBus, nodes: list[str]) -> dict[str, Any] | None:
    for node in nodes:
        try:
            answer = await bus.ask(f"engine.{node}", b'{"command":"show"}', ASK_SECONDS)
        except NoAnswer:
            continue
        told: dict[str, Any] = json.loads(answer)
        return told
    return None


def _print(facts: dict[str, Any], envelopes: bool) -> None:
    console = Console()
    if envelopes:
        table = _table("Envelopes", "domain", "id", "state", "attempts", "next attempt", "expires in")
        for item in facts["envelopes"]:
            table.add_row(
                Text(short(item["domain"])),
                str(item["id"]),
                item["state"],
                str(item["attempts"]),
                _seconds(item["next_attempt_seconds"]),
                describe_seconds(item["expires_in_seconds"]),
            )
    else:
        table = _table(
            "Waiting, by domain", "domain", "queued", "deferred", "ambiguous", "quarantined", "next attempt"
        )
        for item in facts["domains"][:DOMAINS_SHOWN_MAX]:
            table.add_row(
                Text(short(item["domain"])),
                *(
                    f"{item[name]:,}" if item.get(name) else "-"
                    for name in ("queued", "deferred", "ambiguous", "quarantined")
                ),
                _seconds(item["next_attempt_seconds"]),
            )
    if table.row_count:
        console.print(table)
    hidden = len(facts["domains"]) - DOMAINS_SHOWN_MAX
    if hidden > 0 and not envelopes:
        console.print(f"... and {hidden:,} more domains (--json lists all)")
    console.print(f"{facts['waiting']:,} waiting", highlight=False)
    engine = facts["engine"]
    if engine is None:
        console.print("No engine is running here.")
        return
    console.print(f"An engine is running: {engine['connections']} connections open.", highlight=False)
    for site in engine["sites"]:
        if site["suspended_seconds"] > 0:
            line = f"  {short(site['path'])} rests {site['suspended_seconds']:.0f} s: no connection succeeded"
            console.print(Text(line))


def _table(title: str, *columns: str) -> Table:
    """A plain table, numbers to the right; the first column is cut where the terminal is narrow."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column(columns[0], overflow="ellipsis", no_wrap=True)
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} s"
