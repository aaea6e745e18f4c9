"""`emass keys`: what keys a node has, and how each kind is replaced while mail flows.

`show` names keys and shows none. `seal` and `rotate-token` are the hub's (or a single node's), which holds
the master key; `rotate-sealing` and `rotate-node` are done on the node whose keys they are. Each may be given
again after it was interrupted. Touches: the keys folder, the bus as an operator or as the node's agent.
"""

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import trio

from control.cli.ask import json_option
from control.cli.errors import CliError, InputError
from control.cli.keys_facts import cluster_lines, node_facts, node_lines
from control.config import load
from engine.bus.api import Bus
from engine.config import BusKind, Config
from engine.observe.logs import configure_logs
from engine.runtime.crash import leaf_of
from engine.sealing import NODE_BOX, former_of, rotate_box, signer_owner
from engine.token_ring import load_plan, save_plan, with_new_id, with_start

SEAL_SECONDS = 20.0  # for signers to open what was sealed to them
BOX_SECONDS = 60.0  # for the hub to seal anew and the engine to open it
ALONE_AHEAD_SECONDS = 10.0  # the engine looks at its files each 2 s

T = TypeVar("T")

config_option = click.option(
    "--config", "named_config", metavar="FILE", help="Default: $EMASS_CONFIG, then ./emass.toml."
)


@click.group(name="keys")
def command() -> None:
    """Show this node's keys, and replace them while mail flows.

    \b
    Example:
      emass keys show
      emass keys rotate-token
    """


@command.command()
@config_option
@json_option
def show(named_config: str | None, as_json: bool) -> None:
    """Show which keys there are (never the keys), on a hub for all nodes.

    \b
    Example:
      emass keys show --config hub/emass.toml
    """
    config = _load(named_config)
    facts = node_facts(config)
    if _is_hub(config):
        from control.cluster.key_office import read_nodes

        facts["nodes"] = _as_operator(config, read_nodes)
    if as_json:
        import msgspec

        click.echo(json.dumps(msgspec.to_builtins(facts)))
        return
    for line in [*node_lines(facts), *cluster_lines(facts.get("nodes", {}))]:
        click.echo(line)


@command.command()
@config_option
@click.option("--remove", metavar="NAME", help="Take this DKIM key away from all nodes instead.")
def seal(named_config: str | None, remove: str | None) -> None:
    """Seal the hub's DKIM keys and token keys to every node, where that is due.

    `emass up` on the hub does so by itself; this command waits until it is done, and says what is not.

    \b
    Example:
      emass keys seal --config hub/emass.toml
    """
    config = _load(named_config)
    if not _is_hub(config):
        raise InputError("keys are sealed on the hub of a cluster, and this node is none")
    if remove is not None and any(key.name == remove for key in config.keys.dkim):
        raise InputError(f"[[keys.dkim]] names {remove}: take it out of the configuration first")

    async def work(bus: Bus) -> list[str]:
        from control.cluster.key_office import read_nodes, take_dkim_key

        if remove is not None:
            await take_dkim_key(bus, list(await read_nodes(bus)), remove)
            return []
        return await _seal_all(config, bus)

    lacking = _as_operator(config, work)
    if lacking:
        raise CliError("not everything could be sealed: " + "; ".join(lacking))
    click.echo(f"{remove} is taken away." if remove else "Every node has its keys.")


@command.command("rotate-token")
@config_option
@click.option("--force", is_flag=True, help="Although the last key is younger than a year.")
def rotate_token(named_config: str | None, force: bool) -> None:
    """Bring a new key for tokens (return paths, links) into force. Old ones verify for ever.

    There are 16 keys in all, so one a year. Given again after an interruption, it goes on.

    \b
    Example:
      emass keys rotate-token
    """
    config = _load(named_config)
    folder = Path(config.keys.folder)
    if not (folder / config.keys.master).exists():
        raise InputError("token keys come from the master key, which the hub has and this node has not")
    if config.bus.kind is BusKind.NATS:

        async def work(bus: Bus) -> None:
            from control.cluster.key_rounds import bring_token_id

            await bring_token_id(config, bus, time.time, click.echo, early=force)

        _as_operator(config, work)
        return
    plan = load_plan(folder)
    if plan.waiting is None:
        plan = with_new_id(plan, time.time(), early=force)
    fresh = plan.waiting
    save_plan(folder, with_start(plan, time.time() + ALONE_AHEAD_SECONDS))
    click.echo(f"Key id {fresh} signs what is accepted from {ALONE_AHEAD_SECONDS:.0f} s from now on.")


@command.command("rotate-sealing")
@config_option
@click.option("--no-wait", is_flag=True, help="Do not wait for everything to come sealed anew.")
def rotate_sealing(named_config: str | None, no_wait: bool) -> None:
    """Replace the keys that this node's secrets are sealed to; on the node itself.

    The former ones go when the hub has sealed everything anew, which the running engine sees to.

    \b
    Example:
      emass keys rotate-sealing --config a/emass.toml
    """
    config = _load(named_config)
    folder = Path(config.keys.folder)
    owner = signer_owner(config.keys.signer_user)
    boxes = {folder / config.keys.signer_box: owner, folder / NODE_BOX: None}
    if not all(path.exists() for path in boxes):
        raise InputError(f"{folder}: has no box keys: nothing is sealed to this node (it is in no cluster)")
    fresh = [path for path in boxes if not former_of(path).exists()]
    for path in fresh:
        rotate_box(path, boxes[path])
        click.echo(f"{path} is replaced; the former key opens what is still sealed to it.")
    if not fresh:
        click.echo("The last replacement is still under way.")
    if no_wait:
        return
    end = time.monotonic() + BOX_SECONDS
    while left := [former_of(path) for path in boxes if former_of(path).exists()]:
        if time.monotonic() > end:
            names = ", ".join(map(str, left))
            raise CliError(
                f"not everything is sealed to the new keys yet; {names} goes by itself once it is"
                " (engine and hub must be up; `emass keys show` on the hub says what is missing)"
            )
        time.sleep(0.2)
    click.echo("Everything is sealed to the new keys, and the former ones are destroyed.")


@command.command("rotate-node")
@config_option
@click.option("--finish", is_flag=True, help="All processes were started anew: shut the old keys out.")
def rotate_node(named_config: str | None, finish: bool) -> None:
    """Replace the keys that this node's processes show to the bus; on the node itself, in two steps.

    Between the steps the processes are started anew, so that they take the new keys.

    \b
    Example:
      emass keys rotate-node && systemctl restart emass
      emass keys rotate-node --finish
    """
    config = _load(named_config)
    if config.bus.kind is not BusKind.NATS or not config.bus.seeds:
        raise InputError('[bus] kind is "local", or has no seeds: this node shows no keys')
    from control.cluster.node_seeds import SeedsError, bring_new_seeds, drop_old_seeds

    node, seeds = config.node.name, Path(config.keys.folder) / config.bus.seeds

    async def work(bus: Bus) -> list[str]:
        if finish:
            await drop_old_seeds(bus, node, seeds)
            return []
        return await bring_new_seeds(bus, node, seeds)

    try:
        processes = _as_agent(config, work)
    except SeedsError as error:
        raise CliError(str(error)) from error
    if finish:
        click.echo("The hub lets in the new keys alone.")
    else:
        click.echo(
            f"New keys are registered and in place: {', '.join(processes)}. The old ones are let in, too."
        )
        click.echo("Start this node anew (`emass stop`, then `emass up`, or systemctl restart emass), then:")
        click.echo("  emass keys rotate-node --finish")


async def _seal_all(config: Config, bus: Bus) -> list[str]:
    """Passes of the office until every node has told that it has all; what is missing at the end."""
    from control.cluster.key_office import KeyOffice, missing, read_nodes

    office = KeyOffice(config, bus)
    end = trio.current_time() + SEAL_SECONDS
    while True:
        nodes = await read_nodes(bus)
        lacking = await office.work(nodes.values())
        lacking += missing(nodes.values(), [key.name for key in config.keys.dkim])
        if not lacking or trio.current_time() > end:
            return lacking
        await trio.sleep(0.5)


def _load(named_config: str | None) -> Config:
    import os

    return load(named_config, os.environ, Path.cwd())


def _is_hub(config: Config) -> bool:
    master = Path(config.keys.folder) / config.keys.master
    return config.bus.kind is BusKind.NATS and master.exists()


def _as_operator(config: Config, work: Callable[[Bus], Awaitable[T]]) -> T:
    """Do it on the bus as an operator. Raises CliError."""
    from control.cluster.connecting import ConnectError, as_operator

    async def run() -> T:
        async with as_operator(config) as bus:
            return await work(bus)

    return _run(run, ConnectError)


def _as_agent(config: Config, work: Callable[[Bus], Awaitable[T]]) -> T:
    """Do it on the bus as this node's agent, beside it if it runs. Raises CliError."""
    from control.cluster.connecting import ConnectError, open_bus

    async def run() -> T:
        bus = open_bus(config, "agent")
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            try:
                return await work(bus)
            finally:
                bus.close()

    return _run(run, ConnectError)


def _run(work: Callable[[], Awaitable[T]], trouble: type[Exception]) -> T:
    """The result, or the one error that a nursery may have wrapped."""
    configure_logs("error")
    try:
        return trio.run(work)
    except BaseExceptionGroup as group:
        leaf = leaf_of(group)
        if isinstance(leaf, trouble):
            raise CliError(str(leaf)) from None
        raise leaf from None
    except trouble as error:
        raise CliError(str(error)) from None
