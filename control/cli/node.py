"""`emass node`: machines and their processes, from the hub; and `join`, on the machine that comes in.

`add` and `retire` change the hub's register of who belongs to it and have its bus follow, whether it runs or
not; `list` reads the register and what nodes say on the bus; the rest asks a node's agent over the bus and
prints what it answers. Touches: the hub's folder; the bus as an operator. `join` writes the folder of a new
node.
"""

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from control.cli.author import author
from control.cli.errors import CliError, InputError
from control.cli.visible import short
from control.config import load
from engine.config import Config, Duration, UnitError
from engine.model.decoding import UNDECODABLE
from engine.observe.logs import configure_logs
from engine.runtime.crash import leaf_of

ACT_SECONDS = 150.0  # an engine's polite end takes up to 90 s, and its start may read a large spool
LOOK_SECONDS = 5.0
LINE_CHARS_MAX = 2_000

config_option = click.option(
    "--config", "named_config", metavar="FILE", help="The hub's. Default: $EMASS_CONFIG, then ./emass.toml."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
node_argument = click.argument("node")
process_argument = click.argument("process", default="")


@click.group()
def command() -> None:
    """Let machines join, see how they are, and start and stop what runs on them.

    \b
    Example: a second machine
      hub$   emass node add b
      other$ emass node join CODE --dir /srv/emass --source 192.0.2.20
      other$ emass up --config /srv/emass/emass.toml
      hub$   emass node list
    """


@command.command()
@node_argument
@click.option("--role", type=click.Choice(["broadcaster"]), default="broadcaster", show_default=True)
@click.option("--expires", "time_text", metavar="TIME", default="1 h", show_default=True, help="Up to 7 d.")
@config_option
@json_option
def add(node: str, role: str, time_text: str, named_config: str | None, as_json: bool) -> None:
    """Print a code with which one machine may join as NODE, once, within an hour.

    Whoever has the code can be that node: send it as you would send a password.

    \b
    Example:
      emass node add b
    """
    from control.cluster.authority import CERTIFICATE_FILE, fingerprint
    from control.cluster.join_code import JoinCode, encode_join_code
    from control.cluster.registry import NodeRole, with_code
    from engine.bus.nkeys import new_seed, public_of

    config = _hub(named_config)
    try:
        seconds = float(Duration.parse(time_text))
    except UnitError as error:
        raise InputError(f"--expires {time_text}: {error}") from None
    digest = fingerprint(Path(config.keys.folder) / CERTIFICATE_FILE)
    seed, now = new_seed(), time.time()
    public = public_of(seed)
    runs = _change(
        config, lambda registry: with_code(registry, node, NodeRole(role), public, now, seconds), now
    )
    code = encode_join_code(JoinCode(config.bus.servers[0], digest, node, seed))
    if as_json:
        click.echo(json.dumps({"node": node, "code": code, "expires_at": now + seconds}))
        return
    click.echo(code)
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now + seconds))
    click.echo(f"\nOn the machine that is to be {node}, before {until}:", err=True)
    click.echo("  emass node join CODE --dir DIR [--source ADDRESS]...", err=True)
    if not runs:
        click.echo("The hub is not up yet (emass up): a machine can join once it is.", err=True)


@command.command()
@click.argument("code")
@click.option(
    "--dir", "folder", default=".", show_default=True, type=click.Path(file_okay=False, path_type=Path)
)
@click.option(
    "--source", "--address", "sources", metavar="IP", multiple=True, help="An address that mail leaves from."
)
@click.option("--ehlo-name", metavar="HOST", default="", help="What this machine calls itself to receivers.")
@click.option(
    "--set", "settings", metavar="TABLE.KEY=VALUE", multiple=True, help="A further setting of emass.toml."
)
@json_option
def join(
    code: str,
    folder: Path,
    sources: tuple[str, ...],
    ehlo_name: str,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make this machine the node that CODE is for: its own keys, and an emass.toml in DIR.

    May be repeated with the same code until it has worked once. CODE may be "-": it is read from the input.

    \b
    Example:
      emass node join CODE --dir /srv/emass --source 192.0.2.20
    """
    from control.cluster.join_code import JoinCodeError, decode_join_code
    from control.cluster.joining import JoinError, Plan, skew_warning
    from control.cluster.joining import join as join_cluster
    from control.cluster.node_file import parse_setting

    plan = Plan(sources, ehlo_name, tuple(parse_setting(each) for each in settings))
    try:
        read = decode_join_code(sys.stdin.read() if code == "-" else code)
    except JoinCodeError as error:
        raise InputError(str(error)) from None
    configure_logs("error")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        joined = join_cluster(folder, read, plan, time.time)
    except JoinError as error:
        raise CliError(str(error)) from error
    warning = skew_warning(joined.skew_seconds)
    if as_json:
        facts = {"node": joined.answer.node, "role": joined.answer.role, "hub": joined.answer.hub}
        more = {"config": str(joined.config), "skew_seconds": round(joined.skew_seconds, 3)}
        click.echo(json.dumps(facts | more | {"warnings": [warning] if warning else []}))
        return
    click.echo(
        f"This is {joined.answer.node}, a {joined.answer.role} in the cluster of {joined.answer.hub}.\n"
        f"Next: emass up --config {joined.config}"
    )
    if warning:
        click.echo(f"Warning: {warning}", err=True)


@command.command("list")
@config_option
@json_option
def list_nodes(named_config: str | None, as_json: bool) -> None:
    """Show the nodes: how they are, when they were last heard, what waits on them.

    \b
    Example:
      emass node list
    """
    from control.cli.node_rows import node_facts, show_nodes
    from control.cluster.connecting import ConnectError, as_operator
    from control.cluster.registry_file import load_registry

    config = _hub(named_config)
    registry = load_registry(Path(config.node.data))

    async def read() -> dict[str, bytes]:
        async with as_operator(config, online_seconds=LOOK_SECONDS) as bus:
            with trio.fail_after(LOOK_SECONDS):
                return await bus.read_all("status")

    rows: dict[str, bytes] | None = None
    why = ""
    try:
        rows = _run(read)
    except (ConnectError, trio.TooSlowError) as error:
        why = str(error) or "the bus does not answer in time"
    facts = node_facts(registry, rows, time.time())
    if as_json:
        click.echo(json.dumps({"nodes": facts, "bus": why or "answers"}))
        return
    show_nodes(facts, why)


@command.command()
@node_argument
@process_argument
@config_option
@json_option
def start(node: str, process: str, named_config: str | None, as_json: bool) -> None:
    """Start what was stopped on NODE: all its processes, or one.

    \b
    Example:
      emass node start b engine
    """
    _act(named_config, node, as_json, command="start", process=process)


@command.command()
@node_argument
@process_argument
@config_option
@json_option
def stop(node: str, process: str, named_config: str | None, as_json: bool) -> None:
    """Stop what runs on NODE politely: all its processes, or one. Its `emass up` stays, so that it can start.

    \b
    Example:
      emass node stop b
    """
    _act(named_config, node, as_json, command="stop", process=process)


@command.command()
@node_argument
@process_argument
@config_option
@json_option
def restart(node: str, process: str, named_config: str | None, as_json: bool) -> None:
    """Stop and start what runs on NODE: all its processes, or one.

    \b
    Example:
      emass node restart b engine
    """
    _act(named_config, node, as_json, command="restart", process=process)


@command.command()
@node_argument
@click.option("--within", "time_text", metavar="TIME", default="10 min", show_default=True, help="Stop then.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the order.")
@config_option
@json_option
def drain(node: str, time_text: str, reason: str, named_config: str | None, as_json: bool) -> None:
    """Let NODE's engine take nothing new, send what it has, and stop. `emass node start` brings it back.

    \b
    Example:
      emass node drain b --reason "new kernel"
    """
    try:
        seconds = float(Duration.parse(time_text))
    except UnitError as error:
        raise InputError(f"--within {time_text}: {error}") from None
    _act(named_config, node, as_json, command="drain", seconds=seconds, reason=reason)


@command.command()
@node_argument
@process_argument
@click.option("-n", "count", type=click.IntRange(1, 1_000), default=50, show_default=True, help="Lines.")
@config_option
@json_option
def logs(node: str, process: str, count: int, named_config: str | None, as_json: bool) -> None:
    """Show the last log lines of NODE: of all its processes, or of one.

    \b
    Example:
      emass node logs b engine -n 100
    """
    _act(named_config, node, as_json, command="logs", process=process, count=count)


@command.command()
@node_argument
@config_option
@json_option
def retire(node: str, named_config: str | None, as_json: bool) -> None:
    """Shut NODE out for good: its keys open nothing any more. Also takes back a join code for NODE.

    Drain it first. What it had claimed and not finished is listed by `emass broadcaster retire`.

    \b
    Example:
      emass node retire b
    """
    from control.cluster.registry import retired

    config, now = _hub(named_config), time.time()
    runs = _change(config, lambda registry: retired(registry, node, now), now)
    if as_json:
        click.echo(json.dumps({"node": node, "retired_at": now, "bus_told": runs}))
        return
    click.echo(f"{node} is shut out" + ("" if runs else " (the hub is not up; it holds from its start)"))


# --- how ---------------------------------------------------------------------------------------------------


def _hub(named_config: str | None) -> Config:
    """The hub's configuration. Raises InputError, ConfigError."""
    from control.cluster.registry_file import is_hub

    config = load(named_config, os.environ, Path.cwd())
    if not is_hub(Path(config.node.data)):
        raise InputError(
            f"{config.node.data}: is not the hub of a cluster: name the hub's file with --config"
            " (`emass init DIR --cluster` makes one)"
        )
    return config


def _change(config: Config, change: Callable[[Any], Any], now: float) -> bool:
    """Change the register and have the bus follow; whether its server runs. Raises CliError."""
    from control.cluster.nats_server import reload_nats, write_nats_config
    from control.cluster.registry import RegistryError
    from control.cluster.registry_file import changing

    data = Path(config.node.data)
    try:
        changing(data, change, then=lambda registry: write_nats_config(config, registry, now))
    except RegistryError as error:
        raise CliError(str(error)) from error
    return reload_nats(data)


def _act(named_config: str | None, node: str, as_json: bool, **request: Any) -> None:
    """Ask a node's agent, and print what it answers. Raises CliError."""
    from control.cluster.connecting import ConnectError, as_operator
    from control.cluster.registry import RegistryError, known_node
    from control.cluster.registry_file import load_registry
    from engine.bus.api import NoAnswer

    config = _hub(named_config)
    try:
        known_node(load_registry(Path(config.node.data)), node)
    except RegistryError as error:
        raise InputError(str(error)) from None
    question = json.dumps({"author": author(), **request}).encode()
    who = json.dumps({"command": "who"}).encode()

    async def ask() -> bytes:
        async with as_operator(config) as bus:
            await bus.ask(f"node.{node}", who, LOOK_SECONDS)  # a node that is down is told of soon
            return await bus.ask(f"node.{node}", question, ACT_SECONDS)

    try:
        told = msgspec.json.decode(_run(ask), type=dict[str, Any])
    except ConnectError as error:
        raise CliError(str(error)) from error
    except NoAnswer:
        raise CliError(
            f"{node} does not answer: is `emass up` running there? (`emass node list` says when it was heard)"
        ) from None
    except UNDECODABLE as error:
        raise CliError(f"what {node} has answered does not decode: {error}") from None
    if told.get("error"):
        raise CliError(f"{node}: {short(str(told['error']), LINE_CHARS_MAX)}")
    if as_json:
        click.echo(json.dumps(told))
        return
    lines = told.get("lines")
    for line in lines if isinstance(lines, list) else [told.get("done", "")]:
        click.echo(short(str(line), LINE_CHARS_MAX))


def _run(work: Callable[[], Awaitable[Any]]) -> Any:
    """The result, or the one error that a nursery has wrapped."""
    configure_logs("error")
    try:
        return trio.run(work)
    except BaseExceptionGroup as group:
        raise leaf_of(group) from None
