"""`emass queue timing`: where messages spend their time, from acceptance to the commit of their end.

The engine follows one message in so many; this shows what the last ones waited for, by stage, and the
slowest of them. Percentiles are of the messages shown, so a moment with few says little.
"""

import json
from math import ceil
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from control.cli.ask import check_folder, data_option, json_option, order
from control.cli.table import plain_table
from control.cli.visible import short

SLOWEST_SHOWN = 5
MEANINGS = {
    "deferred": "waiting for its retry",
    "dns": "looking up the route",
    "fairness": "waiting for its turn",
    "throttle": "rate, window, rests",
    "connect": "dialling, greeting",
    "tls": "TLS handshake",
    "commit": "its lease on disk",
    "compose": "composing, signing",
    "remote": "the receiver",
    "settle": "its end on disk",
}


@click.command()
@click.option("--id", "number", default=0, metavar="ID", help="One message only.")
@click.option("--domain", default="", metavar="NAME", help="Messages to this recipient domain only.")
@data_option
@json_option
def timing(data: str, as_json: bool, number: int, domain: str) -> int:
    """Show where the last messages spent their time.

    One message in so many is followed ([metrics] sample in emass.toml). The stages of each add up to its
    whole time in the engine.

    \b
    Example:
      emass queue timing --domain example.net --data emass-people-20260102-030405
    """
    told = order(check_folder(data), command="timing", number=number, address=domain)
    if as_json:
        print(json.dumps(told | {"summary": summary(told)}))
        return 0
    _print(told)
    return 0


def summary(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Median, 95th and 99th percentile of each stage and of the whole, in seconds."""
    columns = {stage: [each["stages"][stage] for each in told["messages"]] for stage in told["stages"]}
    columns["total"] = [each["seconds"] for each in told["messages"]]
    return [
        {"stage": stage, **{name: percentile(values, share) for name, share in SHARES.items()}}
        for stage, values in columns.items()
    ]


SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share does not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def _print(told: dict[str, Any]) -> None:
    console, messages = Console(), told["messages"]
    if not told["every"]:
        console.print("No message is followed: [metrics] sample is 0.", markup=False)
        return
    if not messages:
        console.print(f"None of the messages that are followed (one in {told['every']}) has ended yet.")
        return
    table = plain_table(f"The last {len(messages)} messages", "stage", "50 %", "95 %", "99 %", "spent")
    for row in summary(told):
        table.add_row(
            row["stage"],
            *(_seconds(row[name]) for name in SHARES),
            MEANINGS.get(row["stage"], "all of it"),
        )
    console.print(table)
    console.print("The slowest of them:")
    for each in sorted(messages, key=lambda each: -each["seconds"])[:SLOWEST_SHOWN]:
        longest = sorted(each["stages"].items(), key=lambda pair: -pair[1])[:3]
        parts = ", ".join(f"{stage} {_seconds(seconds)}" for stage, seconds in longest if seconds > 0)
        line = f"  {each['spool_id']} to {short(each['domain'])}, {each['outcome']}: "
        console.print(Text(f"{line}{_seconds(each['seconds'])}: {parts}"), soft_wrap=True)


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"
