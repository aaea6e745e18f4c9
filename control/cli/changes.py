"""`emass queue changes`: what the control loop and its operators changed lately, and what it would do again.

The running engine keeps the last changes; the whole history is in its events. With `--replay` the signals
that one path's loop was given are fed to a new loop, within the bounds of the shaping as it stands in the
files now: what it would do is printed beside what was done. Nothing of the running engine is touched.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from control.cli.ask import check_folder, config_of, config_option, data_option, json_option, order
from control.cli.table import plain_table
from control.cli.visible import short
from control.cli.words import rate_words, seconds_words
from engine.mta.policy.governor import Change, Signal, replay
from engine.mta.policy.shaping import Shaping, shaping_rules

SHOWN_DEFAULT = 40
BEFORE_SECONDS = 0.5  # a loop looks twice a second: it began at most so long before its first signal
OF_RULES = ("override", "reload", "suspend", "resume", "reroute", "drain")  # they move no knob by themselves
TOGETHER_SECONDS = 0.75  # a change that happened, and its twin in the replay


@click.command()
@click.option(
    "--path", "path", metavar="PATH", default="", help="Only of this path (site or provider do, too)."
)
@click.option("--limit", metavar="N", type=click.IntRange(1, 1_000), default=SHOWN_DEFAULT, show_default=True)
@click.option("--replay", "again", is_flag=True, help="What the loop would do now, beside it. Needs --path.")
@data_option
@config_option
@json_option
def changes(path: str, limit: int, again: bool, data: str, named_config: str | None, as_json: bool) -> int:
    """List what was changed lately: when, what, from what to what, and why.

    \b
    Example:
      emass queue changes --path mx.example.net
      emass queue changes --path mx.example.net --replay --config edited.toml
    """
    folder = check_folder(data)
    if not again:
        facts = order(folder, command="changes", path=path, limit=limit)
        if as_json:
            click.echo(json.dumps(facts))
        else:
            _print_changes(facts["changes"], Console())
        return 0
    if not path:
        raise click.UsageError("'--replay' needs '--path PATH'.", click.get_current_context())
    told = order(folder, command="signals", path=path)
    happened = order(folder, command="changes", path=told["path"])["changes"]
    facts = side_by_side(told, happened, _present_shaping(told, folder, named_config))
    if as_json:
        click.echo(json.dumps(facts))
    else:
        _print_replay(facts, Console(), limit)
    return 0


def _present_shaping(told: dict[str, Any], folder: Path, named: str | None) -> Shaping:
    config, _ = config_of(folder, named)
    return shaping_rules(config).path(told["source"], told["site"], told["hosts"], told["domain"])


def side_by_side(told: dict[str, Any], happened: list[dict[str, Any]], shaping: Shaping) -> dict[str, Any]:
    """The changes of one path since its first kept signal, and what a loop within `shaping` would do."""
    signals = msgspec.convert(told["signals"], list[Signal])
    start = told["start_per_second"]
    found: list[Change] = []
    if signals:
        found = replay(
            signals,
            shaping.connections,
            shaping.rate,
            signals[0].at - BEFORE_SECONDS,
            start_connections=told["start_connections"],
            start_per_second=math.inf if start is None or shaping.rate is not None else start,
        )
    since = signals[0].at - BEFORE_SECONDS if signals else 0.0
    rows = [
        {"at": one["at"], "knob": one["knob"], "happened": _fact(one), "would": None}
        for one in happened
        if one["at"] >= since and one["knob"] in ("connections", "rate")
    ]
    for change in found:
        would = {"before": change.before, "after": change.after, "reason": change.reason}
        twin = next((row for row in rows if row["would"] is None and _are_twins(row, change)), None)
        if twin is not None:
            twin["would"] = would
        else:
            rows.append({"at": change.at, "knob": change.knob.value, "happened": None, "would": would})
    rows.sort(key=lambda row: row["at"])
    return {
        "path": told["path"],
        "signals": len(signals),
        "bounds_then": {"connections": told["connections"], "rate": told["rate"]},
        "bounds_now": {
            "connections": str(shaping.connections),
            "rate": None if shaping.rate is None else str(shaping.rate),
        },
        "changes": rows,
    }


def _are_twins(row: dict[str, Any], change: Change) -> bool:
    return bool(row["knob"] == change.knob.value and abs(row["at"] - change.at) < TOGETHER_SECONDS)


def _fact(change: dict[str, Any]) -> dict[str, Any]:
    return {key: change[key] for key in ("before", "after", "reason", "author")}


def _print_changes(found: list[dict[str, Any]], console: Console) -> None:
    if not found:
        console.print("Nothing was changed since the engine started.")
        return
    for one in found:
        who = f" (by {short(one['author'])})" if one["author"] else ""
        where = short(one["path"] or one["provider"], 60)
        move = "" if one["knob"] in OF_RULES else f" {_move(one['knob'], one)}"
        line = Text(f"{_clock(one['at'])}  {where or 'everywhere'}  {one['knob']}{move}{who}")
        line.append(f"\n          {short(one['reason'])}", style="dim")
        console.print(line, soft_wrap=True)


def _print_replay(facts: dict[str, Any], console: Console, limit: int) -> None:
    now = facts["bounds_now"]
    console.print(
        Text(
            f"{short(facts['path'], 300)}: {facts['signals']:,} signals, replayed within connections"
            f" {now['connections']}, rate {now['rate'] or 'without limit'}"
        ),
        soft_wrap=True,
    )
    table = plain_table("", "time", "knob", "happened", "would happen")
    for row in facts["changes"][-limit:]:
        cells = [
            "-" if row[side] is None else _move(row["knob"], row[side]) for side in ("happened", "would")
        ]
        table.add_row(_clock(row["at"]), row["knob"], *cells)
    if facts["changes"]:
        console.print(table)
    else:
        console.print("Neither then nor now is there anything to change.")
    hidden = len(facts["changes"]) - limit
    if hidden > 0:
        console.print(f"... and {hidden:,} before these (--limit)")


def _move(knob: str, change: dict[str, Any]) -> str:
    return f"{_value(knob, change['before'])} -> {_value(knob, change['after'])}"


def _value(knob: str, value: float | None) -> str:
    match knob:
        case "rate" | "reset":
            return rate_words(value)
        case "rest" | "hold" | "source":
            return "none" if value is None else seconds_words(value)
        case _:
            return "-" if value is None else f"{value:g}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
