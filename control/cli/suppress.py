"""`emass suppress`: who must not get mail, and why: add, remove, show, import, export.

With an engine running over the data folder the order goes to it, and the answer comes when it holds: from
then on nothing goes out to that address. Without one the store is written. With `--bus`, or where the
configuration's bus is NATS, the order goes to every engine of the cluster. Addresses are not stored, but
their hashes under a key of this installation: `show` finds an address, and nobody can list them.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import click
from msgspec import Struct

from control.cli.ask import config_option, data_option, json_option
from control.cli.author import author
from control.cli.cluster_bus import bus_options
from control.cli.errors import InputError
from control.cli.suppress_cluster import find_cluster, say
from control.cli.suppress_export import export
from control.cli.suppress_import import import_file
from control.cli.suppress_store import (
    REASONS,
    carry_out,
    data_folder,
    entry_facts,
    hasher_of,
    look_into,
    note_option,
    now_ms,
    reason_of,
    scope_of,
    source_of,
)
from control.cli.visible import short
from engine.model.address import AddressError, parse_address
from engine.mta.policy.suppression import SuppressionError, SuppressionOrder, describe_scope
from engine.mta.policy.suppression_codec import (
    DOMAIN,
    AddressHasher,
    domain_key,
    hash_key,
    subscriber_key,
)

KEYS_MAX = 1_000  # named by hand; more belong into a file
SHOWN_MAX = 500  # characters of a line


@click.group()
def command() -> None:
    """Add, remove and look up those who must not get mail.

    \b
    Example:
      emass suppress add ann@example.net --reason complained
      emass suppress show ann@example.net
    """


class _Keeper(Struct, frozen=True):
    """Who keeps the suppressions that a command is about."""

    hasher: AddressHasher
    carry_out: Callable[[SuppressionOrder], dict[str, Any]]
    is_cluster: bool


def _find_keeper(data: str, bus_text: str, bus_seed: str, bus_ca: str, named_config: str | None) -> _Keeper:
    """A cluster's engines, or the one data folder."""
    cluster = find_cluster(data, bus_text, bus_seed, bus_ca, named_config)
    if cluster is not None:
        return _Keeper(cluster.hasher(), cluster.carry_out, True)
    folder = data_folder(data)
    hasher = hasher_of(folder, named_config)
    return _Keeper(hasher, lambda order: carry_out(folder, hasher, order), False)


domain_option = click.option("--domain", "domains", metavar="NAME", multiple=True, help="A recipient domain.")
subscriber_option = click.option(
    "--subscriber", "subscribers", metavar="W:ID", multiple=True, help="A subscriber of a workspace."
)


@command.command()
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@domain_option
@subscriber_option
@click.option(
    "--scope",
    "scope_text",
    metavar="SCOPE",
    default="installation",
    show_default=True,
    help="installation, workspace:NAME or list:WORKSPACE/LIST-ID.",
)
@click.option("--reason", type=click.Choice(REASONS), default="manual", show_default=True)
@note_option
@data_option
@bus_options
@config_option
@json_option
def add(
    addresses: tuple[str, ...],
    domains: tuple[str, ...],
    subscribers: tuple[str, ...],
    scope_text: str,
    reason: str,
    note: str,
    data: str,
    bus_text: str,
    bus_seed: str,
    bus_ca: str,
    named_config: str | None,
    as_json: bool,
) -> int:
    """Suppress addresses (or their hashes), domains or subscribers.

    All mail is stopped, but for the reason "unsubscribed": that one lets transactional mail through.
    Spellings of an address are one (upper case, IDN, needless quotes); what follows a plus is not.

    \b
    Example:
      emass suppress add ann@example.net --scope list:shop/news.example.org --reason unsubscribed
    """
    keeper = _find_keeper(data, bus_text, bus_seed, bus_ca, named_config)
    hasher = keeper.hasher
    order = SuppressionOrder(
        adds=True,
        keys=_keys(hasher, addresses, domains, subscribers),
        at_ms=now_ms(),
        scope=scope_of(scope_text),
        reason=reason_of(reason),
        source=source_of(author(), note),
        key_check=hasher.check,
    )
    done = keeper.carry_out(order)
    if as_json or keeper.is_cluster:
        click.echo(json.dumps(done) if as_json else say(done))
        return 0
    known = len(order.keys) - done["changed"]
    click.echo(f"{done['changed']:,} suppressed" + (f", {known:,} were already" if known else ""))
    if done.get("were_on_their_way"):
        click.echo(f"{done['were_on_their_way']:,} messages were on their way and are waited for")
    if done.get("still_on_their_way"):
        click.echo(f"{done['still_on_their_way']:,} of them have no answer from their receiver yet")
    return 0


@command.command()
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@domain_option
@subscriber_option
@click.option("--scope", "scope_text", metavar="SCOPE", help="Only this scope. Default: all of them.")
@click.option("--reason", type=click.Choice(REASONS), help="Only this reason. Default: all of them.")
@data_option
@bus_options
@config_option
@json_option
def remove(
    addresses: tuple[str, ...],
    domains: tuple[str, ...],
    subscribers: tuple[str, ...],
    scope_text: str | None,
    reason: str | None,
    data: str,
    bus_text: str,
    bus_seed: str,
    bus_ca: str,
    named_config: str | None,
    as_json: bool,
) -> int:
    """Let addresses, domains or subscribers get mail again.

    \b
    Example:
      emass suppress remove ann@example.net --reason hard_bounce
    """
    keeper = _find_keeper(data, bus_text, bus_seed, bus_ca, named_config)
    hasher = keeper.hasher
    order = SuppressionOrder(
        adds=False,
        keys=_keys(hasher, addresses, domains, subscribers),
        at_ms=now_ms(),
        scope=scope_of(scope_text),
        reason=reason_of(reason),
        key_check=hasher.check,
    )
    done = keeper.carry_out(order)
    if as_json or keeper.is_cluster:
        click.echo(json.dumps(done) if as_json else say(done))
    else:
        unknown = len(order.keys) - done["changed"]
        click.echo(
            f"{done['changed']:,} taken back" + (f", {unknown:,} were not suppressed" if unknown else "")
        )
    return 0


@command.command()
@click.argument("address")
@subscriber_option
@data_option
@config_option
@json_option
def show(
    address: str, subscribers: tuple[str, ...], data: str, named_config: str | None, as_json: bool
) -> int:
    """Show whether an address (or its domain) is suppressed: where, why, since when and by whom.

    \b
    Example:
      emass suppress show ann@example.net
      emass suppress show example.net
    """
    folder = data_folder(data)
    hasher = hasher_of(folder, named_config)
    if "@" in address or _is_hash(address):
        (key,) = keys = list(_keys(hasher, (address,), (), ()))
        if "@" in address:
            keys.append(DOMAIN + parse_address(address).domain.encode())
    else:
        keys = list(_keys(hasher, (), (address,), ()))
    keys += _keys(hasher, (), (), subscribers) if subscribers else ()
    with look_into(folder, hasher) as store:
        found = [(key, entry) for key in keys for entry in (store.standing(key) if store else ())]
    if as_json:
        rows = [{"of": _WHAT[key[:1]]} | entry_facts(entry) for key, entry in found]
        click.echo(json.dumps({"suppressed": bool(rows), "entries": rows}))
        return 0
    for key, entry in found:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.since_ms / 1000))
        what = f"{_WHAT[key[:1]]}: {entry.reason.words}, {describe_scope(entry.scope)}"
        click.echo(short(f"{what}, since {since}, by {entry.source or 'nobody named'}", SHOWN_MAX))
    if not found:
        click.echo("It is not suppressed.")
    return 0


command.add_command(import_file)
command.add_command(export)

_WHAT = {b"A": "address", b"D": "domain", b"S": "subscriber"}


def _keys(
    hasher: AddressHasher, addresses: tuple[str, ...], domains: tuple[str, ...], subscribers: tuple[str, ...]
) -> tuple[bytes, ...]:
    """The keys that a command line names, each once. Raises InputError."""
    keys: list[bytes] = []
    for text in addresses:
        try:
            keys.append(hash_key(text) if _is_hash(text) else hasher.key_of(str(parse_address(text))))
        except (AddressError, SuppressionError) as error:
            raise InputError(f"{text}: {error}") from None
    for text in domains:
        try:
            keys.append(domain_key(text))
        except SuppressionError as error:
            raise InputError(f"--domain {text}: {error}") from None
    for text in subscribers:
        workspace, _, number = text.rpartition(":")
        try:
            keys.append(subscriber_key(workspace, int(number) if number.isdecimal() else 0))
        except SuppressionError as error:
            raise InputError(f"--subscriber {text}: {error}; write WORKSPACE:NUMBER") from None
    if not keys:
        raise click.UsageError("name addresses, '--domain' or '--subscriber'", click.get_current_context())
    if len(keys) > KEYS_MAX:
        raise InputError(
            f"{len(keys):,} are too many for a command line: `emass suppress import` reads files"
        )
    return tuple(dict.fromkeys(keys))


def _is_hash(text: str) -> bool:
    return "@" not in text and "." not in text
