"""`emass init`: makes a folder that a node can start from, and never touches one that exists.

Writes a commented `emass.toml`, the data and keys folders (mode 0700), a master key and a DKIM key.
Everything is looked at before anything is written; whatever exists already is a refusal that
names it. The DKIM record and the next steps are printed at the end. With --cluster the folder is a hub: it
gets keys on a bus of its own, that bus's certificate, and the register of who belongs to it.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from control.cli.errors import CliError, InputError
from control.config import FILE_NAME

KEY_NAME = "default"
ALGORITHMS = ("rsa-sha256", "ed25519-sha256")
BUS_PORT = 4222  # nats-server's own


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="rsa-sha256", help="Of the DKIM key.")
@click.option(
    "--selector", default="emass", show_default=True, help="DKIM selector, for the printed DNS record."
)
@click.option("--cluster", is_flag=True, help="Make it the hub of a cluster, which other machines join.")
@click.option("--name", "node", metavar="NAME", default="hub", show_default=True, help="Of the hub's node.")
@click.option(
    "--listen", metavar="HOST:PORT", default="127.0.0.1:4222", show_default=True, help="Of the hub's bus."
)
@click.option(
    "--address",
    "addresses",
    metavar="HOST",
    multiple=True,
    help="How others reach it. Default: as in --listen.",
)
@click.option("--set", "settings", metavar="TABLE.KEY=VALUE", multiple=True, help="A setting of emass.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object.")
def command(
    folder: Path,
    algorithm: str,
    selector: str,
    cluster: bool,
    node: str,
    listen: str,
    addresses: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write a commented emass.toml, data folders and fresh keys into FOLDER (default: here).

    Nothing is ever overwritten.

    \b
    Example:
      emass init /srv/emass
      emass init /srv/hub --cluster --listen 0.0.0.0:4222 --address hub.example.org
    """
    from engine.config import KeysTable, NodeTable
    from engine.keyring import create_dkim_key, create_master_key

    config_file, data, keys = folder / FILE_NAME, folder / NodeTable().data, folder / KeysTable().folder
    master, dkim = keys / KeysTable().master, keys / f"{KEY_NAME}.pem"
    for path in (config_file, master, dkim):
        if path.exists():
            raise InputError(f"{path}: exists already; nothing was written (choose another folder)")
    text, names = _text(cluster, node, listen, addresses, settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for private in (data, keys):
            private.mkdir(mode=0o700, exist_ok=True)
            private.chmod(0o700)
        create_master_key(master)
        record = create_dkim_key(dkim, algorithm)
        dkim_table = (
            f'\n[[keys.dkim]]\nname = "{KEY_NAME}"\nfile = "{dkim.name}"\nalgorithm = "{algorithm}"\n'
        )
        with config_file.open("x", encoding="utf-8") as file:
            file.write(text + dkim_table)
        if cluster:
            _found(folder, node, names)
    except OSError as error:
        raise CliError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error

    if as_json:
        written = {"config": config_file, "data": data, "keys": keys, "master_key": master, "dkim_key": dkim}
        click.echo(json.dumps({k: str(v) for k, v in written.items()} | {"dkim_record": record}))
        return
    click.echo(
        f"Written: {config_file}, {data}/, {master}, {dkim}\n\n"
        f"Next:\n"
        f"  1. Keep a copy of {master} in a safe place: links in mail that is out depend on it.\n"
        f"  2. Publish this TXT record for the domain you send from:\n"
        f"       {selector}._domainkey.YOUR-DOMAIN\n"
        f"       {record}\n"
        f"  3. Read {config_file}, change what you need, then: emass config check --config {config_file}\n"
        f"  4. Send: emass send --csv people.csv --from you@YOUR-DOMAIN --subject ... --html letter.html \\\n"
        f"       --dkim-key {dkim} --dkim-selector {selector} --unsubscribe-host news.YOUR-DOMAIN"
        f"{_next_steps(config_file, cluster)}"
    )


def _text(
    cluster: bool, node: str, listen: str, addresses: Sequence[str], settings: Sequence[str]
) -> tuple[str, list[str]]:
    """The configuration's text, and the names of the hub's bus. Raises InputError, ConfigError."""
    from control.cluster.node_file import filled_default, parse_setting, with_settings

    values: Mapping[str, Mapping[str, str]] = {}
    names: list[str] = []
    if cluster:
        from control.cluster.founding import hub_names, hub_values
        from control.cluster.registry import RegistryError, check_node_name
        from engine.config import HostPort, UnitError

        try:
            place = HostPort.parse(listen, BUS_PORT)
            names = hub_names(place, addresses)
            values = hub_values(check_node_name(node), place, names)
        except UnitError as error:
            raise InputError(f"--listen {listen}: {error}") from None
        except (RegistryError, ValueError) as error:
            raise InputError(str(error)) from None
    elif addresses:
        raise click.UsageError("'--address' needs '--cluster'", click.get_current_context())
    return filled_default(with_settings(values, [parse_setting(each) for each in settings])), names


def _found(folder: Path, node: str, names: Sequence[str]) -> None:
    """Make it a hub. Raises CliError, KeyringError."""
    from control.cluster.founding import found_cluster
    from control.cluster.registry import RegistryError

    try:
        found_cluster(folder, node, names, time.time())
    except RegistryError as error:
        raise CliError(str(error)) from error


def _next_steps(config_file: Path, cluster: bool) -> str:
    return (
        f"\nThis is the hub of a cluster. Start it, and let machines join:\n"
        f"  emass up --config {config_file}\n"
        f"  emass node add NAME --config {config_file}\n"
        if cluster
        else ""
    )
