"""The lines of `emass node list`: what the register knows of a node, and what it said of itself last.

A node's clock may be wrong; its row says by how much, as far as it knows, and that is taken off. Pure but for
printing.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.text import Text

from control.cli.table import plain_table
from control.cli.visible import short
from control.cli.words import seconds_words
from control.cluster.join_words import SKEW_WARN_SECONDS
from control.cluster.registry import NodeRecord, Registry
from engine.model.decoding import decoded

SILENT_BEATS = 5.0  # a node that has not been heard for so many of its intervals is silent


class _Process(Struct, frozen=True):
    """One process, as its node's agent tells of it."""

    name: str = ""
    state: str = ""
    pid: int | None = None
    since: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    last_error: str | None = None


class _Agent(Struct, frozen=True):
    """What of an agent's row is shown. Any node may write anything into its own."""

    at: float = 0.0
    interval: float = 2.0
    skew_seconds: float | None = None
    version: str = ""
    place: str = ""
    stopped: bool = False
    processes: tuple[_Process, ...] = ()


class _Engine(Struct, frozen=True):
    """What of an engine's row is shown."""

    queued: int | None = None
    rate: float | None = None
    closures: dict[str, str] = {}


def node_facts(registry: Registry, rows: Mapping[str, bytes] | None, now: float) -> list[dict[str, Any]]:
    """One object per node, and per join code that is out. Without `rows` nobody could be heard."""
    found = [_facts(record, rows or {}, now) for _, record in sorted(registry.nodes.items())]
    if rows is None:
        found = [{**one, "state": "not known"} if one["state"] == "never up" else one for one in found]
    for code in registry.codes.values():
        if code.used_at is None and now < code.expires_at:
            found.append(
                {
                    "node": code.node,
                    "role": code.role.value,
                    "state": "invited",
                    "expires_seconds": code.expires_at - now,
                }
            )
    return found


def _facts(record: NodeRecord, rows: Mapping[str, bytes], now: float) -> dict[str, Any]:
    agent = decoded(rows.get(f"{record.name}/agent"), _Agent)
    engine = decoded(rows.get(f"{record.name}/engine"), _Engine) or _Engine()
    told = agent or _Agent()
    facts: dict[str, Any] = {
        "node": record.name,
        "role": record.role.value,
        "state": "retired",
        "joined_at": record.joined_at,
        "retired_at": record.retired_at,
        "heard_seconds": None,
        "skew_seconds": told.skew_seconds,
        "version": told.version,
        "place": told.place,
        "queued": engine.queued,
        "rate": engine.rate,
        "processes": msgspec.to_builtins(told.processes),
        "closures": engine.closures,
    }
    if agent is not None:
        facts["heard_seconds"] = max(0.0, now - (told.at - (told.skew_seconds or 0.0)))
    if record.active:
        facts["state"] = _state(told, facts["heard_seconds"])
    return facts


def _state(agent: _Agent, heard: float | None) -> str:
    if heard is None:
        return "never up"
    if agent.stopped:
        return "down"
    if heard > SILENT_BEATS * agent.interval:
        return "silent"
    trouble = [each for each in agent.processes if each.state not in ("ready", "stopped")]
    stopped = [each for each in agent.processes if each.state == "stopped"]
    if trouble:
        return f"{short(trouble[0].name, 20)} {short(trouble[0].state, 20)}"
    return f"{short(stopped[0].name, 20)} stopped" if stopped else "up"


def show_nodes(facts: list[dict[str, Any]], why: str) -> None:
    """Print the table, and what is wrong below it."""
    console = Console()
    if why:
        console.print(Text(f"What follows is the register alone: {why}"), soft_wrap=True)
    table = plain_table("", "node", "role", "state", "heard", "clock", "queued", "per s", "version")
    for one in facts:
        heard = one.get("heard_seconds")
        table.add_row(
            Text(one["node"]),
            one["role"],
            Text(one["state"]),
            "" if heard is None else f"{seconds_words(heard)} ago",
            _clock(one.get("skew_seconds")),
            "" if one.get("queued") is None else f"{one['queued']:,}",
            "" if one.get("rate") is None else f"{one['rate']:,.0f}",
            Text(short(str(one.get("version", "")), 20)),
        )
    console.print(table)
    for one in facts:
        for closure in one.get("closures", {}).values():
            console.print(Text(f"  {one['node']}: {short(str(closure), 500)}", style="dim"), soft_wrap=True)
        for process in one.get("processes", []):
            if process.get("last_error") and process.get("state") != "ready":
                line = f"  {one['node']}: {process.get('name')}: {process['last_error']}"
                console.print(Text(short(line, 500), style="dim"), soft_wrap=True)
        if "expires_seconds" in one:
            left = seconds_words(one["expires_seconds"])
            console.print(Text(f"  {one['node']}: its code can be used for {left} more", style="dim"))


def _clock(skew: float | None) -> str:
    if skew is None:
        return ""
    return "right" if abs(skew) < 1.0 else f"{skew:+,.0f} s" + (" !" if abs(skew) > SKEW_WARN_SECONDS else "")
