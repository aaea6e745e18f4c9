"""`emass queue`: the group, and `show`: what waits in a data folder, why, and what the engine is doing.

`show` reads the spool as another process may (read-only, no lock), so it costs a running engine nothing
but one question over the bus for what is in its memory. When no engine runs there, it says so and shows
what the disk holds. The other commands of the group have files of their own.
"""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from control.cli.adaptation import lift, pin, reset, unpin
from control.cli.adopt import adopt
from control.cli.ask import ask, check_folder, data_option, json_option
from control.cli.changes import changes
from control.cli.errors import InputError
from control.cli.explain import explain
from control.cli.listing import inspect, list_envelopes, show_ambiguous
from control.cli.overrides import override, overrides, reload
from control.cli.progress import describe_seconds
from control.cli.report import STATES
from control.cli.stopping import cancel, drain, reroute, resume, retry, stops, suspend
from control.cli.table import plain_table
from control.cli.timing import timing
from control.cli.trace import trace
from control.cli.visible import short
from control.cli.words import seconds_words, site_words
from engine.mta.spool.api import Listed, StateCounts
from engine.mta.spool.reader import SpoolReader
from engine.storage import StorageError

PAGE = 20_000
DOMAINS_SHOWN_MAX = 25
ENVELOPES_SHOWN_MAX = 50
PATHS_SHOWN_MAX = 12
REASONS_SHOWN_MAX = 3  # of a path; `queue explain` has all


@click.group()
def command() -> None:
    """Show what waits, why, and act on it.

    \b
    Example:
      emass queue show --data emass-people-20260102-030405
      emass queue explain ann@example.net --data emass-people-20260102-030405
    """


for each in (
    *(explain, changes, pin, unpin, reset, lift, override, overrides, reload),
    *(suspend, resume, cancel, retry, reroute, stops, drain, list_envelopes, inspect),
    *(trace, timing, adopt),
):
    command.add_command(each)


@command.command()
@data_option
@click.option("--domain", metavar="NAME", help="Only this recipient domain.")
@click.option(
    "--state",
    type=click.Choice(["queued", "deferred", "ambiguous", "quarantined"]),
    help="Only envelopes in this state.",
)
@click.option("--ambiguous", is_flag=True, help="List envelopes that may have arrived already.")
@click.option("--envelopes", is_flag=True, help="List envelopes (the first 50), not domains.")
@json_option
def show(
    data: str, domain: str | None, state: str | None, ambiguous: bool, envelopes: bool, as_json: bool
) -> int:
    """Show what waits, by domain and state.

    \b
    Example:
      emass queue show --data emass-people-20260102-030405 --state deferred --envelopes
    """
    folder = check_folder(data)
    if ambiguous:
        return show_ambiguous(folder, as_json)
    try:
        facts = _facts(folder, domain, state)
    except StorageError as error:
        raise InputError(str(error)) from error
    facts["engine"] = ask(folder, command="show")
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


def _print(facts: dict[str, Any], envelopes: bool) -> None:
    console = Console()
    if envelopes:
        table = plain_table("Envelopes", "domain", "id", "state", "attempts", "next attempt", "expires in")
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
        table = plain_table(
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
    _print_sources(engine, console)
    _print_paths(engine, console)


def _print_sources(engine: dict[str, Any], console: Console) -> None:
    """Sources that cannot be used now, and what is odd about the others."""
    for row in engine["sources"]:
        if row["suspended_seconds"]:
            again = seconds_words(row["suspended_seconds"])
            line = f"  {short(row['suspended_why'], 200)}; tried again in {again}"
            console.print(Text(line, style="red"), soft_wrap=True)
        for finding in row["findings"]:
            line = f"  {short(row['source'])}: {short(finding, 300)}"
            console.print(Text(line, style="dim"), soft_wrap=True)


def _print_paths(engine: dict[str, Any], console: Console) -> None:
    """Why each path waits, the forecast, and what is held."""
    held_up = [row for row in engine["sites"] if row["resting_seconds"] > 0 or any(row["waiting"].values())]
    for row in held_up[:PATHS_SHOWN_MAX]:
        allowed = row["connections_allowed"]
        open_now = f"{row['connections']} of {allowed} connections" if allowed else "no connection yet"
        whose = f" ({short(row['provider'], 40)})" if row["provider"] not in row["path"] else ""
        console.print(Text(f"  {short(row['path'], 80)}{whose}: {open_now}"), soft_wrap=True)
        for line in row["why"][:REASONS_SHOWN_MAX]:
            console.print(Text(f"    {short(line, 200)}", style="dim"), soft_wrap=True)
    hidden = len(held_up) - PATHS_SHOWN_MAX + engine["sites_hidden"]
    if hidden > 0:
        console.print(f"  ... and {hidden:,} more paths (--json lists them)", highlight=False)
    if engine["holds"]:
        console.print("Held:", highlight=False)
    for hold in engine["holds"]:
        what = f"{hold['subject']} {short(hold['value'])} at {short(hold['provider'])}"
        line = f"  {what}, {seconds_words(hold['seconds'])} more: {short(hold['reason'])}"
        console.print(Text(line), soft_wrap=True)
    told = engine["forecast"]
    if told["total"]["messages"]:
        untold = f"; {told['untold_messages']:,} more cannot be told" if told["untold_messages"] else ""
        sentence = short(site_words(told["total"]["sentence"]), 300)
        console.print(Text(f"Forecast: {sentence}{untold}"), soft_wrap=True)
        if len(told["providers"]) > 1:
            for one in told["providers"][:PATHS_SHOWN_MAX]:
                console.print(
                    Text(f"  {short(site_words(one['sentence']), 300)}", style="dim"), soft_wrap=True
                )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} s"
