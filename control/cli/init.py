"""`emass init`: makes a folder that a node can start from, and never touches one that exists.

Writes a commented `emass.toml`, the data and keys folders (mode 0700), a master key and a DKIM key.
Everything is looked at before anything is written; whatever exists already is a refusal that
names it. The DKIM record and the next steps are printed at the end.
"""

import json
from pathlib import Path

import click

from control.cli.errors import CliError, InputError
from control.config import FILE_NAME

KEY_NAME = "default"
ALGORITHMS = ("rsa-sha256", "ed25519-sha256")


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="rsa-sha256", help="Of the DKIM key.")
@click.option(
    "--selector", default="emass", show_default=True, help="DKIM selector, for the printed DNS record."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object.")
def command(folder: Path, algorithm: str, selector: str, as_json: bool) -> None:
    """Write a commented emass.toml, data folders and fresh keys into FOLDER (default: here).

    Nothing is ever overwritten.

    \b
    Example:
      emass init /srv/emass
    """
    from engine.config import KeysTable, NodeTable, render_commented_default
    from engine.keyring import create_dkim_key, create_master_key

    config_file, data, keys = folder / FILE_NAME, folder / NodeTable().data, folder / KeysTable().folder
    master, dkim = keys / KeysTable().master, keys / f"{KEY_NAME}.pem"
    for path in (config_file, master, dkim):
        if path.exists():
            raise InputError(f"{path}: exists already; nothing was written (choose another folder)")
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
            file.write(render_commented_default() + dkim_table)
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
    )
