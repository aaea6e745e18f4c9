"""`emass status`: how this node's processes are, also when their root is dead.

It reads what the root wrote down (`data/run`), asks the kernel for memory and for who really lives, and asks
the engine what waits. Exit code 0: everything runs that should; 1 otherwise.
"""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio
from msgspec import to_builtins
from rich.console import Console
from rich.text import Text

from control.cli.table import plain_table
from control.cli.up import config_file, config_option
from control.cli.visible import short
from control.cli.words import seconds_words

if TYPE_CHECKING:
    from control.node.backlog import Backlog
    from engine.config import Config

ENGINE_SECONDS = 2.0
FINE = ("ready", "stopped")
HINTS = {
    "dead": "its root was killed, and its processes ended with it; emass up goes on where they stood",
    "failed": "it ended by itself; emass up starts it again",
    "stopped": "emass up starts it",
    "never started": "emass up starts it",
}


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(named: str | None, as_json: bool) -> int:
    """Show this node's processes: state, restarts, last error, memory, what waits.

    \b
    Example:
      emass status --json
    """
    from engine.config import load_config

    facts = gather(load_config(config_file(named), os.environ))
    if as_json:
        click.echo(json.dumps(facts))
    else:
        show(facts, Console(), time.time())
    return 0 if facts["state"] == "running" and all(p["state"] in FINE for p in facts["processes"]) else 1


def gather(config: "Config") -> dict[str, Any]:
    """Everything that `--json` prints."""
    from control.node.kernel import family, is_alive, private_octets
    from control.node.run_folder import RunFolder, outlived

    data = Path(config.node.data)
    folder = RunFolder(data)
    pid, state = folder.holder(), folder.read()
    runs = pid is not None and state is not None and (state.pid == pid or not pid)
    processes, orphans = [], []
    for each in () if state is None else state.processes:
        lives = each.pid is not None and is_alive(each.pid, each.born)
        memory = sum(map(private_octets, family([each.pid]))) if lives and each.pid else None
        processes.append(
            {
                "name": each.name,
                "state": each.state.value if runs or each.pid is None else "outlived" if lives else "gone",
                "pid": each.pid if lives else None,
                "since": each.since,
                "restarts": each.restarts,
                "last_exit": each.last_exit,
                "last_error": each.last_error,
                "memory_bytes": memory,
            }
        )
    if not runs:
        orphans = [{"name": each.name, "pid": each.pid} for each in outlived(state)]
    backlog, reachable = trio.run(_ask_around, config)
    return {
        "node": config.node.name,
        "state": _state(runs, pid, state),
        "pid": pid or None,
        "started_at": state.started_at if runs and state else None,
        "error": "" if state is None else state.error,
        "processes": processes,
        "orphans": orphans,
        "backlog": to_builtins(backlog),
        "bus": {"kind": config.bus.kind.value, "reachable": reachable},
    }


def _state(runs: bool, pid: int | None, state: Any) -> str:
    if runs:
        return str(state.state)
    if pid is not None:
        return "starting"  # it holds the folder and has not told more
    if state is None:
        return "never started"
    return state.state if state.state in ("stopped", "failed") else "dead"


async def _ask_around(config: "Config") -> "tuple[Backlog, bool | None]":
    """What waits at the engine, and whether the bus answers; None = not known."""
    from control.node.backlog import read_backlog
    from control.node.processes import nats_is_ready
    from engine.config import BusKind

    backlog = await read_backlog(config, ENGINE_SECONDS)
    if config.bus.kind is BusKind.LOCAL or backlog.bus_online is not None:
        return backlog, backlog.bus_online
    for server in config.bus.servers:
        if await nats_is_ready(server.host, server.port):
            return backlog, True
    return backlog, False


def show(facts: dict[str, Any], console: Console, now: float) -> None:
    pid = f", pid {facts['pid']}" if facts["pid"] else ""
    since = f", for {seconds_words(now - facts['started_at'])}" if facts["started_at"] else ""
    console.print(Text(f"Node {facts['node']}: {facts['state']}{pid}{since}"))
    if facts["error"]:
        console.print(Text(f"  last error: {short(facts['error'])}"), soft_wrap=True)
    if facts["state"] in HINTS:
        console.print(Text(f"  {HINTS[facts['state']]}"))
    if facts["processes"]:
        table = plain_table("", "process", "state", "for", "pid", "memory", "restarts")
        for each in facts["processes"]:
            memory = "-" if each["memory_bytes"] is None else f"{each['memory_bytes'] / 1e6:,.0f} MB"
            table.add_row(
                each["name"],
                each["state"],
                seconds_words(max(0.0, now - each["since"])),
                str(each["pid"] or "-"),
                memory,
                str(each["restarts"]),
            )
        console.print(table)
    for each in facts["processes"]:
        said = "; ".join(part for part in (each["last_exit"], short(each["last_error"])) if part)
        if facts["error"] and each["last_error"] and each["last_error"] in facts["error"]:
            continue  # said above
        if said and (each["restarts"] or each["state"] not in FINE or each["last_error"]):
            console.print(Text(f"  {each['name']}: last {said}"), soft_wrap=True)
    for each in facts["orphans"]:
        console.print(Text(f"  {each['name']} (pid {each['pid']}) outlived its root and is ending by itself"))
    _show_backlog(facts, console)


def _show_backlog(facts: dict[str, Any], console: Console) -> None:
    backlog, bus = facts["backlog"], facts["bus"]
    queued, chunks = backlog["queued"], backlog["chunks_pending"]
    if queued is not None:
        held = f" ({backlog['held']:,} more are held: emass queue show)" if backlog["held"] else ""
        console.print(Text(f"Waiting: {queued:,} messages, {backlog['on_the_wire']:,} on the wire{held}"))
    if chunks:
        console.print(Text(f"Not yet taken from the bus: {chunks:,} chunks"))
    if backlog["draining"]:
        console.print(Text("Draining: the engine takes nothing new, and ends when its queue is empty"))
    if backlog["closed"]:
        console.print(Text(f"No work is taken: {short(backlog['closed'])}"), soft_wrap=True)
    if bus["reachable"] is False:
        console.print(Text(f"Bus ({bus['kind']}): no server answers; the engine sends what its queue has"))
