"""`emass account`: who may hand in mail over SMTP. Writes the accounts file that submission reads.

A password is made and shown once, or read from standard input; only its hash is kept. The file is replaced
as a whole, and a running submission service looks at it within seconds. Touches: the accounts file in the
keys folder. Raises InputError for an account that is there, or is not.
"""

import json
import os
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console

from control.cli.errors import CliError, InputError
from control.cli.table import plain_table
from control.cli.visible import visible
from control.config import find_config
from engine.config import load_config
from engine.config.load import load_table
from engine.model.content import MessageClass
from services.submission.accounts import (
    Account,
    AccountsError,
    new_account,
    new_password,
    read_accounts,
    with_password,
    write_accounts,
)
from services.submission.config import SubmissionTable

CLASSES = tuple(each.value for each in MessageClass)

config_option = click.option("--config", "named", metavar="FILE", help="The emass.toml to use.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
password_option = click.option(
    "--password-stdin", "typed", is_flag=True, help="Read the password from standard input; else one is made."
)


@click.group()
def command() -> None:
    """Say who may hand in mail over SMTP, for which domains.

    \b
    Example:
      emass account add shop --domain shop.example
      emass account list
    """


@command.command()
@click.argument("name")
@click.option(
    "--domain", "domains", metavar="NAME", multiple=True, required=True, help="A domain it may send from."
)
@click.option("--workspace", default="default", show_default=True)
@click.option(
    "--class", "message_class", type=click.Choice(CLASSES), default="transactional", show_default=True
)
@password_option
@config_option
@json_option
def add(
    name: str,
    domains: tuple[str, ...],
    workspace: str,
    message_class: str,
    typed: bool,
    named: str | None,
    as_json: bool,
) -> None:
    """Add an account.

    \b
    Example:
      emass account add shop --domain shop.example --workspace shop
    """
    path, table = _place(named)
    accounts = _read(path)
    if name in accounts:
        raise InputError(
            f"{path}: there is an account {visible(name)} already (`emass account password` changes it)"
        )
    password = _password(typed)
    try:
        account = new_account(name, password, domains, workspace, MessageClass(message_class))
    except AccountsError as error:
        raise InputError(str(error)) from error
    _write(path, accounts | {name: account})
    unknown = [domain for domain in account.domains if table.rule(domain) is None]
    _say(account, path, "" if typed else password, as_json, unknown)


@command.command("password")
@click.argument("name")
@password_option
@config_option
@json_option
def change_password(name: str, typed: bool, named: str | None, as_json: bool) -> None:
    """Give an account another password; the old one is void within seconds.

    \b
    Example:
      emass account password shop
    """
    path, _ = _place(named)
    accounts = _read(path)
    account = _find(accounts, name, path)
    password = _password(typed)
    try:
        account = with_password(account, password)
    except AccountsError as error:
        raise InputError(str(error)) from error
    _write(path, accounts | {name: account})
    _say(account, path, "" if typed else password, as_json, [])


@command.command()
@click.argument("name")
@config_option
def remove(name: str, named: str | None) -> None:
    """Remove an account. What it has handed in is sent.

    \b
    Example:
      emass account remove shop
    """
    path, _ = _place(named)
    accounts = _read(path)
    _find(accounts, name, path)
    _write(path, {each: account for each, account in accounts.items() if each != name})
    click.echo(f"Removed {visible(name)} from {path}.")


@command.command("list")
@config_option
@json_option
def list_accounts(named: str | None, as_json: bool) -> None:
    """List the accounts, without their passwords.

    \b
    Example:
      emass account list --json
    """
    path, _ = _place(named)
    accounts = _read(path)
    if as_json:
        click.echo(json.dumps({"accounts": [_facts(account) for account in accounts.values()]}))
        return
    table = plain_table("", "account", "workspace", "class", "domains")
    for account in accounts.values():
        table.add_row(
            visible(account.name),
            visible(account.workspace),
            account.message_class.value,
            ", ".join(account.domains),
        )
    Console().print(table if accounts else f"No accounts in {path}.")


def _place(named: str | None) -> tuple[Path, SubmissionTable]:
    """The accounts file, and the table that names it. Raises ConfigError."""
    file = find_config(named, os.environ, Path.cwd())
    table = load_table(file, os.environ, "submission", SubmissionTable)
    return Path(load_config(file, os.environ).keys.folder) / table.accounts, table


def _read(path: Path) -> dict[str, Account]:
    try:
        return read_accounts(path)
    except AccountsError as error:
        raise CliError(str(error)) from error


def _write(path: Path, accounts: dict[str, Account]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_accounts(path, accounts)
    except AccountsError as error:
        raise CliError(str(error)) from error


def _find(accounts: dict[str, Account], name: str, path: Path) -> Account:
    if name not in accounts:
        raise InputError(f"{path}: there is no account {visible(name)}")
    return accounts[name]


def _password(typed: bool) -> str:
    return sys.stdin.readline().rstrip("\r\n") if typed else new_password()


def _facts(account: Account) -> dict[str, object]:
    facts: dict[str, object] = msgspec.to_builtins(account)
    del facts["password"]
    return facts


def _say(account: Account, path: Path, password: str, as_json: bool, unknown: list[str]) -> None:
    """What there is now; the password once, if it was made here."""
    if as_json:
        shown = {"password": password} if password else {}
        click.echo(json.dumps({**_facts(account), **shown, "file": str(path), "unknown_domains": unknown}))
        return
    click.echo(f"{visible(account.name)} may send from {', '.join(account.domains)} ({path}).")
    if password:
        click.echo(f"Its password, shown this once: {password}")
    for domain in unknown:
        click.echo(f"Until [[submission.domain]] names {domain}, nothing is taken from it.", err=True)
