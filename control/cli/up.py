"""`emass up`: runs this node's processes until it is told to stop.

It reads `emass.toml`, and starts what `[node] runs` names under the root supervisor (`control.node.root`).
Lines of all processes come to stdout with their names in front, and into `data/log`. A node that runs
already is refused with its pid. Exit codes: 0 stopped, 1 failed (the last error is the last line), 2 wrong
configuration.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control.cli.errors import CliError, InputError
from control.config import FILE_NAME, find_config

if TYPE_CHECKING:
    from control.node.house import NodeHouse

config_option = click.option(
    "--config", "named", metavar="FILE", help="Default: $EMASS_CONFIG, then ./emass.toml."
)


@click.command()
@config_option
@click.option("--json-logs", is_flag=True, help="Each line of each process as one JSON object.")
def command(named: str | None, json_logs: bool) -> None:
    """Run this node's processes under supervision until Ctrl-C or `emass stop`.

    Ctrl-C stops politely, twice in a hurry, three times kills.

    \b
    Example:
      emass up --config /srv/emass/emass.toml
    """
    from control.cluster.nats_server import NatsServerError
    from control.node.extras import extras_of
    from control.node.processes import kinds_of
    from control.node.root import NodeFailed, run_node
    from control.node.run_folder import RootRuns
    from engine.config import load_config

    path = config_file(named)
    config = load_config(path, os.environ)
    if not config.node.runs:
        raise InputError(f"{path}: [node] runs names no process: there is nothing to run")

    try:
        kinds = kinds_of(config, path)
    except NatsServerError as error:
        raise InputError(str(error)) from error

    try:
        run_node(
            config,
            path,
            kinds,
            stream=sys.stdout,
            environ=os.environ,
            json_logs=json_logs,
            extras=extras_of(config),
            on_ready=lambda house: summary(house, named),
        )
    except RootRuns as error:
        raise CliError(f"{config.node.name}: {error}") from error
    except NodeFailed as error:
        raise CliError(str(error)) from error


def config_file(named: str | None) -> Path:
    """The configuration of the node that a command is about. Raises InputError."""
    path = find_config(named, os.environ, Path.cwd())
    if path is None:
        raise InputError(f"there is no {FILE_NAME} here: `emass init` writes one, --config names another")
    return path.absolute()


def summary(house: "NodeHouse", named: str | None) -> str:
    """What is said once everything is ready."""
    option = f" --config {named}" if named else ""
    running = ", ".join(f"{each.name} (pid {each.pid})" for each in house.processes() if each.pid)
    return (
        f"\nNode {house.name} is up: {running}.\n"
        f"  its data and logs  {house.data}/, {house.data}/log/\n"
        f"  how it is          emass status{option}\n"
        f"  stop it            Ctrl-C, or emass stop{option}\n"
    )
